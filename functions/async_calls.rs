//! Asynchronous calls: taken in over HTTP, put into the batch queue, and fetched or called off later.
//!
//! The relay takes them in, the batch function has them answered. What they are known by is the
//! row of a request (see [`crate::store::requests`]), so that they outlast this process.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::azure::service_bus::{SendError, Sends, size};
use crate::config::Batch;
use crate::gateway::batch::message::{Message, Outgoing};
use crate::gateway::batch::order::property;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::blobs::reading::whole;
use crate::store::blobs::{Blobs, When as Place};
use crate::store::requests::{self, Body, Found, Kept, Request, State, When};
use crate::store::{Store, StoreError};

/// Largest answer that is fetched, bytes, and so the largest that is worth keeping.
pub const MAX_ANSWER: usize = 64 << 20;

/// The book of asynchronous calls, and the way into the queue.
#[derive(Debug)]
pub struct AsyncCalls {
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    bus: Arc<dyn Sends>,
    queue: String,
    max_message: usize,
    max_request: usize,
    life_ms: u64,
    keep_ms: u64,
    clock: Clock,
}

/// A call to be taken in.
#[derive(Debug)]
pub struct AsyncCall<'a> {
    /// Its id, under which it is fetched.
    pub id: &'a str,
    /// Who pays.
    pub app: &'a str,
    /// The operation, in the v1 form.
    pub path: &'a str,
    /// The request.
    pub body: Bytes,
    /// How long an answer is of use, seconds, where the call says.
    pub wait_s: Option<u64>,
}

/// Why a call was not taken in, or can't be looked up.
#[derive(Debug)]
pub enum AsyncError {
    /// The request is larger than a batch message may be, bytes.
    TooLarge(usize),
    /// The store or the queue does not answer; the same call may work later.
    Unavailable(String),
}

impl fmt::Display for AsyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "the request is larger than {max} bytes"),
            Self::Unavailable(why) => f.write_str(why),
        }
    }
}

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits, or is being worked on: `queued` or `running`.
    Pending(&'static str),
    /// It was called off.
    Cancelled,
    /// It has its answer.
    Answered(Kept),
}

/// What calling one off came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelling {
    /// It is called off.
    Done,
    /// It has started, or has its answer.
    TooLate,
    /// There is no such call of the app's.
    NoSuch,
}

impl AsyncCalls {
    /// The calls that go into the queue of `batch`.
    pub fn new(
        batch: &Batch,
        store: Arc<dyn Store>,
        blobs: Option<Arc<dyn Blobs>>,
        bus: Arc<dyn Sends>,
    ) -> Self {
        let rules = batch.rules();
        Self {
            store,
            blobs,
            bus,
            queue: batch.queue.clone(),
            max_message: batch.max_message(),
            max_request: rules.max_request,
            life_ms: rules.life_ms,
            keep_ms: batch.keep_ms(),
            clock: Clock::new(),
        }
    }

    /// Takes a call in. Its row is there before it is in the queue, so that whoever knows its id
    /// finds it.
    ///
    /// # Errors
    /// Why it was not taken in; nothing of it is left then.
    pub async fn accept(&self, call: &AsyncCall<'_>) -> Result<(), AsyncError> {
        if call.body.len() > self.max_request {
            return Err(AsyncError::TooLarge(self.max_request));
        }
        let now = self.clock.now();
        let key = requests::key(call.app, call.id);
        let request = Request {
            state: State::Queued,
            custom_id: call.id.to_owned(),
            created: now,
            expires: now.plus_ms(self.life_ms).plus_ms(self.keep_ms),
        };
        let kept = requests::write(&*self.store, &key, &request, When::New).await;
        kept.map_err(|error| unavailable(&error))?;
        let queued = self.enqueue(call, now).await;
        if queued.is_err() {
            self.forget(call, &key, &request).await;
        }
        queued
    }

    /// Puts a call into the queue, and its request into a blob where a message can't hold it: after
    /// its row, by which the sweep finds it.
    async fn enqueue(&self, call: &AsyncCall<'_>, now: Timestamp) -> Result<(), AsyncError> {
        let message = self.message(call, now).await?;
        let sent = self.bus.send(&self.queue, &message).await;
        sent.map_err(|error| {
            tracing::error!(%error, "an asynchronous call can't be queued");
            match error {
                SendError::TooLarge(_) => AsyncError::TooLarge(self.max_message),
                other => AsyncError::Unavailable(other.to_string()),
            }
        })
    }

