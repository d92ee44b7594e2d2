//! Bodies: read into memory within the room that there is for all of them, or let go of.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use crate::gateway::room::Room;

#[cfg(test)]
mod tests;

/// What a caller is told whose body found no room.
pub const NO_ROOM: &str =
    "The bodies of other calls take all the memory that they may here; try again.";

/// When such a call is worth making again, ms.
pub const NO_ROOM_RETRY_MS: u64 = 1000;

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
pub enum Ungathered<E> {
    /// The bodies of other requests take all the room.
    NoRoom,
    /// It broke off.
    Broken(E),
}

impl<E: fmt::Display> fmt::Display for Ungathered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("other bodies take all the room"),
            Self::Broken(error) => write!(f, "it broke off: {error}"),
        }
    }
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
pub async fn gather<B>(
    body: &mut B,
    most: usize,
    part: &mut Part<'_>,
) -> Result<Gathered, Ungathered<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
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
fn still_to_come(body: &impl Body, most: usize) -> usize {
    let stated = body.size_hint().lower();
    usize::try_from(stated).map_or(most, |stated| stated.min(most))
}

/// As [`gather`], of an answer: what bounds it is `most` alone.
///
/// # Errors
/// When it broke off.
pub async fn gather_answer<B>(body: &mut B, most: usize) -> Result<Gathered, Ungathered<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let room = Room::unbounded();
    gather(body, most, &mut Part::of(&room)).await
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
