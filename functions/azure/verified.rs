//! Tokens that have been verified, by their SHA-256, so that a call costs a hash and not a
//! signature check.
//!
//! That is safe because the hash covers every byte of the token, signature included: what is
//! found here is the very token that was verified. What else could make it invalid is looked at
//! each time (its end) or drops it from here (its key left the tenant's documents). Entra offers
//! an API no other way to take a token back.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::gateway::identity::Principal;

/// Most tokens that are remembered.
const MAX_TOKENS: usize = 16_384;

/// The SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// The tokens that were verified last.
#[derive(Debug, Default)]
pub(super) struct Verified(RwLock<Tokens>);

/// Two generations: when the young one is full it becomes the old one, and what of the old one is
/// used moves back. So unused tokens go, without an order being kept.
#[derive(Debug, Default)]
struct Tokens {
    young: HashMap<TokenHash, Entry>,
    old: HashMap<TokenHash, Entry>,
    /// Which set of keys the entries were verified by.
    keys: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    principal: Arc<Principal>,
    kid: Arc<str>,
}

impl Tokens {
    fn insert(&mut self, hash: TokenHash, entry: Entry) {
        if self.young.len() >= MAX_TOKENS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }
}

impl Verified {
    /// Whom the token stands for, if it is remembered.
    pub(super) fn find(&self, hash: &TokenHash) -> Option<Arc<Principal>> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = tokens.young.get(hash) {
            return Some(Arc::clone(&entry.principal));
        }
        let entry = tokens.old.get(hash)?.clone();
        drop(tokens);
        let principal = Arc::clone(&entry.principal);
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // It may have been dropped between the locks.
        if tokens.old.remove(hash).is_some() {
            tokens.insert(*hash, entry);
        }
        Some(principal)
    }

    /// The number of the set of keys in use, for [`Self::remember`].
    pub(super) fn keys(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys
    }

    /// Remembers a token that was verified by a key of the set `keys`, unless that was replaced.
    pub(super) fn remember(
        &self,
        hash: TokenHash,
        principal: Arc<Principal>,
        kid: &str,
        keys: u64,
    ) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.keys == keys {
            let kid = kid.into();
            tokens.insert(hash, Entry { principal, kid });
        }
    }

    /// Forgets the tokens whose key is gone.
    pub(super) fn keys_changed(&self, is_there: impl Fn(&str) -> bool) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.keys += 1;
        tokens.young.retain(|_, entry| is_there(&entry.kid));
        tokens.old.retain(|_, entry| is_there(&entry.kid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::time::Timestamp;

    fn principal() -> Arc<Principal> {
        Arc::new(Principal {
            app_id: "a".into(),
            object_id: "".into(),
            subject: "".into(),
            roles: Vec::new(),
            ends: Timestamp::from_unix_ms(1),
        })
    }

    fn hash(number: usize) -> TokenHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    #[test]
    fn used_tokens_stay_and_unused_ones_go() {
        let verified = Verified::default();
        for number in 0..2 * MAX_TOKENS {
            verified.remember(hash(number), principal(), "k", 0);
            assert!(verified.find(&hash(0)).is_some(), "in use, at {number}");
        }
        assert!(verified.find(&hash(1)).is_none(), "not used since");
        let tokens = verified.0.read().unwrap();
        assert!(tokens.young.len() + tokens.old.len() <= MAX_TOKENS);
    }

    #[test]
    fn tokens_go_with_their_key() {
        let verified = Verified::default();
        verified.remember(hash(1), principal(), "old", 0);
        verified.remember(hash(2), principal(), "new", 0);
        verified.keys_changed(|kid| kid == "new");
        assert!(verified.find(&hash(1)).is_none() && verified.find(&hash(2)).is_some());
        verified.remember(hash(1), principal(), "old", 0);
        assert!(
            verified.find(&hash(1)).is_none(),
            "verified before the keys changed"
        );
    }
}
