//! Blobs as files of a folder, for `spillway local` and for a gateway of one process.
//!
//! A blob is the file `NAME,blob` below its container's folder. It is written elsewhere, flushed and
//! renamed, so that a crash leaves a whole blob or none. One that is appended to has `NAME,length`
//! beside it, replaced the same way after each append: what a crash left beyond that length does not
//! count. A comma can't stand in a blob's name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Answer, Blob, BlobError, Blobs, Container, Listing, Seen, Version, When, bounds};
use crate::gateway::time::Timestamp;
use crate::store::rejects::digest;

/// The folder below the one that was named; the tables' file is beside it.
const FOLDER: &str = "blobs";

/// Where blobs and blocks are written before they have their place. Emptied at the start.
const WORK: &str = ",work";

/// What only one process has open.
const LOCK: &str = ",lock";

const BLOB: &str = ",blob";
const LENGTH: &str = ",length";

/// Blobs in a folder.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Names the files in the work folder.
    counter: AtomicU64,
    /// Held while a blob gets its place or grows: both look first and change then.
    changing: Mutex<()>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Embedded {
    /// Opens the blobs in folder `folder`, or makes a place for them.
    ///
    /// # Errors
    /// When the folder can't be made or written, or another process has it open.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let root = folder.join(FOLDER);
        let at = |what: &dyn std::fmt::Display| {
            io::Error::other(format!("cannot open the blobs {}: {what}", root.display()))
        };
        fs::create_dir_all(&root).map_err(|e| at(&e))?;
        let lock = File::create(root.join(LOCK)).map_err(|e| at(&e))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => at(&"another process has them open"),
            TryLockError::Error(e) => at(&e),
        })?;
        let work = root.join(WORK);
        match fs::remove_dir_all(&work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&e)),
            _ => {}
        }
        fs::create_dir(&work).map_err(|e| at(&e))?;
        for container in Container::ALL {
            fs::create_dir_all(root.join(container.name())).map_err(|e| at(&e))?;
        }
        Ok(Self(Arc::new(Folder {
            root,
            counter: AtomicU64::new(0),
            changing: Mutex::new(()),
            _lock: lock,
        })))
    }

    /// Works in a thread where waiting for the disk holds nothing up.
    fn with<'a, T: Send + 'static>(
        &self,
        blob: &Blob,
        work: impl FnOnce(&Folder, &Blob) -> Result<T, BlobError> + Send + 'static,
    ) -> Answer<'a, T> {
        let (folder, blob) = (Arc::clone(&self.0), blob.clone());
        Box::pin(async move {
            bounds::name(blob.name())?;
            let done = tokio::task::spawn_blocking(move || work(&folder, &blob));
            done.await.unwrap_or_else(|e| Err(unavailable(&e)))
        })
    }
}

impl Blobs for Embedded {
    fn put<'a>(&'a self, blob: &'a Blob, bytes: Bytes, when: When) -> Answer<'a, ()> {
        self.with(blob, move |folder, blob| {
            bounds::whole(bytes.len())?;
            let written = folder.write_aside(|file| file.write_all(&bytes))?;
            folder.place(blob, &written, when)
        })
    }

    fn stage<'a>(&'a self, blob: &'a Blob, number: u32, bytes: Bytes) -> Answer<'a, ()> {
        self.with(blob, move |folder, blob| {
            bounds::block(number)?;
            bounds::part(bytes.len())?;
            let block = folder.block(blob, number);
            make_parent(&block)?;
            fs::write(&block, &bytes).map_err(|e| unavailable(&e))
        })
    }

    fn commit<'a>(&'a self, blob: &'a Blob, blocks: u32) -> Answer<'a, ()> {
        self.with(blob, move |folder, blob| {
            let all = || (0..blocks).map(|number| folder.block(blob, number));
            let written = folder.write_aside(|file| {
                all().try_for_each(|block| io::copy(&mut File::open(block)?, file).map(drop))
            })?;
            folder.place(blob, &written, When::Always)?;
            // What can't be removed goes at the next start.
            all().for_each(|block| drop(fs::remove_file(block)));
            Ok(())
        })
    }

