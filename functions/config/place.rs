//! Where tables and blobs are kept: a service of a storage account, or what stands in for it.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::endpoint::{Endpoint, Scheme};

/// The emulator's account, the only one that it knows without further settings.
const EMULATOR_PATH: &str = "/devstoreaccount1";

/// A service of a storage account.
struct Service {
    /// Its part of an account's host name.
    name: &'static str,
    /// What a place has to look like.
    rule: &'static str,
}

const TABLES: Service = Service {
    name: "table",
    rule: "must be `https://NAME.table.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`",
};

const BLOBS: Service = Service {
    name: "blob",
    rule: "must be `https://NAME.blob.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`",
};

/// Where tables or blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoragePlace {
    /// In this folder: a file of tables, files of blobs.
    Embedded(PathBuf),
    /// In a storage account of Azure, reached with the gateway's own identity. On this machine it
    /// may be without TLS, as all of Azure's services may.
    Account(Endpoint),
    /// In Azurite, the emulator, on this machine; its account and key are known to everybody.
    Emulator(Endpoint),
}

impl StoragePlace {
    /// Reads a place of tables.
    ///
    /// # Errors
    /// What is wrong with it. Never shows it, as it may hold a key.
    pub fn tables(text: &str) -> Result<Self, String> {
        TABLES.read(text)
    }

    /// Reads a place of blobs.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn blobs(text: &str) -> Result<Self, String> {
        BLOBS.read(text)
    }
}

/// [`StoragePlace::tables`] for serde.
pub(super) fn tables<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StoragePlace>, D::Error> {
    place(StoragePlace::tables, from)
}

/// [`StoragePlace::blobs`] for serde.
pub(super) fn blobs<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StoragePlace>, D::Error> {
    place(StoragePlace::blobs, from)
}

fn place<'de, D: Deserializer<'de>>(
    read: fn(&str) -> Result<StoragePlace, String>,
    from: D,
) -> Result<Option<StoragePlace>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let place = text.map(|text| read(&text)).transpose();
    place.map_err(serde::de::Error::custom)
}

/// The services of an account, as they are named in its hosts.
const SERVICES: [&str; 5] = ["table", "blob", "queue", "dfs", "file"];

impl Service {
    fn read(&self, text: &str) -> Result<StoragePlace, String> {
        let rule = self.rule;
        if let Some(dir) = text.strip_prefix("embedded:") {
            return match dir {
                "" => Err(format!("{rule}; a folder is missing after `embedded:`")),
                dir => Ok(StoragePlace::Embedded(dir.into())),
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
            (_, "") => Ok(StoragePlace::Account(endpoint)),
            (Scheme::Http, EMULATOR_PATH) => Ok(StoragePlace::Emulator(endpoint)),
            (Scheme::Https, _) => Err(format!("{rule}; the account's URL has no path")),
            (Scheme::Http, _) => Err(format!(
                "{rule}; the emulator's only path is {EMULATOR_PATH}"
            )),
        }
    }
}

/// The URL up to the end of its port, and the rest.
pub(super) fn split_path(text: &str) -> (&str, &str) {
    let host = text.find("://").map_or(0, |at| at + 3);
    let rest = text.get(host..).unwrap_or_default();
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    text.split_at(host + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        StoragePlace::tables(text).unwrap_err()
    }

    #[test]
    fn three_sorts_of_places_are_taken() {
        assert_eq!(
            StoragePlace::tables("embedded:data/x"),
            Ok(StoragePlace::Embedded("data/x".into()))
        );
        let account = StoragePlace::tables("https://Contoso.table.core.windows.net/");
        let Ok(StoragePlace::Account(endpoint)) = account else {
            panic!("{account:?}")
        };
        assert_eq!(
            endpoint.to_string(),
            "https://contoso.table.core.windows.net"
        );
        let emulator = StoragePlace::tables("http://127.0.0.1:10002/devstoreaccount1");
        let Ok(StoragePlace::Emulator(endpoint)) = emulator else {
            panic!("{emulator:?}")
        };
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:10002");
    }

    #[test]
    fn what_is_wrong_with_a_place_is_said() {
        for (text, said) in [
            ("embedded:", "a folder is missing"),
            ("contoso", "must be `https://"),
            ("ftp://contoso", "must be `https://"),
            ("http://contoso.table.core.windows.net", "must be `https://"),
            ("https://contoso.blob.core.windows.net", ".blob.core."),
            (
                "https://contoso.table.core.windows.net/chargeback",
                "no path",
            ),
            (
                "https://contoso.table.core.windows.net/?sv=1&sig=canary",
                "signature",
            ),
            ("http://127.0.0.1:10002/other", "/devstoreaccount1"),
            (
                "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=canary",
                "connection string",
            ),
        ] {
            let message = wrong(text);
            assert!(message.contains(said), "{text}: {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn a_place_of_blobs_is_no_place_of_tables() {
        let account = StoragePlace::blobs("https://contoso.blob.core.windows.net");
        assert!(
            matches!(account, Ok(StoragePlace::Account(_))),
            "{account:?}"
        );
        let emulator = StoragePlace::blobs("http://127.0.0.1:10000/devstoreaccount1");
        assert!(
            matches!(emulator, Ok(StoragePlace::Emulator(_))),
            "{emulator:?}"
        );
        assert_eq!(
            StoragePlace::blobs("embedded:x"),
            Ok(StoragePlace::Embedded("x".into()))
        );
        let tables = StoragePlace::blobs("https://contoso.table.core.windows.net");
        assert!(tables.unwrap_err().contains(".table.core."));
    }
}
