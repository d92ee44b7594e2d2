//! Bodies: read into memory within the room that there is for all of them, or let go of.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use crate::gateway::room::Room;

#[cfg(test)]
mod tests;

/// What one body takes of the room for all bodies, bytes, until this is dropped.
#[derive(Debug)]
pub struct Part<'r> {
    room: &'r Room,
    bytes: usize,
}

impl<'r> Part<'r> {
    /// A part of `room`, nothing so far.
    pub const fn of(room: &'r Room) -> Self {
        Self { room, bytes: 0 }
    }

    /// Takes so many bytes more, if there is room for them; whether there was.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

/// Why a body could not be gathered.
#[derive(Debug)]
pub enum Ungathered {
    /// The bodies of other requests take all the room.
    NoRoom,
    /// It broke off.
    Broken(axum::Error),
}

/// The start of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Its bytes, in one piece.
    pub bytes: Bytes,
    /// Whether they are all of it.
    pub is_whole: bool,
}

/// Reads a body until it ends, or has more than `most` bytes. What of it is read is in `part`.
///
/// Its chunks are put together as they come: kept as they are, chunks of a byte would take some forty times
/// the memory of what they carry.
///
/// # Errors
/// [`Ungathered`].
pub async fn gather(
    body: &mut axum::body::Body,
    most: usize,
    part: &mut Part<'_>,
) -> Result<Gathered, Ungathered> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let is_whole = match body.frame().await {
            None => true,
            Some(Err(error)) => return Err(Ungathered::Broken(error)),
            Some(Ok(frame)) => {
                let chunk = frame.into_data().unwrap_or_default();
                if !part.grow(chunk.len()) {
                    return Err(Ungathered::NoRoom);
                }
                if first.is_empty() {
                    first = chunk;
                } else {
                    if all.is_empty() {
                        all.reserve(still_to_come(body, most) + first.len() + chunk.len());
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&chunk);
                }
                false
            }
        };
        if is_whole || first.len().max(all.len()) > most {
            let bytes = if all.is_empty() { first } else { all.freeze() };
            return Ok(Gathered { bytes, is_whole });
        }
    }
}

/// What a body says that is still to come of it, `most` at most.
fn still_to_come(body: &axum::body::Body, most: usize) -> usize {
    let stated = body.size_hint().lower();
    usize::try_from(stated).map_or(most, |stated| stated.min(most))
}

/// Takes in what comes of a body that nobody wants, up to `most` bytes and for `time`, and keeps
/// nothing of it.
pub async fn discard<B>(body: B, most: usize, time: Duration)
where
    B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    let mut rest = Limited::new(body, most);
    let all = async { while let Some(Ok(_)) = rest.frame().await {} };
    // However it ends: what is left then closes the connection.
    let _ = timeout(time, all).await;
}
