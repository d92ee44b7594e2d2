//! The tokens of callers: their signature, by the tenant's keys, and what they say.
//!
//! The keys are fetched and refreshed by a task of their own ([`Entra::keep_keys`]). Calls only
//! look at what is there. A token whose key is not known makes the task fetch at once, at most
//! once a minute, and its call waits for that fetch. While Entra can't be reached the keys that
//! are known go on serving.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use super::jwks::{FetchError, Key, Keys};
use super::verified::Verified;
use crate::config::{Auth, TokenAlgorithm};
use crate::gateway::identity::{Claims, Principal, Refusal, TokenFault, TokenRules};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// Longest token that is looked at, bytes. Entra's stay below 8 KiB: it puts 200 groups in at most.
const MAX_TOKEN: usize = 16 * 1024;

/// How often the keys are fetched anyway, so that one that was taken back does not serve for long.
const REFRESH_MS: u64 = 60 * 60 * 1000;

/// A token with an unknown key makes the keys be fetched no more often than this.
const ASK_AGAIN_MS: u64 = 60_000;

/// Longest that a call waits for keys.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a tenant publishes its keys, for v2 and for v1 tokens. The documents mostly have the same
/// keys, but Microsoft tells APIs to go by each token's own.
const DOCUMENTS: [&str; 2] = ["discovery/v2.0/keys", "discovery/keys"];

/// Verifies tokens of one tenant.
pub struct Entra {
    rules: TokenRules,
    algorithms: Vec<Algorithm>,
    client: reqwest::Client,
    urls: [String; 2],
    keys: RwLock<Arc<Keys>>,
    verified: Verified,
    /// Wakes the task that fetches keys.
    wanted: Notify,
    fetches: watch::Sender<Fetches>,
}

/// How fetching goes.
#[derive(Clone, Copy, Debug, Default)]
struct Fetches {
    ended: u64,
    is_running: bool,
    has_failed: bool,
    /// When a call last had keys fetched for a key that was not known.
    asked: Option<Timestamp>,
    /// When they are fetched next.
    next: Timestamp,
}

/// Printing it prints neither keys nor tokens.
impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entra")
            .field("rules", &self.rules)
            .field("keys", &self.current().len())
            .finish_non_exhaustive()
    }
}