    fn append<'a>(&'a self, blob: &'a Blob, at: u64, bytes: Bytes) -> Answer<'a, ()> {
        self.with(blob, move |folder, blob| {
            bounds::part(bytes.len())?;
            folder.append(blob, at, &bytes)
        })
    }

    fn length<'a>(&'a self, blob: &'a Blob) -> Answer<'a, Option<u64>> {
        self.with(blob, Folder::length)
    }

    fn read<'a>(&'a self, blob: &'a Blob, range: Range<u64>) -> Answer<'a, Option<Bytes>> {
        self.with(blob, move |folder, blob| {
            bounds::range(&range)?;
            let Some(length) = folder.length(blob)? else {
                return Ok(None);
            };
            let end = range.end.min(length);
            read(&folder.file(blob, BLOB), range.start..end).map_err(|e| unavailable(&e))
        })
    }

    /// The tag is a hash of the bytes.
    fn look<'a>(&'a self, blob: &'a Blob, known: Option<&'a str>) -> Answer<'a, Seen> {
        let known = known.map(str::to_owned);
        self.with(blob, move |folder, blob| {
            folder.look(blob, known.as_deref())
        })
    }

    fn delete<'a>(&'a self, blob: &'a Blob) -> Answer<'a, bool> {
        self.with(blob, |folder, blob| {
            let _changing = folder.change();
            let was_there = removed(&folder.file(blob, BLOB))?;
            removed(&folder.file(blob, LENGTH))?;
            Ok(was_there)
        })
    }

    fn list<'a>(
        &'a self,
        container: Container,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> Answer<'a, Listing> {
        let folder = Arc::clone(&self.0);
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(async move {
            bounds::prefix(&prefix)?;
            let listed = move || folder.list(container, &prefix, after.as_deref());
            let listed = tokio::task::spawn_blocking(listed).await;
            listed.unwrap_or_else(|e| Err(unavailable(&e)))
        })
    }
}

impl Folder {
    fn file(&self, blob: &Blob, ending: &str) -> PathBuf {
        let name = format!("{}{ending}", blob.name());
        self.root.join(blob.container().name()).join(name)
    }

    fn block(&self, blob: &Blob, number: u32) -> PathBuf {
        let name = format!("{}/{},{number}", blob.container().name(), blob.name());
        self.root.join(WORK).join(name)
    }

    fn change(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a new file in the work folder, to the disk.
    fn write_aside(
        &self,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<PathBuf, BlobError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(WORK).join(number.to_string());
        let mut file = File::create(&path).map_err(|e| unavailable(&e))?;
        match write(&mut file).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(path),
            Err(e) => {
                // What can't be removed goes at the next start.
                let _ = fs::remove_file(&path);
                Err(unavailable(&e))
            }
        }
    }

    /// Gives a written file its place.
    fn place(&self, blob: &Blob, written: &Path, when: When) -> Result<(), BlobError> {
        let place = self.file(blob, BLOB);
        make_parent(&place)?;
        let _changing = self.change();
        if when == When::Absent && place.exists() {
            // What can't be removed goes at the next start.
            let _ = fs::remove_file(written);
            return Err(BlobError::Exists);
        }
        removed(&self.file(blob, LENGTH))?;
        rename(written, &place).map_err(|e| unavailable(&e))
    }

    fn append(&self, blob: &Blob, at: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let (place, counted) = (self.file(blob, BLOB), self.file(blob, LENGTH));
        make_parent(&place)?;
        let _changing = self.change();
        match self.length(blob)? {
            // Made by a first append that a crash cut short.
            Some(0) | None if at == 0 => {}
            Some(length) if length == at && counted.exists() => {}
            _ => return Err(BlobError::EndsElsewhere),
        }
        let length = at.saturating_add(u64::try_from(bytes.len()).unwrap_or_default());
        let grow = || {
            if at == 0 {
                // Before the blob is there: without it all of the file would count.
                let none = self.write_aside(|file| file.write_all(b"0"));
                rename(&none.map_err(io::Error::other)?, &counted)?;
            }
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(&place)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            let text = length.to_string();
            let now = self.write_aside(|file| file.write_all(text.as_bytes()));
            rename(&now.map_err(io::Error::other)?, &counted)
        };
        grow().map_err(|e| unavailable(&e))
    }

