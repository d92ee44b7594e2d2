//! The rules of `[pacing]` and of resources' ids.

use serde_json::Value;

use super::super::pacing::Pacing;
use super::super::tree::below;
use super::super::{Endpoint, ResourceId};
use super::Check;

impl Check<'_, '_> {
    /// Checks a backend's id in Azure.
    pub(super) fn resource_id(&mut self, path: &str, backend: &Value) {
        let text = backend.get("resource_id").and_then(Value::as_str);
        if let Some(Err(message)) = text.map(str::parse::<ResourceId>) {
            self.at(&below(path, "resource_id"), &message);
        }
    }

    /// Checks that the limits of `[pacing]` are in order.
    pub(super) fn pacing(&mut self) {
        let Some(pacing) = self.tree.value.get("pacing") else {
            return;
        };
        let monitor = pacing.get("monitor").and_then(Value::as_str);
        let is_here = |url: &str| url.parse::<Endpoint>().is_ok_and(|url| url.is_loopback());
        if monitor.is_some_and(|url| !is_here(url)) {
            let message = "must be a URL on this machine such as http://127.0.0.1:8081; absent, Azure is asked";
            self.at("pacing.monitor", message);
        }
        let defaults = Pacing::default();
        let percent = |key: &str, default: u32| match pacing.get(key) {
            Some(value) => value.as_u64(),
            None => Some(default.into()),
        };
        let lower = percent("lower_percent", defaults.lower_percent);
        let upper = percent("upper_percent", defaults.upper_percent);
        if lower
            .zip(upper)
            .is_some_and(|(lower, upper)| lower >= upper)
        {
            let key = match pacing.get("upper_percent") {
                Some(_) => "pacing.upper_percent",
                None => "pacing.lower_percent",
            };
            self.at(
                key,
                "`lower_percent` must be less than `upper_percent` (90 where it is not named)",
            );
        }
    }
}
