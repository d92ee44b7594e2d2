//! Configurations that were taken, kept for a roll-back: blobs in `confighistory`, by when they were
//! written and their hash.
//!
//! All instances take the same one and would keep it under the same name, so that it is there once.

use std::sync::Arc;

use bytes::Bytes;

use crate::gateway::time::Timestamp;
use crate::store::blobs::bounds::MAX_PART;
use crate::store::blobs::reading::whole;
use crate::store::blobs::{Blob, BlobError, Blobs, Container, When};

/// The ones that are kept.
#[derive(Clone, Debug)]
pub struct History {
    blobs: Arc<dyn Blobs>,
    most: usize,
}

impl History {
    /// The newest `most`, in `blobs`.
    pub const fn new(blobs: Arc<dyn Blobs>, most: usize) -> Self {
        Self { blobs, most }
    }

    /// Keeps one that was written at a time, and deletes those that are too old.
    ///
    /// # Errors
    /// When the blobs can't be reached.
    pub async fn keep(&self, text: &str, hash: &str, written: Timestamp) -> Result<(), BlobError> {
        if self.most == 0 {
            return Ok(());
        }
        let blob = Blob::new(Container::ConfigHistory, name(hash, written));
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        match self.blobs.put(&blob, bytes, When::Absent).await {
            // Another instance was there first.
            Ok(()) | Err(BlobError::Exists) => {}
            Err(error) => return Err(error),
        }
        for name in self.list().await?.into_iter().skip(self.most) {
            let old = Blob::new(Container::ConfigHistory, name);
            self.blobs.delete(&old).await?;
        }
        Ok(())
    }

    /// The names of all that are kept, the newest first.
    ///
    /// # Errors
    /// When the blobs can't be reached.
    pub async fn list(&self) -> Result<Vec<String>, BlobError> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let container = Container::ConfigHistory;
            let page = self.blobs.list(container, "", after.as_deref()).await?;
            names.extend(page.blobs.into_iter().map(|(name, _)| name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// The text of one that is kept; `None` where there is none of that name.
    ///
    /// # Errors
    /// When the blobs can't be reached.
    pub async fn text(&self, name: &str) -> Result<Option<String>, BlobError> {
        let blob = Blob::new(Container::ConfigHistory, name);
        let bytes = whole(&*self.blobs, &blob, MAX_PART).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Such as `20261129T030218Z-5f1d0c2b9a3e.toml`: the order of names is that of time.
fn name(hash: &str, written: Timestamp) -> String {
    let time = written.rfc3339();
    let time = time.split('.').next().unwrap_or_default();
    let digits: String = time.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{digits}Z-{hash}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blobs::embedded::Embedded;

    #[tokio::test]
    async fn the_newest_are_kept_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(Arc::new(Embedded::open(folder.path()).unwrap()), 2);
        for second in [3, 1, 2, 3] {
            let written = Timestamp::from_unix_ms(1_795_453_590_000 + second * 1000);
            let text = format!("# {second}");
            history
                .keep(&text, &second.to_string(), written)
                .await
                .unwrap();
        }
        let names = history.list().await.unwrap();
        assert_eq!(
            names,
            ["20261123T170633Z-3.toml", "20261123T170632Z-2.toml"]
        );
        let text = history.text(&names[1]).await.unwrap();
        assert_eq!(text.as_deref(), Some("# 2"));
        assert_eq!(history.text("none.toml").await, Ok(None));
    }
}
