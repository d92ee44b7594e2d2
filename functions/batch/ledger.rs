//! What is kept of messages: who works on one, and its answer until its reply is sent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::again;
use super::settings::Settings;
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
    life_ms: u64,
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
    /// When its row expires while it has no answer.
    waits_until: Timestamp,
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
    /// Nothing is left to find out.
    Settled(Settled),
}

/// What has become of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It has an answer, whose reply may not have been sent.
    Answered(Kept),
    /// It was given up, and its sender told.
    GivenUp,
    /// Nothing is left to do.
    Done,
}

/// What came of keeping an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It is kept.
    Kept(Kept),
    /// It is not: another delivery, which took the message when this one's claim had lapsed, was first.
    Late(Settled),
    /// It is not: a message is not given up while another delivery works on it.
    Busy,
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
        settings: &Settings,
        now: Now,
    ) -> Self {
        Self {
            store,
            blobs,
            life_ms: settings.rules.life_ms,
            keep_ms: settings.keep_ms,
            now,
        }
    }

    /// A message's place, not taken yet.
    pub(super) fn claim(&self, sender: &Sender, custom_id: &str) -> Claim {
        let now = (self.now)();
        let life_end = sender.first.plus_ms(self.life_ms);
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
            waits_until: life_end.max(now).plus_ms(self.keep_ms),
        }
    }
}

fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

/// Of a write that is made again by what the row says then.
fn may_pass_or_changed(error: &StoreError) -> bool {
    may_pass(error)
        || matches!(
            error,
            StoreError::Changed { .. } | StoreError::Exists { .. }
        )
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
        Ok(self.seen(found, received))
    }

    fn seen(&self, found: Option<Found>, received: &Received) -> Seen {
        let Some(Found { request, etag }) = found else {
            return Seen::Free(None);
        };
        let now = (self.now)();
        match request.state {
            State::Queued => Seen::Free(Some(etag)),
            State::Cancelled => Seen::Settled(Settled::Done),
            State::Running { holder, .. } if holder == self.holder => Seen::Mine(etag),
            State::Running { until, .. } if until > now => Seen::Busy(until.ms_since(now)),
            State::Running { .. } => Seen::Free(Some(etag)),
            State::Answered(Kept {
                dead: Some(dead), ..
            })
            | State::Replied(Kept {
                dead: Some(dead), ..
            }) if is_sent_since(received, dead.at) => Seen::Free(Some(etag)),
            State::Answered(kept) => Seen::Settled(Settled::Answered(kept)),
            State::Replied(kept) if kept.dead.is_some() => Seen::Settled(Settled::GivenUp),
            State::Replied(_) => Seen::Settled(Settled::Done),
        }
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

    /// Gives the message back, so that its next delivery need not wait for the lease's end; not where
    /// somebody else has it by now.
    pub(super) async fn release(&self) {
        let end = (self.now)().plus_ms(NOTE_MS);
        if let Err(error) = again::until(&self.now, end, may_pass, || self.give_back()).await {
            tracing::warn!(%error, "a batch message could not be given back; its next delivery waits");
        }
    }

    async fn give_back(&self) -> Result<(), StoreError> {
        let Some(found) = requests::read(&*self.store, &self.key).await? else {
            return Ok(());
        };
        match found.request.state {
            State::Running { holder, .. } if holder == self.holder => {
                self.write(State::Queued, When::Same(&found.etag)).await
            }
            _ => Ok(()),
        }
    }

    /// Keeps an answer; `dead` is the message that is given up with it.
    pub(super) async fn keep(
        &self,
        received: &Received,
        answer: &Answer,
        dead: Option<Dead>,
        end: Timestamp,
    ) -> Result<Keeping, KeepError> {
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
            _ => {
                // The blob may hold the other delivery's answer by now.
                let seen = self.look(received, end).await;
                if let Seen::Settled(settled) = seen.map_err(KeepError::Store)? {
                    return Ok(Keeping::Late(settled));
                }
                self.put(bytes, end).await?
            }
        };
        let kept = Kept {
            status,
            request_id,
            body,
            code,
            dead,
        };
        let settle = || self.settle(received, &kept);
        let settled = again::until(&self.now, end, may_pass_or_changed, settle).await;
        settled.map_err(KeepError::Store)
    }

    /// Writes an answer, unless another delivery has settled the message.
    async fn settle(&self, received: &Received, kept: &Kept) -> Result<Keeping, StoreError> {
        let found = requests::read(&*self.store, &self.key).await?;
        let etag = found.as_ref().map(|found| found.etag.clone());
        match self.seen(found, received) {
            // By a write whose answer was lost.
            Seen::Settled(Settled::Answered(own)) if own == *kept => {}
            Seen::Settled(settled) => return Ok(Keeping::Late(settled)),
            Seen::Busy(_) if kept.dead.is_some() => return Ok(Keeping::Busy),
            Seen::Free(_) | Seen::Mine(_) | Seen::Busy(_) => {
                let when = etag.as_ref().map_or(When::New, When::Same);
                self.write(State::Answered(kept.clone()), when).await?;
            }
        }
        Ok(Keeping::Kept(kept.clone()))
    }

    async fn put(&self, bytes: Bytes, end: Timestamp) -> Result<Body, KeepError> {
        let length = bytes.len();
        let blobs = self.blobs.as_ref().ok_or(KeepError::NoBlobs(length))?;
        let put = || blobs.put(&self.blob, bytes.clone(), blobs::When::Always);
        let put = again::until(&self.now, end, blob_may_pass, put).await;
        put.map_err(KeepError::Blobs)?;
        Ok(Body::Blob {
            name: self.blob.name().to_owned(),
            bytes: length,
        })
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
            Body::Blob { bytes, .. } if *bytes > most => Bytes::new(),
            Body::Blob { bytes, .. } => {
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
        // The sweep takes a call's request with its row, and a call waits for its answer all its life.
        let expires = match state {
            State::Queued | State::Running { .. } => self.waits_until,
            State::Answered(_) | State::Replied(_) | State::Cancelled => self.expires,
        };
        let request = Request {
            state,
            custom_id: self.custom_id.clone(),
            created: self.created,
            expires,
        };
        requests::write(&*self.store, &self.key, &request, when).await
    }
}

/// The size of the answer that was kept, bytes.
pub(super) fn blob_bytes(kept: &Kept) -> usize {
    match &kept.body {
        Body::Inline(text) => text.len(),
        Body::Blob { bytes, .. } => *bytes,
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
