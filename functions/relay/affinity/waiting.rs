//! What waits for the store: how much of it is each app's, and which owners are in it.
//!
//! The store knows a waiting owner only later, and the memory of the newest ids may have lost it before
//! that: so it is found here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Known;

/// Changes that may wait for the store or be on their way into it. An app has a further one only while more
/// places are free than it has: one that makes things faster than the store takes them loses owners of its
/// own, and no other app's.
const MOST: usize = 10_000;

/// The changes that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Changes>);

#[derive(Debug, Default)]
struct Changes {
    all: usize,
    /// How many are each app's.
    apps: HashMap<Arc<str>, usize>,
    ids: HashMap<Arc<str>, OfId>,
}

/// What waits of an id.
#[derive(Debug, Default)]
struct OfId {
    changes: usize,
    /// What the newest change says; `None`: that it was deleted.
    known: Option<Known>,
}

/// A change's place. It is free once this is dropped: when the change is written, or given up.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: Arc<str>,
    pub(super) app: Arc<str>,
    waiting: Arc<Waiting>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.changes().remove(&self.id, &self.app);
    }
}

impl Waiting {
    /// A place for what `app` changes of an id, which is `known` from now on; `None` where the app has as
    /// many as it may.
    pub(super) fn place(
        self: &Arc<Self>,
        id: &Arc<str>,
        app: &Arc<str>,
        known: Option<Known>,
    ) -> Option<Place> {
        let is_added = self.changes().add(id, app, known);
        is_added.then(|| Place {
            id: Arc::clone(id),
            app: Arc::clone(app),
            waiting: Arc::clone(self),
        })
    }

    /// Who owns an id, where that is waiting.
    pub(super) fn known(&self, id: &str) -> Option<Known> {
        self.changes().ids.get(id)?.known.clone()
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    fn add(&mut self, id: &Arc<str>, app: &Arc<str>, known: Option<Known>) -> bool {
        let has = self.apps.get(app).copied().unwrap_or_default();
        if has >= MOST.saturating_sub(self.all) {
            return false;
        }
        self.all += 1;
        self.apps.insert(Arc::clone(app), has + 1);
        let of_id = self.ids.entry(Arc::clone(id)).or_default();
        of_id.changes += 1;
        of_id.known = known;
        true
    }

    fn remove(&mut self, id: &str, app: &str) {
        self.all = self.all.saturating_sub(1);
        if let Some(has) = self.apps.get_mut(app) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.apps.remove(app);
            }
        }
        if let Some(of_id) = self.ids.get_mut(id) {
            of_id.changes = of_id.changes.saturating_sub(1);
            if of_id.changes == 0 {
                self.ids.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Owner;
    use super::*;
    use crate::gateway::time::Timestamp;

    fn known(app: &str) -> Known {
        let owner = Owner {
            backend: "a".into(),
            app: app.into(),
        };
        (owner, Timestamp::from_unix_ms(1))
    }

    #[test]
    fn an_app_has_a_further_place_only_while_more_are_free_than_it_has() {
        let waiting = Arc::new(Waiting::default());
        let id: Arc<str> = "resp_1".into();
        let fill = |app: &str| {
            let app: Arc<str> = app.into();
            let place = || waiting.place(&id, &app, None);
            std::iter::from_fn(place).collect::<Vec<_>>()
        };
        let (one, two, three) = (fill("one"), fill("two"), fill("three"));
        assert_eq!((one.len(), two.len(), three.len()), (5000, 2500, 1250));
        drop((two, three));
        let again = fill("two");
        assert_eq!(again.len(), 2500);
        drop((one, again));
        let changes = waiting.changes();
        assert_eq!(
            (changes.all, changes.apps.len(), changes.ids.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn an_owner_is_known_until_its_last_change_is_written() {
        let waiting = Arc::new(Waiting::default());
        let (id, app): (Arc<str>, Arc<str>) = ("resp_1".into(), "b".into());
        let first = waiting.place(&id, &app, Some(known("b")));
        assert_eq!(waiting.known("resp_1"), Some(known("b")));
        let deleted = waiting.place(&id, &app, None);
        assert_eq!(waiting.known("resp_1"), None);
        let again = waiting.place(&id, &app, Some(known("c")));
        drop((first, deleted));
        assert_eq!(waiting.known("resp_1"), Some(known("c")));
        drop(again);
        assert_eq!(waiting.known("resp_1"), None);
    }
}