    async fn message(&self, call: &AsyncCall<'_>, now: Timestamp) -> Result<Outgoing, AsyncError> {
        let mut properties = Map::new();
        let mut say = |name: &str, value: Value| properties.insert(name.to_owned(), value);
        say(property::APP, call.app.into());
        say(property::URL, call.path.into());
        say(property::FETCHED, true.into());
        let life_ms = call.wait_s.map_or(self.life_ms, |s| s.saturating_mul(1000));
        let deadline = now.plus_ms(life_ms.min(self.life_ms));
        say(property::DEADLINE, deadline.rfc3339().into());
        let message = Message {
            id: Some(call.id.to_owned()),
            body: call.body.clone(),
            content_type: Some("application/json".into()),
            properties,
            ..Message::default()
        };
        let mut outgoing = Outgoing {
            message,
            scheduled: None,
            ttl_s: None,
        };
        if size(&outgoing.message) > self.max_message {
            self.put_request(call).await?;
            let message = &mut outgoing.message;
            message
                .properties
                .insert(property::IN_BLOB.into(), true.into());
            message.body = Bytes::from_static(b"{}");
        }
        Ok(outgoing)
    }

    async fn put_request(&self, call: &AsyncCall<'_>) -> Result<(), AsyncError> {
        let blobs = self.blobs.as_ref();
        let blobs = blobs.ok_or(AsyncError::TooLarge(self.max_message))?;
        let blob = requests::request_blob(call.app, call.id);
        let put = blobs.put(&blob, call.body.clone(), Place::Always).await;
        put.map_err(|error| AsyncError::Unavailable(error.to_string()))
    }

    /// A row without a message would wait for ever. Its message may be there after all, the answer
    /// to it lost: it finds its request as long as the row does not call it off.
    async fn forget(&self, call: &AsyncCall<'_>, key: &crate::store::Key, request: &Request) {
        let cancelled = Request {
            state: State::Cancelled,
            ..request.clone()
        };
        match requests::write(&*self.store, key, &cancelled, When::Mine).await {
            Ok(()) => self.delete_request(call.app, call.id).await,
            Err(error) => {
                tracing::warn!(%error, "the row of a call that was not queued is left");
            }
        }
    }

    /// Nobody reads the request of a call that is called off. What is left of it is swept with its
    /// row.
    async fn delete_request(&self, app: &str, id: &str) {
        let Some(blobs) = &self.blobs else { return };
        if let Err(error) = blobs.delete(&requests::request_blob(app, id)).await {
            tracing::warn!(%error, "the request of a call that was called off is left behind");
        }
    }

    /// How a call of the app's stands; `None` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(&self, app: &str, id: &str) -> Result<Option<Standing>, AsyncError> {
        let found = self.find(app, id).await?;
        Ok(found.map(|found| match found.request.state {
            State::Queued => Standing::Pending("queued"),
            State::Running { .. } => Standing::Pending("running"),
            State::Cancelled => Standing::Cancelled,
            State::Answered(kept) | State::Replied(kept) => Standing::Answered(kept),
        }))
    }

    /// The body of an answer that was kept.
    ///
    /// # Errors
    /// When the store of blobs fails, or has lost it.
    pub async fn body(&self, app: &str, id: &str, kept: &Kept) -> Result<Bytes, AsyncError> {
        if let Body::Inline(text) = &kept.body {
            return Ok(Bytes::from(text.clone()));
        }
        let gone = || AsyncError::Unavailable("the answer's blob is gone".into());
        let blobs = self.blobs.as_ref().ok_or_else(gone)?;
        let blob = requests::answer_blob(app, id);
        let read = whole(&**blobs, &blob, MAX_ANSWER).await;
        let read = read.map_err(|error| AsyncError::Unavailable(error.to_string()))?;
        read.ok_or_else(gone)
    }

    /// Calls one off that has not started.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel(&self, app: &str, id: &str) -> Result<Cancelling, AsyncError> {
        let Some(Found { request, etag }) = self.find(app, id).await? else {
            return Ok(Cancelling::NoSuch);
        };
        match request.state {
            State::Cancelled => {
                self.delete_request(app, id).await;
                return Ok(Cancelling::Done);
            }
            State::Queued => {}
            _ => return Ok(Cancelling::TooLate),
        }
        let cancelled = Request {
            state: State::Cancelled,
            ..request
        };
        let key = requests::key(app, id);
        match requests::write(&*self.store, &key, &cancelled, When::Same(&etag)).await {
            Ok(()) => {
                self.delete_request(app, id).await;
                Ok(Cancelling::Done)
            }
            // Somebody took it on in between.
            Err(StoreError::Changed { .. }) => Ok(Cancelling::TooLate),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn find(&self, app: &str, id: &str) -> Result<Option<Found>, AsyncError> {
        let key = requests::key(app, id);
        let found = requests::read(&*self.store, &key).await;
        found.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &StoreError) -> AsyncError {
    AsyncError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
