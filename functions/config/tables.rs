//! Where tables are kept.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::endpoint::{Endpoint, Scheme};

/// What a place has to look like.
const RULE: &str = "must be `https://NAME.table.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`";

/// The emulator's account, the only one that it knows without further settings.
const EMULATOR_PATH: &str = "/devstoreaccount1";

/// Where tables are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Tables {
    /// In a file in this folder.
    Embedded(PathBuf),
    /// In a storage account of Azure, reached with the gateway's own identity. On this machine it
    /// may be without TLS, as all of Azure's services may.
    Account(Endpoint),
    /// In Azurite, the emulator, on this machine; its account and key are known to everybody.
    Emulator(Endpoint),
}

impl FromStr for Tables {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(dir) = text.strip_prefix("embedded:") {
            return match dir {
                "" => Err(format!("{RULE}; a folder is missing after `embedded:`")),
                dir => Ok(Self::Embedded(dir.into())),
            };
        }
        // Not shown: it holds a key.
        if text.contains("AccountKey=") || text.contains("AccountName=") {
            return Err(format!(
                "{RULE}, not a connection string: the gateway's identity gets in, no key does"
            ));
        }
        let (authority, path) = split_path(text);
        if path.contains(['?', '#']) {
            return Err(format!("{RULE}, without a query or signature"));
        }
        let endpoint: Endpoint = authority.parse().map_err(|_| RULE.to_owned())?;
        for other in [".blob.core.", ".queue.core.", ".dfs.core.", ".file.core."] {
            if endpoint.host().contains(other) {
                return Err(format!("{RULE}; this one is an endpoint of `{other}`"));
            }
        }
        match (endpoint.scheme(), path.trim_end_matches('/')) {
            (_, "") => Ok(Self::Account(endpoint)),
            (Scheme::Http, EMULATOR_PATH) => Ok(Self::Emulator(endpoint)),
            (Scheme::Https, _) => Err(format!("{RULE}; the account's URL has no path")),
            (Scheme::Http, _) => Err(format!(
                "{RULE}; the emulator's only path is {EMULATOR_PATH}"
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

impl TryFrom<String> for Tables {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        text.parse::<Tables>().unwrap_err()
    }

    #[test]
    fn three_sorts_of_places_are_taken() {
        assert_eq!(
            "embedded:data/x".parse(),
            Ok(Tables::Embedded("data/x".into()))
        );
        let account = "https://Contoso.table.core.windows.net/".parse();
        let Ok(Tables::Account(endpoint)) = account else {
            panic!("{account:?}")
        };
        assert_eq!(
            endpoint.to_string(),
            "https://contoso.table.core.windows.net"
        );
        let emulator = "http://127.0.0.1:10002/devstoreaccount1".parse();
        let Ok(Tables::Emulator(endpoint)) = emulator else {
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
}
