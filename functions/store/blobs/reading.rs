//! Blobs read whole, or as a stream of parts.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;

use super::bounds::MAX_PART;
use super::{Blob, BlobError, Blobs};

/// How much of a stream is read at once, bytes.
const STEP: u64 = 1 << 20;

/// Reads a blob of at most `most` bytes; `None` where there is none.
///
/// # Errors
/// When it is larger, or the store fails.
pub async fn whole(
    blobs: &dyn Blobs,
    blob: &Blob,
    most: usize,
) -> Result<Option<Bytes>, BlobError> {
    let Some(length) = blobs.length(blob).await? else {
        return Ok(None);
    };
    let fits = usize::try_from(length).ok().filter(|bytes| *bytes <= most);
    let Some(bytes) = fits else {
        return Err(BlobError::Refused(format!(
            "{blob} has {length} bytes; {most} is the most that is read at once"
        )));
    };
    let mut whole = BytesMut::with_capacity(bytes);
    let part = u64::try_from(MAX_PART).unwrap_or(STEP);
    let mut at = 0;
    while at < length {
        let end = length.min(at.saturating_add(part));
        let Some(next) = blobs.read(blob, at..end).await? else {
            return Ok(None);
        };
        if next.is_empty() {
            return Err(shorter(blob));
        }
        at += u64::try_from(next.len()).unwrap_or_default();
        whole.extend_from_slice(&next);
    }
    Ok(Some(whole.freeze()))
}

/// The bytes of a range of a blob, a MiB at a time, each read when it is asked for. The range has to
/// lie within the blob; a blob that ends early, or is gone, ends the stream with an error.
pub fn stream(
    blobs: Arc<dyn Blobs>,
    blob: Blob,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
    let state = Some((blobs, blob, range));
    unfold(state, |state| async move {
        let (blobs, blob, range) = state.filter(|(_, _, range)| !range.is_empty())?;
        let end = range.end.min(range.start.saturating_add(STEP));
        let part = match blobs.read(&blob, range.start..end).await {
            Ok(Some(part)) if !part.is_empty() => part,
            Ok(_) => return Some((Err(shorter(&blob)), None)),
            Err(error) => return Some((Err(error), None)),
        };
        let read = u64::try_from(part.len()).unwrap_or(STEP);
        let rest = range.start.saturating_add(read)..range.end;
        Some((Ok(part), Some((blobs, blob, rest))))
    })
}

fn shorter(blob: &Blob) -> BlobError {
    BlobError::Unavailable(format!("{blob} has become shorter, or is gone"))
}
