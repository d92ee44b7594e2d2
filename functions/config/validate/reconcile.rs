//! The rules of `[chargeback] reconcile`.

use serde_json::Value;

use super::{Check, tables};

const KEY: &str = "chargeback.reconcile";

impl Check<'_, '_> {
    /// Checks that there is something to compare, and a place for what is found.
    pub(super) fn reconciliation(&mut self) {
        let tree = self.tree;
        if tree.value.pointer("/chargeback/reconcile") != Some(&Value::Bool(true)) {
            return;
        }
        let has_store = tree.value.pointer("/storage/tables").is_some()
            || self.report.is_meant_below("", &["tables", "storage"]);
        if !has_store {
            self.at(
                KEY,
                "needs `tables` in [storage]: what was charged is kept there",
            );
        }
        let has_id = tables(&tree.value, "backend")
            .any(|(_, one)| one.get("resource_id").is_some())
            || self.report.is_meant_below("", &["resource_id", "backend"]);
        if !has_id {
            self.at(
                KEY,
                "needs a [[backend]] with `resource_id`: Azure Monitor is asked by it",
            );
        }
    }
}
