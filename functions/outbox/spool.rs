//! Events that wait in files: bounded, and whole again after a crash.
//!
//! A line is an event: eight hexadecimal digits of its SHA-256, a space, its JSON. A line that was
//! torn by a crash does not match its digits and is left out. Lines go into segments, which are
//! deleted whole once all of their events have been delivered; after a crash in between they are
//! delivered again, which changes nothing.
//!
//! Each process has segments of its own, and a lock. Whoever starts takes over the segments of
//! processes that are gone.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::gateway::event::UsageEvent;

/// A segment that has so many bytes is closed. It is read whole for its delivery.
const SEGMENT: u64 = 1 << 20;

/// Digits before each event.
const DIGITS: usize = 8;

/// The endings of segments and locks.
const ENDING: &str = "spool";
const LOCK: &str = "lock";

/// Events in files of a folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// What the names of this process's files begin with.
    name: String,
    /// Most bytes of all segments.
    most: u64,
    bytes: u64,
    open: Option<Segment>,
    closed: VecDeque<Segment>,
    number: u64,
    /// Held as long as the process lives; then those of the processes whose segments it took over.
    locks: Vec<(PathBuf, File)>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
    /// `None` once it is closed.
    file: Option<File>,
    /// Its first events, which need not be delivered again.
    delivered: usize,
}

/// The events of a segment.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Those that are whole.
    pub events: Vec<UsageEvent>,
    /// Lines that were not.
    pub torn: usize,
    /// How many of the first events have been delivered ([`Spool::note`]).
    pub delivered: usize,
}

