//! Checks `[live]`.

use serde_json::Value;

use super::Check;
use crate::config::live::{CONTAINER, RULE};

impl Check<'_, '_> {
    pub(super) fn live(&mut self) {
        let value = &self.tree.value;
        let Some(blob) = value.pointer("/live/blob").and_then(Value::as_str) else {
            return;
        };
        let has_blobs = value.pointer("/storage/blobs").is_some();
        let name = blob.strip_prefix(CONTAINER).unwrap_or_default();
        let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let is_part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.');
        if !name.bytes().all(taken) || !name.split('/').all(is_part) {
            self.at("live.blob", RULE);
        }
        if !has_blobs && !self.report.is_meant_below("", &["storage", "blobs"]) {
            self.at("live.blob", "needs storage.blobs, where it lies");
        }
    }
}
