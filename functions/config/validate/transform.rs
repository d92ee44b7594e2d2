//! The rules of `[[app.transform]]`.

use serde_json::Value;

use super::super::tree::below;
use super::{Check, Models, strings, tables, tables_below};
use crate::gateway::transform::{HeaderName, HeaderValue, Parameter};

/// What a table can be about, and what it can do.
const SUBJECTS: [&str; 3] = ["parameter", "header", "system_prompt"];
const CHANGES: [&str; 5] = ["default", "set", "at_most", "remove", "refuse"];

impl Check<'_, '_> {
    /// Checks what each table is about and does.
    pub(super) fn transforms(&mut self, path: &str, app: &Value) {
        for (path, table) in tables_below(app, path, "transform") {
            let Some(subject) = self.only_one(&path, table, &SUBJECTS) else {
                continue;
            };
            if subject == "system_prompt" {
                self.changes_nothing_else(&path, table);
                continue;
            }
            let Some(change) = self.only_one(&path, table, &CHANGES) else {
                continue;
            };
            for flag in ["remove", "refuse"] {
                if table.get(flag) == Some(&Value::Bool(false)) {
                    self.at(&below(&path, flag), "must be true, or left out");
                }
            }
            match subject {
                "header" => self.header_rule(&path, table, change),
                _ => self.parameter_rule(&path, table, change),
            }
        }
    }

    /// The one of these keys that the table has.
    fn only_one<'k>(&mut self, path: &str, table: &Value, keys: &[&'k str]) -> Option<&'k str> {
        let mut found = keys.iter().filter(|key| table.get(**key).is_some());
        let (first, second) = (found.next(), found.next());
        let message = match (first, second) {
            (Some(first), None) => return Some(first),
            (Some(first), Some(second)) => {
                format!("has both `{first}` and `{second}`; a table of its own is needed for each")
            }
            (None, _) if self.report.is_meant_below(path, keys) => return None,
            (None, _) => format!("needs one of {}", keys.join(", ")),
        };
        self.at(path, &message);
        None
    }

    fn changes_nothing_else(&mut self, path: &str, table: &Value) {
        for key in CHANGES {
            if table.get(key).is_some() {
                self.at(&below(path, key), "says nothing beside `system_prompt`");
            }
        }
    }

    fn header_rule(&mut self, path: &str, table: &Value, change: &str) {
        let name = table.get("header").and_then(Value::as_str);
        if let Some(Err(message)) = name.map(str::parse::<HeaderName>) {
            self.at(&below(path, "header"), &message);
        }
        if !matches!(change, "set" | "remove") {
            self.at(
                &below(path, change),
                "is for parameters; a header can have `set` or `remove`",
            );
        }
        let Some(value) = table.get("set") else {
            return;
        };
        let checked = value.as_str().map(str::parse::<HeaderValue>);
        let at = below(path, "set");
        match checked {
            None => self.at(&at, "must be a string for a header"),
            Some(Err(message)) => self.at(&at, &message),
            Some(Ok(_)) => {}
        }
    }

    fn parameter_rule(&mut self, path: &str, table: &Value, change: &str) {
        let name = table.get("parameter").cloned().unwrap_or_default();
        let Ok(parameter) = serde_json::from_value::<Parameter>(name) else {
            return;
        };
        let at = below(path, change);
        let Some(value) = table
            .get(change)
            .filter(|value| !value.is_boolean() || change != "remove" && change != "refuse")
        else {
            return;
        };
        if change == "at_most" && !parameter.has_size() {
            self.at(&at, "is for parameters that have a size");
        } else if let Err(message) = parameter.check(value) {
            self.at(&at, &message);
        }
    }

    /// Checks the models that tables are for.
    pub(super) fn transform_models(&mut self, models: &Models) {
        let tree = self.tree;
        for (path, app) in tables(&tree.value, "app") {
            for (path, table) in tables_below(app, &path, "transform") {
                for (i, name) in strings(table, "models") {
                    self.known_model(&format!("{path}.models[{i}]"), name, models);
                }
            }
        }
    }
}