impl Spool {
    /// Opens the spool in `folder` and takes over what dead processes have left there.
    ///
    /// # Errors
    /// When the folder can't be made or written.
    pub fn open(folder: &Path, most: u64) -> io::Result<Self> {
        // Events name users: nobody else's business on this machine.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let (name, path, lock) = lock_one(folder)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            name,
            most,
            bytes: 0,
            open: None,
            closed: VecDeque::new(),
            number: 0,
            locks: vec![(path, lock)],
        };
        spool.take_over()?;
        Ok(spool)
    }

    fn take_over(&mut self) -> io::Result<()> {
        let mut dead = Vec::new();
        for path in with_ending(&self.folder, LOCK)? {
            if self.is_own(&path) {
                continue;
            }
            let lock = OpenOptions::new().write(true).open(&path);
            // Another process may have finished and deleted it.
            let Ok(lock) = lock else { continue };
            match lock.try_lock() {
                Ok(()) => dead.push((path, lock)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        // Once their locks are held: whoever lived until then may have begun a segment a moment before.
        let segments = with_ending(&self.folder, ENDING)?;
        for (lock, file) in dead {
            let left: Vec<&PathBuf> = segments
                .iter()
                .filter(|path| belongs(path, &lock))
                .collect();
            for path in &left {
                let bytes = fs::metadata(path)?.len();
                self.bytes += bytes;
                self.closed.push_back(Segment {
                    path: (*path).clone(),
                    bytes,
                    file: None,
                    delivered: 0,
                });
            }
            if left.is_empty() {
                // Another process may have deleted it already.
                let _ = fs::remove_file(lock);
            } else {
                self.locks.push((lock, file));
            }
        }
        Ok(())
    }

    fn is_own(&self, lock: &Path) -> bool {
        self.locks.iter().any(|(own, _)| own == lock)
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.closed.is_empty()
    }

    /// Adds events; they last when this returns. How many fitted: the first ones.
    ///
    /// # Errors
    /// When they can't be written: some of them may be.
    pub fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a UsageEvent>,
    ) -> io::Result<usize> {
        let mut lines = Vec::new();
        let mut fitted = 0;
        for event in events {
            let line = line(event)?;
            if self.bytes + length(&lines) + length(&line) > self.most {
                break;
            }
            lines.extend(line);
            fitted += 1;
        }
        if fitted > 0 {
            let written = self.write(&lines);
            if written.is_err() {
                // What comes next must not stand behind half a line.
                self.close();
            }
            written?;
        }
        Ok(fitted)
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let segment = match &mut self.open {
            Some(segment) => segment,
            None => {
                self.number += 1;
                let name = format!("{}-{:08}.{ENDING}", self.name, self.number);
                let path = self.folder.join(name);
                let file = Some(own(&path)?);
                File::open(&self.folder)?.sync_all()?;
                self.open.insert(Segment {
                    path,
                    bytes: 0,
                    file,
                    delivered: 0,
                })
            }
        };
        let file = segment.file.as_mut();
        let file = file.ok_or_else(|| io::Error::other("the segment is closed"))?;
        segment.bytes += length(lines);
        self.bytes += length(lines);
        file.write_all(lines)?;
        file.sync_data()?;
        if segment.bytes >= SEGMENT {
            self.close();
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(mut segment) = self.open.take() {
            segment.file = None;
            self.closed.push_back(segment);
        }
    }

    /// The events of the oldest segment, and its name; `None` where none waits. Nothing is added
    /// to that segment any more.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn oldest(&mut self) -> io::Result<Option<(PathBuf, Batch)>> {
        if self.closed.is_empty() {
            self.close();
        }
        let Some(segment) = self.closed.front() else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        match File::open(&segment.path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            // Somebody has cleared the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let batch = Batch {
            delivered: segment.delivered,
            ..read(&bytes)
        };
        Ok(Some((segment.path.clone(), batch)))
    }

    /// Notes that a segment's first `events` have been delivered. Its delivery goes on there: one that began
    /// again would never end where the table fails more often than a whole segment takes.
    pub fn note(&mut self, path: &Path, events: usize) {
        if let Some(segment) = self.closed.iter_mut().find(|one| one.path == path) {
            // At the end of the process two are at it.
            segment.delivered = segment.delivered.max(events);
        }
    }

    /// Deletes a segment whose events have been delivered.
    ///
    /// # Errors
    /// When it can't be deleted: it will be delivered again.
    pub fn delivered(&mut self, path: &Path) -> io::Result<()> {
        let at = self.closed.iter().position(|one| one.path == path);
        if let Some(segment) = at.and_then(|at| self.closed.remove(at)) {
            self.bytes = self.bytes.saturating_sub(segment.bytes);
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if self.closed.is_empty() {
            // The first is this process's own.
            for (path, lock) in self.locks.drain(1..) {
                drop(lock);
                // A process that starts meanwhile finds a lock without segments.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.is_empty() {
            for (path, _) in &self.locks {
                // It would only be found to be nobody's.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The files of a folder with this ending, in order.
fn with_ending(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|its| its == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A name that no other process has, its lock's path and the lock.
fn lock_one(folder: &Path) -> io::Result<(String, PathBuf, File)> {
    loop {
        let name = format!("{:016x}", fastrand::u64(..));
        let path = folder.join(format!("{name}.{LOCK}"));
        let lock = own(&path)?;
        match lock.try_lock() {
            // One that starts at the same moment took it for that of a dead process, and deleted it.
            Ok(()) if lock.metadata()?.nlink() == 0 => {}
            Ok(()) => return Ok((name, path, lock)),
            // It is about to.
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Opens a file that only this user can read.
fn own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

fn belongs(segment: &Path, lock: &Path) -> bool {
    let name = |path: &Path| {
        path.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    match (name(segment), name(lock)) {
        (Some(segment), Some(lock)) => segment.split('-').next() == Some(&*lock),
        _ => false,
    }
}

fn line(event: &UsageEvent) -> io::Result<Vec<u8>> {
    // JSON has no line breaks of its own.
    let json = serde_json::to_vec(event)?;
    let mut line = digits(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn digits(json: &[u8]) -> String {
    let bytes = Sha256::digest(json).into_iter().take(DIGITS / 2);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn read(bytes: &[u8]) -> Batch {
    let mut batch = Batch::default();
    for line in bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let event = line.split_at_checked(DIGITS).and_then(|(sum, rest)| {
            let json = rest.strip_prefix(b" ")?;
            (digits(json).as_bytes() == sum).then_some(json)
        });
        match event.and_then(|json| serde_json::from_slice(json).ok()) {
            Some(event) => batch.events.push(event),
            None => batch.torn += 1,
        }
    }
    batch
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: usize) -> UsageEvent {
        UsageEvent {
            id: format!("{id:026}"),
            app: "a\nb".into(),
            ..UsageEvent::default()
        }
    }

    fn all(spool: &mut Spool) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some((path, batch)) = spool.oldest().unwrap() {
            ids.extend(batch.events.into_iter().map(|event| event.id));
            spool.delivered(&path).unwrap();
        }
        ids
    }

    const MOST: u64 = 1 << 20;

    #[test]
    fn what_waits_outlasts_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Spool::open(folder.path(), MOST).unwrap();
        let events: Vec<UsageEvent> = (0..3).map(event).collect();
        assert_eq!(first.append(events.iter()).unwrap(), 3);
        let mut other = Spool::open(folder.path(), MOST).unwrap();
        assert!(other.is_empty(), "the first still lives");
        drop(first);
        let mut second = Spool::open(folder.path(), MOST).unwrap();
        assert_eq!(all(&mut second).len(), 3);
        assert!(second.is_empty() && all(&mut other).is_empty());
        drop((second, other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn those_that_start_at_once_lose_nothing_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for id in 0..32 {
                let folder = folder.path();
                scope.spawn(move || {
                    let mut spool = Spool::open(folder, MOST).unwrap();
                    assert_eq!(spool.append([event(id)].iter()).unwrap(), 1);
                });
            }
        });
        let mut last = Spool::open(folder.path(), MOST).unwrap();
        let found: std::collections::BTreeSet<String> = all(&mut last).into_iter().collect();
        assert_eq!(found.len(), 32);
    }

    #[test]
    fn a_full_spool_takes_no_more_until_it_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let events: Vec<UsageEvent> = (0..10).map(event).collect();
        let most = 4 * length(&line(&events[0]).unwrap());
        let mut spool = Spool::open(folder.path(), most).unwrap();
        assert_eq!(spool.append(events.iter()).unwrap(), 4);
        assert_eq!(spool.append(events.iter()).unwrap(), 0);
        assert_eq!(all(&mut spool).len(), 4);
        assert_eq!(spool.append(events.iter()).unwrap(), 4);
    }

    proptest! {
        #[test]
        fn a_torn_tail_costs_its_own_event_and_no_other(cut in 1_usize..400, count in 1_usize..20) {
            let lines: Vec<Vec<u8>> = (0..count).map(|i| line(&event(i)).unwrap()).collect();
            let mut bytes = lines.concat();
            let kept = bytes.len().saturating_sub(cut);
            bytes.truncate(kept);
            let mut end = 0;
            // An event whose line break alone is missing is whole.
            let whole = lines.iter().take_while(|line| { end += line.len(); end <= kept + 1 }).count();
            let batch = read(&bytes);
            prop_assert_eq!(batch.events.len(), whole);
            prop_assert!(batch.torn <= 1);
        }

        #[test]
        fn rubbish_is_no_event(bytes: Vec<u8>) {
            prop_assert!(read(&bytes).events.is_empty());
        }
    }
}
