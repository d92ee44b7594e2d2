//! A tenant's signing keys: the documents that Entra publishes them in (RFC 7517).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::{Unread, whole};

/// Largest document that is read, bytes. Entra's have some 15 KB.
const MAX_DOCUMENT: usize = 1 << 20;

/// Most keys that are taken of a document. Entra's have fewer than ten.
const MAX_KEYS: usize = 100;

/// Signing keys by their `kid`.
#[derive(Clone, Default)]
pub(super) struct Keys(HashMap<String, Arc<Key>>);

/// A key, and the one algorithm that it is for, where its document says.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Option<Algorithm>,
}

impl Keys {
    pub(super) fn find(&self, kid: &str) -> Option<Arc<Key>> {
        self.0.get(kid).cloned()
    }

    pub(super) fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// These keys and `others`.
    pub(super) fn and(&self, others: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(
            others
                .0
                .iter()
                .map(|(kid, key)| (kid.clone(), Arc::clone(key))),
        );
        Self(all)
    }

    /// The keys of a document that can check signatures. A key of a sort that is not known is
    /// passed over: a new sort must not take the known ones away.
    fn parse(document: &[u8]) -> Result<Self, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document).map_err(FetchError::Json)?;
        let keys = document.keys.into_iter().filter_map(read).take(MAX_KEYS);
        let keys: HashMap<_, _> = keys.collect();
        if keys.is_empty() {
            return Err(FetchError::NoKeys);
        }
        Ok(Self(keys))
    }

    /// Fetches the document at `url`.
    pub(super) async fn fetch(client: &reqwest::Client, url: &str) -> Result<Self, FetchError> {
        let response = client.get(url).send().await.map_err(FetchError::Http)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let document = whole(response, MAX_DOCUMENT)
            .await
            .map_err(|why| match why {
                Unread::Broken(error) => FetchError::Http(error),
                Unread::TooLarge => FetchError::TooLarge,
            })?;
        Self::parse(&document)
    }
}

fn read(entry: Value) -> Option<(String, Arc<Key>)> {
    #[derive(Deserialize)]
    struct Jwk {
        kty: String,
        kid: String,
        n: String,
        e: String,
        #[serde(rename = "use")]
        usage: Option<String>,
        alg: Option<String>,
    }
    let jwk: Jwk = serde_json::from_value(entry).ok()?;
    let signs = jwk.usage.is_none_or(|usage| usage == "sig");
    if jwk.kty != "RSA" || !signs {
        return None;
    }
    // A key for an algorithm that is not known can check nothing.
    let algorithm = jwk.alg.map(|name| name.parse()).transpose().ok()?;
    let key = DecodingKey::from_rsa_components(&jwk.n, &jwk.e).ok()?;
    Some((jwk.kid, Arc::new(Key { key, algorithm })))
}

/// Why signing keys could not be fetched.
#[derive(Debug)]
pub(super) enum FetchError {
    /// No answer.
    Http(reqwest::Error),
    /// An answer with another status than 200.
    Status(u16),
    /// No JSON, or no list of keys.
    Json(serde_json::Error),
    /// A document beyond all measure.
    TooLarge,
    /// A document without a key that can check signatures.
    NoKeys,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => f.write_str(&super::describe(error)),
            Self::Status(status) => write!(f, "the answer has status {status}"),
            Self::Json(error) => write!(f, "the answer is no key document: {error}"),
            Self::TooLarge => write!(f, "the answer has more than {MAX_DOCUMENT} bytes"),
            Self::NoKeys => f.write_str("the answer has no key that can check signatures"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modulus of some key, which is not checked before it is used.
    const N: &str = "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw";

    #[test]
    fn keys_that_check_signatures_are_taken_and_others_passed_over() {
        let document = format!(
            r#"{{"keys":[
                {{"kty":"RSA","use":"sig","kid":"a","n":"{N}","e":"AQAB","x5c":["x"]}},
                {{"kty":"RSA","kid":"b","n":"{N}","e":"AQAB","alg":"RS256"}},
                {{"kty":"RSA","use":"enc","kid":"c","n":"{N}","e":"AQAB"}},
                {{"kty":"RSA","kid":"d","n":"{N}","e":"AQAB","alg":"XS999"}},
                {{"kty":"oct","kid":"e","k":"c2VjcmV0"}},
                {{"kty":"RSA","kid":7,"n":"{N}","e":"AQAB"}},
                "f"
            ]}}"#
        );
        let keys = Keys::parse(document.as_bytes()).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(keys.has("a") && keys.find("b").unwrap().algorithm == Some(Algorithm::RS256));
    }

    #[test]
    fn a_document_without_keys_is_a_failure_and_not_an_empty_set() {
        assert!(matches!(
            Keys::parse(br#"{"keys":[]}"#),
            Err(FetchError::NoKeys)
        ));
        assert!(matches!(Keys::parse(b"<html>"), Err(FetchError::Json(_))));
    }
}
