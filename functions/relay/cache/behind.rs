//! The blobs behind the memory, by which instances give each other's answers. None of it is waited for
//! longer than it is worth: without it calls go to a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

use crate::gateway::cache::Key;
use crate::gateway::cache::kept::Kept;
use crate::store::blobs::bounds::MAX_PART;
use crate::store::blobs::{Blob, BlobError, Blobs, Container, When};

/// Answers that wait to be written. Those that find no room are in memory only.
const WAITING: usize = 32;

/// Answers that are written at the same time.
const WRITERS: usize = 4;

/// The longest wait for a blob. A call to a model takes longer; a store that does too is of no use.
const PATIENCE: Duration = Duration::from_millis(500);

/// The calls' end.
#[derive(Debug)]
pub(super) struct Behind {
    blobs: Arc<dyn Blobs>,
    queue: mpsc::Sender<(Key, Arc<Kept>)>,
    /// Times that the store failed, or was too slow.
    failures: AtomicU64,
}

/// The other end.
#[derive(Debug)]
pub(super) struct Written(mpsc::Receiver<(Key, Arc<Kept>)>);

impl Behind {
    pub(super) fn new(blobs: Arc<dyn Blobs>) -> (Self, Written) {
        let (queue, receiver) = mpsc::channel(WAITING);
        let behind = Self {
            blobs,
            queue,
            failures: AtomicU64::new(0),
        };
        (behind, Written(receiver))
    }

    /// The answer of a key, where there is one.
    pub(super) async fn read(&self, key: Key) -> Option<Arc<Kept>> {
        let most = u64::try_from(MAX_PART).unwrap_or(u64::MAX);
        let blob = blob(key);
        let read = self.blobs.read(&blob, 0..most);
        let why = match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(bytes)) => return bytes.as_ref().and_then(Kept::from_blob).map(Arc::new),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", PATIENCE.as_millis()),
        };
        let count = self.failures.fetch_add(1, Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(
                count,
                why,
                "kept answers can't be read: calls go to a backend"
            );
        }
        None
    }

    /// Has an answer written, where there is room.
    pub(super) fn write(&self, key: Key, kept: &Arc<Kept>) {
        if self.queue.try_send((key, Arc::clone(kept))).is_err() {
            tracing::debug!(%key, "an answer is kept in memory only: too many wait to be written");
        }
    }
}

impl Written {
    /// Writes answers until the last relay is gone.
    pub(super) async fn keep(self, blobs: Arc<dyn Blobs>) {
        let entries = unfold(self.0, |mut queue| async {
            let entry = queue.recv().await?;
            Some((entry, queue))
        });
        let write = |(key, kept): (Key, Arc<Kept>)| {
            let blobs = Arc::clone(&blobs);
            async move {
                let (blob, bytes) = (blob(key), kept.to_blob());
                match blobs.put(&blob, bytes, When::Always).await {
                    // An answer that is not written is only one more call to a backend.
                    Ok(()) | Err(BlobError::Exists) => {}
                    Err(error) => tracing::warn!(%blob, %error, "an answer can't be written"),
                }
            }
        };
        entries.for_each_concurrent(WRITERS, write).await;
    }
}

/// Where an answer lies. Whoever writes there has an answer to the same call, and writes it whole.
fn blob(key: Key) -> Blob {
    Blob::new(Container::Answers, key.to_string())
}
