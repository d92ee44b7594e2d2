//! An answer's body on its way to the client, read as it passes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Relay;
use super::affinity::Owner;
use super::cache::Role;
use super::headers::{is_event_stream, is_plain};
use super::record::CallRecord;
use crate::gateway::event::{Outcome, Tokens};
use crate::gateway::route::Operation;
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::skim::{Skim, TextKeys};
use crate::gateway::sse::SseScanner;
use crate::gateway::usage;
use crate::outbox::recorder::Lasting;

/// How an answer's body is read.
#[derive(Debug)]
pub(super) enum Reader {
    /// Server-sent events.
    Events(SseScanner),
    /// One JSON document.
    Json(Skim),
    /// Audio, files, compressed answers: not read.
    Opaque,
}

impl Reader {
    /// A reader for an answer with these headers.
    pub(super) fn new(headers: &HeaderMap, operation: Operation, hides_usage: bool) -> Self {
        let keys = text_keys(operation);
        if is_event_stream(headers) {
            Self::Events(SseScanner::new(keys, hides_usage))
        } else if is_plain(headers, "application/json") {
            Self::Json(Skim::new(keys))
        } else {
            Self::Opaque
        }
    }

    fn push(&mut self, chunk: Bytes, out: &mut VecDeque<Bytes>) {
        match self {
            Self::Events(scanner) => scanner.push(&chunk, |part| out.push_back(part)),
            Self::Json(skim) => {
                skim.push(&chunk);
                out.push_back(chunk);
            }
            Self::Opaque => out.push_back(chunk),
        }
    }

    fn usage(&self) -> Option<Tokens> {
        match self {
            Self::Events(scanner) => scanner.seen().usage,
            Self::Json(skim) => skim.usage().and_then(usage::parse),
            Self::Opaque => None,
        }
    }

    /// The service tier that processed the call: the standard one where the answer names none.
    fn service_tier(&self) -> ServiceTier {
        let named = match self {
            Self::Events(scanner) => scanner.seen().service_tier,
            Self::Json(skim) => skim.service_tier(),
            Self::Opaque => None,
        };
        named.unwrap_or_default()
    }

    /// Whether the answer says that it is an error.
    fn has_error(&self) -> bool {
        match self {
            Self::Events(scanner) => scanner.seen().error,
            Self::Json(skim) => skim.has_error(),
            Self::Opaque => false,
        }
    }

    /// The ids of what the call made: the answer's own, and that of something made beside. In a stream each
    /// thing has an event, and the first one counts: a thread comes before its run.
    fn ids(&self) -> [Option<&str>; 2] {
        match self {
            Self::Events(scanner) => [scanner.seen().id.as_deref(), None],
            Self::Json(skim) => [skim.id(), skim.id_beside()],
            Self::Opaque => [None, None],
        }
    }

    const fn text_bytes(&self) -> u64 {
        match self {
            Self::Events(scanner) => scanner.text_bytes(),
            Self::Json(skim) => skim.text_bytes(),
            Self::Opaque => 0,
        }
    }
}

const fn text_keys(operation: Operation) -> TextKeys {
    match operation {
        Operation::ChatCompletions => TextKeys::Chat,
        Operation::Completions => TextKeys::Completions,
        Operation::Responses | Operation::Transcription => TextKeys::Deltas,
        _ => TextKeys::None,
    }
}

/// Why an answer's body ended early: the client's connection is then broken off too, so that it
/// can't take half an answer for a whole one.
#[derive(Debug)]
pub(super) struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// What a call makes that later ones name.
struct Made {
    /// The app and backend that they have to come back to.
    owner: Owner,
    /// Which of its ids are remembered.
    is_known: [bool; 2],
}

/// The body of an answer.
pub(super) struct RelayBody {
    upstream: Incoming,
    reader: Reader,
    out: VecDeque<Bytes>,
    /// Bytes of the first chunks, which came before the body was handed on.
    waiting: u64,
    /// Turns that a stream's connection has had since the last chunk came.
    turns: u8,
    /// Set when a chunk is waited for: most answers are there with their head.
    timer: Option<Pin<Box<Sleep>>>,
    last_chunk: Instant,
    idle: Duration,
    /// When the answer has to have ended.
    end_by: Instant,
    heartbeat: Option<Duration>,
    ended: bool,
    made: Option<Made>,
    relay: Arc<Relay>,
    record: Option<CallRecord>,
    /// What the end of the answer waits for: that its event lasts.
    lasting: Option<Lasting>,
    /// Whether there will be such a thing.
    is_durable: bool,
}

