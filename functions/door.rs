//! The door: who is calling, by the key or the Entra token that a call shows. Every HTTP function
//! has it before it.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;

use crate::azure::entra::Entra;
use crate::config::{Auth, AuthMode, Config, KeyHash};
use crate::gateway::app::{App, Tiers};
use crate::gateway::identity::{Identity, Refusal, Wanted};
use crate::gateway::time::Timestamp;

/// What an app is called that did not have to say who it is.
pub const ANONYMOUS: &str = "anonymous";

/// Longest key that is hashed, bytes.
const MAX_KEY: usize = 1024;

/// Who may pass, and as whom.
#[derive(Debug)]
pub struct Door {
    mode: AuthMode,
    by_name: HashMap<Arc<str>, Arc<App>>,
    by_key: HashMap<KeyHash, Arc<App>>,
    by_entra_id: HashMap<String, Arc<App>>,
    anonymous: Arc<App>,
    admin_keys: Vec<KeyHash>,
    admin_role: String,
    entra: Option<Arc<Entra>>,
}

impl Door {
    /// The door that a configuration describes.
    ///
    /// # Errors
    /// When the system has no usable certificate roots although tokens are taken.
    pub fn new(config: &Config) -> Result<Self, String> {
        let auth = &config.auth;
        // Administrators may come with a token whatever apps have to show.
        let is_open = auth.mode == AuthMode::Off && auth.admin_key_hashes.is_empty();
        let entra = if is_open { None } else { Entra::new(auth)? };
        Ok(Self::with(config, entra))
    }

    /// The door of the next configuration, whose tokens are judged as this one's: that can't change in
    /// a running process ([`crate::config::diff`]).
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        Self::with(config, self.entra.clone())
    }

    fn with(config: &Config, entra: Option<Arc<Entra>>) -> Self {
        let auth = &config.auth;
        let mut door = Self {
            mode: auth.mode,
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            by_entra_id: HashMap::new(),
            anonymous: Arc::new(App {
                cache: config.cache.rules(None),
                ..App::unrestricted(ANONYMOUS)
            }),
            admin_keys: auth.admin_key_hashes.clone(),
            admin_role: auth.admin_role.clone(),
            entra,
        };
        for app in &config.apps {
            door.admit(app, config);
        }
        door
    }

    fn admit(&mut self, app: &crate::config::App, config: &Config) {
        let known = Arc::new(read_app(app, config));
        self.by_name
            .insert(Arc::clone(&known.name), Arc::clone(&known));
        for hash in &app.key_hashes {
            self.by_key.insert(*hash, Arc::clone(&known));
        }
        for id in &app.entra_app_ids {
            self.by_entra_id
                .insert(id.to_ascii_lowercase(), Arc::clone(&known));
        }
    }

    /// What keeps the signing keys of callers' tokens, where tokens are taken.
    pub fn entra(&self) -> Option<&Arc<Entra>> {
        self.entra.as_ref()
    }

    /// The app of this name, for those who have been let in elsewhere and say whom they act for.
    /// Where callers have to show nothing, that is anybody: an empty name is nobody's in particular.
    pub fn named(&self, name: &str) -> Option<Arc<App>> {
        let known = self.by_name.get(name).cloned();
        if known.is_some() || self.mode != AuthMode::Off {
            return known;
        }
        if name.is_empty() || name == ANONYMOUS {
            return Some(Arc::clone(&self.anonymous));
        }
        let is_free = self.by_name.is_empty() && is_name(name);
        let free = || App {
            cache: self.anonymous.cache,
            ..App::unrestricted(name)
        };
        is_free.then(|| Arc::new(free()))
    }

    /// Who calls.
    ///
    /// # Errors
    /// Why the call is turned away.
    pub async fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Refusal> {
        let shown = Shown::read(headers);
        match self.mode {
            AuthMode::Off => Ok(nobody(&self.anonymous)),
            AuthMode::Key => {
                let key = shown.key.or(shown.bearer);
                self.by_key(key.ok_or(Refusal::NothingShown(Wanted::Key))?)
            }
            AuthMode::Token => {
                let token = shown.bearer.ok_or(Refusal::NothingShown(Wanted::Token))?;
                self.by_token(token, now).await
            }
            AuthMode::Required => match (shown.key, shown.bearer) {
                (Some(key), _) => self.by_key(key),
                (None, Some(token)) if self.entra.is_some() && is_token(token) => {
                    self.by_token(token, now).await
                }
                (None, Some(key)) => self.by_key(key),
                (None, None) => Err(Refusal::NothingShown(self.wanted())),
            },
            AuthMode::Both => {
                let key = shown.key.ok_or(Refusal::NothingShown(Wanted::Key))?;
                let token = shown.bearer.ok_or(Refusal::NothingShown(Wanted::Token))?;
                let by_key = self.by_key(key)?;
                let by_token = self.by_token(token, now).await?;
                let agree = Arc::ptr_eq(&by_key.app, &by_token.app);
                agree.then_some(by_token).ok_or(Refusal::Disagreement)
            }
        }
    }

    const fn wanted(&self) -> Wanted {
        if self.entra.is_some() {
            Wanted::Either
        } else {
            Wanted::Key
        }
    }

    fn by_key(&self, key: &str) -> Result<Identity, Refusal> {
        let app = hash(key).and_then(|hash| self.by_key.get(&hash));
        app.map(nobody).ok_or(Refusal::WrongKey)
    }

    async fn by_token(&self, token: &str, now: Timestamp) -> Result<Identity, Refusal> {
        let entra = self.entra.as_ref();
        let entra = entra.ok_or(Refusal::NothingShown(Wanted::Key))?;
        let principal = entra.verify(token, now).await?;
        match self.by_entra_id.get(&*principal.app_id) {
            Some(app) => Ok(Identity {
                app: Arc::clone(app),
                principal: Some(principal),
            }),
            None => Err(Refusal::UnknownApp {
                app_id: Arc::clone(&principal.app_id),
            }),
        }
    }

    /// Whether it is an admin key's hash.
    pub fn is_admin_key(&self, hash: &KeyHash) -> bool {
        self.admin_keys.contains(hash)
    }

    /// Lets administrators through: an admin key, or a token with the admin role, of whatever app.
    /// Where callers have to show nothing, administrators have to only if there are admin keys.
    ///
    /// # Errors
    /// Why the call is turned away.
    pub async fn admin(&self, headers: &HeaderMap, now: Timestamp) -> Result<Admin, Refusal> {
        if self.mode == AuthMode::Off && self.admin_keys.is_empty() {
            return Ok(Admin::Anybody);
        }
        let shown = Shown::read(headers);
        let key = shown.key.or(shown.bearer);
        let key = key.ok_or_else(|| Refusal::NothingShown(self.wanted()))?;
        let hash = hash(key);
        if let Some(hash) = hash.filter(|hash| self.is_admin_key(hash)) {
            return Ok(Admin::Key(hash));
        }
        if let (Some(entra), Some(token)) = (&self.entra, shown.bearer.filter(|t| is_token(t))) {
            let principal = entra.verify(token, now).await?;
            let is_admin = principal.has_role(&self.admin_role);
            let admin = is_admin.then_some(Admin::Token {
                ends: principal.ends,
            });
            return admin.ok_or(Refusal::NotAdmin);
        }
        match hash.and_then(|hash| self.by_key.get(&hash)) {
            Some(_) => Err(Refusal::NotAdmin),
            None => Err(Refusal::WrongKey),
        }
    }
}

