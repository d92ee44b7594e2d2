//! The rows of table `console`: what the console shows of the past, and the secret that signs its
//! sessions.
//!
//! | partition | row | what |
//! | --- | --- | --- |
//! | `minute\|` and UTC hour | minute and instance | what an instance counted in a minute |
//! | `hour\|` and UTC day | hour and instance | what it counted in an hour, so far |
//! | `calls\|` and UTC hour | time to the end of time, and the call's id | a call that failed or was slow |
//! | `secret` | `session` | the secret |
//! | `day\|` and a month | the UTC day | what the day costs by app, summed up ([`days`]) |
//! | `queue` | the queue's name | how long batch messages had waited that were delivered lately |

pub mod days;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    Answer, Change, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, bounds,
    chargeback, encode_key,
};
use crate::gateway::event::UsageEvent;
use crate::gateway::id;
use crate::gateway::metrics::Rollup;
use crate::gateway::time::{DAY_MS, Timestamp};

/// Milliseconds of a minute and an hour.
pub const MINUTE_MS: u64 = 60_000;
/// As [`MINUTE_MS`].
pub const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How long minutes and notable calls are kept, and hours.
const KEPT_MS: [(Span, u64); 2] = [(Span::Minute, 26 * HOUR_MS), (Span::Hour, 40 * DAY_MS)];

/// How many partitions beyond that are looked at for what is still there: what gateways left that
/// nobody swept behind while they were off.
const SWEPT: u64 = 24;

/// Partitions that are read at the same time.
const CONCURRENT: usize = 8;

/// What a rollup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A minute, in partitions of an hour.
    Minute,
    /// An hour, in partitions of a day.
    Hour,
}

impl Span {
    /// How long it is, ms.
    pub const fn ms(self) -> u64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Hour => HOUR_MS,
        }
    }

    const fn partition_ms(self) -> u64 {
        match self {
            Self::Minute => HOUR_MS,
            Self::Hour => DAY_MS,
        }
    }

    fn partition(self, at: Timestamp) -> String {
        match self {
            Self::Minute => format!("minute|{}", hour(at)),
            Self::Hour => format!("hour|{}", at.day()),
        }
    }
}

/// What an instance counted in a minute or an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// When the minute or hour began.
    pub start: Timestamp,
    /// Who counted.
    pub instance: String,
    /// What.
    pub rollup: Rollup,
}

/// The UTC hour, such as `2026-11-23T17`.
fn hour(at: Timestamp) -> String {
    at.rfc3339().chars().take(13).collect()
}

fn floor(at: Timestamp, step_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(at.unix_ms() - at.unix_ms() % step_ms)
}

/// Writes what an instance counted, in the place of what it wrote of the same time before.
///
/// # Errors
/// When the store fails.
pub async fn write(store: &dyn Store, span: Span, counted: &Counted) -> Result<(), StoreError> {
    let rollup = serde_json::to_string(&counted.rollup);
    let rollup = rollup.map_err(|error| StoreError::Refused(error.to_string()))?;
    let start = floor(counted.start, span.ms());
    let fields = Fields::new()
        .text("start", start.rfc3339())
        .number("start_ms", start.unix_ms())
        .text("instance", &*counted.instance)
        .long_text("rollup", &rollup);
    let write = Write {
        row: format!("{}|{}", start.rfc3339(), encode_key(&counted.instance)),
        change: Change::Upsert(fields),
    };
    let partition = span.partition(start);
    store.write(Table::Console, &partition, vec![write]).await
}

/// What all instances counted from the minute or hour of `from` to that of `to`, in order of time.
///
/// # Errors
/// When the store fails, or a row is damaged.
pub async fn read(
    store: &dyn Store,
    span: Span,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Counted>, StoreError> {
    let from = floor(from, span.ms());
    let first = floor(from, span.partition_ms());
    let starts = std::iter::successors(Some(first), |at| Some(at.plus_ms(span.partition_ms())));
    let reads: Vec<Answer<'_, Vec<Counted>>> = starts
        .take_while(|at| *at <= to)
        .map(|at| -> Answer<'_, Vec<Counted>> {
            Box::pin(counted_in(store, span.partition(at), from))
        })
        .collect();
    let mut reads = stream::iter(reads).buffered(CONCURRENT);
    let mut all = Vec::new();
    while let Some(some) = reads.try_next().await? {
        let is_meant = |one: &Counted| one.start >= from && one.start <= to;
        all.extend(some.into_iter().filter(is_meant));
    }
    Ok(all)
}