impl RelayBody {
    pub(super) fn new(
        relay: Arc<Relay>,
        first: Vec<Bytes>,
        upstream: Incoming,
        reader: Reader,
        record: CallRecord,
        made: Option<Owner>,
    ) -> Self {
        let gateway = &relay.settings.gateway;
        let is_stream = matches!(reader, Reader::Events(_));
        let heartbeat = (is_stream && gateway.heartbeat_ms > 0)
            .then(|| Duration::from_millis(gateway.heartbeat_ms));
        let idle = Duration::from_millis(gateway.idle_timeout_ms);
        let chunks = first.len();
        let now = Instant::now();
        let mut body = Self {
            upstream,
            reader,
            out: first.into(),
            waiting: 0,
            turns: 0,
            timer: None,
            last_chunk: now,
            idle,
            end_by: now + Duration::from_millis(gateway.max_answer_ms),
            heartbeat,
            ended: chunks == 0,
            made: made.map(|owner| Made {
                owner,
                is_known: [false; 2],
            }),
            relay,
            is_durable: record.is_durable(),
            record: Some(record),
            lasting: None,
        };
        if body.ended {
            body.finish(Outcome::Completed);
        }
        // What is read of them takes their places.
        for _ in 0..chunks {
            if let Some(chunk) = body.out.pop_front() {
                body.take(chunk);
            }
        }
        body.end_with_the_last_byte();
        body.waiting = body.out.iter().map(length).sum();
        body
    }

    fn take(&mut self, chunk: Bytes) {
        if let Some(record) = &mut self.record {
            if let Some(prompt) = &mut record.prompt {
                prompt.take(&chunk);
            }
            if let Some(Role::Makes(keep)) = record.cache.as_deref_mut() {
                keep.take(&chunk);
            }
        }
        self.reader.push(chunk, &mut self.out);
        self.remember();
    }

    /// Remembers the ids of what the call made, once each, as soon as they come: a client may cancel a
    /// response while it streams.
    fn remember(&mut self) {
        let Some(made) = &mut self.made else {
            return;
        };
        let relay = &self.relay;
        for (id, is_known) in self.reader.ids().into_iter().zip(&mut made.is_known) {
            if let Some(id) = id
                && !std::mem::replace(is_known, true)
            {
                let now = relay.clock.now();
                relay.affinity.remember(id, made.owner.clone(), now);
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        if let Some(Role::Makes(keep)) = record.cache.as_deref_mut()
            && self.reader.has_error()
        {
            keep.spoil();
        }
        record.event.service_tier = self.reader.service_tier();
        self.lasting = record.finish(outcome, self.reader.usage(), self.reader.text_bytes());
    }

    /// The server does not ask for the end of a body of known length once it has its last byte. Where
    /// that byte has to wait for the event, the event is made before.
    fn end_with_the_last_byte(&mut self) {
        if self.is_durable && !self.ended && hyper::body::Body::is_end_stream(&self.upstream) {
            self.end();
        }
    }

    /// Whether what is left of a stream is its end, which waits for the event: after its usage comes
    /// nothing but that.
    fn holds_its_end(&self) -> bool {
        self.is_durable && matches!(&self.reader, Reader::Events(s) if s.seen().usage.is_some())
    }

    /// The backend broke off: a stream ends with an event that says so, anything else breaks too.
    fn cut(&mut self, why: &'static str) -> Option<Broken> {
        self.ended = true;
        let is_stream = matches!(self.reader, Reader::Events(_));
        if let Reader::Events(scanner) = &mut self.reader {
            scanner.finish(|_| {});
            self.out.push_back(error_event(&self.record, why));
        }
        self.finish(Outcome::Cut);
        (!is_stream).then_some(Broken(why))
    }

    fn end(&mut self) {
        self.ended = true;
        if let Reader::Events(scanner) = &mut self.reader {
            let out = &mut self.out;
            scanner.finish(|part| out.push_back(part));
        }
        self.finish(Outcome::Completed);
    }

    /// What the timer says: nothing yet, a heartbeat, or that the backend is silent for too long.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Broken>> {
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                let first = self.heartbeat.unwrap_or(self.idle).min(self.idle);
                Box::pin(sleep_until((self.last_chunk + first).min(self.end_by)))
            });
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= self.end_by {
                return Poll::Ready(self.cut(LATE));
            }
            let silent = self.last_chunk.elapsed();
            if silent >= self.idle {
                return Poll::Ready(self.cut("the backend was silent for too long"));
            }
            let step = self.heartbeat.unwrap_or(self.idle);
            let next = self
                .heartbeat
                .map_or(self.last_chunk + self.idle, |_| Instant::now() + step);
            let idle_end = self.last_chunk + self.idle;
            let at_boundary = match &self.reader {
                Reader::Events(scanner) => scanner.at_boundary(),
                Reader::Json(_) | Reader::Opaque => false,
            };
            let due = self.heartbeat.is_some_and(|heartbeat| silent >= heartbeat);
            timer.as_mut().reset(next.min(idle_end).min(self.end_by));
            if due && at_boundary {
                self.out.push_back(Bytes::from_static(b": keep-alive\n\n"));
                return Poll::Ready(None);
            }
        }
    }
}

