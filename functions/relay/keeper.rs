//! Brings to the store who owns what calls made. Usage events go another way: [`crate::outbox`].
//!
//! They come through a bounded queue, so that a slow store holds up no call. Those that wait are written
//! together, many a transaction and several transactions at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::affinity::OwnerChange;
use crate::host::clock::Clock;
use crate::outbox::recorder::Events;
use crate::store::bounds::MAX_WRITES;
use crate::store::{Store, StoreError, Table, affinity};

/// Transactions that are written at the same time.
const CONCURRENT: usize = 16;

/// Most changes that are taken from the queue at a time.
const MAX_TAKEN: usize = CONCURRENT * MAX_WRITES;

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
pub struct Owners(pub(super) mpsc::UnboundedReceiver<OwnerChange>);

/// What is written together: changes of one partition, each of another id.
struct Transaction {
    partition: String,
    changes: Vec<OwnerChange>,
}

/// Tells `store` of owners until the last relay is gone.
pub(super) async fn keep_owners(
    mut changes: mpsc::UnboundedReceiver<OwnerChange>,
    store: &dyn Store,
) {
    let mut taken = Vec::new();
    while changes.recv_many(&mut taken, MAX_TAKEN).await > 0 {
        let transactions = transactions(taken.drain(..)).into_iter();
        // Made before they are a stream's: rustc can't tell their lifetimes otherwise.
        let works: Vec<_> = transactions.map(|one| write_all(store, one)).collect();
        let mut works = stream::iter(works).buffer_unordered(CONCURRENT);
        while works.next().await.is_some() {}
    }
}

/// Of each id the last change, in transactions that may be made in any order.
fn transactions(changes: impl Iterator<Item = OwnerChange>) -> Vec<Transaction> {
    let mut last = HashMap::new();
    for change in changes {
        last.insert(Arc::clone(change.id()), change);
    }
    let mut transactions = Vec::new();
    let mut remembered: BTreeMap<String, Vec<OwnerChange>> = BTreeMap::new();
    for change in last.into_values() {
        let partition = affinity::key(change.id()).partition;
        // The delete of a row that is not there would fail what is written with it.
        if change.deletes() {
            let changes = vec![change];
            transactions.push(Transaction { partition, changes });
        } else {
            remembered.entry(partition).or_default().push(change);
        }
    }
    for (partition, mut changes) in remembered {
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(MAX_WRITES));
            let partition = partition.clone();
            transactions.push(Transaction { partition, changes });
            changes = rest;
        }
    }
    transactions
}

