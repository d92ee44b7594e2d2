//! What a schema can't say: formats of texts, unique names, references, rules across keys.
//!
//! All of it works on the tree, so that it looks also at files that have other mistakes.

use std::collections::HashMap;

use serde_json::Value;

use super::mistakes::Report;
use super::shape::suggestion;
use super::tree::{Tree, below};
use super::types::read_hash_on;
use super::{AuthMode, Endpoint, Gateway, KeyHash, StoragePlace};

mod auth;
mod batch;
mod cache;
mod fallback;
mod limits;
mod live;
mod pacing;
mod prices;
mod prompts;
mod reconcile;
mod telemetry;
mod transform;

/// Checks texts that have a format of their own.
pub(super) fn formats(tree: &Tree, report: &mut Report<'_>) {
    let mut check = Check { tree, report };
    check.auth();
    for (path, backend) in tables(&tree.value, "backend") {
        check.name(&path, backend);
        check.endpoint(&path, backend);
        check.outbound(&path, backend);
        check.resource_id(&path, backend);
        for (path, deployment) in tables_below(backend, &path, "deployment") {
            check.deployment_days(&path, deployment);
            let ptu = deployment.get("kind").and_then(Value::as_str) != Some("payg");
            if deployment.get("ptus").is_some() && !ptu {
                check.at(
                    &below(&path, "ptus"),
                    "only a deployment of kind ptu has ptus",
                );
            }
        }
    }
    for (path, model) in tables(&tree.value, "model") {
        let hash_on = model.get("hash_on").and_then(Value::as_str);
        if hash_on.is_some_and(|text| read_hash_on(text).is_none()) {
            check.at(
                &below(&path, "hash_on"),
                "must be `caller`, `prompt` or `header:NAME`",
            );
        }
    }
    for (path, app) in tables(&tree.value, "app") {
        check.name(&path, app);
        check.key_hashes(&path, "key_hashes", app);
        check.guids(&path, "entra_app_ids", app);
        check.budget(&path, app);
        check.prompts_have_a_place(&path, app);
        check.transforms(&path, app);
        if app
            .get("tiers")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
        {
            check.at(
                &below(&path, "tiers"),
                "is empty: the app could call nothing",
            );
        }
    }
    check.currency();
    check.batch();
    check.pacing();
    check.price_formats();
    check.redaction();
    check.cache();
    check.batch_api();
    check.shared_marks();
    check.bodies();
    check.live();
    check.telemetry();
    let tables = tree
        .value
        .pointer("/storage/tables")
        .and_then(Value::as_str);
    if let Some(Err(message)) = tables.map(StoragePlace::tables) {
        check.at("storage.tables", &message);
    }
    let blobs = tree.value.pointer("/storage/blobs").and_then(Value::as_str);
    if let Some(Err(message)) = blobs.map(StoragePlace::blobs) {
        check.at("storage.blobs", &message);
    }
}

/// Checks names against each other.
pub(super) fn names(tree: &Tree, report: &mut Report<'_>) {
    let mut check = Check { tree, report };
    let backends = check.unique("backend");
    check.unique("model");
    let apps = check.unique("app");
    let models = check.deployments();
    for (path, model) in tables(&tree.value, "model") {
        let name = model.get("name").and_then(Value::as_str);
        if let Some(name) = name {
            check.known_model(&below(&path, "name"), name, &models);
        }
    }
    for (path, app) in tables(&tree.value, "app") {
        for (i, name) in strings(app, "models") {
            check.known_model(&format!("{path}.models[{i}]"), name, &models);
        }
        for (i, name) in strings(app, "backends") {
            check.known(&format!("{path}.backends[{i}]"), "backend", name, &backends);
        }
    }
    check.all_model_limits(&models);
    check.transform_models(&models);
    check.fallbacks(&models);
    check.own_deployments(&apps);
    check.price_names(&backends, &models.all());
    check.keys();
    check.entra_apps();
    if tree.is_whole {
        check.reconciliation();
        check.completeness();
    }
}

/// The models of deployments.
#[derive(Default)]
struct Models {
    /// Those that can be asked for.
    called: Vec<String>,
    /// Those of deployments that were deleted.
    deleted: Vec<String>,
}

