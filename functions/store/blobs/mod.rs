//! Blobs: what is too large for a row of a table, behind one trait.
//!
//! The trait has the semantics of Azure Blob Storage, the smallest set that the gateway needs.
//! [`embedded`] keeps blobs as files of a folder, crash-safe. Both refuse what Azure would refuse
//! ([`bounds`]). Nothing in it holds more than a part of a blob ([`bounds::MAX_PART`]) unless it was
//! asked for whole: [`upload::Upload`] writes and [`reading::stream`] reads blobs of any size in flat
//! memory.
//!
//! A blob's name is made once and never used for something else, so that a reader never meets half
//! of one version and half of another; [`Blobs::look`] is for the one that is written again.

pub mod azure;
pub mod bounds;
pub mod embedded;
pub mod reading;
pub mod upload;

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;

pub use self::bounds::encode_part;
use crate::gateway::time::Timestamp;

/// The containers, by the names that they have in Blob Storage. One a purpose, so that access can
/// be given and old blobs deleted a purpose at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// Requests and answers of the apps whose prompts are logged.
    Prompts,
    /// Files of the batch API: inputs, outputs, errors.
    Files,
    /// Answers that are too large for a message.
    Replies,
    /// Answers that may be given again.
    Answers,
    /// The configuration that runs, where it is a blob: written by operators, read here.
    Config,
    /// Configurations that were taken.
    ConfigHistory,
}

impl Container {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Prompts,
        Self::Files,
        Self::Replies,
        Self::Answers,
        Self::Config,
        Self::ConfigHistory,
    ];

    /// The name in Blob Storage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Files => "files",
            Self::Replies => "replies",
            Self::Answers => "answers",
            Self::Config => "config",
            Self::ConfigHistory => "confighistory",
        }
    }
}

/// What a blob is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    container: Container,
    name: String,
}

impl Blob {
    /// A blob of a container. `name` is one part or several with `/` between them; each has passed
    /// [`encode_part`] or holds only characters that it leaves as they are. A name that is none is
    /// refused when it is used.
    pub fn new(container: Container, name: impl Into<String>) -> Self {
        Self {
            container,
            name: name.into(),
        }
    }

    /// The container that it is in.
    pub const fn container(&self) -> Container {
        self.container
    }

    /// The name within its container.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `container/name`.
impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container.name(), self.name)
    }
}

/// Whether a blob may take another's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It takes the place of one that is there.
    Always,
    /// Only where there is none; else [`BlobError::Exists`].
    Absent,
}

/// How a blob stands that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is none.
    Absent,
    /// It is as it was.
    Same,
    /// It is another one.
    Changed(Version),
}

/// A blob as it is from one write to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Differs from version to version, opaque: its ETag.
    pub tag: String,
    /// When it was written, in whole seconds.
    pub written: Timestamp,
    /// All of it.
    pub bytes: Bytes,
}

/// Some blobs of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names and lengths, bytes, in the order of the names.
    pub blobs: Vec<(String, u64)>,
    /// Where the next page goes on, opaque; `None` at the end.
    pub next: Option<String>,
}

/// Why a blob could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// There is one of that name.
    Exists,
    /// The blob does not end where something was to be appended to it. Nothing was appended.
    EndsElsewhere,
    /// Blob Storage can't take this: a name or a size beyond its bounds.
    Refused(String),
    /// It could not be reached or did not answer; the same call may work later. Whether something
    /// was written is not known.
    Unavailable(String),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("a blob of that name exists"),
            Self::EndsElsewhere => f.write_str("the blob ends elsewhere"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

impl std::error::Error for BlobError {}

/// What a call comes to, some time later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BlobError>> + Send + 'a>>;

/// A store of blobs. What it has written lasts when it answers.
pub trait Blobs: fmt::Debug + Send + Sync {
    /// Writes a blob of at most [`bounds::MAX_WHOLE`] bytes, whole or not at all.
    fn put<'a>(&'a self, blob: &'a Blob, bytes: Bytes, when: When) -> Answer<'a, ()>;

    /// Hands in block `number` of a blob, from 0, of at most [`bounds::MAX_PART`] bytes. Nobody sees
    /// it before [`Self::commit`]; a block that is handed in again takes the place of the first.
    /// Blocks that are never committed are forgotten.
    fn stage<'a>(&'a self, blob: &'a Blob, number: u32, bytes: Bytes) -> Answer<'a, ()>;

    /// Makes a blob of the blocks 0 to `blocks` - 1, whole or not at all, in the place of one that is
    /// there.
    fn commit<'a>(&'a self, blob: &'a Blob, blocks: u32) -> Answer<'a, ()>;

    /// Appends at most [`bounds::MAX_PART`] bytes to a blob whose length is `at`, all or nothing; at
    /// 0 it is made. Only to a blob that was made so, and 50,000 times at most. Where an answer was
    /// lost, [`Self::length`] says whether it was appended.
    fn append<'a>(&'a self, blob: &'a Blob, at: u64, bytes: Bytes) -> Answer<'a, ()>;

    /// A blob's length, bytes; `None` where there is none.
    fn length<'a>(&'a self, blob: &'a Blob) -> Answer<'a, Option<u64>>;

    /// Reads a range of at most [`bounds::MAX_PART`] bytes, as far as the blob goes; `None` where
    /// there is none. [`reading`] reads more.
    fn read<'a>(&'a self, blob: &'a Blob, range: Range<u64>) -> Answer<'a, Option<Bytes>>;

    /// Reads a blob of at most [`bounds::MAX_PART`] bytes whole, unless its tag is still `known`.
    fn look<'a>(&'a self, blob: &'a Blob, known: Option<&'a str>) -> Answer<'a, Seen>;

    /// Deletes a blob. Whether there was one.
    fn delete<'a>(&'a self, blob: &'a Blob) -> Answer<'a, bool>;

    /// The blobs of a container whose names begin with `prefix`, [`bounds::MAX_PAGE`] at most, from
    /// where the page before said with [`Listing::next`]. A page may be short, or empty, although
    /// there are more.
    fn list<'a>(
        &'a self,
        container: Container,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> Answer<'a, Listing>;
}