/// Rollups that are read at a time: those of a busy gateway have tens of kilobytes each.
const ROLLUPS: usize = 50;

/// What is counted in a partition from the minute or hour that begins at `from` on. A day of many deployments
/// is a megabyte of JSON: it is taken apart in a thread where that holds no call up.
async fn counted_in(
    store: &dyn Store,
    name: String,
    from: Timestamp,
) -> Result<Vec<Counted>, StoreError> {
    let mut range = Range::of(&*name, "");
    range.limit = ROLLUPS;
    // A row's key begins with its time, and goes on.
    range.after = Some(Key {
        partition: name,
        row: from.rfc3339(),
    });
    let mut pages = Pages::new(store, Table::Console, range);
    let mut all = Vec::new();
    while let Some(rows) = pages.next().await? {
        let read = move || rows.iter().map(counted).collect::<Result<Vec<_>, _>>();
        let read = tokio::task::spawn_blocking(read).await;
        all.extend(read.unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))?);
    }
    Ok(all)
}

fn counted(row: &Row) -> Result<Counted, StoreError> {
    let rollup = serde_json::from_str(&row.fields.get_long_text("rollup"));
    let rollup = rollup.map_err(|error| {
        let Key { partition, row } = &row.key;
        StoreError::Damaged(format!("the counts of {partition} {row}: {error}"))
    })?;
    Ok(Counted {
        start: Timestamp::from_unix_ms(row.fields.get_number("start_ms")),
        instance: row.fields.get_text("instance").to_owned(),
        rollup,
    })
}

async fn partition(store: &dyn Store, name: &str) -> Result<Vec<Row>, StoreError> {
    let pages = Pages::new(store, Table::Console, Range::of(name, ""));
    pages.rest().await
}

fn calls_partition(at: Timestamp) -> String {
    format!("calls|{}", hour(at))
}

/// Writes notable calls; one that is there already is replaced by itself.
///
/// # Errors
/// When the store fails.
pub async fn write_calls(store: &dyn Store, calls: &[UsageEvent]) -> Result<(), StoreError> {
    let mut calls: Vec<&UsageEvent> = calls.iter().collect();
    calls.sort_by_key(|call| call.time);
    for same in calls.chunk_by(|a, b| calls_partition(a.time) == calls_partition(b.time)) {
        for some in same.chunks(bounds::MAX_WRITES) {
            let Some(first) = some.first() else { continue };
            let writes = some.iter().map(|call| Write {
                row: call_row(call),
                change: Change::Upsert(chargeback::call(call)),
            });
            let partition = calls_partition(first.time);
            store
                .write(Table::Console, &partition, writes.collect())
                .await?;
        }
    }
    Ok(())
}

/// Notable calls that are read at a time.
const CALLS: usize = 200;

/// How many hours are looked through for notable calls.
const CALL_HOURS: u64 = 24;

/// Notable calls, newest first: of this hour, then of those before it, a day at most.
pub struct NewestCalls<'a> {
    store: &'a dyn Store,
    now: Timestamp,
    hours: u64,
    pages: Option<Pages<'a>>,
}

impl<'a> NewestCalls<'a> {
    /// Those up to `now`; nothing is read yet.
    pub const fn new(store: &'a dyn Store, now: Timestamp) -> Self {
        Self {
            store,
            now,
            hours: 0,
            pages: None,
        }
    }

    /// The next some; `None` after the last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next(&mut self) -> Result<Option<Vec<Fields>>, StoreError> {
        loop {
            if let Some(pages) = &mut self.pages {
                if let Some(mut rows) = pages.next().await? {
                    if rows.last().is_some_and(is_of_before) {
                        turn_those_of_before(&mut rows, pages).await?;
                    }
                    return Ok(Some(rows.into_iter().map(|row| row.fields).collect()));
                }
                self.pages = None;
            }
            if self.hours == CALL_HOURS {
                return Ok(None);
            }
            let ms = self.now.unix_ms().saturating_sub(self.hours * HOUR_MS);
            let mut range = Range::of(calls_partition(Timestamp::from_unix_ms(ms)), "");
            range.limit = CALLS;
            self.pages = Some(Pages::new(self.store, Table::Console, range));
            self.hours += 1;
        }
    }
}

