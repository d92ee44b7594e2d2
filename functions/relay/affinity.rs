//! Which backend owns a stored response, file or thread.
//!
//! The store remembers it for all instances; the newest ids are in memory too, so that a
//! conversation asks the store once. A new id is in memory at once and on its way to the store;
//! a process that is killed within these milliseconds forgets it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use self::waiting::{Place, Waiting};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::store::affinity::{self, Owned, key, owned};
use crate::store::{Store, StoreError, Table, Write};

mod waiting;

/// Most ids that are in memory.
const MAX_IDS: usize = 10_000;

/// Longest id that is remembered, bytes. Azure's have some 60; encoded, it fits a key.
const MAX_ID: usize = 128;

/// How long an id is remembered. Azure keeps responses and stored completions for 30 days
/// (Azure OpenAI, "Responses API"); files, threads and the like until they are deleted, so those
/// are remembered for a year after they were last used.
fn lifetime_ms(id: &str) -> u64 {
    let days = if id.starts_with("resp_") || id.starts_with("chatcmpl-") {
        31
    } else {
        366
    };
    days * DAY_MS
}

/// Who made something that later calls name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The backend that has it.
    pub(super) backend: Arc<str>,
    /// The app that made it.
    pub(super) app: Arc<str>,
}

/// An owner, and until when it is remembered.
type Known = (Owner, Timestamp);

/// What the store is to be told.
#[derive(Debug)]
pub(super) struct OwnerChange {
    /// Who owns the id; `None`: its object was deleted.
    known: Option<Known>,
    place: Place,
}

impl OwnerChange {
    /// The id.
    pub(super) const fn id(&self) -> &Arc<str> {
        &self.place.id
    }

    /// The app whose it is, or that deleted it.
    pub(super) const fn app(&self) -> &Arc<str> {
        &self.place.app
    }

    /// Whether its row is to be deleted.
    pub(super) const fn deletes(&self) -> bool {
        self.known.is_none()
    }

    /// What is written of it.
    pub(super) fn write(&self) -> Write {
        let Some((owner, expires)) = &self.known else {
            return affinity::forget(self.id());
        };
        let owned = Owned {
            backend: owner.backend.to_string(),
            app: owner.app.to_string(),
            expires: *expires,
        };
        affinity::write(self.id(), &owned)
    }
}

/// The ids and their owners.
#[derive(Debug)]
pub(super) struct Affinity {
    newest: Mutex<Ids>,
    store: Option<Stored>,
}

#[derive(Debug)]
struct Stored {
    store: Arc<dyn Store>,
    /// Bounded by the places in `waiting`.
    changes: mpsc::UnboundedSender<OwnerChange>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Ids {
    owners: HashMap<Arc<str>, Known>,
    order: VecDeque<Arc<str>>,
}

impl Ids {
    /// Puts an id in; the oldest one goes for it when there are too many.
    fn put(&mut self, id: Arc<str>, owner: Owner, expires: Timestamp) {
        if self
            .owners
            .insert(Arc::clone(&id), (owner, expires))
            .is_none()
        {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }
}

impl Affinity {
    /// Ids that are kept in `store`, and the other end of the queue of changes to it; without a
    /// store they are in memory only.
    pub(super) fn new(
        store: Option<Arc<dyn Store>>,
    ) -> (Self, mpsc::UnboundedReceiver<OwnerChange>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let stored = |store| Stored {
            store,
            changes,
            waiting: Arc::default(),
        };
        let affinity = Self {
            newest: Mutex::default(),
            store: store.map(stored),
        };
        (affinity, receiver)
    }

    /// Remembers an id.
    pub(super) fn remember(&self, id: &str, owner: Owner, now: Timestamp) {
        if id.len() > MAX_ID {
            return;
        }
        let id: Arc<str> = id.into();
        let expires = now.plus_ms(lifetime_ms(&id));
        self.newest().put(Arc::clone(&id), owner.clone(), expires);
        if let Some(stored) = &self.store {
            let app = Arc::clone(&owner.app);
            stored.tell(&id, &app, Some((owner, expires)));
        }
    }

    /// Forgets an id whose object `app` has deleted.
    pub(super) fn forget(&self, id: &str, app: &Arc<str>) {
        if id.len() > MAX_ID {
            return;
        }
        self.newest().owners.remove(id);
        if let Some(stored) = &self.store {
            stored.tell(&id.into(), app, None);
        }
    }

