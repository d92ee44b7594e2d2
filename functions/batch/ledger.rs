//! What is kept of messages: who works on one, and its answer until its reply is sent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::again;
use super::worker::Now;
use crate::gateway::batch::message::Received;
use crate::gateway::batch::order::{Sender, is_sent_since};
use crate::gateway::batch::reply::Answer;
use crate::gateway::time::Timestamp;
use crate::store::blobs::reading::whole;
use crate::store::blobs::{self, Blob, BlobError, Blobs};
use crate::store::requests::{self, Body, Dead, Found, Kept, Request, State, When};
use crate::store::{Etag, Key, Store, StoreError};

/// How long a claim holds that is not renewed, ms: how long a message whose handler was killed
/// waits for its next turn.
pub(super) const LEASE_MS: u64 = 30_000;

/// How often it is tried to note that a reply was sent. Without the note a message that is
/// delivered again has its reply sent again, which the broker drops as a duplicate.
const NOTE_MS: u64 = 1000;

/// The book of messages.
pub(super) struct Ledger {
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    keep_ms: u64,
    now: Now,
}

/// One message's place in the book.
pub(super) struct Claim {
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    now: Now,
    key: Key,
    blob: Blob,
    holder: String,
    custom_id: String,
    created: Timestamp,
    expires: Timestamp,
}

/// How a message stands in the book.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody works on it; the row's version, where there is a row.
    Free(Option<Etag>),
    /// This delivery has it already, by a write whose answer was lost.
    Mine(Etag),
    /// Another delivery works on it, for so many ms at least.
    Busy(u64),
    /// It has an answer, whose reply may not have been sent.
    Answered(Kept),
    /// Nothing is left to do.
    Done,
}

/// Why an answer was not kept, or not found.
#[derive(Debug)]
pub(super) enum KeepError {
    /// The tables.
    Store(StoreError),
    /// The blobs.
    Blobs(BlobError),
    /// Its blob is gone.
    Gone,
    /// It is too large for a row, and there are no blobs.
    NoBlobs(usize),
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "{error}"),
            Self::Blobs(error) => write!(f, "its blob: {error}"),
            Self::Gone => f.write_str("its blob is gone"),
            Self::NoBlobs(bytes) => write!(
                f,
                "an answer of {bytes} bytes needs a blob: set `blobs` in [storage]"
            ),
        }
    }
}

impl Ledger {
    pub(super) fn new(
        store: Arc<dyn Store>,
        blobs: Option<Arc<dyn Blobs>>,
        keep_ms: u64,
        now: Now,
    ) -> Self {
        Self {
            store,
            blobs,
            keep_ms,
            now,
        }
    }

    /// A message's place, not taken yet.
    pub(super) fn claim(&self, sender: &Sender, custom_id: &str) -> Claim {
        let now = (self.now)();
        Claim {
            store: Arc::clone(&self.store),
            blobs: self.blobs.clone(),
            now: Arc::clone(&self.now),
            key: requests::key(&sender.app, &sender.key),
            blob: requests::answer_blob(&sender.app, &sender.key),
            holder: format!("{:032x}", fastrand::u128(..)),
            custom_id: custom_id.to_owned(),
            created: sender.first,
            expires: now.plus_ms(self.keep_ms),
        }
    }
}

fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

pub(super) fn blob_may_pass(error: &BlobError) -> bool {
    matches!(error, BlobError::Unavailable(_))
}

impl Claim {
    /// How the message stands. One that was given up and then put back into the queue by somebody is
    /// free again.
    pub(super) async fn look(
        &self,
        received: &Received,
        end: Timestamp,
    ) -> Result<Seen, StoreError> {
        let read = || requests::read(&*self.store, &self.key);
        let found = again::until(&self.now, end, may_pass, read).await?;
        let Some(Found { request, etag }) = found else {
            return Ok(Seen::Free(None));
        };
        let now = (self.now)();
        Ok(match request.state {
            State::Queued => Seen::Free(Some(etag)),
            State::Cancelled => Seen::Done,
            State::Running { holder, .. } if holder == self.holder => Seen::Mine(etag),
            State::Running { until, .. } if until > now => Seen::Busy(until.ms_since(now)),
            State::Running { .. } => Seen::Free(Some(etag)),
            State::Answered(Kept {
                dead: Some(dead), ..
            })
            | State::Replied(Kept {
                dead: Some(dead), ..
            }) if is_sent_since(received, dead.at) => Seen::Free(Some(etag)),
            State::Answered(kept) => Seen::Answered(kept),
            State::Replied(kept) if kept.dead.is_some() => Seen::Answered(kept),
            State::Replied(_) => Seen::Done,
        })
    }