/// Writes a transaction. Of one that the store refuses the halves, down to the change that it refuses alone:
/// that is said and given up, as it would be refused again.
async fn write_all(store: &dyn Store, transaction: Transaction) {
    let Transaction { partition, changes } = transaction;
    let mut parts = vec![changes.as_slice()];
    while let Some(part) = parts.pop() {
        match (until_it_works(store, &partition, part).await, part) {
            (Ok(()), _) => {}
            (Err(error), [change]) => {
                let (id, app) = (change.id(), change.app());
                tracing::error!(%error, %id, %app, "the owner of a stored object can't be stored");
            }
            (Err(_), many) => {
                let (left, right) = many.split_at(many.len() / 2);
                parts.extend([left, right]);
            }
        }
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

/// Writes changes of a partition, and tries again, ever more slowly, while the store is unavailable.
///
/// # Errors
/// What the store refuses.
async fn until_it_works(
    store: &dyn Store,
    partition: &str,
    changes: &[OwnerChange],
) -> Result<(), StoreError> {
    let (mut pause_ms, longest_ms) = PAUSE_MS;
    loop {
        let writes = changes.iter().map(OwnerChange::write).collect();
        match store.write(Table::Affinity, partition, writes).await {
            Err(error @ StoreError::Unavailable(_)) => {
                let count = changes.len();
                tracing::error!(
                    %error,
                    pause_ms,
                    count,
                    "owners of stored objects can't be stored; trying again"
                );
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(longest_ms);
            }
            // It was not there to be deleted.
            Err(StoreError::Changed { .. }) => return Ok(()),
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::affinity::{Affinity, Owner};
    use super::*;
    use crate::gateway::time::Timestamp;
    use crate::store::embedded::Embedded;
    use crate::store::{Answer, Key, Page, Range, Row, Write, bounds};

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    /// Notes transactions. It refuses those with a row whose key ends with `!`.
    #[derive(Debug, Default)]
    struct Noting(Mutex<Vec<Vec<Write>>>);

    impl Store for Noting {
        fn get<'a>(&'a self, _: Table, _: &'a Key) -> Answer<'a, Option<Row>> {
            Box::pin(async { Ok(None) })
        }

        fn read<'a>(&'a self, _: Table, _: &'a Range) -> Answer<'a, Page> {
            Box::pin(async { Ok(Page::default()) })
        }

        fn write<'a>(&'a self, _: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
            Box::pin(async move {
                bounds::transaction(partition, &writes)?;
                if writes.iter().any(|write| write.row.ends_with('!')) {
                    return Err(StoreError::Refused("it ends with !".into()));
                }
                self.0.lock().unwrap().push(writes);
                Ok(())
            })
        }
    }

    fn owner(app: &str) -> Owner {
        Owner {
            backend: "a".into(),
            app: app.into(),
        }
    }

    /// The transactions that keep these ids.
    async fn kept(ids: impl Iterator<Item = String>) -> Vec<Vec<Write>> {
        let store = Arc::new(Noting::default());
        let shared: Arc<dyn Store> = store.clone();
        let (affinity, changes) = Affinity::new(Some(shared));
        for id in ids {
            affinity.remember(&id, owner("b"), NOW);
        }
        drop(affinity);
        keep_owners(changes, &*store).await;
        let kept = store.0.lock().unwrap();
        kept.clone()
    }

    #[tokio::test]
    async fn many_ids_of_several_partitions_are_kept_by_few_transactions() {
        let starts = ["resp_aaaaaaa", "resp_bbbbbbb", "resp_ccccccc"];
        let ids = (0..250).flat_map(|i| starts.map(|start| format!("{start}{i}")));
        let kept = kept(ids).await;
        let mut sizes: Vec<_> = kept.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [50, 50, 50, 100, 100, 100, 100, 100, 100]);
    }

    #[tokio::test]
    async fn a_row_that_is_refused_keeps_no_other_from_the_store() {
        let ids = (0..99).map(|i| format!("resp_aaaaaaa{i}"));
        let kept = kept(ids.chain(["resp_aaaaaaa!".to_owned()])).await;
        assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 99);
    }

    #[tokio::test]
    async fn the_last_change_of_an_id_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let (affinity, changes) = Affinity::new(Some(Arc::clone(&store)));
        let telling = async move {
            let remember = |id: &str, app: &str| affinity.remember(id, owner(app), NOW);
            let forget = |id: &str| affinity.forget(id, &"c".into());
            let pause = || tokio::time::sleep(Duration::from_millis(20));
            // Taken together.
            remember("resp_1", "b");
            forget("resp_1");
            remember("resp_1", "c");
            remember("resp_2", "b");
            forget("resp_2");
            forget("resp_3");
            pause().await;
            // Taken one after the other.
            remember("resp_4", "b");
            pause().await;
            forget("resp_4");
            pause().await;
            remember("resp_4", "c");
            remember("resp_5", "b");
            pause().await;
            forget("resp_5");
            drop(affinity);
        };
        tokio::join!(keep_owners(changes, store.as_ref()), telling);
        let (other, _changes) = Affinity::new(Some(Arc::clone(&store)));
        for (id, app) in [
            ("resp_1", Some("c")),
            ("resp_2", None),
            ("resp_3", None),
            ("resp_4", Some("c")),
            ("resp_5", None),
        ] {
            let known = other.owner(id, NOW).await;
            assert_eq!(known, Ok(app.map(owner)), "{id}");
        }
    }
}