    /// Who made it, if that is known at `now`.
    ///
    /// # Errors
    /// When it is not in memory and the store can't say.
    pub(super) async fn owner(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<Owner>, StoreError> {
        if id.len() > MAX_ID {
            return Ok(None);
        }
        let newest = self.newest().owners.get(id).cloned();
        let (owner, expires) = match (newest, &self.store) {
            (Some(known), _) => known,
            (None, None) => return Ok(None),
            (None, Some(stored)) => match stored.read(id).await? {
                None => return Ok(None),
                Some((owner, expires)) => {
                    self.newest().put(id.into(), owner.clone(), expires);
                    (owner, expires)
                }
            },
        };
        if expires <= now {
            return Ok(None);
        }
        // Something that is still used is remembered on.
        if expires.ms_since(now) < lifetime_ms(id) / 2 {
            self.remember(id, owner.clone(), now);
        }
        Ok(Some(owner))
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Ids> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    /// Has the store told of an id, unless too much of the app's waits for that.
    fn tell(&self, id: &Arc<str>, app: &Arc<str>, known: Option<Known>) {
        let place = self.waiting.place(id, app, known.clone());
        let is_told =
            place.is_some_and(|place| self.changes.send(OwnerChange { known, place }).is_ok());
        if !is_told {
            tracing::error!(
                %app,
                %id,
                "who owns an app's stored object is not told to the store: too much of that app's waits for it already"
            );
        }
    }

    async fn read(&self, id: &str) -> Result<Option<Known>, StoreError> {
        if let Some(known) = self.waiting.known(id) {
            return Ok(Some(known));
        }
        let row = self.store.get(Table::Affinity, &key(id)).await?;
        Ok(row.map(|row| {
            let owned = owned(&row);
            let owner = Owner {
                backend: owned.backend.into(),
                app: owned.app.into(),
            };
            (owner, owned.expires)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::keeper::keep_owners;
    use super::*;
    use crate::store::embedded::Embedded;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    fn owner() -> Owner {
        Owner {
            backend: "a".into(),
            app: "b".into(),
        }
    }

    #[tokio::test]
    async fn without_a_store_the_newest_ids_are_remembered() {
        let (affinity, _changes) = Affinity::new(None);
        for i in 0..MAX_IDS + 5 {
            affinity.remember(&format!("resp_{i}"), owner(), NOW);
        }
        assert_eq!(affinity.owner("resp_4", NOW).await, Ok(None));
        assert_eq!(affinity.owner("resp_5", NOW).await, Ok(Some(owner())));
        let long = "x".repeat(MAX_ID + 1);
        affinity.remember(&long, owner(), NOW);
        assert_eq!(affinity.owner(&long, NOW).await, Ok(None));
        affinity.forget("resp_5", &"b".into());
        assert_eq!(affinity.owner("resp_5", NOW).await, Ok(None));
    }

    #[tokio::test]
    async fn another_instance_learns_an_owner_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let (one, changes) = Affinity::new(Some(Arc::clone(&store)));
        one.remember("resp_1", owner(), NOW);
        one.remember("file-2?", owner(), NOW);
        one.remember("resp_3", owner(), NOW);
        one.forget("resp_3", &"b".into());
        drop(one);
        keep_owners(changes, store.as_ref()).await;
        let (other, _changes) = Affinity::new(Some(store));
        assert_eq!(other.owner("resp_1", NOW).await, Ok(Some(owner())));
        assert_eq!(other.owner("file-2?", NOW).await, Ok(Some(owner())));
        assert_eq!(other.owner("resp_3", NOW).await, Ok(None));
        assert_eq!(other.owner("resp_4", NOW).await, Ok(None));
    }

    #[tokio::test]
    async fn an_app_that_floods_keeps_no_other_apps_owner_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let (one, changes) = Affinity::new(Some(Arc::clone(&store)));
        let other = Owner {
            backend: "a".into(),
            app: "c".into(),
        };
        // The first twelve characters are a partition.
        let flood = |from: usize| {
            for i in from..from + 2 * MAX_IDS {
                one.remember(&format!("thread_aaaaa{i}"), owner(), NOW);
            }
        };
        flood(0);
        one.remember("resp_1", other.clone(), NOW);
        flood(2 * MAX_IDS);
        // Neither the store nor the memory of the newest has it.
        let known = one.owner("resp_1", NOW).await;
        assert_eq!(known, Ok(Some(other.clone())));
        drop(one);
        keep_owners(changes, store.as_ref()).await;
        let (two, _changes) = Affinity::new(Some(store));
        assert_eq!(two.owner("resp_1", NOW).await, Ok(Some(other)));
        // The app that floods has its first ones kept.
        for (id, known) in [(4999, Some(owner())), (5000, None)] {
            let id = format!("thread_aaaaa{id}");
            assert_eq!(two.owner(&id, NOW).await, Ok(known), "{id}");
        }
    }

    #[tokio::test]
    async fn an_owner_expires_unless_it_is_asked_for() {
        let (affinity, _changes) = Affinity::new(None);
        affinity.remember("resp_1", owner(), NOW);
        affinity.remember("resp_2", owner(), NOW);
        let later = |days: u64| NOW.plus_ms(days * DAY_MS);
        assert_eq!(affinity.owner("resp_1", later(20)).await, Ok(Some(owner())));
        assert_eq!(affinity.owner("resp_1", later(40)).await, Ok(Some(owner())));
        assert_eq!(affinity.owner("resp_2", later(40)).await, Ok(None));
    }
}
