//! Which backend owns a stored response, file or thread: the newest ones, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Most ids that are remembered.
const MAX_IDS: usize = 10_000;

/// Longest id that is remembered, bytes.
const MAX_ID: usize = 256;

/// Who made something that later calls name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The backend that has it.
    pub(super) backend: Arc<str>,
    /// The app that made it.
    pub(super) app: Arc<str>,
}

/// The newest ids and their owners.
#[derive(Debug, Default)]
pub(super) struct Affinity(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    owners: HashMap<Arc<str>, Owner>,
    order: VecDeque<Arc<str>>,
}

impl Affinity {
    /// Remembers an id; the oldest one is forgotten for it when there are too many.
    pub(super) fn remember(&self, id: &str, owner: Owner) {
        if id.len() > MAX_ID {
            return;
        }
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id: Arc<str> = id.into();
        if ids.owners.insert(Arc::clone(&id), owner).is_none() {
            ids.order.push_back(id);
        }
        if ids.order.len() > MAX_IDS
            && let Some(oldest) = ids.order.pop_front()
        {
            ids.owners.remove(&oldest);
        }
    }

    /// Who made it, if it is remembered.
    pub(super) fn owner(&self, id: &str) -> Option<Owner> {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.owners.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ids_are_remembered() {
        let affinity = Affinity::default();
        let owner = Owner {
            backend: "a".into(),
            app: "b".into(),
        };
        for i in 0..MAX_IDS + 5 {
            affinity.remember(&format!("resp_{i}"), owner.clone());
        }
        assert_eq!(affinity.owner("resp_4"), None);
        assert_eq!(affinity.owner("resp_5"), Some(owner.clone()));
        affinity.remember(&"x".repeat(MAX_ID + 1), owner);
        assert_eq!(affinity.owner(&"x".repeat(MAX_ID + 1)), None);
    }
}
