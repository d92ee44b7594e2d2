//! Writes down what came of a batch's lines: an append is the moment at which a line is finished.
//!
//! Results that come while an append is under way go into the next one together. What was finished
//! is read from the blobs themselves when a batch is taken on again, so that no line that has a
//! result is called twice. Two processes that both take a batch for theirs find that the blob ends
//! elsewhere than they wrote, and one of them leaves off.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::lines::{LineError, Lines};
use crate::gateway::batch::reply::{Answer, line_of};
use crate::gateway::batches::name;
use crate::store::blobs::bounds::MAX_PART;
use crate::store::blobs::{Blob, BlobError, Blobs};

/// The shortest and longest pause before the store is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A line and what came of it.
#[derive(Debug)]
pub(super) struct Done {
    /// The line's number.
    pub(super) number: u32,
    /// Its app's name for it.
    pub(super) custom_id: String,
    /// What came of it.
    pub(super) answer: Answer,
}

/// The results of one sort: good answers, or errors.
#[derive(Debug)]
pub(super) struct Results {
    blobs: Arc<dyn Blobs>,
    blob: Blob,
    /// How long the blob is.
    pub(super) length: u64,
    /// How many results are in it.
    pub(super) count: u32,
}

/// Why results were not written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Somebody else works on the batch.
    Lost,
    /// The store of blobs does not take them, and never will.
    Refused(String),
}

impl Results {
    /// The results that are there already, and the numbers of their lines.
    ///
    /// # Errors
    /// When the blobs can't be read.
    pub(super) async fn open(
        blobs: &Arc<dyn Blobs>,
        blob: Blob,
    ) -> Result<(Self, Vec<u32>), LineError> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        let length = blobs.length(&blob).await.map_err(LineError::Blob)?;
        let length = length.unwrap_or_default();
        let mut lines = Lines::new(Arc::clone(blobs), blob.clone(), length, MAX_PART);
        let mut numbers = Vec::new();
        while let Some((_, line)) = lines.next().await? {
            let named: Option<Named> = serde_json::from_slice(&line).ok();
            numbers.extend(named.and_then(|named| name::number(&named.id)));
        }
        let results = Self {
            blobs: Arc::clone(blobs),
            blob,
            length,
            count: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
        };
        Ok((results, numbers))
    }

    /// Appends lines, in as few appends as they fit in.
    ///
    /// # Errors
    /// [`Unwritten`]; what came before the append that failed is there, and counted.
    pub(super) async fn append(&mut self, lines: &[Bytes]) -> Result<(), Unwritten> {
        let mut part = BytesMut::new();
        for line in lines {
            if !part.is_empty() && part.len() + line.len() > MAX_PART {
                self.append_part(part.split().freeze()).await?;
            }
            part.extend_from_slice(line);
        }
        if part.is_empty() {
            return Ok(());
        }
        self.append_part(part.freeze()).await
    }

    /// Appends until it is known to be there, or that it never will be.
    async fn append_part(&mut self, part: Bytes) -> Result<(), Unwritten> {
        let (mut pause, longest) = PAUSES;
        while let Some(error) = self.append_once(&part).await? {
            tracing::warn!(blob = %self.blob, %error, "results of a batch can't be kept; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        let lines = memchr::memchr_iter(b'\n', &part).count();
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        self.count = self.count.saturating_add(lines);
        Ok(())
    }

    /// Appends; why that has to be tried again, where it has.
    async fn append_once(&mut self, part: &Bytes) -> Result<Option<BlobError>, Unwritten> {
        let bytes = u64::try_from(part.len()).unwrap_or_default();
        let after = self.length.saturating_add(bytes);
        let (blobs, blob) = (&self.blobs, &self.blob);
        let Err(error) = blobs.append(blob, self.length, part.clone()).await else {
            self.length = after;
            return Ok(None);
        };
        // An answer that was lost may have been a good one.
        match (error, blobs.length(blob).await) {
            (_, Ok(Some(length))) if length == after => {
                self.length = after;
                Ok(None)
            }
            (_, Ok(length)) if length.unwrap_or_default() != self.length => Err(Unwritten::Lost),
            (BlobError::Refused(why), Ok(_) | Err(BlobError::Refused(_))) => {
                Err(Unwritten::Refused(why))
            }
            (error, _) => Ok(Some(error)),
        }
    }
}

/// The line that tells a result, with its end, and whether it is a good one.
pub(super) fn result(batch: &str, done: &Done) -> (Bytes, bool) {
    let id = name::result(batch, done.number);
    let line = line_of(&id, &done.custom_id, &done.answer);
    let is_good = matches!(done.answer, Answer::Response { status, .. } if status < 300);
    if line.len() < MAX_PART {
        return (ended(&line), is_good);
    }
    let too_large = Answer::Error {
        code: "answer_too_large".into(),
        message: format!(
            "The answer has more than {} MiB, which the file of a batch can't take.",
            MAX_PART >> 20
        ),
    };
    (ended(&line_of(&id, &done.custom_id, &too_large)), false)
}

fn ended(line: &Bytes) -> Bytes {
    let mut whole = BytesMut::with_capacity(line.len() + 1);
    whole.extend_from_slice(line);
    whole.extend_from_slice(b"\n");
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::batch::line::MAX_CUSTOM_ID;
    use crate::store::blobs::Container;
    use crate::store::blobs::embedded::Embedded;

    async fn results(folder: &tempfile::TempDir) -> Results {
        let blobs: Arc<dyn Blobs> = Arc::new(Embedded::open(folder.path()).unwrap());
        let blob = Blob::new(Container::Files, "x");
        let (results, numbers) = Results::open(&blobs, blob).await.unwrap();
        assert!(numbers.is_empty());
        results
    }

    #[tokio::test]
    async fn what_the_store_refuses_is_not_tried_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut results = results(&folder).await;
        let short = Bytes::from_static(b"{}\n");
        let large = Bytes::from(vec![b'x'; MAX_PART + 1]);
        let lines = [short.clone(), short, large];
        let appended = tokio::time::timeout(Duration::from_secs(30), results.append(&lines));
        let refused = appended.await.expect("it comes to an end");
        assert!(matches!(refused, Err(Unwritten::Refused(_))), "{refused:?}");
        assert_eq!((results.length, results.count), (6, 2));
    }

    #[tokio::test]
    async fn a_blob_that_somebody_else_writes_is_left_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = results(&folder).await;
        let line = Bytes::from_static(b"{}\n");
        let appended = own.blobs.append(&own.blob, 0, line.slice(..1)).await;
        assert_eq!(appended, Ok(()));
        assert_eq!(own.append(&[line]).await, Err(Unwritten::Lost));
    }

    #[test]
    fn the_line_that_an_answer_is_too_large_is_none_itself() {
        let done = |bytes: usize| Done {
            number: 1,
            custom_id: "\u{1}".repeat(MAX_CUSTOM_ID),
            answer: Answer::Response {
                status: 200,
                request_id: "r".into(),
                body: vec![b'1'; bytes].into(),
            },
        };
        let (line, is_good) = result("batch_spw1", &done(1000));
        assert!(is_good && line.len() < MAX_PART);
        let (line, is_good) = result("batch_spw1", &done(MAX_PART));
        assert!(!is_good && line.len() < MAX_PART);
        assert!(line.windows(16).any(|part| part == b"answer_too_large"));
    }
}
