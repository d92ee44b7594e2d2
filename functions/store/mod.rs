//! What is kept: tables of rows, behind one trait.
//!
//! The trait has the semantics of Azure Table Storage, the smallest set that the gateway needs:
//! read a row, read a range, and write up to 100 rows of one partition in one transaction, each
//! write with a condition of its own. [`azure_tables`] keeps the tables in Table Storage, [`embedded`]
//! in a file; both refuse what Azure would refuse ([`bounds`]), so that what works on one works on
//! the other.
//!
//! [`blobs`] keeps what is too large for a row.
//!
//! [`affinity`], [`chargeback`], [`sums`], [`rejects`], [`instances`], [`marks`], [`slots`],
//! [`utilization`], [`requests`] and [`console`] say what stands in their rows; [`ledger`] writes usage events and their
//! sums, each once.

pub mod affinity;
pub mod azure_tables;
pub mod batches;
pub mod bill;
pub mod blobs;
pub mod bounds;
pub mod chargeback;
pub mod console;
pub mod daily;
pub mod embedded;
pub mod fields;
pub mod instances;
mod key;
pub mod ledger;
pub mod marks;
pub mod names;
mod pages;
pub mod prices;
pub mod reconciliation;
pub mod rejects;
pub mod requests;
pub mod slots;
pub mod sums;
pub mod utilization;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

pub use self::fields::{Field, Fields};
pub use self::key::encode_key;
pub use self::pages::Pages;

/// The tables, by the names that they have in Table Storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Usage events and their sums.
    Chargeback,
    /// Which backend owns a stored response, file or thread.
    Affinity,
    /// What each instance says of the limits that it shares, and of deployments that it finds full.
    Instances,
    /// Which instance holds which low-priority slot.
    Slots,
    /// How full provisioned deployments are.
    Utilization,
    /// Batch messages and asynchronous calls.
    Requests,
    /// Events that could not be read.
    Rejects,
    /// What the console shows of the past.
    Console,
    /// Files of the batch API.
    Files,
    /// Batches of the batch API.
    Batches,
    /// What the last look at Azure's list prices proposed.
    Prices,
    /// What Azure Monitor counts beside what the gateway does.
    Reconciliation,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Chargeback,
        Self::Affinity,
        Self::Instances,
        Self::Slots,
        Self::Utilization,
        Self::Requests,
        Self::Rejects,
        Self::Console,
        Self::Files,
        Self::Batches,
        Self::Prices,
        Self::Reconciliation,
    ];

    /// The name in Table Storage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chargeback => "chargeback",
            Self::Affinity => "affinity",
            Self::Instances => "instances",
            Self::Slots => "slots",
            Self::Utilization => "utilization",
            Self::Requests => "requests",
            Self::Rejects => "chargebackrejects",
            Self::Console => "console",
            Self::Files => "batchfiles",
            Self::Batches => "batches",
            Self::Prices => "prices",
            Self::Reconciliation => "reconciliation",
        }
    }
}

/// What a row is called: its partition and its key in it. Both have passed [`encode_key`] or hold
/// only characters that Table Storage allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Rows of one partition can be written in one transaction.
    pub partition: String,
    /// Rows of a partition are ordered by this.
    pub row: String,
}

/// The version of a row, opaque: it changes with every write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// A row as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is called.
    pub key: Key,
    /// Its version.
    pub etag: Etag,
    /// What stands in it.
    pub fields: Fields,
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The row's key within the transaction's partition.
    pub row: String,
    /// What is done to it.
    pub change: Change,
}

/// What is done to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Puts it in; fails with [`StoreError::Exists`] where it is there already.
    Insert(Fields),
    /// Puts it in, or in the place of the one that is there.
    Upsert(Fields),
    /// Replaces the version that was read; fails with [`StoreError::Changed`] where there is
    /// another one by now, or none.
    Replace(Fields, Etag),
    /// Deletes the version that was read, or with `None` whichever is there; fails with
    /// [`StoreError::Changed`] where there is another one, or none.
    Delete(Option<Etag>),
}

/// Which rows are read, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Only this partition; `None`: the whole table.
    pub partition: Option<String>,
    /// Only row keys that begin with this.
    pub prefix: String,
    /// Goes on after this row, where an earlier page ended.
    pub after: Option<Key>,
    /// Most rows of the page, 1 to 1,000.
    pub limit: usize,
}

impl Range {
    /// The rows of a partition whose keys begin with `prefix`, a page of 1,000 at a time.
    pub fn of(partition: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            partition: Some(partition.into()),
            prefix: prefix.into(),
            after: None,
            limit: bounds::MAX_PAGE,
        }
    }

    /// A whole table, a page of 1,000 at a time.
    pub const fn all() -> Self {
        Self {
            partition: None,
            prefix: String::new(),
            after: None,
            limit: bounds::MAX_PAGE,
        }
    }
}

/// Some rows of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows. May be empty although there are more.
    pub rows: Vec<Row>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<Key>,
}

/// Why something could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The transaction's insert number `index` met a row that is there. Nothing was written.
    Exists {
        /// Number of the write, from 0.
        index: usize,
    },
    /// The transaction's write number `index` met another version of the row than it was made
    /// for, or none. Nothing was written.
    Changed {
        /// Number of the write, from 0.
        index: usize,
    },
    /// The store can't take this: a key, a field or a transaction beyond its bounds.
    Refused(String),
    /// The store could not be reached or did not answer; the same call may work later. Whether it
    /// was written is not known.
    Unavailable(String),
    /// What was read is no row of this program.
    Damaged(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { index } => write!(f, "write {index} of the transaction: the row exists"),
            Self::Changed { index } => {
                write!(f, "write {index} of the transaction: the row has changed")
            }
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
            Self::Damaged(why) => write!(f, "damaged: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What a call of the store comes to, some time later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Longest wait of what instances share through the store. An answer that comes later is of no use:
/// rows expire meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer that is of use only while it is fresh.
///
/// # Errors
/// The answer's own, or that there was none in time.
pub async fn in_time<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| {
        let ms = PATIENCE.as_millis();
        Err(StoreError::Unavailable(format!("no answer within {ms} ms")))
    })
}

/// A store of tables.
pub trait Store: fmt::Debug + Send + Sync {
    /// Reads a row.
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>>;

    /// Reads a page of a range.
    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page>;

    /// Makes all of `writes` to rows of `partition`, or none of them, and returns once they last.
    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()>;
}
