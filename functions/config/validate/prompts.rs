//! The rules of `[prompts]` and of apps whose prompts are logged.

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
