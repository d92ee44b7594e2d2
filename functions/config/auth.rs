//! The section `[auth]`: who may call. The doc comments are the descriptions that editors show.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::{Endpoint, KeyHash};

/// Where Entra's public cloud issues tokens.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// Who issues v1 tokens, whatever endpoint they were asked from.
const V1_ISSUER: &str = "https://sts.windows.net";

/// Who may call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// What callers have to show.
    pub mode: AuthMode,
    /// Lets a gateway with mode "off" be reached from other machines. Everybody who reaches it can
    /// then use its backends.
    pub allow_open: bool,
    /// The Entra tenant's id, whose tokens are taken; absent: no tokens are.
    #[schemars(length(min = 1))]
    pub tenant: Option<String>,
    /// What a token has to be for: the gateway's application id, its application id URI, or a list
    /// of both. v2 tokens name the id, v1 tokens mostly the URI.
    pub audience: Option<Audience>,
    /// Where the tenant's tokens are issued; absent: `https://login.microsoftonline.com`. National
    /// clouds have others.
    #[schemars(with = "Option<String>")]
    pub authority: Option<Endpoint>,
    /// The issuers that are believed; absent: the tenant's in v1 and v2 tokens.
    pub issuers: Option<Vec<String>>,
    /// The algorithms that tokens may be signed by.
    pub algorithms: Vec<TokenAlgorithm>,
    /// How far this machine's clock and Entra's may be apart, seconds.
    #[schemars(range(min = 0, max = 900))]
    pub leeway_s: u64,
    /// Whether backends are told who called: the token's `oid` as the header `caller-objectid`.
    pub pass_caller_object_id: bool,
    /// The role that a token has to have for the console and the other paths below `/spillway/`.
    #[schemars(length(min = 1, max = 128))]
    pub admin_role: String,
    /// SHA-256 of keys for the same, as an app's.
    #[schemars(with = "Vec<String>", length(max = 2))]
    pub admin_key_hashes: Vec<KeyHash>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::default(),
            allow_open: false,
            tenant: None,
            audience: None,
            authority: None,
            issuers: None,
            algorithms: vec![TokenAlgorithm::Rs256],
            leeway_s: 300,
            pass_caller_object_id: false,
            admin_role: "Spillway.Admin".into(),
            admin_key_hashes: Vec::new(),
        }
    }
}

impl Auth {
    /// Where the tenant's tokens are issued, without a slash at the end.
    pub fn authority(&self) -> String {
        let authority = self.authority.as_ref();
        authority.map_or_else(|| PUBLIC_CLOUD.to_owned(), Endpoint::to_string)
    }

    /// The issuers that are believed, for tokens of `tenant`.
    pub fn issuers(&self, tenant: &str) -> Vec<String> {
        self.issuers.clone().unwrap_or_else(|| {
            vec![
                format!("{}/{tenant}/v2.0", self.authority()),
                format!("{V1_ISSUER}/{tenant}/"),
            ]
        })
    }
}

/// What callers have to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// An app's key or its Entra token.
    #[default]
    Required,
    /// An app's key.
    Key,
    /// An Entra token.
    Token,
    /// An app's key and an Entra token of the same app.
    Both,
    /// Nothing: every call is the app `anonymous`. For local work only.
    Off,
}

impl AuthMode {
    /// Whether a token is the only way in, or part of it.
    pub const fn needs_token(self) -> bool {
        matches!(self, Self::Token | Self::Both)
    }
}

/// An algorithm that a token may be signed by. Entra uses RS256. A shared secret is never one:
/// whoever can check its signatures can make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TokenAlgorithm {
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
}

/// One audience or several.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Audience(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Audience {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(name) => Self(vec![name]),
            OneOrMany::Many(names) => Self(names),
        }
    }
}

impl Audience {
    /// The names, of which a token has to have one.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Audience {
    fn schema_name() -> Cow<'static, str> {
        "Audience".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": { "type": "string", "minLength": 1 },
            "minLength": 1,
        })
    }
}

/// Whether a text is an id as Entra writes it: `8-4-4-4-12` hexadecimal digits.
pub(crate) fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    let right = lengths.iter().all(|length| {
        parts.next().is_some_and(|part| {
            part.len() == *length && part.bytes().all(|b| b.is_ascii_hexdigit())
        })
    });
    right && parts.next().is_none()
}
