//! Where tables are kept.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::endpoint::Endpoint;
use super::place::{Place, Service};

/// The service, and what a place of it has to look like.
const SERVICE: Service = Service {
    name: "table",
    rule: "must be `https://NAME.table.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`",
};

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
        Ok(match SERVICE.read(text)? {
            Place::Embedded(folder) => Self::Embedded(folder),
            Place::Account(endpoint) => Self::Account(endpoint),
            Place::Emulator(endpoint) => Self::Emulator(endpoint),
        })
    }
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
