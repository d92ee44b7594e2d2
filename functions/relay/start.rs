//! The start of an answer's body: what of it has to be seen before the client gets any.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::gateway::classify::{NoAnswer, StreamEvent};
use crate::gateway::deployment::MarkReason;
use crate::gateway::opening::Opening;
use crate::host::bodies::{Gathered, gather_answer};

/// How long a stream's opening is held from its first byte on. A deployment that refuses a call
/// in its stream does so at once; a model that thinks for long is not to look dead meanwhile.
const OPENING_TIME: Duration = Duration::from_secs(1);

/// Most of an error that is read to tell what it is about, bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How a body starts.
pub(super) enum Start {
    /// With these chunks; none where the body is empty.
    Chunks(Vec<Bytes>),
    /// Not at all.
    Silence(NoAnswer),
    /// With an event that says that the deployment is at fault.
    Fault(MarkReason),
}

/// Reads a body up to its first byte.
pub(super) async fn first_byte(body: &mut Incoming) -> Start {
    match next_chunk(body).await {
        None => Start::Chunks(Vec::new()),
        Some(Ok(chunk)) => Start::Chunks(vec![chunk]),
        Some(Err(why)) => Start::Silence(why),
    }
}

/// Reads a stream up to the first event that carries something of the answer.
pub(super) async fn first_event(body: &mut Incoming) -> Start {
    let mut opening = Opening::default();
    let mut chunks = Vec::new();
    let mut held_until = None;
    loop {
        let next = match held_until {
            None => next_chunk(body).await,
            Some(end) => match timeout_at(end, next_chunk(body)).await {
                Ok(next) => next,
                Err(_) => return Start::Chunks(chunks),
            },
        };
        let chunk = match next {
            None => return Start::Silence(NoAnswer::EmptyStream),
            Some(Err(why)) => return Start::Silence(why),
            Some(Ok(chunk)) => chunk,
        };
        held_until = held_until.or_else(|| Some(Instant::now() + OPENING_TIME));
        let found = opening.push(&chunk);
        chunks.push(chunk);
        match found {
            StreamEvent::Opening => {}
            StreamEvent::Answer => return Start::Chunks(chunks),
            StreamEvent::Fault(reason) => return Start::Fault(reason),
        }
    }
}

/// The start of the body of an error, all of it where that is all that there is.
pub(super) async fn error_body(body: &mut Incoming) -> Result<Gathered, NoAnswer> {
    let gathered = gather_answer(body, MAX_ERROR_BODY).await;
    gathered.map_err(|_| NoAnswer::Reset)
}

/// The next chunk that has any bytes.
async fn next_chunk(body: &mut Incoming) -> Option<Result<Bytes, NoAnswer>> {
    loop {
        match body.frame().await? {
            Err(_) => return Some(Err(NoAnswer::Reset)),
            Ok(frame) => {
                if let Ok(chunk) = frame.into_data()
                    && !chunk.is_empty()
                {
                    return Some(Ok(chunk));
                }
            }
        }
    }
}
