//! Writes usage events and what they come to, each once.
//!
//! An event's row and the sums that it counts in are written in one transaction. So whether an event
//! is counted can be seen from its row, and whatever happens (a second delivery, an answer that was
//! lost, another instance with the same event) writing it again is right.
//!
//! A batch of an app's day takes one read, of the sums, and one transaction. Where a row is there
//! already, one more read says which of the batch's are, and the rest is written; where another instance has changed a sum in
//! between, the sums are read again and the batch goes to another shard of them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::Mutex;

use super::sums::{self, Of};
use super::{Answer, Key, Pages, Range, Row, Store, StoreError, Table, bounds, chargeback};
use crate::gateway::event::UsageEvent;
use crate::gateway::price::Charge;

#[cfg(test)]
mod tests;
mod transaction;

pub use transaction::MAX_TOKENS;
use transaction::{Entry, There, batches, writes};

/// Most shards of a sum, each of which one instance can write at a time.
const SHARDS: u32 = 16;

/// How often a batch is tried again when others change its sums, or its rows, meanwhile.
const ATTEMPTS: u32 = 40;

/// Longest pause before that, ms; each is random.
const MAX_PAUSE_MS: u64 = 50;

/// Apps and days that are written at the same time.
const CONCURRENT: usize = 8;

/// Apps and months of which is remembered that they are in the index.
const MAX_INDEXED: usize = 10_000;

/// Pages that are searched for the rows of a batch; then each is asked for.
const MAX_PAGES: usize = 2;

/// Says what a call is charged.
pub type Charging<'a> = &'a (dyn Fn(&UsageEvent) -> Charge + Sync);

/// What became of a batch of events. Numbers are indexes in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Those that were counted now.
    pub counted: Vec<usize>,
    /// Those that had been counted before, or stand in the batch twice.
    pub duplicates: Vec<usize>,
    /// Those that the store can't take, ever, and why.
    pub refused: Vec<(usize, String)>,
}

impl Recorded {
    fn add(&mut self, other: Self) {
        self.counted.extend(other.counted);
        self.duplicates.extend(other.duplicates);
        self.refused.extend(other.refused);
    }
}

/// What is told of each event that is counted, once.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&UsageEvent) + Send + Sync>);