/// Why an answer is cut off that takes too long, however steadily it comes or its client reads.
const LATE: &str = "it took longer than an answer may";

/// Turns in which the connection to the backend, a task of this thread, hands on a chunk that it has
/// read already: one to learn that the last one was taken, one to send.
const MAX_TURNS: u8 = 2;

/// Most of a stream that is gathered into one piece, bytes.
const MAX_GATHERED: u64 = 16 * 1024;

impl RelayBody {
    /// The next piece for the client. What a stream has gathered goes out as one: each piece costs
    /// a frame and mostly a system call.
    fn piece(&mut self) -> Option<Frame<Bytes>> {
        self.turns = 0;
        let first = self.out.pop_front()?;
        self.waiting = self.waiting.saturating_sub(length(&first));
        if self.out.is_empty() || !self.gathers() {
            return Some(Frame::data(first));
        }
        let rest = self.out.iter().map(Bytes::len).sum::<usize>();
        let mut all = BytesMut::with_capacity(first.len() + rest);
        all.extend_from_slice(&first);
        self.out
            .drain(..)
            .for_each(|part| all.extend_from_slice(&part));
        Some(Frame::data(all.freeze()))
    }

    /// Whether what has come may wait for what is there already.
    const fn gathers(&self) -> bool {
        matches!(self.reader, Reader::Events(_))
    }

    fn has_enough(&self) -> bool {
        !self.gathers() || self.out.iter().map(length).sum::<u64>() >= MAX_GATHERED
    }
}

fn length(chunk: &Bytes) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(u64::MAX)
}

fn error_event(record: &Option<CallRecord>, why: &str) -> Bytes {
    let is_responses = record
        .as_ref()
        .is_some_and(|r| r.event.operation.starts_with("responses"));
    let message = format!("The answer broke off: {why}.");
    let event = if is_responses {
        let data = serde_json::json!({"type": "error", "code": "stream_cut", "message": message, "param": null});
        format!("\n\nevent: error\ndata: {data}\n\n")
    } else {
        let data = serde_json::json!({"error": {"code": "stream_cut", "message": message, "type": "server_error", "param": null}});
        format!("\n\ndata: {data}\n\n")
    };
    event.into()
}

impl hyper::body::Body for RelayBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(lasting) = &mut self.lasting {
                // An error is the end of waiting too: the event could not be made to last.
                if Pin::new(lasting).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.lasting = None;
            }
            if self.ended || (!self.out.is_empty() && self.has_enough()) {
                return Poll::Ready(self.piece().map(Ok));
            }
            match Pin::new(&mut self.upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.last_chunk = Instant::now();
                    if self.last_chunk >= self.end_by {
                        if let Some(broken) = self.cut(LATE) {
                            return Poll::Ready(Some(Err(broken)));
                        }
                        continue;
                    }
                    self.turns = 0;
                    if let Ok(chunk) = frame.into_data() {
                        self.take(chunk);
                    }
                    self.end_with_the_last_byte();
                }
                Poll::Ready(Some(Err(_))) => {
                    if let Some(broken) = self.cut("the backend's connection broke") {
                        return Poll::Ready(Some(Err(broken)));
                    }
                }
                Poll::Ready(None) => self.end(),
                Poll::Pending if !self.out.is_empty() && !self.holds_its_end() => {
                    if self.turns == MAX_TURNS {
                        return Poll::Ready(self.piece().map(Ok));
                    }
                    self.turns += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => match self.poll_timer(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(broken)) => return Poll::Ready(Some(Err(broken))),
                    Poll::Ready(None) => {}
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.out.is_empty() && self.lasting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if matches!(self.reader, Reader::Events(_)) {
            return SizeHint::default();
        }
        match self.upstream.size_hint().exact() {
            Some(left) => SizeHint::with_exact(left + self.waiting),
            None => SizeHint::default(),
        }
    }
}

/// The server drops a body of known length once it has its last byte, without asking for its end.
impl Drop for RelayBody {
    fn drop(&mut self) {
        let is_whole = self.out.is_empty() && hyper::body::Body::is_end_stream(&self.upstream);
        self.finish(if is_whole {
            Outcome::Completed
        } else {
            Outcome::ClientGone
        });
    }
}
