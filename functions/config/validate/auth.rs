//! The rules of `[auth]`, of apps' identities and of the gateway's own at its backends.

use std::collections::HashMap;

use serde_json::Value;

use super::super::auth::{AuthMode, is_guid};
use super::super::tree::below;
use super::super::{Endpoint, KeyHash};
use super::{Check, strings, tables, tables_below};

/// What an id has to look like.
const GUID: &str =
    "must be an id such as 00000000-0000-0000-0000-000000000000, as the portal shows it";

impl Check<'_, '_> {
    /// The mode; `None` where it is written wrongly.
    pub(super) fn mode(&self) -> Option<AuthMode> {
        match self.tree.value.pointer("/auth/mode") {
            Some(word) => serde_json::from_value(word.clone()).ok(),
            None => Some(AuthMode::default()),
        }
    }

    /// Checks the section `[auth]`.
    pub(super) fn auth(&mut self) {
        let tree = self.tree;
        let Some(auth) = tree.value.get("auth") else {
            return;
        };
        let text = |key: &str| auth.get(key).and_then(Value::as_str);
        if text("tenant").is_some_and(|tenant| !is_guid(tenant)) {
            let message = format!("{GUID}: issuers name a tenant by its id, not by its domain");
            self.at("auth.tenant", &message);
        }
        if text("authority").is_some_and(|url| url.parse::<Endpoint>().is_err()) {
            let message = "must be a URL such as https://login.microsoftonline.com, without a path";
            self.at("auth.authority", message);
        }
        for key in ["audience", "algorithms", "issuers"] {
            let list = auth.get(key).and_then(Value::as_array);
            if list.is_some_and(Vec::is_empty) {
                self.at(&below("auth", key), "is empty: no token could pass");
            }
        }
        self.key_hashes("auth", "admin_key_hashes", auth);
        self.token_settings(auth);
    }

    /// Tokens need a tenant and an audience, and a mode that asks for them needs both.
    fn token_settings(&mut self, auth: &Value) {
        let has = |key: &str| auth.get(key).is_some();
        let pairs = [("tenant", "audience"), ("audience", "tenant")];
        for (present, missing) in pairs {
            if has(present) && !has(missing) && !self.report.is_meant(&below("auth", missing)) {
                let message =
                    format!("needs `{missing}` beside it: both say which tokens are taken");
                self.at(&below("auth", present), &message);
            }
        }
        let meant = self.report.is_meant_below("auth", &["tenant", "audience"]);
        let named = has("tenant") || has("audience") || meant;
        if self.mode().is_some_and(AuthMode::needs_token) && !named {
            self.at(
                "auth.mode",
                "asks for tokens; `tenant` and `audience` have to say which are taken",
            );
        }
    }

    /// Checks texts that have to be key hashes.
    pub(super) fn key_hashes(&mut self, path: &str, key: &str, table: &Value) {
        for (i, hash) in strings(table, key) {
            if let Err(message) = hash.parse::<KeyHash>() {
                self.at(&format!("{path}.{key}[{i}]"), &message);
            }
        }
    }

    /// Checks texts that have to be ids.
    pub(super) fn guids(&mut self, path: &str, key: &str, table: &Value) {
        for (i, id) in strings(table, key) {
            if !is_guid(id) {
                self.at(&format!("{path}.{key}[{i}]"), GUID);
            }
        }
    }

    /// Checks what says how the gateway shows itself to a backend.
    pub(super) fn outbound(&mut self, path: &str, backend: &Value) {
        let text = |key: &str| backend.get(key).and_then(Value::as_str);
        if text("client_id").is_some_and(|id| !is_guid(id)) {
            self.at(&below(path, "client_id"), GUID);
        }
        if text("scope").is_some_and(|scope| !is_scope(scope)) {
            let message = "must be a scope such as https://cognitiveservices.azure.com/.default";
            self.at(&below(path, "scope"), message);
        }
        let endpoint = text("endpoint").and_then(|url| url.parse::<Endpoint>().ok());
        let is_local = endpoint.is_some_and(|endpoint| endpoint.is_loopback());
        if is_local && text("client_id").is_some() && text("scope").is_none() {
            let message = "needs `scope` beside it: a backend on this machine is called with a token only where that is given";
            self.at(&below(path, "client_id"), message);
        }
        for key in ["scope", "client_id"] {
            if backend.get(key).is_some() && backend.get("key").is_some() {
                let message =
                    "is for a backend without `key`, which is called with a token instead";
                self.at(&below(path, key), message);
            }
        }
    }

    /// Checks the names of apps whose own a deployment is.
    pub(super) fn own_deployments(&mut self, apps: &[String]) {
        let tree = self.tree;
        for (path, backend) in tables(&tree.value, "backend") {
            for (path, deployment) in tables_below(backend, &path, "deployment") {
                for (i, name) in strings(deployment, "apps") {
                    self.known(&format!("{path}.apps[{i}]"), "app", name, apps);
                }
                let list = deployment.get("apps").and_then(Value::as_array);
                if list.is_some_and(Vec::is_empty) {
                    self.at(&below(&path, "apps"), "is empty: no app could use it");
                }
            }
        }
    }

    /// An Entra app that stood at two apps would be charged to either, and one that stands
    /// anywhere needs a tenant.
    pub(super) fn entra_apps(&mut self) {
        let tree = self.tree;
        // Where one of the two is there, the other's absence is a mistake of `[auth]`.
        let names = ["tenant", "audience"];
        let auth = tree.value.get("auth");
        let has_tenant = names
            .iter()
            .any(|name| auth.is_some_and(|a| a.get(name).is_some()))
            || self.report.is_meant_below("auth", &names);
        let mut seen: HashMap<String, String> = HashMap::new();
        for (path, app) in tables(&tree.value, "app") {
            for (i, id) in strings(app, "entra_app_ids") {
                let path = format!("{path}.entra_app_ids[{i}]");
                if let Some(first) = seen.get(&id.to_ascii_lowercase()) {
                    let line = self.report.line(tree.value_at(first));
                    self.at(&path, &format!("the same id stands in line {line}"));
                } else if !has_tenant {
                    self.at(
                        &path,
                        "needs auth.tenant and auth.audience, which say whose tokens are taken",
                    );
                }
                seen.entry(id.to_ascii_lowercase()).or_insert(path);
            }
        }
    }
}

/// Whether a text is a scope that stands for all of a resource's permissions, the only sort that
/// an app can ask for itself.
fn is_scope(text: &str) -> bool {
    let resource = text.strip_suffix("/.default").unwrap_or_default();
    let (scheme, rest) = resource.split_once("://").unwrap_or_default();
    matches!(scheme, "https" | "api")
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_graphic())
}