impl Models {
    /// Those that something is or was charged for.
    fn all(&self) -> Vec<String> {
        [&*self.called, &*self.deleted].concat()
    }
}

struct Check<'a, 't> {
    tree: &'a Tree,
    report: &'a mut Report<'t>,
}

impl Check<'_, '_> {
    fn at(&mut self, path: &str, message: &str) {
        if !self.report.is_meant(path) {
            self.report.add(self.tree.value_at(path), path, message);
        }
    }

    fn name(&mut self, path: &str, table: &Value) {
        let name = table.get("name").and_then(Value::as_str);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_some_and(|name| !name.bytes().all(allowed)) {
            let path = below(path, "name");
            self.at(
                &path,
                "may have the letters A to Z, digits, `.`, `_` and `-`",
            );
        }
    }

    fn endpoint(&mut self, path: &str, backend: &Value) {
        let Some(text) = backend.get("endpoint").and_then(Value::as_str) else {
            return;
        };
        if let Err(message) = text.parse::<Endpoint>() {
            self.at(&below(path, "endpoint"), &message);
        }
        if backend.get("key").and_then(Value::as_str) == Some("") {
            self.at(&below(path, "key"), "is empty");
        }
    }

    /// Checks that there is a place by which instances can share marks.
    fn shared_marks(&mut self) {
        let tree = self.tree;
        let wanted = tree.value.pointer("/gateway/share_marks") == Some(&Value::Bool(true));
        if wanted && !self.has_store() {
            self.at(
                "gateway.share_marks",
                "needs `tables` in [storage]: instances tell each other there which deployments are full",
            );
        }
    }

    /// Checks that the largest body finds room.
    fn bodies(&mut self) {
        let defaults = Gateway::default();
        let tree = self.tree;
        let mb = |key: &str, default: u32| match tree.value.pointer(key) {
            Some(value) => value.as_u64(),
            None => Some(default.into()),
        };
        let one = mb("/gateway/max_body_mb", defaults.max_body_mb);
        let all = mb("/gateway/max_bodies_mb", defaults.max_bodies_mb);
        if one.zip(all).is_some_and(|(one, all)| one > all) {
            let key = match tree.value.pointer("/gateway/max_bodies_mb") {
                Some(_) => "gateway.max_bodies_mb",
                None => "gateway.max_body_mb",
            };
            self.at(
                key,
                "`max_bodies_mb` (256 where it is not named) must be at least `max_body_mb` (32)",
            );
        }
    }

    /// Whether the configuration names a place for tables, or tries to.
    fn has_store(&self) -> bool {
        self.tree.value.pointer("/storage/tables").is_some()
            || self.report.is_meant("storage.tables")
            || self.report.is_meant("storage")
    }

    /// Notes names that stand twice; all names.
    fn unique(&mut self, section: &'static str) -> Vec<String> {
        let mut seen: HashMap<&str, String> = HashMap::new();
        let tree = self.tree;
        for (path, table) in tables(&tree.value, section) {
            let Some(name) = table.get("name").and_then(Value::as_str) else {
                continue;
            };
            let path = below(&path, "name");
            if section == "app" && name == "anonymous" {
                self.at(
                    &path,
                    "`anonymous` is what callers are named with auth.mode = \"off\"",
                );
            }
            if let Some(first) = seen.get(name) {
                let line = self.report.line(tree.value_at(first));
                self.at(
                    &path,
                    &format!("the {section} of line {line} has the same name"),
                );
            } else {
                seen.insert(name, path);
            }
        }
        seen.into_keys().map(str::to_owned).collect()
    }

