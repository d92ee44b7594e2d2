//! The Event Hub that usage events go to.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::endpoint::Endpoint;

/// What a hub has to look like.
const RULE: &str = "must be `https://NAMESPACE.servicebus.windows.net/HUB`, the namespace's URL and the hub's name";

/// An Event Hub: its namespace and its name there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hub {
    /// The namespace.
    pub namespace: Endpoint,
    /// The hub's name.
    pub name: String,
}

impl FromStr for Hub {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not shown: it holds a key.
        if text.contains("SharedAccessKey") {
            return Err(format!(
                "{RULE}, not a connection string: the gateway's identity gets in, no key does"
            ));
        }
        let (namespace, name) = text.rsplit_once('/').ok_or(RULE)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 256 || !name.chars().all(is_name) {
            return Err(format!("{RULE}; its last part is no hub's name"));
        }
        Ok(Self {
            namespace: namespace.parse().map_err(|_| RULE.to_owned())?,
            name: name.to_owned(),
        })
    }
}

impl TryFrom<String> for Hub {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_is_a_namespace_and_a_name() {
        for text in [
            "https://contoso.servicebus.windows.net/chargeback",
            "http://127.0.0.1:7000/usage_1",
        ] {
            assert_eq!(text.parse::<Hub>().unwrap().to_string(), text);
        }
        for (text, said) in [
            ("https://contoso.servicebus.windows.net", "must be"),
            ("https://contoso.servicebus.windows.net/", "no hub's name"),
            (
                "https://contoso.servicebus.windows.net/a b",
                "no hub's name",
            ),
            ("http://contoso.servicebus.windows.net/a", "must be"),
            (
                "Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey=canary",
                "connection string",
            ),
        ] {
            let message = text.parse::<Hub>().unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }
}
