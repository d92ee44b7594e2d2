//! `spillway diff` and `spillway config`: what a configuration would change, and putting one in place.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::history::History;
use super::source::{Found, Source};
use super::{Written, hash};
use crate::config::diff::Document;
use crate::store::blobs::{Blob, BlobError, Blobs, Container, When};

/// The blob that running gateways watch, and what they have taken of it.
#[derive(Debug)]
pub struct Place {
    blobs: Arc<dyn Blobs>,
    blob: Blob,
    history: History,
}

impl Place {
    /// The blob of this name in the container `config`.
    pub fn new(blobs: Arc<dyn Blobs>, name: &str) -> Self {
        Self {
            history: History::new(Arc::clone(&blobs), 0),
            blob: Blob::new(Container::Config, name),
            blobs,
        }
    }

    /// What is there now.
    ///
    /// # Errors
    /// When there is nothing, or it can't be read.
    pub async fn read(&self) -> io::Result<Written> {
        let source = Source::Blob(Arc::clone(&self.blobs), self.blob.clone());
        match source.look(None).await.map_err(io::Error::other)? {
            Found::Changed { text, .. } => Ok(Written {
                text,
                from: source.to_string(),
            }),
            Found::Absent | Found::Same => {
                Err(io::Error::other(format!("there is no {source} yet")))
            }
        }
    }

    /// Says what is kept, the newest first; what is there now is marked.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn list(&self, out: &mut impl Write) -> io::Result<()> {
        let running = self.read().await.map(|now| hash(&now.text));
        let running = running.unwrap_or_default();
        for name in self.history.list().await.map_err(io::Error::other)? {
            let is_running = !running.is_empty() && name.contains(&running);
            writeln!(out, "{} {name}", if is_running { "*" } else { " " })?;
        }
        Ok(())
    }

    /// Puts this text there. Each gateway takes it within its `poll_seconds`, or says why not.
    ///
    /// # Errors
    /// When its TOML is broken, or it can't be written.
    pub async fn put(&self, next: &Written, out: &mut impl Write) -> io::Result<()> {
        // Gateways would refuse it: they know the rest of what may be wrong with it.
        Document::read(&next.text, &next.from).map_err(io::Error::other)?;
        let bytes = Bytes::copy_from_slice(next.text.as_bytes());
        let put = self.blobs.put(&self.blob, bytes, When::Always).await;
        put.map_err(io::Error::other)?;
        writeln!(out, "{} is now {}", self.blob, hash(&next.text))
    }

    /// Puts there again what is kept under a name.
    ///
    /// # Errors
    /// When nothing is kept so, or it can't be written.
    pub async fn roll_back(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        let text = self.history.text(name).await.map_err(io::Error::other)?;
        let missing = || BlobError::Refused(format!("nothing is kept as {name}"));
        let next = Written {
            text: text.ok_or_else(missing).map_err(io::Error::other)?,
            from: name.to_owned(),
        };
        self.put(&next, out).await
    }
}

/// Reads a configuration's file.
///
/// # Errors
/// When it can't be read.
pub fn file(file: &Path) -> io::Result<Written> {
    let from = file.display().to_string();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|e| io::Error::new(e.kind(), format!("cannot read {from}: {e}")))?;
    Ok(Written { text, from })
}

/// Says what differs, a key a line, and which keys need a restart. Whether anything does.
///
/// # Errors
/// When the TOML of either is broken.
pub fn diff(before: &Written, after: &Written, out: &mut impl Write) -> io::Result<bool> {
    let read = |one: &Written| Document::read(&one.text, &one.from).map_err(io::Error::other);
    let differences = read(before)?.differences(&read(after)?);
    for one in &differences {
        let note = match (one.is_packaged(), one.needs_restart()) {
            (true, _) => "   # only the packaged file says so",
            (false, true) => "   # needs a restart",
            (false, false) => "",
        };
        writeln!(out, "{one}{note}")?;
    }
    Ok(!differences.is_empty())
}
