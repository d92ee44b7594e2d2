//! The rules of apps' limits and budgets.

use std::collections::HashMap;

use serde_json::Value;

use super::super::hub::Hub;
use super::super::limits::{Money, is_currency};
use super::super::tree::below;
use super::{Check, Models, strings, tables, tables_below};

/// The keys that limit something.
const LIMITS: [&str; 3] = [
    "tokens_per_minute",
    "requests_per_minute",
    "calls_in_flight",
];

impl Check<'_, '_> {
    /// Checks an app's budget.
    pub(super) fn budget(&mut self, path: &str, app: &Value) {
        let text = app.get("budget_per_month").and_then(Value::as_str);
        if let Some(Err(message)) = text.map(str::parse::<Money>) {
            self.at(&below(path, "budget_per_month"), &message);
        }
        let has_budget = app.get("budget_per_month").is_some()
            || self.report.is_meant(&below(path, "budget_per_month"));
        if app.get("on_exhausted").is_some() && !has_budget {
            self.at(
                &below(path, "on_exhausted"),
                "needs `budget_per_month` beside it: it says what happens when that is spent",
            );
        }
    }

    /// Checks the section `[chargeback]`.
    pub(super) fn currency(&mut self) {
        let currency = self.tree.value.pointer("/chargeback/currency");
        let text = currency.and_then(Value::as_str);
        if text.is_some_and(|text| !is_currency(text)) {
            self.at(
                "chargeback.currency",
                "must be three capital letters such as EUR",
            );
        }
        let hub = self.tree.value.pointer("/chargeback/event_hub");
        let hub = hub.and_then(Value::as_str);
        if let Some(Err(message)) = hub.map(str::parse::<Hub>) {
            self.at("chargeback.event_hub", &message);
        }
    }

    /// Checks an app's limits by model: each of a model that it may use, once, and limiting something.
    pub(super) fn model_limits(&mut self, path: &str, app: &Value, models: &Models) {
        let mut seen: HashMap<&str, String> = HashMap::new();
        for (path, limit) in tables_below(app, path, "limit") {
            let has_limit = LIMITS.iter().any(|key| limit.get(key).is_some());
            if !has_limit && !self.report.is_meant_below(&path, &LIMITS) {
                let message = format!("limits nothing: it needs one of {}", LIMITS.join(", "));
                self.at(&path, &message);
            }
            let Some(model) = limit.get("model").and_then(Value::as_str) else {
                continue;
            };
            let path = below(&path, "model");
            self.known_model(&path, model, models);
            let may_use = strings(app, "models").any(|(_, name)| name == model);
            let is_called = models.called.iter().any(|name| name == model);
            if is_called && app.get("models").is_some() && !may_use {
                self.at(&path, "is none of the models that the app may use");
            }
            if let Some(first) = seen.get(model) {
                let line = self.report.line(self.tree.value_at(first));
                let message = format!("the limit of line {line} is for the same model");
                self.at(&path, &message);
            }
            seen.entry(model).or_insert(path);
        }
    }

    /// As [`Self::model_limits`], for all apps.
    pub(super) fn all_model_limits(&mut self, models: &Models) {
        let tree = self.tree;
        for (path, app) in tables(&tree.value, "app") {
            self.model_limits(&path, app, models);
        }
    }
}