/// Whether versions before wrote it, by its id alone: such rows come after the others, the oldest first.
fn is_of_before(row: &Row) -> bool {
    !row.key.row.starts_with('-')
}

/// Has the newest of them come first, of all that there are.
async fn turn_those_of_before(
    rows: &mut Vec<Row>,
    pages: &mut Pages<'_>,
) -> Result<(), StoreError> {
    while let Some(more) = pages.next().await? {
        rows.extend(more);
    }
    let newer = rows.partition_point(|row| !is_of_before(row));
    rows.get_mut(newer..).unwrap_or_default().reverse();
    Ok(())
}

/// The key of a notable call: a table has its rows in the order of their keys, and the newest come first.
fn call_row(call: &UsageEvent) -> String {
    let to_the_end = ((1 << 50) - 1_u64).saturating_sub(call.time.unix_ms());
    let order = id::first_of(Timestamp::from_unix_ms(to_the_end));
    format!("-{order}{}", encode_key(&call.id))
}

/// Deletes what has been kept for long enough: of each sort the newest partition that is too old,
/// and some before it. Returns how many rows it deleted.
///
/// # Errors
/// When the store fails.
pub async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let mut deleted = 0;
    for (span, kept_ms) in KEPT_MS {
        for older in 1..=SWEPT {
            let age_ms = kept_ms + older * span.partition_ms();
            let at = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(age_ms));
            deleted += clear(store, &span.partition(at)).await?;
            if span == Span::Minute {
                deleted += clear(store, &calls_partition(at)).await?;
            }
        }
    }
    Ok(deleted)
}

