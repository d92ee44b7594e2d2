//! Headers that a rule may set or remove.

use std::str::FromStr;

use serde::Deserialize;

/// Longest name and longest value, bytes.
const MAX: usize = 1024;

/// Headers that are the gateway's or the connection's: a rule about them would be passed over, or
/// would break the call.
const RESERVED: [&str; 20] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "caller-objectid",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "ocp-apim-subscription-key",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-functions-key",
];

/// What reserved names begin with.
const RESERVED_PREFIXES: [&str; 2] = ["x-spillway-", "x-forwarded-"];

/// A header's name, in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderName(String);

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderValue(String);

impl HeaderName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderValue {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        // RFC 9110, section 5.6.2: a token.
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > MAX || !name.bytes().all(is_token) {
            return Err("is no name of a header".into());
        }
        let is_reserved = RESERVED.contains(&name.as_str())
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if is_reserved {
            return Err("is the gateway's own to set, or the connection's".into());
        }
        Ok(Self(name))
    }
}

impl FromStr for HeaderValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if text.is_empty() || text.len() > MAX || !is_plain || text.trim() != text {
            return Err(format!(
                "must have 1 to {MAX} visible ASCII characters, with blanks only between them"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for HeaderName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for HeaderValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_that_are_nobody_elses_to_set() {
        let name: HeaderName = "OpenAI-Project".parse().unwrap();
        assert_eq!(name.as_str(), "openai-project");
        for (text, why) in [
            ("", "is no name"),
            ("a b", "is no name"),
            ("a:", "is no name"),
            ("Authorization", "the gateway's own"),
            ("X-Spillway-App", "the gateway's own"),
            ("x-forwarded-for", "the gateway's own"),
        ] {
            let said = HeaderName::try_from(text.to_owned()).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!("a".repeat(MAX + 1).parse::<HeaderName>().is_err());
    }

    #[test]
    fn values_are_visible_text_that_can_not_end_a_line() {
        let value = HeaderValue::try_from("a b".to_owned()).unwrap();
        assert_eq!(value.as_str(), "a b");
        for text in ["", " a", "a ", "a\r\nb: c", "\u{fc}", &"a".repeat(MAX + 1)] {
            let said = text.parse::<HeaderValue>().unwrap_err();
            assert!(said.contains("1 to 1024 visible"), "{text:?}: {said}");
        }
    }
}
