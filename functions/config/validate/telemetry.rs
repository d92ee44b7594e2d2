//! The rules of `[telemetry]`.

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::Check;
use crate::config::telemetry::{Collector, pairs};

/// The keys that say where to.
const ENDPOINTS: [&str; 3] = ["endpoint", "traces_endpoint", "metrics_endpoint"];

impl Check<'_, '_> {
    /// Checks where telemetry goes, and what goes with it.
    pub(super) fn telemetry(&mut self) {
        let Some(telemetry) = self.tree.value.get("telemetry") else {
            return;
        };
        let text = |key: &str| telemetry.get(key).and_then(Value::as_str);
        for key in ENDPOINTS {
            if let Some(Err(message)) = text(key).map(str::parse::<Collector>) {
                self.at(&format!("telemetry.{key}"), &message);
            }
        }
        let is_there = |key: &&str| telemetry.get(*key).is_some();
        let is_meant = self.report.is_meant_below("telemetry", &ENDPOINTS);
        if !ENDPOINTS.iter().any(is_there) && !is_meant {
            self.at(
                "telemetry",
                "says nowhere to send to: `endpoint` is missing",
            );
        }
        if let Some(Err(message)) = text("headers").map(headers) {
            self.at("telemetry.headers", &message);
        }
        if let Some(Err(message)) = text("resource_attributes").map(pairs) {
            self.at("telemetry.resource_attributes", &message);
        }
    }
}

/// Whether these are headers. Nothing of them is shown.
fn headers(text: &str) -> Result<(), String> {
    for (place, (name, value)) in pairs(text)?.iter().enumerate() {
        let is_one = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        if !is_one {
            return Err(format!("header {} can't stand in a request", place + 1));
        }
    }
    Ok(())
}
