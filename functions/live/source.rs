//! Where the configuration is watched: a blob, or a file.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::gateway::time::Timestamp;
use crate::store::blobs::bounds::MAX_PART;
use crate::store::blobs::{Blob, Blobs, Seen};
use crate::store::rejects::digest;

/// Where the configuration is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file. That it changes shows in its bytes.
    File(PathBuf),
    /// A blob. That it changes shows in its `ETag`.
    Blob(Arc<dyn Blobs>, Blob),
}

/// What was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// What was there before.
    Same,
    /// Another one.
    Changed {
        /// Differs from version to version.
        tag: String,
        /// When it was written.
        written: Timestamp,
        /// The text.
        text: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Blob(_, blob) => blob.fmt(f),
        }
    }
}

impl Source {
    /// Looks whether there is another one than that with the tag `known`.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn look(&self, known: Option<&str>) -> Result<Found, String> {
        match self {
            Self::File(file) => {
                let (file, known) = (file.clone(), known.map(str::to_owned));
                let read = tokio::task::spawn_blocking(move || look_at(&file, known.as_deref()));
                let read = read.await.map_err(io::Error::other).flatten();
                read.map_err(|error| error.to_string())
            }
            Self::Blob(blobs, blob) => {
                let seen = blobs.look(blob, known).await.map_err(|e| e.to_string())?;
                let version = match seen {
                    Seen::Absent => return Ok(Found::Absent),
                    Seen::Same => return Ok(Found::Same),
                    Seen::Changed(version) => version,
                };
                // What is no text is a mistake of its own, found where it is read.
                let text = String::from_utf8_lossy(&version.bytes).into_owned();
                Ok(Found::Changed {
                    tag: version.tag,
                    written: version.written,
                    text,
                })
            }
        }
    }
}

fn look_at(file: &std::path::Path, known: Option<&str>) -> io::Result<Found> {
    let about = match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        about => about?,
    };
    if usize::try_from(about.len()).is_ok_and(|length| length > MAX_PART) {
        return Err(io::Error::other(format!(
            "it has more than {MAX_PART} bytes"
        )));
    }
    let bytes = std::fs::read(file)?;
    let tag = digest(&[&bytes]);
    if known == Some(&*tag) {
        return Ok(Found::Same);
    }
    let seconds = about.modified()?.duration_since(UNIX_EPOCH);
    let seconds = seconds.map_or(0, |since| since.as_secs());
    Ok(Found::Changed {
        tag,
        written: Timestamp::from_unix_ms(seconds.saturating_mul(1000)),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}
