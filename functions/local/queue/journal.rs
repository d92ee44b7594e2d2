//! The queues' file: what it takes to have them again after the process was killed.
//!
//! One thread writes. It takes all changes that wait and makes them last together, because what
//! costs time is the disk's confirmation.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::broker::Change;
use super::record::Record;
use crate::gateway::time::Timestamp;

/// The file's name in its folder.
const FILE: &str = "queue.redb";

/// Changes that may be made last together.
const MOST: usize = 1000;

/// The length of a message's record, the record as JSON, and the body, by queue and number.
const MESSAGES: TableDefinition<'static, (&'static str, u64), &'static [u8]> =
    TableDefinition::new("messages");

/// Until when an id is remembered, ms since the Unix epoch, by queue and id.
const IDS: TableDefinition<'static, (&'static str, &'static str), u64> =
    TableDefinition::new("ids");

/// Bytes of the file that are kept in memory. It is written, and read at the start only; redb's default would keep
/// all of it, up to 1 GiB.
const CACHE: usize = 1 << 20;

/// Changes, and whom to tell when they last.
type Job = (Vec<Change>, oneshot::Sender<()>);

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Journal {
    /// Opens the file in `folder`, or makes it; what stands in it.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Change>)> {
        let file = folder.join(FILE);
        let at = |error: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "cannot open the queues {}: {error}",
                file.display()
            ))
        };
        fs::create_dir_all(folder).map_err(|e| at(&e))?;
        let opened = Builder::new().set_cache_size(CACHE).create(&file);
        let database = opened.map_err(|e| at(&e))?;
        let kept = read(&database).map_err(|e| at(&e))?;
        let (jobs, receiver) = mpsc::unbounded_channel();
        let writer = thread::Builder::new().name("queue".into());
        writer.spawn(move || write_all(&database, receiver))?;
        Ok((Self { jobs }, kept))
    }

    /// Hands changes to the writer, in the order in which this is called. What comes back says when
    /// they last.
    pub(super) fn write(&self, changes: Vec<Change>) -> oneshot::Receiver<()> {
        let (done, lasts) = oneshot::channel();
        // A writer that has ended drops `done`, which says so.
        let _ = self.jobs.send((changes, done));
        lasts
    }
}

fn read(database: &Database) -> Result<Vec<Change>, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(MESSAGES)?;
    transaction.open_table(IDS)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut kept = Vec::new();
    for row in transaction.open_table(MESSAGES)?.iter()? {
        let (key, bytes) = row?;
        let (queue, sequence) = key.value();
        match decode(bytes.value()) {
            Some((record, body)) => {
                let stored = Box::new(record.into_stored(sequence, body));
                kept.push(Change::Put(queue.to_owned(), stored));
            }
            None => tracing::error!(queue, sequence, "a message in the queues' file is damaged"),
        }
    }
    let mut ids = Vec::new();
    for row in transaction.open_table(IDS)?.iter()? {
        let (key, until) = row?;
        let (queue, id) = key.value();
        let until = Timestamp::from_unix_ms(until.value());
        ids.push((until, queue.to_owned(), id.to_owned()));
    }
    // The broker forgets them in the order in which it learns of them.
    ids.sort();
    kept.extend(
        ids.into_iter()
            .map(|(until, queue, id)| Change::Id(queue, id, until)),
    );
    Ok(kept)
}

fn decode(bytes: &[u8]) -> Option<(Record, Bytes)> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let (record, body) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let record = serde_json::from_slice(record).ok()?;
    Some((record, Bytes::copy_from_slice(body)))
}

fn encode(record: &Record, body: &[u8]) -> Vec<u8> {
    // A record always has a JSON form.
    let record = serde_json::to_vec(record).unwrap_or_default();
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), &*record, body].concat()
}

fn write_all(database: &Database, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some((mut changes, done)) = jobs.blocking_recv() {
        let mut waiting = vec![done];
        while changes.len() < MOST
            && let Ok((more, done)) = jobs.try_recv()
        {
            changes.extend(more);
            waiting.push(done);
        }
        match commit(database, &changes) {
            // Whoever waited may have left.
            Ok(()) => waiting.into_iter().for_each(|done| {
                let _ = done.send(());
            }),
            Err(error) => tracing::error!(%error, "the queues' file can't be written"),
        }
    }
}

fn commit(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut messages = transaction.open_table(MESSAGES)?;
        let mut ids = transaction.open_table(IDS)?;
        for change in changes {
            match change {
                Change::Put(queue, stored) => {
                    let (record, body) = Record::of(stored);
                    let bytes = encode(&record, body);
                    messages.insert((&**queue, stored.sequence), &*bytes)?;
                }
                Change::Gone(queue, sequence) => {
                    messages.remove((&**queue, *sequence))?;
                }
                Change::Id(queue, id, until) => {
                    ids.insert((&**queue, &**id), until.unix_ms())?;
                }
                Change::Forgotten(queue, id) => {
                    ids.remove((&**queue, &**id))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
