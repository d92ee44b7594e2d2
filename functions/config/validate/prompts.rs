//! The rules of `[prompts]`, of apps whose prompts are logged, and of `[batch_api]`: what needs blobs.

use serde_json::Value;

use super::super::tree::below;
use super::{Check, strings};
use crate::gateway::prompt::Pattern;

impl Check<'_, '_> {
    /// Checks the regular expressions.
    pub(super) fn redaction(&mut self) {
        let Some(prompts) = self.tree.value.get("prompts") else {
            return;
        };
        for (i, text) in strings(prompts, "redact") {
            if let Err(message) = text.parse::<Pattern>() {
                self.at(&format!("prompts.redact[{i}]"), &message);
            }
        }
    }

    /// Checks that there is a place for what the batch API keeps.
    pub(super) fn batch_api(&mut self) {
        let is_wanted = self.tree.value.get("batch_api").is_some();
        for key in ["tables", "blobs"] {
            let path = below("storage", key);
            let has_place = self
                .tree
                .value
                .pointer(&format!("/storage/{key}"))
                .is_some()
                || self.report.is_meant(&path);
            if is_wanted && !has_place {
                let message = format!("needs a place for what it keeps: [storage] {key}");
                self.at("batch_api", &message);
            }
        }
    }

    /// Checks that there is a place for an app's prompts.
    pub(super) fn prompts_have_a_place(&mut self, path: &str, app: &Value) {
        let wanted = app.get("log_prompts").and_then(Value::as_bool) == Some(true);
        let has_place = self.tree.value.pointer("/storage/blobs").is_some()
            || self.report.is_meant("storage.blobs");
        if wanted && !has_place {
            self.at(
                &below(path, "log_prompts"),
                "needs a place for the prompts: [storage] blobs",
            );
        }
    }
}