async fn clear(store: &dyn Store, name: &str) -> Result<usize, StoreError> {
    let rows = partition(store, name).await?;
    for some in rows.chunks(bounds::MAX_WRITES) {
        let deletes = some.iter().map(|row| Write {
            row: row.key.row.clone(),
            change: Change::Delete(None),
        });
        match store.write(Table::Console, name, deletes.collect()).await {
            // Another instance deletes them at the same time.
            Ok(()) | Err(StoreError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows.len())
}

/// The key of what is known of a batch queue's age.
fn queue_key(queue: &str) -> Key {
    Key {
        partition: "queue".to_owned(),
        row: encode_key(queue),
    }
}

/// Writes how long messages of a queue had waited, `waited_ms`, of which the last was delivered at `at`.
///
/// # Errors
/// When the store fails.
pub async fn write_queue_age(
    store: &dyn Store,
    queue: &str,
    waited_ms: u64,
    at: Timestamp,
) -> Result<(), StoreError> {
    let Key { partition, row } = queue_key(queue);
    let fields = Fields::new()
        .number("waited_ms", waited_ms)
        .number("at_ms", at.unix_ms());
    let change = Change::Upsert(fields);
    let writes = vec![Write { row, change }];
    store.write(Table::Console, &partition, writes).await
}

/// What was written last by [`write_queue_age`]; `None`: nothing.
///
/// # Errors
/// When the store fails.
pub async fn queue_age(
    store: &dyn Store,
    queue: &str,
) -> Result<Option<(u64, Timestamp)>, StoreError> {
    let row = store.get(Table::Console, &queue_key(queue)).await?;
    Ok(row.map(|row| {
        let at = Timestamp::from_unix_ms(row.fields.get_number("at_ms"));
        (row.fields.get_number("waited_ms"), at)
    }))
}

/// The secret that signs the console's sessions, the same for all instances: the one that is kept,
/// or `fresh`, which is kept from then on.
///
/// # Errors
/// When the store fails.
pub async fn secret(store: &dyn Store, fresh: &str) -> Result<String, StoreError> {
    let key = Key {
        partition: "secret".to_owned(),
        row: "session".to_owned(),
    };
    if let Some(row) = store.get(Table::Console, &key).await? {
        return Ok(row.fields.get_text("secret").to_owned());
    }
    let insert = Write {
        row: key.row.clone(),
        change: Change::Insert(Fields::new().text("secret", fresh)),
    };
    let written = store.write(Table::Console, &key.partition, vec![insert]);
    match written.await {
        Ok(()) => return Ok(fresh.to_owned()),
        // Another instance was quicker.
        Err(StoreError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    let row = store.get(Table::Console, &key).await?;
    let lost = || StoreError::Unavailable("the secret was there and is gone".into());
    Ok(row.ok_or_else(lost)?.fields.get_text("secret").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;

    /// 2026-11-23T17:06:30.000Z.
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    fn ago(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(NOW.unix_ms() - ms)
    }

    fn counted(start: Timestamp, instance: &str) -> Counted {
        let rollup = r#"{"d":[],"m":[{"m":"gpt-4o","c":[3]}]}"#;
        Counted {
            start,
            instance: instance.to_owned(),
            rollup: serde_json::from_str(rollup).unwrap(),
        }
    }

    fn open() -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn minutes_are_read_across_hours_and_old_ones_are_swept() {
        let (_folder, store) = open();
        for minutes in [0, 1, 59, 60, 61, 30 * 60] {
            for instance in ["a", "b/c"] {
                let counted = counted(ago(minutes * MINUTE_MS), instance);
                write(&store, Span::Minute, &counted).await.unwrap();
            }
        }
        let since = |ms| read(&store, Span::Minute, ago(ms), NOW);
        let hour = since(60 * MINUTE_MS).await.unwrap();
        assert_eq!(hour.len(), 8);
        assert!(hour.is_sorted_by_key(|counted| counted.start));
        assert_eq!(hour[0].start, floor(ago(60 * MINUTE_MS), MINUTE_MS));
        assert_eq!(hour[0].rollup.models[0].total().calls(), 3);
        assert_eq!(sweep(&store, NOW).await.unwrap(), 2);
        assert_eq!(since(40 * HOUR_MS).await.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn an_hour_is_written_again_and_again() {
        let (_folder, store) = open();
        for _ in 0..3 {
            write(&store, Span::Hour, &counted(NOW, "a")).await.unwrap();
        }
        let day = read(&store, Span::Hour, ago(7 * DAY_MS), NOW).await;
        assert_eq!(day.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_newest_calls_come_first() {
        let (_folder, store) = open();
        let call = |id: &str, time| UsageEvent {
            id: id.to_owned(),
            time,
            ..UsageEvent::default()
        };
        let all = [
            call("1", ago(2 * HOUR_MS)),
            call("2", ago(30_000)),
            call("3", ago(1000)),
        ];
        write_calls(&store, &all).await.unwrap();
        write_calls(&store, &all).await.unwrap();
        let mut newest = NewestCalls::new(&store, NOW);
        let mut ids = Vec::new();
        while let Some(some) = newest.next().await.unwrap() {
            ids.extend(some.iter().map(|call| call.get_text("id").to_owned()));
        }
        assert_eq!(ids, ["3", "2", "1"]);
    }

    #[tokio::test]
    async fn of_what_versions_before_wrote_the_newest_come_first_too() {
        let (_folder, store) = open();
        let partition = calls_partition(ago(0));
        let write = |row: String| Write {
            change: Change::Upsert(Fields::default().text("id", &row)),
            row,
        };
        for some in (0..CALLS * 2).collect::<Vec<_>>().chunks(100) {
            let writes = some.iter().map(|number| write(format!("01J{number:04}")));
            let written = store.write(Table::Console, &partition, writes.collect());
            written.await.unwrap();
        }
        let call = UsageEvent {
            id: "01K".into(),
            time: ago(0),
            ..UsageEvent::default()
        };
        write_calls(&store, &[call]).await.unwrap();
        let some = NewestCalls::new(&store, NOW).next().await.unwrap().unwrap();
        let ids: Vec<&str> = some.iter().map(|call| call.get_text("id")).collect();
        assert_eq!(ids.len(), CALLS * 2 + 1);
        assert_eq!(ids[..3], ["01K", "01J0399", "01J0398"]);
    }

    #[tokio::test]
    async fn a_queues_age_is_that_of_the_last_delivery() {
        let (_folder, store) = open();
        assert_eq!(queue_age(&store, "a/b").await.unwrap(), None);
        for waited_ms in [1_000, 5_000] {
            let written = write_queue_age(&store, "a/b", waited_ms, NOW);
            written.await.unwrap();
        }
        let age = queue_age(&store, "a/b").await.unwrap();
        assert_eq!(age, Some((5_000, NOW)));
    }

    #[tokio::test]
    async fn the_first_secret_is_kept() {
        let (_folder, store) = open();
        assert_eq!(secret(&store, "one").await.unwrap(), "one");
        assert_eq!(secret(&store, "two").await.unwrap(), "one");
    }
}
