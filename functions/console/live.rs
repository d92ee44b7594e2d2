//! The page as it changes: server-sent events with its moving part, made anew every two seconds.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::StatusCode;

use super::{Console, now, page};
use crate::current::Current;

/// Most pages that follow at a time.
pub(super) const MAX_FOLLOWERS: usize = 32;

/// Time from event to event.
const EVERY: Duration = Duration::from_secs(2);

/// Events until a stream ends: after five minutes the browser asks again, if its page is still looked
/// at. Where a function app bills for the time that requests run, a forgotten page costs little.
const EVENTS: u32 = 150;

/// Follows.
pub(super) async fn follow(State(current): State<Current<Console>>) -> Response {
    let Ok(place) = std::sync::Arc::clone(&current.get().followers).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let events = stream::unfold((current, place, 0), async |(current, place, number)| {
        if number == EVENTS {
            return None;
        }
        if number > 0 {
            tokio::time::sleep(EVERY).await;
        }
        let now = now::look(&current.get()).await;
        let html = page::moving(&now).into_string();
        let event = Ok::<_, Infallible>(Event::default().event("now").data(html));
        Some((event, (current, place, number + 1)))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}