    /// Takes the message on; `false` where somebody else did in between, or that is not known.
    pub(super) async fn take(&self, seen: Option<&Etag>) -> Result<bool, StoreError> {
        let when = seen.map_or(When::New, When::Same);
        match self.write(self.running(), when).await {
            Ok(()) => Ok(true),
            Err(StoreError::Exists { .. } | StoreError::Changed { .. }) => Ok(false),
            // It may have been written: looking again tells.
            Err(StoreError::Unavailable(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renews the claim; `false` when somebody else has it by now. A store that can't be reached
    /// can't give it to anybody else.
    pub(super) async fn renew(&self) -> bool {
        let found = match requests::read(&*self.store, &self.key).await {
            Ok(Some(found)) => found,
            Ok(None) => return false,
            Err(_) => return true,
        };
        match &found.request.state {
            State::Running { holder, .. } if *holder == self.holder => {
                let renewed = self.write(self.running(), When::Same(&found.etag)).await;
                !matches!(renewed, Err(StoreError::Changed { .. }))
            }
            _ => false,
        }
    }

    /// Gives the message back, so that its next delivery need not wait for the lease's end.
    pub(super) async fn release(&self) {
        let end = (self.now)().plus_ms(NOTE_MS);
        let write = || self.write(State::Queued, When::Mine);
        if let Err(error) = again::until(&self.now, end, may_pass, write).await {
            tracing::warn!(%error, "a batch message could not be given back; its next delivery waits");
        }
    }

    /// Keeps an answer; `dead` is the message that is given up with it.
    pub(super) async fn keep(
        &self,
        answer: &Answer,
        dead: Option<Dead>,
        end: Timestamp,
    ) -> Result<Kept, KeepError> {
        let (status, request_id, bytes, code) = match answer {
            Answer::Response {
                status,
                request_id,
                body,
            } => (*status, request_id.clone(), body.clone(), String::new()),
            Answer::Error { code, message } => {
                (0, String::new(), Bytes::from(message.clone()), code.clone())
            }
        };
        let body = match std::str::from_utf8(&bytes) {
            Ok(text) if text.len() <= requests::MAX_INLINE => Body::Inline(text.to_owned()),
            _ => self.put(bytes, end).await?,
        };
        let kept = Kept {
            status,
            request_id,
            body,
            code,
            dead,
        };
        let write = || self.write(State::Answered(kept.clone()), When::Mine);
        let written = again::until(&self.now, end, may_pass, write).await;
        written.map_err(KeepError::Store)?;
        Ok(kept)
    }

    async fn put(&self, bytes: Bytes, end: Timestamp) -> Result<Body, KeepError> {
        let length = bytes.len();
        let blobs = self.blobs.as_ref().ok_or(KeepError::NoBlobs(length))?;
        let put = || blobs.put(&self.blob, bytes.clone(), blobs::When::Always);
        let put = again::until(&self.now, end, blob_may_pass, put).await;
        put.map_err(KeepError::Blobs)?;
        Ok(Body::Blob(length))
    }

    /// The answer that was kept; its body is empty where it is larger than `most`.
    pub(super) async fn answer(
        &self,
        kept: &Kept,
        most: usize,
        end: Timestamp,
    ) -> Result<Answer, KeepError> {
        let body = match &kept.body {
            Body::Inline(text) => Bytes::from(text.clone()),
            Body::Blob(bytes) if *bytes > most => Bytes::new(),
            Body::Blob(bytes) => {
                let blobs = self.blobs.as_ref().ok_or(KeepError::NoBlobs(*bytes))?;
                let get = || whole(&**blobs, &self.blob, *bytes);
                let got = again::until(&self.now, end, blob_may_pass, get).await;
                got.map_err(KeepError::Blobs)?.ok_or(KeepError::Gone)?
            }
        };
        Ok(read(kept, body))
    }

    /// Notes that the reply was sent.
    pub(super) async fn replied(&self, kept: &Kept) {
        let end = (self.now)().plus_ms(NOTE_MS);
        let write = || self.write(State::Replied(kept.clone()), When::Mine);
        if let Err(error) = again::until(&self.now, end, may_pass, write).await {
            tracing::warn!(%error, "it could not be noted that a reply was sent");
        }
    }

    pub(super) fn custom_id(&self) -> &str {
        &self.custom_id
    }

    fn running(&self) -> State {
        State::Running {
            holder: self.holder.clone(),
            until: (self.now)().plus_ms(LEASE_MS),
        }
    }

    async fn write(&self, state: State, when: When<'_>) -> Result<(), StoreError> {
        let request = Request {
            state,
            custom_id: self.custom_id.clone(),
            created: self.created,
            expires: self.expires,
        };
        requests::write(&*self.store, &self.key, &request, when).await
    }
}

/// The size of the answer that was kept, bytes.
pub(super) fn blob_bytes(kept: &Kept) -> usize {
    match &kept.body {
        Body::Inline(text) => text.len(),
        Body::Blob(bytes) => *bytes,
    }
}

/// The answer that was kept, with this body.
pub(super) fn read(kept: &Kept, body: Bytes) -> Answer {
    if kept.code.is_empty() {
        Answer::Response {
            status: kept.status,
            request_id: kept.request_id.clone(),
            body,
        }
    } else {
        Answer::Error {
            code: kept.code.clone(),
            message: String::from_utf8_lossy(&body).into_owned(),
        }
    }
}