impl Observer {
    /// One that does this.
    pub fn new(told: impl Fn(&UsageEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// Writes usage events and their sums, each once.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
    observer: Option<Observer>,
    /// Index rows that were written: partition and row.
    indexed: SyncMutex<HashSet<(String, String)>>,
    /// The shard that this instance's sums go to: the first until another instance is met there.
    shard: AtomicU32,
    /// Batches of the same app and day go one after the other within this instance.
    turns: [Mutex<()>; 64],
}

impl Ledger {
    /// A ledger in a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            observer: None,
            indexed: SyncMutex::default(),
            shard: AtomicU32::new(0),
            turns: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// This ledger, which tells `observer` of what it counts.
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The store that it writes to.
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Writes events and their sums, each once.
    ///
    /// # Errors
    /// When the store fails. Some of the events may be written then; all of them can be recorded
    /// again.
    pub async fn record(
        &self,
        events: &[&UsageEvent],
        charging: Charging<'_>,
    ) -> Result<Recorded, StoreError> {
        let mut recorded = Recorded::default();
        let mut days: BTreeMap<String, Vec<Entry<'_>>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for (index, event) in events.iter().enumerate() {
            let key = chargeback::key(event);
            match Entry::new(index, event, &key, charging(event)) {
                Err(why) => recorded.refused.push((index, why)),
                Ok(entry) if seen.insert(key.clone()) => {
                    days.entry(key.partition).or_default().push(entry);
                }
                Ok(_) => recorded.duplicates.push(index),
            }
        }
        let works = days.iter().map(|(day, entries)| -> Answer<'_, Recorded> {
            Box::pin(self.record_day(day, entries))
        });
        let mut failed = None;
        for day in at_once(works.collect()).await {
            match day {
                Ok(day) => recorded.add(day),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(Observer(told)) = &self.observer {
            let counted = recorded.counted.iter();
            counted
                .filter_map(|index| events.get(*index))
                .for_each(|event| told(event));
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(recorded),
        }
    }

    async fn record_day(
        &self,
        partition: &str,
        entries: &[Entry<'_>],
    ) -> Result<Recorded, StoreError> {
        let Some(first) = entries.first() else {
            return Ok(Recorded::default());
        };
        self.index(first.event).await?;
        let _turn = self.turn(partition).lock().await;
        let mut recorded = Recorded::default();
        let mut batches: VecDeque<Vec<&Entry<'_>>> = batches(entries).into();
        while let Some(batch) = batches.pop_front() {
            let written = match self.write(partition, &batch).await {
                // Trying again is of no use, and would hold up what comes after it.
                Err(StoreError::Damaged(why)) => {
                    tracing::error!(
                        partition,
                        why,
                        "sums can't be read: their events are kept apart"
                    );
                    let apart = batch.iter().map(|one| (one.index, why.clone()));
                    recorded.refused.extend(apart);
                    continue;
                }
                other => other?,
            };
            match written {
                Written::All(one) => recorded.add(one),
                Written::Refused(why) => match batch.as_slice() {
                    [] => {}
                    [one] => recorded.refused.push((one.index, why)),
                    // One of them is beyond what the store takes: the others need not suffer.
                    many => {
                        let (left, right) = many.split_at(many.len() / 2);
                        batches.push_front(right.to_vec());
                        batches.push_front(left.to_vec());
                    }
                },
            }
        }
        Ok(recorded)
    }

    fn turn(&self, partition: &str) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(partition);
        let [first, rest @ ..] = &self.turns;
        let place = usize::try_from(hash % 64).unwrap_or(0);
        place
            .checked_sub(1)
            .and_then(|at| rest.get(at))
            .unwrap_or(first)
    }

    /// Puts an app's month into the index before its first row, once a process.
    async fn index(&self, event: &UsageEvent) -> Result<(), StoreError> {
        let (partition, write) = chargeback::index(&event.app, event.time);
        let known = (partition, write.row.clone());
        let indexed = || self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        if indexed().contains(&known) {
            return Ok(());
        }
        let written = self.store.write(Table::Chargeback, &known.0, vec![write]);
        match written.await {
            Ok(()) | Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut indexed = indexed();
        if indexed.len() >= MAX_INDEXED {
            indexed.clear();
        }
        indexed.insert(known);
        Ok(())
    }

    /// Writes a batch of one app's day, less what is there already.
    async fn write(&self, partition: &str, batch: &[&Entry<'_>]) -> Result<Written, StoreError> {
        let mut left = batch.to_vec();
        let mut recorded = Recorded::default();
        let mut shard = self.shard.load(Relaxed);
        let mut sums = self.sums(partition, &left).await?;
        for _ in 0..ATTEMPTS {
            let Some(writes) = writes(&left, &sums, shard) else {
                return Ok(Written::Refused("a sum can't hold it any more".into()));
            };
            match self.store.write(Table::Chargeback, partition, writes).await {
                Ok(()) => {
                    self.shard.store(shard, Relaxed);
                    recorded
                        .counted
                        .extend(left.iter().map(|entry| entry.index));
                    return Ok(Written::All(recorded));
                }
                Err(StoreError::Exists { index }) if index < left.len() => {
                    let there = self.existing(partition, &left).await?;
                    let (old, new) = left.into_iter().partition(|one| there.contains(&one.row));
                    left = new;
                    let old: Vec<&Entry<'_>> = old;
                    recorded.duplicates.extend(old.iter().map(|one| one.index));
                    if left.is_empty() {
                        return Ok(Written::All(recorded));
                    }
                }
                // Another instance wrote a sum first: on in another shard, after a pause.
                Err(StoreError::Exists { .. } | StoreError::Changed { .. }) => {
                    let pause = Duration::from_millis(fastrand::u64(0..=MAX_PAUSE_MS));
                    tokio::time::sleep(pause).await;
                    shard = fastrand::u32(0..SHARDS);
                    sums = self.sums(partition, &left).await?;
                }
                // Those that were there are told again when the parts of the batch meet them.
                Err(StoreError::Refused(why)) => return Ok(Written::Refused(why)),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable(format!(
            "other instances write to {partition} all the time"
        )))
    }

    /// The sums that there are, by row: all of the day's, and its PTU hours from the batch's first.
    async fn sums(
        &self,
        partition: &str,
        batch: &[&Entry<'_>],
    ) -> Result<HashMap<String, There>, StoreError> {
        let hours = batch.iter().flat_map(|entry| &entry.of);
        let first = hours.filter_map(|of| match of {
            Of::PtuHour { hour, .. } => Some(hour),
            Of::Model { .. } => None,
        });
        // What comes after the hours are the sums, and whatever a later version puts beside them.
        let range = match first.min() {
            None => Range::of(partition, sums::SUM),
            Some(hour) => Range {
                after: Some(Key {
                    partition: partition.to_owned(),
                    row: format!("{}{hour}", sums::PTU),
                }),
                ..Range::of(partition, "")
            },
        };
        let rows = Pages::new(self.store.as_ref(), Table::Chargeback, range);
        let mut rows = rows.rest().await?;
        rows.retain(|row| {
            [sums::PTU, sums::SUM]
                .iter()
                .any(|of| row.key.row.starts_with(of))
        });
        let there = |row: Row| Ok((row.key.row.clone(), There::read(row)?));
        rows.into_iter().map(there).collect()
    }

    /// The rows of a batch that are there.
    async fn existing(
        &self,
        partition: &str,
        batch: &[&Entry<'_>],
    ) -> Result<HashSet<String>, StoreError> {
        let mut wanted: Vec<&str> = batch.iter().map(|entry| &*entry.row).collect();
        wanted.sort_unstable();
        let mut there = HashSet::new();
        let (Some(first), Some(last)) = (wanted.first().copied(), wanted.last().copied()) else {
            return Ok(there);
        };
        // Ids order by time, so that those of a batch lie close together, mostly.
        let mut before = first.to_owned();
        before.pop();
        let range = Range {
            after: Some(Key {
                partition: partition.to_owned(),
                row: before,
            }),
            limit: (4 * wanted.len()).clamp(100, bounds::MAX_PAGE),
            ..Range::of(partition, chargeback::CALL)
        };
        let mut pages = Pages::new(self.store.as_ref(), Table::Chargeback, range);
        for _ in 0..MAX_PAGES {
            let Some(rows) = pages.next().await? else {
                return Ok(there);
            };
            let end = rows.last().map(|row| row.key.row.clone());
            there.extend(rows.into_iter().map(|row| row.key.row));
            let Some(end) = end else { continue };
            if &*end >= last {
                return Ok(there);
            }
            wanted.retain(|row| *row > &*end);
        }
        let works = wanted
            .into_iter()
            .map(|row| -> Answer<'_, Option<String>> { Box::pin(self.is_there(partition, row)) });
        for row in at_once(works.collect()).await {
            there.extend(row?);
        }
        Ok(there)
    }

    async fn is_there(&self, partition: &str, row: &str) -> Result<Option<String>, StoreError> {
        let key = Key {
            partition: partition.to_owned(),
            row: row.to_owned(),
        };
        let found = self.store.get(Table::Chargeback, &key).await?;
        Ok(found.map(|row| row.key.row))
    }
}

/// Does [`CONCURRENT`] works at a time; what they came to, as they end.
async fn at_once<T>(works: Vec<Answer<'_, T>>) -> Vec<Result<T, StoreError>> {
    let works = stream::iter(works);
    works.buffer_unordered(CONCURRENT).collect().await
}

/// What a batch came to.
enum Written {
    /// Each of its events is counted now.
    All(Recorded),
    /// The store does not take it.
    Refused(String),
}
