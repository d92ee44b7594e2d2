//! The memory of bodies: how much of it all requests together may take, and how a body is let go of.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

#[cfg(test)]
mod tests;

/// What the bodies of requests may take of the memory, all together.
#[derive(Debug)]
pub struct Room {
    most: usize,
    taken: AtomicUsize,
}

impl Room {
    /// Room for `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            taken: AtomicUsize::new(0),
        }
    }

    /// Most bytes that it has.
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// The part of one body, nothing so far.
    pub const fn part(&self) -> Part<'_> {
        Part {
            room: self,
            bytes: 0,
        }
    }
}

/// What one body takes of a [`Room`], until this is dropped.
#[derive(Debug)]
pub struct Part<'r> {
    room: &'r Room,
    bytes: usize,
}

impl Part<'_> {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When there is no room for them; nothing is taken then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let before = self.room.taken.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.room.most {
            self.room.taken.fetch_sub(bytes, Relaxed);
            return Err(NoRoom);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Relaxed);
    }
}

/// The bodies of other requests take all the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bodies of other requests take all the room")
    }
}

impl std::error::Error for NoRoom {}

/// A body of whose chunks each takes room as it comes.
#[derive(Debug)]
pub struct Counted<'b, 'r, B> {
    /// The body.
    pub body: &'b mut B,
    /// Its part of the room.
    pub part: &'b mut Part<'r>,
}

impl<B> Body for Counted<'_, '_, B>
where
    B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut *this.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into)?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        this.part.grow(bytes)?;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
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
