//! The rules of `[[price]]`.

use serde_json::Value;

use super::super::prices::{Amount, Day, TOKEN_PRICES};
use super::super::tree::below;
use super::{Check, tables};

impl Check<'_, '_> {
    /// Checks that amounts and days are such, and that each price has what makes it one.
    pub(super) fn price_formats(&mut self) {
        let tree = self.tree;
        for (path, price) in tables(&tree.value, "price") {
            for key in TOKEN_PRICES.into_iter().chain(["ptu_hour"]) {
                let text = price.get(key).and_then(Value::as_str);
                if let Some(Err(message)) = text.map(str::parse::<Amount>) {
                    self.at(&below(&path, key), &message);
                }
            }
            let from = price.get("from").and_then(Value::as_str);
            if let Some(Err(message)) = from.map(str::parse::<Day>) {
                self.at(&below(&path, "from"), &message);
            }
            self.price_is_one(&path, price);
        }
    }

    /// Checks the days that deployments are there since, were there until, and had other sizes.
    pub(super) fn deployment_days(&mut self, path: &str, deployment: &Value) {
        let is_payg = deployment.get("kind").and_then(Value::as_str) == Some("payg");
        for key in ["since", "deleted", "before"] {
            if deployment.get(key).is_some() && is_payg {
                let message = "only a deployment of kind ptu costs something unused";
                self.at(&below(path, key), message);
            }
        }
        for key in ["since", "deleted"] {
            self.is_day(&below(path, key), deployment.get(key));
        }
        let sizes = deployment.get("before").and_then(Value::as_array);
        let mut seen = Vec::new();
        for (i, size) in sizes.into_iter().flatten().enumerate() {
            let path = format!("{}[{i}].until", below(path, "before"));
            let until = size.get("until");
            self.is_day(&path, until);
            if until.is_some() && seen.contains(&until) {
                self.at(&path, "another number of PTUs ends on the same day");
            }
            seen.push(until);
        }
    }

    fn is_day(&mut self, path: &str, value: Option<&Value>) {
        let text = value.and_then(Value::as_str);
        if let Some(Err(message)) = text.map(str::parse::<Day>) {
            self.at(path, &message);
        }
    }

    /// Half a price would charge the other half with nothing, and only calls have a tier.
    fn price_is_one(&mut self, path: &str, price: &Value) {
        if price.get("service_tier").is_some() && price.get("ptu_hour").is_some() {
            let message = "is of calls that are paid by the token: a PTU's hour has none";
            self.at(&below(path, "service_tier"), message);
        }
        let is_there = |key: &&&str| price.get(**key).is_some();
        let of_tokens = TOKEN_PRICES.iter().find(is_there);
        let meant = self.report.is_meant_below(path, &TOKEN_PRICES);
        if of_tokens.is_none() && price.get("ptu_hour").is_none() && !meant {
            self.at(
                path,
                "says no price: it needs `input` and `output`, or `ptu_hour`",
            );
        }
        let [input, output, ..] = TOKEN_PRICES;
        for needed in [input, output] {
            if of_tokens.is_some()
                && price.get(needed).is_none()
                && !self.report.is_meant(&below(path, needed))
            {
                let message = format!("needs `{needed}`; \"0\" where it costs nothing");
                self.at(path, &message);
            }
        }
    }

    /// Checks that what prices are for is there.
    pub(super) fn price_names(&mut self, backends: &[String], models: &[String]) {
        let tree = self.tree;
        let base_models = tables(&tree.value, "backend").flat_map(|(_, backend)| {
            let deployments = backend.get("deployment").and_then(Value::as_array);
            deployments.into_iter().flatten()
        });
        let base_models = base_models.filter_map(|d| d.get("base_model")?.as_str());
        let base_models = base_models.map(str::to_owned);
        let models: Vec<String> = models.iter().cloned().chain(base_models).collect();
        for (path, price) in tables(&tree.value, "price") {
            if let Some(name) = price.get("backend").and_then(Value::as_str) {
                self.known(&below(&path, "backend"), "backend", name, backends);
            }
            if let Some(name) = price.get("model").and_then(Value::as_str) {
                let path = below(&path, "model");
                self.known(&path, "model or base_model of a deployment", name, &models);
            }
        }
    }
}
