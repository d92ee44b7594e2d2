//! The rules of `[[model.fallback]]`.

use serde_json::Value;

use super::super::tree::below;
use super::{Check, Models, tables, tables_below};

impl Check<'_, '_> {
    /// Checks the models that may serve in another's place: each is one of a deployment, another than that
    /// one, and stands once.
    pub(super) fn fallbacks(&mut self, models: &Models) {
        let tree = self.tree;
        for (path, model) in tables(&tree.value, "model") {
            let own = model.get("name").and_then(Value::as_str);
            let mut seen = Vec::new();
            for (path, table) in tables_below(model, &path, "fallback") {
                if table
                    .get("on")
                    .and_then(Value::as_array)
                    .is_some_and(Vec::is_empty)
                {
                    self.at(&below(&path, "on"), "is empty: it would never serve");
                }
                let Some(name) = table.get("model").and_then(Value::as_str) else {
                    continue;
                };
                let at = below(&path, "model");
                if own == Some(name) {
                    self.at(&at, "is the model itself");
                } else if seen.contains(&name) {
                    self.at(&at, "stands in this chain already");
                }
                self.known_model(&at, name, models);
                seen.push(name);
            }
        }
    }
}
