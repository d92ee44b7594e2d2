//! What a backend is shown: nothing, a key, or a token of the gateway's own.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::azure::own_token::{Lack, OwnToken, OwnTokens};
use crate::config::{ApiForm, Backend};
use crate::gateway::route::Form;
use crate::gateway::time::Timestamp;

/// How Azure OpenAI takes a key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// What a backend is shown.
#[derive(Debug)]
pub enum Credential {
    /// Nothing: it is on this machine.
    None,
    /// The `api-key` header's value.
    Key(HeaderValue),
    /// A token of the gateway's own, by the generation of the URL.
    Token {
        /// For the classic form.
        classic: Arc<OwnToken>,
        /// For the v1 form.
        v1: Arc<OwnToken>,
    },
}

/// The scope of tokens for the classic form: what its clients have always asked for.
const CLASSIC_SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// That for the v1 form: what Microsoft's documents of the v1 API ask for.
const V1_SCOPE: &str = "https://ai.azure.com/.default";

/// A header that shows a backend who calls it.
pub(super) type Shown = (HeaderName, HeaderValue);

impl Credential {
    /// What the configuration says. Tokens are taken from `tokens`.
    ///
    /// # Errors
    /// When a key can't stand in a header, or the system has no usable certificate roots.
    pub(super) fn new(backend: &Backend, tokens: &mut OwnTokens) -> Result<Self, String> {
        if let Some(key) = &backend.key {
            let name = &backend.name;
            let mut value = HeaderValue::from_str(key.expose())
                .map_err(|_| format!("the key of backend {name} can't stand in a header"))?;
            value.set_sensitive(true);
            return Ok(Self::Key(value));
        }
        let scope = backend.scope.as_deref();
        if backend.endpoint.is_loopback() && scope.is_none() {
            return Ok(Self::None);
        }
        let client_id = backend.client_id.as_deref();
        let [classic, v1] = match (scope, backend.api) {
            (Some(scope), _) => [scope; 2],
            // A form that the backend is never called by needs no token of its own.
            (None, ApiForm::Classic) => [CLASSIC_SCOPE; 2],
            (None, ApiForm::V1) => [V1_SCOPE; 2],
            (None, ApiForm::AsCalled) => [CLASSIC_SCOPE, V1_SCOPE],
        };
        Ok(Self::Token {
            classic: tokens.get(client_id, classic)?,
            v1: tokens.get(client_id, v1)?,
        })
    }

    /// Whether a backend is shown the same by `other`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Key(one), Self::Key(other)) => one == other,
            (
                Self::Token { classic, v1 },
                Self::Token {
                    classic: other_classic,
                    v1: other_v1,
                },
            ) => Arc::ptr_eq(classic, other_classic) && Arc::ptr_eq(v1, other_v1),
            _ => false,
        }
    }

    /// The header that shows the backend who calls it by this form. Only a token that is still
    /// being fetched is waited for, no longer than `patience`.
    ///
    /// # Errors
    /// When there is no token now.
    pub(super) async fn header(
        &self,
        form: Form,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Option<Shown>, Lack> {
        let (classic, v1) = match self {
            Self::None => return Ok(None),
            Self::Key(key) => return Ok(Some((API_KEY, key.clone()))),
            Self::Token { classic, v1 } => (classic, v1),
        };
        let token = match form {
            Form::Classic => classic,
            Form::V1 => v1,
        };
        let header = token.header(now, patience).await?;
        Ok(Some((AUTHORIZATION, header)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::credential::Surroundings;
    use crate::config::Config;

    fn scopes(more: &str) -> Option<[String; 2]> {
        let text = format!(
            "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\n{more}\n\
             [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n"
        );
        let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let mut tokens = OwnTokens::new(Surroundings::read(&|_| None, false));
        match Credential::new(&config.backends[0], &mut tokens).unwrap() {
            Credential::Token { classic, v1 } => {
                Some([classic, v1].map(|token| token.scope().to_owned()))
            }
            Credential::None | Credential::Key(_) => None,
        }
    }

    #[test]
    fn the_scope_goes_with_the_form_unless_it_is_set() {
        let azure = "endpoint = \"https://a.openai.azure.com\"\n";
        let both = |scope: &str| Some([scope, scope].map(str::to_owned));
        assert_eq!(
            scopes(azure),
            Some([CLASSIC_SCOPE, V1_SCOPE].map(str::to_owned))
        );
        assert_eq!(scopes(&format!("{azure}api = \"v1\"")), both(V1_SCOPE));
        assert_eq!(
            scopes(&format!("{azure}api = \"classic\"")),
            both(CLASSIC_SCOPE)
        );
        let own = "https://ai.azure.us/.default";
        assert_eq!(scopes(&format!("{azure}scope = \"{own}\"")), both(own));
        assert_eq!(scopes(&format!("{azure}key = \"k\"")), None);
        assert_eq!(scopes("endpoint = \"http://127.0.0.1:9\""), None);
        let local = format!("endpoint = \"http://127.0.0.1:9\"\nscope = \"{own}\"");
        assert_eq!(scopes(&local), both(own));
    }
}
