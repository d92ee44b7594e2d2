//! The tables in a file of this machine, for `spillway local` and for a gateway of one process.
//!
//! redb keeps them: a B-tree with snapshots for readers and one writer at a time. The writer is a
//! thread that takes all transactions that wait and makes them last together, because what costs
//! time is the disk's confirmation.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Change, Etag, Fields, Key, Page, Range, Row, Store, StoreError, Table, Write, bounds,
};

#[cfg(test)]
mod tests;

/// The file's name in its folder.
const FILE: &str = "spillway.redb";

/// Memory that the file's pages may take, bytes.
const CACHE: usize = 16 << 20;

/// Transactions that may wait for the writer; further ones wait to be queued.
const QUEUE: usize = 256;

/// The version of a row and the JSON of its fields, by partition and row key.
type Rows = TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;

/// One number: the version that was given last.
const VERSIONS: TableDefinition<'static, (), u64> = TableDefinition::new("versions");

/// Bytes of a row's version before its JSON.
const VERSION_BYTES: usize = 8;

const fn rows(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

/// Tables in a file.
pub struct Embedded {
    database: Arc<Database>,
    /// `None` once the store is being closed.
    writer: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    file: PathBuf,
}

impl Drop for Embedded {
    /// Waits until what was taken is written and the file can be closed. A file that was not closed
    /// is checked from end to end when it is opened next, which for a large one takes a minute.
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A writer that broke has let go of the file all the same.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A transaction that waits to be written.
struct Job {
    table: Table,
    partition: String,
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Embedded {
    /// Opens the tables in folder `folder`, or makes them.
    ///
    /// # Errors
    /// When the folder or file can't be made, is no such file, or another process has it open.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let file = folder.join(FILE);
        let at = |what: &dyn std::fmt::Display| {
            io::Error::other(format!("cannot open the store {}: {what}", file.display()))
        };
        fs::create_dir_all(folder).map_err(|e| at(&e))?;
        let opened = Builder::new().set_cache_size(CACHE).create(&file);
        let database = opened.map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => at(&"another process has it open"),
            other => at(&other),
        })?;
        let database = Arc::new(database);
        make_tables(&database).map_err(|e| at(&e))?;
        let (writer, jobs) = mpsc::channel(QUEUE);
        let written = Arc::clone(&database);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(&written, jobs))?;
        Ok(Self {
            database,
            writer: Some(writer),
            thread: Some(thread),
            file,
        })
    }

    /// Reads in a thread where waiting for the disk holds nothing up.
    fn reading<'a, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let database = Arc::clone(&self.database);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || read(&database));
            read.await.unwrap_or_else(|e| Err(unavailable(&e)))
        })
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        let key = key.clone();
        self.reading(move |database| {
            let transaction = database.begin_read().map_err(|e| unavailable(&e))?;
            let rows = transaction
                .open_table(rows(table))
                .map_err(|e| unavailable(&e))?;
            let found = rows
                .get((&*key.partition, &*key.row))
                .map_err(|e| unavailable(&e))?;
            found.map(|bytes| decode(key, bytes.value())).transpose()
        })
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        let range = range.clone();
        self.reading(move |database| {
            bounds::range(&range)?;
            let transaction = database.begin_read().map_err(|e| unavailable(&e))?;
            let rows = transaction
                .open_table(rows(table))
                .map_err(|e| unavailable(&e))?;
            page(&rows, &range)
        })
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        Box::pin(async move {
            bounds::transaction(partition, &writes)?;
            let (done, written) = oneshot::channel();
            let job = Job {
                table,
                partition: partition.to_owned(),
                writes,
                done,
            };
            let gone = || StoreError::Unavailable("the store's writer has ended".into());
            let writer = self.writer.as_ref().ok_or_else(gone)?;
            writer.send(job).await.map_err(|_| gone())?;
            written.await.map_err(|_| gone())?
        })
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// A table that was never written can't be opened for reading.
fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(rows(table))?;
    }
    transaction.open_table(VERSIONS)?;
    transaction.commit()?;
    Ok(())
}

