//! Keeps requests and answers of apps whose prompts are logged.
//!
//! A call only copies what passes; all else happens in the accepting thread's runtime: redaction,
//! assembling, writing. What waits there is bounded by memory. A full queue never holds up a call: that
//! call is not kept, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config;
use crate::gateway::event::UsageEvent;
use crate::gateway::prompt::{Exchange, Redaction, document};
use crate::gateway::room::Room;
use crate::gateway::route::Operation;
use crate::store::blobs::{Blob, BlobError, Blobs, Container, When, encode_part};

/// Most of a stream that is taken in, bytes. A chunk has some 250 and brings about a token.
const MAX_STREAM: usize = 16 << 20;

/// Blobs that are written at the same time.
const WRITERS: usize = 8;

/// Documents that are made at the same time: each may take several times the memory of what the call holds.
const RENDERERS: usize = 2;

/// How often a blob is tried, and the pause after the first time, doubled each time.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// The calls' end of the queue.
#[derive(Clone, Debug)]
pub struct Prompts {
    queue: UnboundedSender<Entry>,
    /// Bytes that calls hold.
    memory: Arc<Room>,
    max_bytes: usize,
    dropped: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub struct PromptInbox {
    queue: UnboundedReceiver<Entry>,
    redaction: Arc<Redaction>,
    max_bytes: usize,
    dropped: Arc<AtomicU64>,
}

/// A part of the memory; given back when it is dropped.
#[derive(Debug)]
struct Held {
    memory: Arc<Room>,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> bool {
        let taken = self.memory.take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// What is kept of one call, while it runs.
#[derive(Debug)]
pub(super) struct Capture {
    log: Prompts,
    held: Held,
    operation: Operation,
    request: Bytes,
    answer: BytesMut,
    answer_bytes: u64,
    most: usize,
    /// Whether there was no memory for it, so that it is not kept.
    lost: bool,
}

/// What is kept of one call, once it has ended.
#[derive(Debug)]
struct Entry {
    capture: Capture,
    event: Box<UsageEvent>,
    blob: Blob,
}

impl Prompts {
    /// A queue, and its other end.
    pub fn new(settings: &config::Prompts) -> (Self, PromptInbox) {
        let (queue, receiver) = unbounded_channel();
        let memory = Room::new(settings.queue_mb.saturating_mul(1 << 20));
        let dropped = Arc::new(AtomicU64::new(0));
        let prompts = Self {
            queue,
            memory: Arc::new(memory),
            max_bytes: settings.max_bytes,
            dropped: Arc::clone(&dropped),
        };
        let inbox = PromptInbox {
            queue: receiver,
            redaction: Arc::new(Redaction::new(settings.redact.clone())),
            max_bytes: settings.max_bytes,
            dropped,
        };
        (prompts, inbox)
    }

    /// Calls that were to be kept and are not, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Begins to keep a call.
    pub(super) fn capture(&self, operation: Operation, request: Bytes) -> Capture {
        let mut held = Held {
            memory: Arc::clone(&self.memory),
            bytes: 0,
        };
        let lost = !held.grow(request.len());
        Capture {
            log: self.clone(),
            held,
            operation,
            request: if lost { Bytes::new() } else { request },
            answer: BytesMut::new(),
            answer_bytes: 0,
            most: self.max_bytes,
            lost,
        }
    }
}

fn count(dropped: &AtomicU64, why: &str) {
    let count = dropped.fetch_add(1, Relaxed) + 1;
    if count.is_power_of_two() {
        tracing::error!(count, why, "prompts are not kept");
    }
}

impl Capture {
    /// The answer is a stream: its parts are much longer than what they say.
    pub(super) const fn is_streamed(&mut self) {
        if self.most < MAX_STREAM {
            self.most = MAX_STREAM;
        }
    }

    /// Takes a copy of what passes of the answer.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.answer_bytes = self
            .answer_bytes
            .saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        let room = self.most.saturating_sub(self.answer.len());
        let part = chunk.get(..room.min(chunk.len())).unwrap_or_default();
        if self.lost || part.is_empty() {
            return;
        }
        if self.held.grow(part.len()) {
            self.answer.extend_from_slice(part);
        } else {
            self.lost = true;
            self.request = Bytes::new();
            self.answer = BytesMut::new();
        }
    }

    /// Hands the call on to be kept, and notes in its event where that is.
    pub(super) fn finish(self, event: &mut UsageEvent) {
        if self.lost {
            count(&self.log.dropped, "no memory: raise prompts.queue_mb");
            return;
        }
        let blob = blob(event);
        event.prompt_log = blob.to_string();
        let queue = self.log.queue.clone();
        let entry = Entry {
            capture: self,
            event: Box::new(event.clone()),
            blob,
        };
        if let Err(unsent) = queue.send(entry) {
            event.prompt_log = String::new();
            count(&unsent.0.capture.log.dropped, "the writer has ended");
        }
    }
}

/// Where a call is kept: by app and day, so that either can be deleted or given access to.
fn blob(event: &UsageEvent) -> Blob {
    let (app, day, id) = (
        encode_part(&event.app),
        event.time.day(),
        encode_part(&event.id),
    );
    Blob::new(Container::Prompts, format!("{app}/{day}/{id}.json"))
}

impl PromptInbox {
    /// Writes each call's blob, until the last relay is gone.
    pub async fn keep(self, blobs: Arc<dyn Blobs>) {
        let (redaction, max_bytes, dropped) = (self.redaction, self.max_bytes, self.dropped);
        let entries = unfold(self.queue, |mut queue| async {
            let entry = queue.recv().await?;
            Some((entry, queue))
        });
        let rendering = Semaphore::new(RENDERERS);
        let write = |entry: Entry| {
            let (redaction, blobs) = (Arc::clone(&redaction), Arc::clone(&blobs));
            let (dropped, rendering) = (&dropped, &rendering);
            async move {
                let blob = entry.blob.clone();
                // It is never closed.
                let turn = rendering.acquire().await;
                let rendered =
                    tokio::task::spawn_blocking(move || entry.render(&redaction, max_bytes));
                let rendered = rendered.await;
                drop(turn);
                let Ok((bytes, _held)) = rendered else {
                    return count(dropped, "a document could not be made");
                };
                if let Err(error) = put(&*blobs, &blob, bytes).await {
                    tracing::error!(%blob, %error, "a prompt can't be kept");
                    count(dropped, "the store of blobs fails");
                }
            }
        };
        entries.for_each_concurrent(WRITERS, write).await;
    }
}

impl Entry {
    /// The blob's content. What the call held is given back once that is written.
    fn render(self, redaction: &Redaction, max_bytes: usize) -> (Bytes, Held) {
        let Capture {
            held,
            operation,
            request,
            answer,
            answer_bytes,
            ..
        } = self.capture;
        let exchange = Exchange {
            event: &self.event,
            operation,
            request: &request,
            answer: &answer,
            answer_bytes,
        };
        let document = document(&exchange, redaction, max_bytes);
        (document.to_string().into(), held)
    }
}

/// Tries again, ever more slowly, while the store is unavailable. The name is the call's own, so that
/// writing twice changes nothing.
async fn put(blobs: &dyn Blobs, blob: &Blob, bytes: Bytes) -> Result<(), BlobError> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match blobs.put(blob, bytes.clone(), When::Always).await {
            Err(BlobError::Unavailable(_)) => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    blobs.put(blob, bytes, When::Always).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(queue_mb: usize) -> (Prompts, PromptInbox) {
        Prompts::new(&config::Prompts {
            queue_mb,
            ..config::Prompts::default()
        })
    }

    fn capture(prompts: &Prompts, bytes: usize) -> Capture {
        prompts.capture(Operation::ChatCompletions, vec![b'x'; bytes].into())
    }

    #[test]
    fn full_memory_drops_what_comes_and_takes_again_once_there_is_room() {
        let (prompts, mut inbox) = prompts(1);
        let mut event = UsageEvent::default();
        capture(&prompts, 600_000).finish(&mut event);
        assert!(!event.prompt_log.is_empty());
        let mut event = UsageEvent::default();
        capture(&prompts, 600_000).finish(&mut event);
        assert_eq!((event.prompt_log.as_str(), prompts.dropped()), ("", 1));
        let mut growing = capture(&prompts, 100);
        growing.take(&[b'x'; 600_000]);
        growing.finish(&mut event);
        assert_eq!((event.prompt_log.as_str(), prompts.dropped()), ("", 2));
        drop(inbox.queue.try_recv().unwrap());
        capture(&prompts, 600_000).finish(&mut event);
        assert!(!event.prompt_log.is_empty());
    }

    #[test]
    fn an_answer_is_taken_in_up_to_its_bound_and_counted_whole() {
        let (prompts, _inbox) = prompts(8);
        let mut capture = capture(&prompts, 1);
        for _ in 0..3 {
            capture.take(&[b'x'; 1 << 19]);
        }
        assert_eq!(
            (capture.answer.len(), capture.answer_bytes),
            (1 << 20, 3 << 19)
        );
        assert_eq!(capture.held.bytes, (1 << 20) + 1);
    }
}
