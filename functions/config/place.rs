//! Where one of a storage account's services is, or what stands in for it.

use std::path::PathBuf;

use super::endpoint::{Endpoint, Scheme};

/// The emulator's account, the only one that it knows without further settings.
const EMULATOR_PATH: &str = "/devstoreaccount1";

/// A service of a storage account.
pub(super) struct Service {
    /// Its part of an account's host name.
    pub(super) name: &'static str,
    /// What a place has to look like.
    pub(super) rule: &'static str,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Place {
    /// In this folder.
    Embedded(PathBuf),
    /// In a storage account.
    Account(Endpoint),
    /// In the emulator.
    Emulator(Endpoint),
}

/// The services of an account, as they are named in its hosts.
const SERVICES: [&str; 5] = ["table", "blob", "queue", "dfs", "file"];

impl Service {
    /// Reads a place.
    ///
    /// # Errors
    /// What is wrong with it. Never shows it, as it may hold a key.
    pub(super) fn read(&self, text: &str) -> Result<Place, String> {
        let rule = self.rule;
        if let Some(dir) = text.strip_prefix("embedded:") {
            return match dir {
                "" => Err(format!("{rule}; a folder is missing after `embedded:`")),
                dir => Ok(Place::Embedded(dir.into())),
            };
        }
        if text.contains("AccountKey=") || text.contains("AccountName=") {
            return Err(format!(
                "{rule}, not a connection string: the gateway's identity gets in, no key does"
            ));
        }
        let (authority, path) = split_path(text);
        if path.contains(['?', '#']) {
            return Err(format!("{rule}, without a query or signature"));
        }
        let endpoint: Endpoint = authority.parse().map_err(|_| rule.to_owned())?;
        for other in SERVICES.into_iter().filter(|other| *other != self.name) {
            let other = format!(".{other}.core.");
            if endpoint.host().contains(&other) {
                return Err(format!("{rule}; this one is an endpoint of `{other}`"));
            }
        }
        match (endpoint.scheme(), path.trim_end_matches('/')) {
            (_, "") => Ok(Place::Account(endpoint)),
            (Scheme::Http, EMULATOR_PATH) => Ok(Place::Emulator(endpoint)),
            (Scheme::Https, _) => Err(format!("{rule}; the account's URL has no path")),
            (Scheme::Http, _) => Err(format!(
                "{rule}; the emulator's only path is {EMULATOR_PATH}"
            )),
        }
    }
}

/// The URL up to the end of its port, and the rest.
fn split_path(text: &str) -> (&str, &str) {
    let host = text.find("://").map_or(0, |at| at + 3);
    let rest = text.get(host..).unwrap_or_default();
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    text.split_at(host + end)
}