fn page(
    rows: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    range: &Range,
) -> Result<Page, StoreError> {
    let partition = range.partition.as_deref().unwrap_or_default();
    let after = range.after.as_ref();
    // The last row of the page before is read once more and left out.
    let start = after.map_or((partition, &*range.prefix), |key| {
        (&*key.partition, &*key.row)
    });
    let mut page = Page::default();
    for row in rows.range(start..).map_err(|e| unavailable(&e))? {
        let (key, bytes) = row.map_err(|e| unavailable(&e))?;
        let (partition, row) = key.value();
        if range
            .partition
            .as_deref()
            .is_some_and(|wanted| wanted != partition)
        {
            break;
        }
        if !row.starts_with(&*range.prefix) {
            if range.partition.is_some() {
                break;
            }
            continue;
        }
        if after.is_some_and(|key| key.partition == partition && key.row == row) {
            continue;
        }
        if page.rows.len() == range.limit {
            page.next = page.rows.last().map(|row| row.key.clone());
            break;
        }
        let key = Key {
            partition: partition.to_owned(),
            row: row.to_owned(),
        };
        page.rows.push(decode(key, bytes.value())?);
    }
    Ok(page)
}

fn decode(key: Key, bytes: &[u8]) -> Result<Row, StoreError> {
    let damaged = || StoreError::Damaged(format!("row {} of {}", key.row, key.partition));
    let (version, json) = bytes.split_at_checked(VERSION_BYTES).ok_or_else(damaged)?;
    let fields: Fields = serde_json::from_slice(json).map_err(|_| damaged())?;
    let version = version
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged())?;
    Ok(Row {
        key,
        etag: etag(version),
        fields,
    })
}

fn encode(version: u64, fields: &Fields) -> Result<Vec<u8>, StoreError> {
    let mut bytes = version.to_be_bytes().to_vec();
    serde_json::to_writer(&mut bytes, fields).map_err(|e| StoreError::Refused(e.to_string()))?;
    Ok(bytes)
}

fn etag(version: u64) -> Etag {
    Etag(version.to_string())
}

/// The writer: until the last store is gone.
fn write_all(database: &Database, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < QUEUE
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let results = commit(database, &batch);
        let failed = results.as_ref().err().map(|e| unavailable(e));
        let each = results.unwrap_or_default();
        let each = each
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat_with(|| None));
        for (job, result) in batch.into_iter().zip(each) {
            let result = result.or_else(|| failed.clone().map(Err));
            // Whoever asked may have left.
            let _ = job.done.send(result.unwrap_or(Ok(())));
        }
    }
}

/// Makes each transaction whose conditions hold, and all of them last.
fn commit(database: &Database, batch: &[Job]) -> Result<Vec<Result<(), StoreError>>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut results = Vec::with_capacity(batch.len());
    {
        let mut versions = transaction.open_table(VERSIONS)?;
        let mut version = versions.get(())?.map_or(0, |last| last.value());
        for job in batch {
            let mut rows = transaction.open_table(rows(job.table))?;
            results.push(match changes(&rows, job, &mut version)? {
                Err(refusal) => Err(refusal),
                Ok(changes) => {
                    for (row, bytes) in changes {
                        let key = (&*job.partition, row);
                        match bytes {
                            Some(bytes) => rows.insert(key, &*bytes)?,
                            None => rows.remove(key)?,
                        };
                    }
                    Ok(())
                }
            });
        }
        versions.insert((), version)?;
    }
    transaction.commit()?;
    Ok(results)
}

/// A row's key and its new bytes; `None` deletes it.
type NewBytes<'a> = (&'a str, Option<Vec<u8>>);

/// What a transaction changes, once all of its conditions have been found to hold.
fn changes<'a>(
    rows: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    job: &'a Job,
    version: &mut u64,
) -> Result<Result<Vec<NewBytes<'a>>, StoreError>, redb::Error> {
    let mut changes = Vec::with_capacity(job.writes.len());
    for (index, write) in job.writes.iter().enumerate() {
        let found = rows.get((&*job.partition, &*write.row))?;
        let current = found.and_then(|bytes| {
            let version = bytes.value().get(..VERSION_BYTES)?;
            version.try_into().ok().map(u64::from_be_bytes).map(etag)
        });
        let holds = match &write.change {
            Change::Insert(_) if current.is_some() => {
                return Ok(Err(StoreError::Exists { index }));
            }
            Change::Insert(_) | Change::Upsert(_) => true,
            Change::Replace(_, etag) => current.as_ref() == Some(etag),
            Change::Delete(etag) => {
                current.is_some()
                    && etag
                        .as_ref()
                        .is_none_or(|etag| current.as_ref() == Some(etag))
            }
        };
        if !holds {
            return Ok(Err(StoreError::Changed { index }));
        }
        *version += 1;
        let bytes = match &write.change {
            Change::Insert(fields) | Change::Upsert(fields) | Change::Replace(fields, _) => {
                match encode(*version, fields) {
                    Ok(bytes) => Some(bytes),
                    Err(refusal) => return Ok(Err(refusal)),
                }
            }
            Change::Delete(_) => None,
        };
        changes.push((&*write.row, bytes));
    }
    Ok(Ok(changes))
}