impl Entra {
    /// The verifier that `[auth]` describes; `None` where it names no tenant and audience.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn new(auth: &Auth) -> Result<Option<Arc<Self>>, String> {
        let (Some(tenant), Some(audience)) = (&auth.tenant, &auth.audience) else {
            return Ok(None);
        };
        let url = |document| format!("{}/{tenant}/{document}", auth.authority());
        let running = Fetches {
            is_running: true,
            ..Fetches::default()
        };
        Ok(Some(Arc::new(Self {
            rules: TokenRules {
                tenant: tenant.clone(),
                issuers: auth.issuers(tenant),
                audiences: audience.names().to_vec(),
                leeway_ms: auth.leeway_s * 1000,
            },
            algorithms: auth.algorithms.iter().map(|one| algorithm(*one)).collect(),
            client: super::http_client()?,
            urls: DOCUMENTS.map(url),
            keys: RwLock::default(),
            verified: Verified::default(),
            wanted: Notify::new(),
            // The task fetches as soon as it runs: calls before that wait for it.
            fetches: watch::Sender::new(running),
        })))
    }

    /// Whom the token stands for.
    ///
    /// # Errors
    /// What is wrong with it, or that no keys could be fetched to tell.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(TokenFault::TooLong.into());
        }
        let hash = Sha256::digest(token.as_bytes()).into();
        if let Some(principal) = self.verified.find(&hash) {
            let holds = principal.holds(now);
            return holds.then_some(principal).ok_or(TokenFault::Expired.into());
        }
        let (kid, algorithm) = self.header(token)?;
        let set = self.verified.keys();
        let (key, set) = match self.current().find(&kid) {
            Some(key) => (key, set),
            None => self.fetched(&kid, now).await?,
        };
        if key.algorithm.is_some_and(|only| only != algorithm) {
            return Err(TokenFault::Algorithm.into());
        }
        let decoded = decode::<Claims>(token, &key.key, &signature_only(algorithm));
        let claims = decoded.map_err(|error| fault(&error))?.claims;
        let principal = Arc::new(self.rules.judge(claims, now)?);
        self.verified
            .remember(hash, Arc::clone(&principal), &kid, set);
        Ok(principal)
    }

    fn header(&self, token: &str) -> Result<(String, Algorithm), TokenFault> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            // JSON whose `alg` is none that the library knows: `none` is among those.
            ErrorKind::Json(error) if error.is_data() => TokenFault::Algorithm,
            _ => TokenFault::Malformed,
        })?;
        if !self.algorithms.contains(&header.alg) {
            return Err(TokenFault::Algorithm);
        }
        // Extensions that have to be understood and are not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenFault::Malformed);
        }
        let kid = header.kid.ok_or(TokenFault::Malformed)?;
        Ok((kid, header.alg))
    }

    fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key, once keys have been fetched, where they may be.
    async fn fetched(&self, kid: &str, now: Timestamp) -> Result<(Arc<Key>, u64), Refusal> {
        let mut fetches = self.fetches.subscribe();
        let ended = fetches.borrow().ended;
        if self.ask(now) {
            let wait = fetches.wait_for(|fetches| fetches.ended > ended);
            // Neither a time-out nor the task's end is an answer: what is known then counts.
            let _ = tokio::time::timeout(PATIENCE, wait).await;
        }
        let set = self.verified.keys();
        if let Some(key) = self.current().find(kid) {
            return Ok((key, set));
        }
        let fetches = *self.fetches.borrow();
        if fetches.has_failed || fetches.is_running {
            let retry_after_ms = fetches.next.ms_since(now).max(1000);
            return Err(Refusal::KeysUnavailable { retry_after_ms });
        }
        Err(TokenFault::UnknownKey.into())
    }

    /// Has keys fetched, unless that was done a short while ago. Whether it is worth waiting.
    fn ask(&self, now: Timestamp) -> bool {
        let mut asks = false;
        let mut waits = false;
        self.fetches.send_if_modified(|fetches| {
            let lately = |at: Timestamp| now.ms_since(at) < ASK_AGAIN_MS;
            if !fetches.is_running && !fetches.asked.is_some_and(lately) {
                (fetches.asked, fetches.is_running) = (Some(now), true);
                asks = true;
            }
            waits = fetches.is_running;
            false
        });
        if asks {
            self.wanted.notify_one();
        }
        waits
    }

    /// Fetches the keys now, every hour, and when a call asks; after a failure, sooner.
    pub async fn keep_keys(self: Arc<Self>, clock: Clock) {
        let mut documents = [Keys::default(), Keys::default()];
        let mut failures = 0;
        loop {
            let has_failed = !self.fetch(&mut documents).await;
            failures = if has_failed { failures + 1 } else { 0 };
            let pause = if has_failed {
                super::backoff_ms(failures)
            } else {
                REFRESH_MS
            };
            self.fetches.send_modify(|fetches| {
                fetches.ended += 1;
                fetches.is_running = false;
                fetches.has_failed = has_failed;
                fetches.next = clock.now().plus_ms(pause);
            });
            let asked = self.wanted.notified();
            // Whether it is time or a call asks makes no difference.
            let _ = tokio::time::timeout(Duration::from_millis(pause), asked).await;
        }
    }

    /// Fetches the documents; whether one could be had. One that can't be had stays as it was.
    async fn fetch(&self, documents: &mut [Keys; 2]) -> bool {
        let [v2, v1] = &self.urls;
        let fetched = tokio::join!(Keys::fetch(&self.client, v2), Keys::fetch(&self.client, v1));
        let mut works = false;
        let mut failed = Vec::new();
        let pairs = documents.iter_mut().zip([fetched.0, fetched.1]);
        for ((document, fetched), url) in pairs.zip(&self.urls) {
            match fetched {
                Ok(keys) => (*document, works) = (keys, true),
                Err(error) => failed.push((url, error)),
            }
        }
        let [v2, v1] = documents;
        let keys = Arc::new(v2.and(v1));
        for (url, error) in failed {
            warn(url, &error, keys.len());
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        self.verified.keys_changed(|kid| keys.has(kid));
        works
    }
}

fn warn(url: &str, error: &FetchError, known: usize) {
    if known == 0 {
        tracing::error!(url, %error, "no signing keys could be fetched: Entra tokens can't be verified");
    } else {
        tracing::warn!(url, %error, known, "signing keys could not be fetched: those known go on serving");
    }
}

/// The signature is all that is left to the library: the claims are judged by
/// [`TokenRules::judge`], which is given the time.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn fault(error: &Error) -> TokenFault {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenFault::Signature,
        ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
        _ => TokenFault::Malformed,
    }
}

const fn algorithm(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Rs384 => Algorithm::RS384,
        TokenAlgorithm::Rs512 => Algorithm::RS512,
        TokenAlgorithm::Ps256 => Algorithm::PS256,
        TokenAlgorithm::Ps384 => Algorithm::PS384,
        TokenAlgorithm::Ps512 => Algorithm::PS512,
    }
}
