//! Who is calling: what a verified Entra token says, and why a caller is turned away.
//!
//! The signature has been verified by the time that claims come here (`azure::entra`). What is
//! left are rules: issuer, tenant, audience and time. They are those of Microsoft's "Access tokens
//! in the Microsoft identity platform", which has two forms of token: v1 (`appid`, issuer
//! `https://sts.windows.net/TENANT/`) and v2 (`azp`, issuer
//! `https://login.microsoftonline.com/TENANT/v2.0`).

use std::sync::Arc;

use serde::Deserialize;

use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// The claims of an access token that the gateway goes by.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// What it is for.
    pub aud: Audiences,
    /// When it expires, seconds since the Unix epoch.
    pub exp: u64,
    /// When it begins to hold, seconds since the Unix epoch.
    pub nbf: Option<u64>,
    /// The tenant.
    pub tid: Option<String>,
    /// The client that asked for the token, in a v2 token.
    pub azp: Option<String>,
    /// The same in a v1 token.
    pub appid: Option<String>,
    /// The object id of the user, or of the client where it acts for itself.
    pub oid: Option<String>,
    /// The user, by an id that holds within one app only.
    pub sub: Option<String>,
    /// The roles that user or client have been assigned.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// One audience, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Audiences {
    /// As Entra issues it.
    One(String),
    /// As RFC 7519 allows too.
    Many(Vec<String>),
}

impl Audiences {
    fn name_one_of(&self, accepted: &[String]) -> bool {
        match self {
            Self::One(name) => accepted.contains(name),
            Self::Many(names) => names.iter().any(|name| accepted.contains(name)),
        }
    }
}

/// What a token has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// The tenant's id.
    pub tenant: String,
    /// The issuers that are believed.
    pub issuers: Vec<String>,
    /// The audiences that are the gateway.
    pub audiences: Vec<String>,
    /// How far clocks may be apart, ms.
    pub leeway_ms: u64,
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The client's application id, in lower case.
    pub app_id: Arc<str>,
    /// The object id of the user, or of the client where it acts for itself; may be empty.
    pub object_id: Arc<str>,
    /// The user within the client; may be empty.
    pub subject: Arc<str>,
    /// Roles.
    pub roles: Vec<String>,
    /// When the token ends, leeway included.
    pub ends: Timestamp,
}

impl Principal {
    /// Whether the token still holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.ends
    }

    /// Whether it has been assigned this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|one| one == role)
    }
}

impl TokenRules {
    /// Whom the token of these claims stands for.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge(&self, claims: Claims, now: Timestamp) -> Result<Principal, TokenFault> {
        self.is_from_tenant(&claims)?;
        if !claims.aud.name_one_of(&self.audiences) {
            return Err(TokenFault::Audience);
        }
        let ends = seconds(claims.exp).plus_ms(self.leeway_ms);
        if now >= ends {
            return Err(TokenFault::Expired);
        }
        let begins = seconds(claims.nbf.unwrap_or(0));
        if now.plus_ms(self.leeway_ms) < begins {
            return Err(TokenFault::NotYetValid);
        }
        let app_id = claims.azp.or(claims.appid).ok_or(TokenFault::NoApp)?;
        Ok(Principal {
            app_id: app_id.to_ascii_lowercase().into(),
            object_id: claims.oid.unwrap_or_default().into(),
            subject: claims.sub.unwrap_or_default().into(),
            roles: claims.roles,
            ends,
        })
    }

    /// Entra signs the tokens of all tenants with the same keys, so that only issuer and tenant
    /// tell a stranger's token.
    fn is_from_tenant(&self, claims: &Claims) -> Result<(), TokenFault> {
        let same = |tenant: &String| tenant.eq_ignore_ascii_case(&self.tenant);
        if claims.tid.as_ref().is_some_and(|tenant| !same(tenant)) {
            return Err(TokenFault::Tenant);
        }
        let known = self.issuers.contains(&claims.iss);
        known.then_some(()).ok_or(TokenFault::Issuer)
    }
}

const fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(seconds.saturating_mul(1000))
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It is longer than any that Entra issues.
    TooLong,
    /// It is no JSON Web Token, or a claim that it has to have is missing.
    Malformed,
    /// It is signed by an algorithm that is not accepted, or not signed.
    Algorithm,
    /// Its signing key is none of the tenant's.
    UnknownKey,
    /// Its signature is wrong.
    Signature,
    /// It has expired.
    Expired,
    /// It does not hold yet.
    NotYetValid,
    /// Somebody else issued it.
    Issuer,
    /// It is another tenant's.
    Tenant,
    /// It is for another API.
    Audience,
    /// It names no client.
    NoApp,
}

impl TokenFault {
    /// What the caller is told. It names the rule, never a value of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the token is too long",
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token's algorithm is not accepted",
            Self::UnknownKey => "the token's signing key is unknown",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Issuer => "the token's issuer is wrong",
            Self::Tenant => "the token's tenant is wrong",
            Self::Audience => "the token's audience is wrong",
            Self::NoApp => "the token names no app",
        }
    }
}

/// Why a caller is turned away at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The call shows neither key nor token where it has to.
    NothingShown(Wanted),
    /// The key is no app's.
    WrongKey,
    /// The token is not valid.
    BadToken(TokenFault),
    /// The token is valid, but its app may not call.
    UnknownApp {
        /// The application id that the token names.
        app_id: Arc<str>,
    },
    /// Key and token are those of different apps.
    Disagreement,
    /// Tokens can't be verified now: the signing keys could not be fetched.
    KeysUnavailable {
        /// When the next attempt is made, ms.
        retry_after_ms: u64,
    },
    /// The caller is known, but no administrator.
    NotAdmin,
}

/// What a call has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An app's key.
    Key,
    /// An Entra token.
    Token,
    /// One of them.
    Either,
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::BadToken(fault)
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The app, which pays.
    pub app: Arc<super::app::App>,
    /// Whom its token stands for, where it showed one.
    pub principal: Option<Arc<Principal>>,
}
