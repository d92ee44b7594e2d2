//! Server-sent events at the pace of a model.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use http_body::Frame;
use serde_json::Value;
use tokio::time::{Instant, Sleep};

use super::limits::Ticket;

/// One server-sent event.
#[derive(Debug)]
pub(super) struct Event {
    bytes: Bytes,
    /// Generated tokens that it carries: what it takes time and money for.
    tokens: u64,
}

impl Event {
    /// `data: {...}`, as chat and completions have it.
    pub(super) fn data(value: &Value) -> Self {
        Self {
            bytes: format!("data: {value}\n\n").into(),
            tokens: 0,
        }
    }

    /// `event: name` and its data, as the responses API has it.
    pub(super) fn named(name: &str, value: &Value) -> Self {
        Self {
            bytes: format!("event: {name}\ndata: {value}\n\n").into(),
            tokens: 0,
        }
    }

    /// An event written by the caller, for the many that differ in a few bytes.
    pub(super) fn raw(text: String) -> Self {
        Self {
            bytes: text.into(),
            tokens: 0,
        }
    }

    /// The end of chat and completions streams.
    pub(super) fn done() -> Self {
        Self {
            bytes: Bytes::from_static(b"data: [DONE]\n\n"),
            tokens: 0,
        }
    }

    /// The event with `tokens` generated tokens in it.
    pub(super) fn with_tokens(self, tokens: u64) -> Self {
        Self { tokens, ..self }
    }
}

/// A 200 that streams `events`, made as they are sent, one every `per_token_ms` for each token. The
/// ticket is billed for what was sent and settled when the stream ends or is dropped.
pub(super) fn stream<I>(events: I, per_token_ms: u64, ticket: Ticket) -> Response
where
    I: Iterator<Item = Event> + Send + Unpin + 'static,
{
    let body = Paced {
        events,
        per_token_ms,
        due: Instant::now(),
        waiting: None,
        ticket: Some(ticket),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, must-revalidate"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (headers, ()).into_response();
    if let Some(ticket) = &body.ticket {
        ticket.stamp(response.headers_mut());
    }
    *response.body_mut() = Body::new(body);
    response
}

struct Paced<I> {
    events: I,
    per_token_ms: u64,
    /// When the next event may leave. Kept as a point in time, so that late timers don't add up.
    due: Instant,
    waiting: Option<(Pin<Box<Sleep>>, Event)>,
    ticket: Option<Ticket>,
}

impl<I: Iterator<Item = Event> + Send + Unpin> Paced<I> {
    fn bill(&mut self, event: &Event) {
        if let Some(ticket) = &mut self.ticket {
            ticket.used.output = ticket.used.output.saturating_add(event.tokens);
        }
    }
}

impl<I: Iterator<Item = Event> + Send + Unpin> http_body::Body for Paced<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            let Some(event) = this.events.next() else {
                this.ticket = None;
                return Poll::Ready(None);
            };
            let ms = this.per_token_ms.saturating_mul(event.tokens);
            if ms == 0 {
                this.bill(&event);
                return Poll::Ready(Some(Ok(Frame::data(event.bytes))));
            }
            this.due += Duration::from_millis(ms);
            this.waiting = Some((Box::pin(tokio::time::sleep_until(this.due)), event));
        }
        if let Some((sleep, _)) = &mut this.waiting {
            ready!(sleep.as_mut().poll(cx));
        }
        let Some((_, event)) = this.waiting.take() else {
            return Poll::Ready(None);
        };
        this.bill(&event);
        Poll::Ready(Some(Ok(Frame::data(event.bytes))))
    }
}
