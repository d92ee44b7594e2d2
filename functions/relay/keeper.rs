//! Brings to the store who owns what calls made. Usage events go another way: [`crate::outbox`].
//!
//! They come through a bounded queue, so that a slow store holds up no call.

use std::time::Duration;

use tokio::sync::mpsc;

use super::affinity::OwnerChange;
use crate::host::clock::Clock;
use crate::outbox::recorder::Events;
use crate::store::{Change, Store, StoreError, Table, Write, affinity};

/// The shortest and longest pause before the store is asked again, ms.
const PAUSE_MS: (u64, u64) = (100, 10_000);

/// How often owners that have expired are deleted, and how long after the start for the first time.
const SWEEP: (Duration, Duration) = (Duration::from_secs(24 * 3600), Duration::from_secs(600));

/// The other ends of a relay's queues.
#[derive(Debug)]
pub struct Inbox {
    /// Usage events.
    pub events: Events,
    /// Owners of stored objects.
    pub owners: Owners,
}

/// Owners that wait for the store.
#[derive(Debug)]
pub struct Owners(pub(super) mpsc::Receiver<OwnerChange>);

/// Tells `store` of owners until the last relay is gone.
pub(super) async fn keep_owners(mut changes: mpsc::Receiver<OwnerChange>, store: &dyn Store) {
    while let Some(change) = changes.recv().await {
        let (id, write) = match &change {
            OwnerChange::Remember(id, owned) => (id, affinity::write(id, owned)),
            OwnerChange::Forget(id) => (
                id,
                Write {
                    row: affinity::key(id).row,
                    change: Change::Delete(None),
                },
            ),
        };
        let partition = affinity::key(id).partition;
        until_it_works("the owner of a stored object", || async {
            match store
                .write(Table::Affinity, &partition, vec![write.clone()])
                .await
            {
                // It was not there to be deleted.
                Err(StoreError::Changed { .. }) => Ok(()),
                other => other,
            }
        })
        .await;
    }
}

impl Owners {
    /// Tells `store` of owners, and has it forget expired ones, until the last relay is gone.
    pub async fn keep(self, store: &dyn Store) {
        tokio::select! {
            () = keep_owners(self.0, store) => {}
            () = sweep_daily(store) => {}
        }
    }
}

async fn sweep_daily(store: &dyn Store) {
    let (every, first) = SWEEP;
    let clock = Clock::new();
    tokio::time::sleep(first).await;
    loop {
        match affinity::sweep(store, clock.now()).await {
            Ok(deleted) => tracing::info!(deleted, "owners that had expired were deleted"),
            Err(error) => tracing::warn!(%error, "owners that have expired can't be deleted"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Tries again, ever more slowly, while the store is unavailable. What it refuses is said and
/// given up: it would be refused again.
async fn until_it_works<F: Future<Output = Result<(), StoreError>>>(
    what: &str,
    write: impl Fn() -> F,
) {
    let (mut pause_ms, longest_ms) = PAUSE_MS;
    loop {
        match write().await {
            Ok(()) => return,
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::error!(%error, pause_ms, "{what} can't be stored; trying again");
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(longest_ms);
            }
            Err(error) => {
                tracing::error!(%error, "{what} can't be stored");
                return;
            }
        }
    }
}