    /// Notes deployments that stand twice on a backend; the models of all deployments.
    fn deployments(&mut self) -> Models {
        let mut models = Models::default();
        let tree = self.tree;
        for (path, backend) in tables(&tree.value, "backend") {
            let mut seen: HashMap<&str, String> = HashMap::new();
            for (path, deployment) in tables_below(backend, &path, "deployment") {
                let Some(name) = deployment.get("name").and_then(Value::as_str) else {
                    continue;
                };
                let model = deployment
                    .get("model")
                    .and_then(Value::as_str)
                    .unwrap_or(name);
                let list = if is_deleted(deployment) {
                    &mut models.deleted
                } else {
                    &mut models.called
                };
                list.push(model.to_owned());
                let path = below(&path, "name");
                if let Some(first) = seen.get(name) {
                    let line = self.report.line(tree.value_at(first));
                    self.at(
                        &path,
                        &format!("the backend has this deployment already, in line {line}"),
                    );
                }
                seen.entry(name).or_insert(path);
            }
        }
        models.called.sort();
        models.called.dedup();
        models
    }

    /// Checks that a model can be asked for.
    fn known_model(&mut self, path: &str, name: &str, models: &Models) {
        let has = |list: &[String]| list.iter().any(|one| one == name);
        if has(&models.deleted) && !has(&models.called) {
            self.at(path, "all deployments of this model were deleted");
        } else {
            self.known(path, "model of a deployment", name, &models.called);
        }
    }

    fn known(&mut self, path: &str, what: &str, name: &str, known: &[String]) {
        if known.iter().any(|one| one == name) {
            return;
        }
        let mut sorted: Vec<&str> = known.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let hint = suggestion(name, sorted.into_iter());
        let shown = if self.tree.may_show(path) {
            format!("`{name}` is no {what}; {hint}")
        } else {
            format!("is no {what}")
        };
        self.at(path, &shown);
    }

    /// A key that two apps share would be charged to either.
    fn keys(&mut self) {
        let mut seen: HashMap<KeyHash, String> = HashMap::new();
        let tree = self.tree;
        for (path, app) in tables(&tree.value, "app") {
            for (i, text) in strings(app, "key_hashes") {
                let Ok(hash) = text.parse::<KeyHash>() else {
                    continue;
                };
                let path = format!("{path}.key_hashes[{i}]");
                if let Some(first) = seen.get(&hash) {
                    let line = self.report.line(tree.value_at(first));
                    self.at(&path, &format!("the same key stands in line {line}"));
                } else {
                    seen.insert(hash, path);
                }
            }
        }
    }

    fn completeness(&mut self) {
        let has_deployments = tables(&self.tree.value, "backend").any(|(path, backend)| {
            let mut all = tables_below(backend, &path, "deployment");
            all.any(|(_, deployment)| !is_deleted(deployment))
        });
        if !has_deployments && !self.report.is_meant_below("", &["backend", "deployment"]) {
            let message = "there is no deployment: a [[backend]] with a [[backend.deployment]] that was not deleted is needed";
            self.report.add(0, "backend", message);
        }
        let closed = self.mode().is_some_and(|mode| mode != AuthMode::Off);
        let no_apps = tables(&self.tree.value, "app").next().is_none();
        if closed && no_apps && !self.report.is_meant_below("", &["app", "auth", "mode"]) {
            let message = "no app may call: add an [[app]] with key_hashes or entra_app_ids, or, for local work, set auth.mode = \"off\"";
            self.report.add(self.tree.key("auth"), "app", message);
        }
    }
}

/// Whether a deployment stands there for past bills only.
fn is_deleted(deployment: &Value) -> bool {
    deployment.get("deleted").is_some()
}

fn tables<'v>(
    value: &'v Value,
    section: &'static str,
) -> impl Iterator<Item = (String, &'v Value)> {
    tables_below(value, "", section)
}

fn tables_below<'v>(
    value: &'v Value,
    path: &str,
    section: &'static str,
) -> impl Iterator<Item = (String, &'v Value)> {
    let path = below(path, section);
    let list = value.get(section).and_then(Value::as_array);
    let items = list.into_iter().flatten().enumerate();
    items.map(move |(i, item)| (format!("{path}[{i}]"), item))
}

fn strings<'v>(table: &'v Value, key: &str) -> impl Iterator<Item = (usize, &'v str)> {
    let list = table.get(key).and_then(Value::as_array);
    let items = list.into_iter().flatten().enumerate();
    items.filter_map(|(i, item)| item.as_str().map(|text| (i, text)))
}
