//! The gateway's own tokens for its backends: fetched once, refreshed before they expire by a
//! task of their own, at hand for every call.
//!
//! The credentials of `azure_identity` have a cache too, but refresh while a call waits, and give
//! an error where a refresh fails although the old token is still good.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use http::HeaderValue;
use tokio::sync::watch;

use super::credential::{Surroundings, fetch, is_lasting};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// Longest that one attempt to fetch a token may take. The library's own for virtual machines goes
/// on for more than a minute.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Longest pause after a failed attempt, ms: a gateway without tokens is of little use.
const MAX_PAUSE_MS: u64 = 30_000;

/// A token is refreshed so long before it expires, ms. `azure_identity` hands out the one that it
/// has until 5 minutes before the end.
const REFRESH_BEFORE_MS: u64 = 290_000;

/// A token with less to live than this is not sent any more, ms: the call takes its time to arrive.
const MIN_LEFT_MS: u64 = 1000;

/// The gateway's own tokens, by identity and scope.
#[derive(Debug)]
pub struct OwnTokens {
    surroundings: Arc<Surroundings>,
    client: Option<reqwest::Client>,
    all: Vec<Arc<OwnToken>>,
}

impl OwnTokens {
    /// None yet.
    pub fn new(surroundings: Surroundings) -> Self {
        Self {
            surroundings: Arc::new(surroundings),
            client: None,
            all: Vec::new(),
        }
    }

    /// The token for `scope` of the identity that `client_id` names, or of the default one.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn get(&mut self, client_id: Option<&str>, scope: &str) -> Result<Arc<OwnToken>, String> {
        let same =
            |one: &&Arc<OwnToken>| one.scope == scope && one.client_id.as_deref() == client_id;
        if let Some(token) = self.all.iter().find(same) {
            return Ok(Arc::clone(token));
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(super::http_client()?).clone(),
        };
        let token = Arc::new(OwnToken {
            scope: scope.to_owned(),
            client_id: client_id.map(str::to_owned),
            surroundings: Arc::clone(&self.surroundings),
            client,
            state: watch::Sender::default(),
        });
        self.all.push(Arc::clone(&token));
        Ok(token)
    }

    /// All of them, in the order in which they were first asked for.
    pub fn all(&self) -> &[Arc<OwnToken>] {
        &self.all
    }
}

/// One token, as fresh as can be.
#[derive(Debug)]
pub struct OwnToken {
    scope: String,
    client_id: Option<String>,
    surroundings: Arc<Surroundings>,
    client: reqwest::Client,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// Why the last attempt failed; the first one is under way where there is neither.
    lack: Option<Lack>,
}

/// The value of an `Authorization` header, and when its token expires.
#[derive(Clone, Debug)]
struct Token {
    header: HeaderValue,
    expires: Timestamp,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Whether somebody has to act: there is no such identity, or it was refused.
    pub lasts: bool,
    /// When the next attempt is made.
    pub next: Timestamp,
}

impl State {
    fn header(&self, now: Timestamp) -> Option<HeaderValue> {
        let token = self.token.as_ref()?;
        let good = token.expires > now.plus_ms(MIN_LEFT_MS);
        good.then(|| token.header.clone())
    }
}

