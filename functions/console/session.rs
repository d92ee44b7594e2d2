//! Sessions of browsers: what a person gets for showing an admin key or token once.
//!
//! A session is a text that says whose it is and until when, and a signature; nothing of it is
//! kept here, so that any instance can tell. The key or token itself is not in it. One that was got
//! for a key ends when that key leaves the configuration, one got for a token when the token ends.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use tokio::sync::OnceCell;

use crate::config::KeyHash;
use crate::door::{Admin, Door, new_key};
use crate::gateway::time::Timestamp;
use crate::store::{Store, StoreError, console};

/// How long a session lasts at most: a working day, ms.
const LIFETIME_MS: u64 = 8 * 60 * 60 * 1000;

/// What is signed begins with this, so that a signature is of no use elsewhere.
const PURPOSE: &str = "spillway-console-session-1";

/// Longest text that is looked at, bytes.
const MAX_TEXT: usize = 256;

/// Makes and checks sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    store: Option<Arc<dyn Store>>,
    key: OnceCell<hmac::Key>,
}

/// A session as a cookie's value, and how long it lasts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) text: String,
    pub(super) seconds: u64,
}

impl Sessions {
    /// Sessions that are signed with a secret in `store`, the same for all instances; without a
    /// store with one of this process's own.
    pub(super) fn new(store: Option<Arc<dyn Store>>) -> Self {
        Self {
            store,
            key: OnceCell::new(),
        }
    }

    /// The session of an administrator.
    ///
    /// # Errors
    /// When the secret can't be read or made.
    pub(super) async fn begin(&self, admin: Admin, now: Timestamp) -> Result<Session, StoreError> {
        let end = now.plus_ms(LIFETIME_MS);
        let (who, end) = match admin {
            Admin::Key(hash) => (hash.to_string(), end),
            Admin::Token { ends } => ("token".to_owned(), end.min(ends)),
            Admin::Anybody => ("anybody".to_owned(), end),
        };
        let claims = format!("{}.{who}", end.unix_ms());
        let tag = hmac::sign(self.key().await?, signed(&claims).as_bytes());
        Ok(Session {
            text: format!("{claims}.{}", BASE64.encode(tag)),
            seconds: end.ms_since(now) / 1000,
        })
    }

    /// Whether a session holds. One can't hold while its secret can't be read.
    pub(super) async fn holds(&self, text: &str, door: &Door, now: Timestamp) -> bool {
        let Some((claims, tag)) = text
            .rsplit_once('.')
            .filter(|_| text.len() <= MAX_TEXT)
            .and_then(|(claims, tag)| Some((claims, BASE64.decode(tag).ok()?)))
        else {
            return false;
        };
        let key = match self.key().await {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "the secret of the console's sessions can't be read");
                return false;
            }
        };
        hmac::verify(key, signed(claims).as_bytes(), &tag).is_ok() && is_valid(claims, door, now)
    }

    async fn key(&self) -> Result<&hmac::Key, StoreError> {
        let made = self.key.get_or_try_init(async || {
            let fresh = new_key();
            let fresh = fresh.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let secret = match &self.store {
                Some(store) => console::secret(store.as_ref(), &fresh).await?,
                None => fresh,
            };
            if secret.is_empty() {
                return Err(StoreError::Damaged("the secret is empty".into()));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
        });
        made.await
    }
}

fn signed(claims: &str) -> String {
    format!("{PURPOSE}.{claims}")
}

/// Whether claims whose signature is right still hold.
fn is_valid(claims: &str, door: &Door, now: Timestamp) -> bool {
    let Some((end, who)) = claims.split_once('.') else {
        return false;
    };
    let end = end.parse().map(Timestamp::from_unix_ms);
    let in_time = end.is_ok_and(|end| now < end);
    let known = match who {
        "token" => true,
        // The gateway may ask for keys by now; what anybody has is worth nothing then.
        "anybody" => false,
        hash => hash
            .parse::<KeyHash>()
            .is_ok_and(|hash| door.is_admin_key(&hash)),
    };
    in_time && known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    fn door(keys: &[&str]) -> Door {
        let hashes = keys.iter().map(|key| format!("\"{}\"", KeyHash::of(key)));
        let hashes = hashes.collect::<Vec<_>>().join(",");
        let text = format!(
            "[auth]\nmode = \"key\"\nadmin_key_hashes = [{hashes}]\n[[app]]\nname = \"a\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n"
        );
        let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
        Door::new(&config).unwrap()
    }

    fn admin(key: &str) -> Admin {
        Admin::Key(KeyHash::of(key))
    }

    #[tokio::test]
    async fn a_session_holds_for_its_time_and_while_its_key_is_configured() {
        let sessions = Sessions::new(None);
        let session = sessions.begin(admin("k"), NOW).await.unwrap();
        assert_eq!(session.seconds, LIFETIME_MS / 1000);
        let both = door(&["k", "other"]);
        assert!(sessions.holds(&session.text, &both, NOW).await);
        let last = NOW.plus_ms(LIFETIME_MS - 1);
        assert!(sessions.holds(&session.text, &both, last).await);
        let end = NOW.plus_ms(LIFETIME_MS);
        assert!(!sessions.holds(&session.text, &both, end).await);
        let without = door(&["other"]);
        assert!(!sessions.holds(&session.text, &without, NOW).await);
    }

    #[tokio::test]
    async fn a_tokens_session_ends_with_the_token() {
        let sessions = Sessions::new(None);
        let ends = NOW.plus_ms(600_000);
        let session = sessions.begin(Admin::Token { ends }, NOW).await.unwrap();
        assert_eq!(session.seconds, 600);
        let door = door(&["k"]);
        assert!(sessions.holds(&session.text, &door, NOW).await);
        assert!(!sessions.holds(&session.text, &door, ends).await);
    }

    #[tokio::test]
    async fn no_session_can_be_made_or_changed_outside() {
        let (sessions, other) = (Sessions::new(None), Sessions::new(None));
        let door = door(&["k"]);
        let text = sessions.begin(admin("k"), NOW).await.unwrap().text;
        assert!(!other.holds(&text, &door, NOW).await, "another's secret");
        let later = text.replacen("17954", "17964", 1);
        let cut = &text[..text.len() - 2];
        let unsigned = text.rsplit_once('.').unwrap().0;
        for forged in [&later, cut, unsigned, "", ".", "..", &"x".repeat(10_000)] {
            assert!(!sessions.holds(forged, &door, NOW).await, "{forged}");
        }
        let anybody = sessions.begin(Admin::Anybody, NOW).await.unwrap().text;
        assert!(!sessions.holds(&anybody, &door, NOW).await);
    }

    #[tokio::test]
    async fn all_instances_take_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::embedded::Embedded::open(folder.path()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let [one, other] = [(); 2].map(|()| Sessions::new(Some(Arc::clone(&store))));
        let text = one.begin(admin("k"), NOW).await.unwrap().text;
        assert!(other.holds(&text, &door(&["k"]), NOW).await);
    }
}
