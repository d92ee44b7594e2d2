//! The client's body: read whole within its bounds, or let go of.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use tokio::time::timeout;

use super::error::RelayError;
use crate::config::mebibytes;
use crate::host::bodies::{Part, Ungathered, discard, gather};

/// Most that is read of a body that nobody wants, bytes, and for how long. (nginx's
/// `lingering_time` is 30 s.)
const MAX_LET_GO: usize = 32 << 20;
const LET_GO_TIME: Duration = Duration::from_secs(10);

/// Reads a body of at most `max_mb` MiB that has to be here within `deadline_ms`, as far as there is room
/// for it; `part` is what it takes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    max_mb: u32,
    deadline_ms: u64,
    part: &mut Part<'_>,
) -> Result<Bytes, RelayError> {
    let max = mebibytes(max_mb);
    let stated = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let stated = stated.and_then(|text| text.parse::<usize>().ok());
    if stated.is_some_and(|length| length > max) {
        let_go(body);
        return Err(RelayError::TooLarge { max_mb });
    }
    let gathering = gather(&mut body, max, part);
    match timeout(Duration::from_millis(deadline_ms), gathering).await {
        Ok(Ok(gathered)) if gathered.bytes.len() <= max => Ok(gathered.bytes),
        Ok(Ok(_)) => {
            let_go(body);
            Err(RelayError::TooLarge { max_mb })
        }
        Ok(Err(Ungathered::NoRoom)) => {
            let_go(body);
            Err(RelayError::NoRoom)
        }
        Ok(Err(Ungathered::Broken(_))) => Err(RelayError::BodyBroken),
        Err(_) => Err(RelayError::BodyLate { deadline_ms }),
    }
}

/// Takes in what a client is still sending of a body that nobody wants. Closing the connection
/// on it would reset it, and the client could lose the answer that says why.
pub(super) fn let_go(body: Body) {
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(discard(body, MAX_LET_GO, LET_GO_TIME));
}
