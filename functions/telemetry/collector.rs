//! A collector, or whatever else takes OTLP over HTTP: what is posted to it and what it says to that.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;

use super::messages::{PartialSuccess, Response};
use crate::azure::{self, describe, whole};
use crate::gateway::retry_after::{Headers, retry_after_ms};
use crate::host::clock::Clock;

/// Most of an answer that is read, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Most tries of a request. With the pauses between them, each twice the one before, a collector may be gone
/// for half a minute.
const MAX_TRIES: u32 = 6;

/// The first pause, ms.
const PAUSE_MS: u64 = 1000;

/// The longest that is waited because a collector asks for it, ms.
const MAX_WAIT_MS: u64 = 60_000;

/// Where one signal goes.
pub(super) struct Collector {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    clock: Clock,
}

/// Why a request was not taken.
enum NotTaken {
    /// It would not be taken later either.
    Ever(String),
    /// It may be taken in so many milliseconds, where the collector says.
    Now(String, Option<u64>),
}

impl Collector {
    pub(super) fn new(url: String, pairs: &[(String, String)]) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (place, (name, value)) in pairs.iter().enumerate() {
            // What they say may be secret.
            let odd = || format!("header {} can't stand in a request", place + 1);
            let name = HeaderName::try_from(name).map_err(|_| odd())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| odd())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, protobuf);
        Ok(Self {
            client: azure::http_client()?,
            url,
            headers,
            clock: Clock::new(),
        })
    }

    /// Posts a request until it is taken, or can't be; what the collector did not take of it. `failed` hears
    /// of each try that failed. After `stop` there is one more try.
    ///
    /// # Errors
    /// When it was not taken.
    pub(super) async fn take(
        &self,
        request: &impl Message,
        failed: impl Fn(&str),
        mut stop: watch::Receiver<bool>,
    ) -> Result<PartialSuccess, String> {
        let body = Bytes::from(request.encode_to_vec());
        let mut tries = 1;
        loop {
            let was_stopped = *stop.borrow();
            let (why, asked_ms) = match self.post(body.clone()).await {
                Ok(taken) => return Ok(taken),
                Err(NotTaken::Ever(why)) => return Err(why),
                Err(NotTaken::Now(why, asked_ms)) => (why, asked_ms),
            };
            if was_stopped || tries >= MAX_TRIES {
                return Err(why);
            }
            failed(&why);
            let ms = asked_ms.map_or_else(|| pause_ms(tries), |ms| ms.min(MAX_WAIT_MS));
            // An error: nobody is left who could stop it.
            let _ = timeout(Duration::from_millis(ms), stop.wait_for(|stop| *stop)).await;
            tries += 1;
        }
    }

    async fn post(&self, body: Bytes) -> Result<PartialSuccess, NotTaken> {
        let request = self.client.post(&self.url).headers(self.headers.clone());
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| NotTaken::Now(describe(&error.without_url()), None))?;
        let status = answer.status().as_u16();
        let why = format!("the collector says {status}");
        match status {
            200..300 => {}
            429 | 502..=504 => {
                let asked = retry_after_ms(&Answered(answer.headers()), self.clock.now());
                return Err(NotTaken::Now(why, asked));
            }
            _ => return Err(NotTaken::Ever(why)),
        }
        // What is taken is taken, whatever is wrong with what is said of it.
        let said = whole(answer, MAX_ANSWER).await.unwrap_or_default();
        let said = Response::decode(&*said).unwrap_or_default();
        Ok(said.partial_success.unwrap_or_default())
    }
}

/// The pause after so many tries: doubled each time, give or take a quarter, so that instances do not all come
/// back at once.
fn pause_ms(tries: u32) -> u64 {
    let ms = PAUSE_MS << tries.saturating_sub(1).min(MAX_TRIES);
    fastrand::u64(ms * 3 / 4..=ms * 5 / 4)
}

struct Answered<'a>(&'a HeaderMap);

impl Headers for Answered<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.get(name)?.to_str().ok().map(Cow::Borrowed)
    }
}