/// Who an administrator has shown to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Nobody has to show anything here.
    Anybody,
    /// Who has the admin key of this hash.
    Key(KeyHash),
    /// Who has a token with the admin role.
    Token {
        /// When the token ends.
        ends: Timestamp,
    },
}

/// What a key begins with, so that it is known for one wherever it turns up.
const KEY_PREFIX: &str = "spw_";

/// Random bytes in a key: as many as its hash has.
const KEY_BYTES: usize = 32;

/// A new random key, from the operating system's randomness.
///
/// # Errors
/// When the system gives none.
pub fn new_key() -> std::io::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| std::io::Error::other("the system gives no randomness"))?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(digits.fold(KEY_PREFIX.to_owned(), |key, two| key + &two))
}

/// Whether a gateway may listen beyond this machine: not with mode "off", where everybody who
/// reaches it may use its backends, unless the configuration says so again.
pub const fn may_be_reached(auth: &Auth) -> bool {
    !matches!(auth.mode, AuthMode::Off) || auth.allow_open
}

/// Whether an app could be called so (docs/configuration.md).
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    name.len() <= 64 && name.bytes().all(plain)
}

/// An app that no token stands behind.
fn nobody(app: &Arc<App>) -> Identity {
    Identity {
        app: Arc::clone(app),
        principal: None,
    }
}

fn read_app(app: &crate::config::App, config: &Config) -> App {
    let shared = |names: &Option<Vec<String>>| {
        let names = names.as_ref()?;
        Some(names.iter().map(|name| Arc::from(name.as_str())).collect())
    };
    App {
        name: app.name.as_str().into(),
        models: shared(&app.models),
        backends: shared(&app.backends),
        tiers: app.tiers.as_deref().map_or(Tiers::ALL, Tiers::only),
        priority: app.priority,
        log_prompts: app.log_prompts,
        allow_background: app.allow_background,
        transform: app.transform(),
        cache: config.cache.rules(app.cache),
    }
}

fn hash(key: &str) -> Option<KeyHash> {
    (key.len() <= MAX_KEY).then(|| KeyHash::of(key))
}

/// Whether it has the look of a JSON Web Token: a header, which begins with `{"`, and three parts.
fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// What a call shows of itself.
struct Shown<'a> {
    key: Option<&'a str>,
    bearer: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let text = |name: &str| {
            let text = headers.get(name)?.to_str().ok()?.trim();
            (!text.is_empty()).then_some(text)
        };
        let bearer = text("authorization").and_then(|value| {
            let (scheme, rest) = value.split_once(' ')?;
            let rest = rest.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty()).then_some(rest)
        });
        Self {
            key: text("api-key").or_else(|| text("ocp-apim-subscription-key")),
            bearer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn keys_and_tokens_are_found_where_clients_put_them() {
        let shown = headers(&[
            ("ocp-apim-subscription-key", " k "),
            ("authorization", "bearer  t"),
        ]);
        let shown = Shown::read(&shown);
        assert_eq!((shown.key, shown.bearer), (Some("k"), Some("t")));
        let nothing = headers(&[("api-key", " "), ("authorization", "Basic abc")]);
        let nothing = Shown::read(&nothing);
        assert_eq!((nothing.key, nothing.bearer), (None, None));
    }

    #[test]
    fn keys_are_random_and_no_tokens() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), KEY_PREFIX.len() + 2 * KEY_BYTES);
        assert!(!is_token(&one));
    }

    #[test]
    fn a_token_is_told_from_a_key() {
        assert!(is_token("eyJh.eyJi.c") && is_token("eyJh.eyJi."));
        for key in ["", "eyJh", "spw.a.b", "eyJ.a.b.c"] {
            assert!(!is_token(key), "{key}");
        }
    }
}
