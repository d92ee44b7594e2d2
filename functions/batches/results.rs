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
}

/// Somebody else works on the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

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
        };
        Ok((results, numbers))
    }

    /// Appends lines, in as few appends as they fit in.
    ///
    /// # Errors
    /// [`Lost`] when somebody else has written.
    pub(super) async fn append(&mut self, lines: &[Bytes]) -> Result<(), Lost> {
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

    /// Appends until it is known to be there.
    async fn append_part(&mut self, part: Bytes) -> Result<(), Lost> {
        let after = self.length + u64::try_from(part.len()).unwrap_or_default();
        let (mut pause, longest) = PAUSES;
        loop {
            let done = self
                .blobs
                .append(&self.blob, self.length, part.clone())
                .await;
            let error = match done {
                Ok(()) => {
                    self.length = after;
                    return Ok(());
                }
                Err(error) => error,
            };
            // An answer that was lost may have been a good one.
            match self.blobs.length(&self.blob).await {
                Ok(Some(length)) if length == after => {
                    self.length = after;
                    return Ok(());
                }
                Ok(length) if length.unwrap_or_default() != self.length => return Err(Lost),
                _ => {}
            }
            if let BlobError::Refused(why) = &error {
                tracing::error!(blob = %self.blob, why, "results of a batch are refused");
            }
            tracing::warn!(blob = %self.blob, %error, "results of a batch can't be kept; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
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
