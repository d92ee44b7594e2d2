//! The SHA-256 of an app's key: all that the gateway keeps of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a key hash starts with in the configuration: the algorithm.
const PREFIX: &str = "sha256:";

/// What a key hash has to look like.
const RULE: &str = "must be `sha256:` and 64 hexadecimal digits";

/// The SHA-256 of an app's key, written `sha256:` and 64 hexadecimal digits.
///
/// Two are compared in constant time. What a lookup in a hash table takes besides tells nothing of
/// a key: whoever presents one can't choose what it hashes to.
#[derive(Clone, Copy, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyHash([u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl KeyHash {
    /// The hash of a key that a client brings.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl FromStr for KeyHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| format!("{RULE}, does not start with `sha256:`"))?;
        let count = digits.chars().count();
        if count != 64 {
            return Err(format!("{RULE}, has {count} characters after `sha256:`"));
        }
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{RULE}, has a character that is none"))
    }
}

/// The byte that two hexadecimal digits stand for. (`from_str_radix` alone would take a sign.)
fn byte(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

impl TryFrom<String> for KeyHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