    fn look(&self, blob: &Blob, known: Option<&str>) -> Result<Seen, BlobError> {
        let Some(length) = self.length(blob)? else {
            return Ok(Seen::Absent);
        };
        bounds::range(&(0..length))?;
        let file = self.file(blob, BLOB);
        let read = read(&file, 0..length).map_err(|e| unavailable(&e))?;
        let written = there(fs::metadata(&file)).map_err(|e| unavailable(&e))?;
        let (Some(bytes), Some(written)) = (read, written) else {
            return Ok(Seen::Absent);
        };
        let tag = digest(&[&bytes]);
        if known == Some(&*tag) {
            return Ok(Seen::Same);
        }
        let written = written.modified().map_err(|e| unavailable(&e))?;
        let seconds = written.duration_since(std::time::UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        Ok(Seen::Changed(Version {
            tag,
            written: Timestamp::from_unix_ms(seconds.saturating_mul(1000)),
            bytes,
        }))
    }

    fn length(&self, blob: &Blob) -> Result<Option<u64>, BlobError> {
        let length = self.length_of(&self.file(blob, BLOB), &self.file(blob, LENGTH));
        length.map_err(|e| unavailable(&e))
    }

    fn length_of(&self, blob: &Path, counted: &Path) -> io::Result<Option<u64>> {
        let Some(length) = there(fs::metadata(blob))? else {
            return Ok(None);
        };
        match there(fs::read_to_string(counted))? {
            None => Ok(Some(length.len())),
            Some(text) => text.parse().map(Some).map_err(io::Error::other),
        }
    }

    /// All names below the prefix's folder are read for each page.
    fn list(
        &self,
        container: Container,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Listing, BlobError> {
        let root = self.root.join(container.name());
        let mut names = Vec::new();
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        names_below(&root, folder, &mut names).map_err(|e| unavailable(&e))?;
        names.retain(|name| {
            name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after)
        });
        names.sort_unstable();
        let goes_on = names.len() > bounds::MAX_PAGE;
        names.truncate(bounds::MAX_PAGE);
        let next = names.last().filter(|_| goes_on).cloned();
        let mut blobs = Vec::with_capacity(names.len());
        for name in names {
            // One that was deleted meanwhile is passed over.
            if let Some(length) = self.length(&Blob::new(container, name.as_str()))? {
                blobs.push((name, length));
            }
        }
        Ok(Listing { blobs, next })
    }
}

/// The names of the blobs in `folder` of a container and below.
fn names_below(root: &Path, folder: &str, names: &mut Vec<String>) -> io::Result<()> {
    let Some(entries) = there(fs::read_dir(root.join(folder)))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        let path = match folder {
            "" => file,
            folder => format!("{folder}/{file}"),
        };
        if entry.file_type()?.is_dir() {
            names_below(root, &path, names)?;
        } else if let Some(name) = path.strip_suffix(BLOB) {
            names.push(name.to_owned());
        }
    }
    Ok(())
}

fn read(file: &Path, range: Range<u64>) -> io::Result<Option<Bytes>> {
    let Some(mut file) = there(File::open(file))? else {
        return Ok(None);
    };
    let bytes = range.end.saturating_sub(range.start);
    file.seek(SeekFrom::Start(range.start))?;
    let mut read = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    file.take(bytes).read_to_end(&mut read)?;
    Ok(Some(read.into()))
}

/// `None` where there is no such file.
fn there<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn removed(file: &Path) -> Result<bool, BlobError> {
    let removed = there(fs::remove_file(file)).map_err(|e| unavailable(&e))?;
    Ok(removed.is_some())
}

fn make_parent(file: &Path) -> Result<(), BlobError> {
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.map_err(|e| unavailable(&e))
}

/// Renames, to the disk: a folder is a file too.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let folder = to.parent().unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

fn unavailable(error: &dyn std::fmt::Display) -> BlobError {
    BlobError::Unavailable(error.to_string())
}