impl OwnToken {
    /// What it is for.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The value of the `Authorization` header. Only where the first attempt is still under way
    /// does this wait, for `patience` at most.
    ///
    /// # Errors
    /// When there is no token now.
    pub async fn header(&self, now: Timestamp, patience: Duration) -> Result<HeaderValue, Lack> {
        if let Some(header) = self.state.borrow().header(now) {
            return Ok(header);
        }
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| state.token.is_some() || state.lack.is_some());
        // Neither a time-out nor the task's end is an answer: what is there then counts.
        let _ = tokio::time::timeout(patience, known).await;
        let state = self.state.borrow();
        state.header(now).ok_or_else(|| {
            let soon = Lack {
                lasts: false,
                next: now.plus_ms(1000),
            };
            state.lack.unwrap_or(soon)
        })
    }

    /// Fetches the token and keeps it fresh.
    pub async fn keep_fresh(self: Arc<Self>, clock: Clock) {
        let mut credential = None;
        let mut failures = 0;
        loop {
            let attempt = tokio::time::timeout(ATTEMPT, self.attempt(&mut credential)).await;
            let attempt = attempt.unwrap_or_else(|_| Err(Failure::too_slow()));
            let now = clock.now();
            let pause = match attempt {
                Ok(token) => {
                    failures = 0;
                    let pause = pause_ms(token.expires, now);
                    self.state.send_modify(|state| {
                        (state.token, state.lack) = (Some(token), None);
                    });
                    pause
                }
                Err(failure) => {
                    failures += 1;
                    let pause = super::backoff_ms(failures).min(MAX_PAUSE_MS);
                    self.failed(&failure, now, pause);
                    pause
                }
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn attempt(
        &self,
        credential: &mut Option<Arc<dyn TokenCredential>>,
    ) -> Result<Token, Failure> {
        let credential = match credential {
            Some(credential) => credential,
            None => {
                let client_id = self.client_id.as_deref();
                let made = self.surroundings.credential(client_id, &self.client);
                credential.insert(made.map_err(|error| Failure::of(&error, true))?)
            }
        };
        let token = fetch(&**credential, &self.scope).await;
        let token = token.map_err(|error| Failure::of(&error, is_lasting(&error)))?;
        read(&token)
    }

    fn failed(&self, failure: &Failure, now: Timestamp, pause_ms: u64) {
        let (scope, source) = (&self.scope, self.surroundings.source);
        let (client_id, reason) = (self.client_id.as_deref(), &failure.reason);
        if self.state.borrow().header(now).is_some() {
            tracing::warn!(
                scope, %source, client_id, reason,
                "the gateway's own token could not be refreshed: the one it has goes on serving"
            );
        } else {
            tracing::error!(
                scope, %source, client_id, reason, pause_ms,
                "the gateway has no token: backends that need it are passed over"
            );
        }
        let lack = Lack {
            lasts: failure.lasts,
            next: now.plus_ms(pause_ms),
        };
        self.state.send_modify(|state| state.lack = Some(lack));
    }
}

/// Why an attempt failed.
struct Failure {
    reason: String,
    lasts: bool,
}

impl Failure {
    fn of(error: &azure_core::Error, lasts: bool) -> Self {
        Self {
            reason: super::describe(error),
            lasts,
        }
    }

    fn too_slow() -> Self {
        Self {
            reason: format!("no answer within {} s", ATTEMPT.as_secs()),
            lasts: false,
        }
    }
}

fn read(token: &AccessToken) -> Result<Token, Failure> {
    let mut header =
        HeaderValue::try_from(format!("Bearer {}", token.token.secret())).map_err(|_| Failure {
            reason: "the token has characters that no header may have".into(),
            lasts: true,
        })?;
    header.set_sensitive(true);
    let expires = u64::try_from(token.expires_on.unix_timestamp()).unwrap_or(0);
    Ok(Token {
        header,
        expires: Timestamp::from_unix_ms(expires.saturating_mul(1000)),
    })
}

/// From `now` to when a token that expires then is refreshed, ms. One of a short life is at half
/// of it.
fn pause_ms(expires: Timestamp, now: Timestamp) -> u64 {
    let left = expires.ms_since(now);
    let pause = if left > 2 * REFRESH_BEFORE_MS {
        left - REFRESH_BEFORE_MS
    } else {
        left / 2
    };
    pause.max(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }

    #[test]
    fn a_token_is_refreshed_well_before_its_end() {
        assert_eq!(pause_ms(at(86_400), at(0)), 86_110_000);
        assert_eq!(pause_ms(at(580), at(0)), 290_000);
        assert_eq!(pause_ms(at(60), at(0)), 30_000);
        assert_eq!(pause_ms(at(0), at(60)), 1000);
    }

    #[test]
    fn a_token_is_sent_until_it_expires_and_never_printed() {
        let secret = azure_core::credentials::Secret::from("canary");
        let expires = time::OffsetDateTime::from_unix_timestamp(100).unwrap();
        let token = read(&AccessToken::new(secret, expires)).ok().unwrap();
        let state = State {
            token: Some(token),
            lack: None,
        };
        assert_eq!(state.header(at(98)).unwrap(), "Bearer canary");
        assert_eq!(state.header(at(99)), None);
        assert!(!format!("{state:?}").contains("canary"));
    }

    #[test]
    fn tokens_are_shared_by_identity_and_scope() {
        let surroundings = Surroundings::read(&|_| None, false);
        let mut tokens = OwnTokens::new(surroundings);
        let first = tokens.get(None, "a/.default").unwrap();
        let same = tokens.get(None, "a/.default").unwrap();
        tokens.get(None, "b/.default").unwrap();
        tokens.get(Some("id"), "a/.default").unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        assert_eq!(tokens.all().len(), 3);
    }
}
