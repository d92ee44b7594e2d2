//! Where blobs are kept.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::endpoint::Endpoint;
use super::place::{Place, Service};

/// The service, and what a place of it has to look like.
const SERVICE: Service = Service {
    name: "blob",
    rule: "must be `https://NAME.blob.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`",
};

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Blobs {
    /// In files in this folder.
    Embedded(PathBuf),
    /// In a storage account of Azure, reached with the gateway's own identity. On this machine it
    /// may be without TLS, as all of Azure's services may.
    Account(Endpoint),
    /// In Azurite, the emulator, on this machine; its account and key are known to everybody.
    Emulator(Endpoint),
}

impl FromStr for Blobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match SERVICE.read(text)? {
            Place::Embedded(folder) => Self::Embedded(folder),
            Place::Account(endpoint) => Self::Account(endpoint),
            Place::Emulator(endpoint) => Self::Emulator(endpoint),
        })
    }
}

impl TryFrom<String> for Blobs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_blobs_is_no_place_of_tables() {
        let account = "https://contoso.blob.core.windows.net".parse();
        assert!(matches!(account, Ok(Blobs::Account(_))), "{account:?}");
        let emulator = "http://127.0.0.1:10000/devstoreaccount1".parse();
        assert!(matches!(emulator, Ok(Blobs::Emulator(_))), "{emulator:?}");
        assert_eq!("embedded:x".parse(), Ok(Blobs::Embedded("x".into())));
        let tables = "https://contoso.table.core.windows.net".parse::<Blobs>();
        assert!(tables.unwrap_err().contains(".table.core."));
    }
}
