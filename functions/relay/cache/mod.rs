//! Answers that are kept and given again: exact ones only ([`crate::gateway::cache`] says which).
//!
//! A call looks in memory ([`memory`]). Where there is nothing it joins the calls that want the same
//! ([`flight`]): the one that leads looks into the blobs behind ([`behind`]) and else goes on to a
//! backend, its answer being copied as it passes ([`keep`]); the others wait for that answer, whole. An
//! answer is in memory before its flight ends, so that whoever comes finds one or the other.

mod behind;
mod flight;
mod keep;
mod memory;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};

use self::behind::Behind;
use self::flight::{Flights, Lead, Part, Place};
use self::keep::Keep;
pub(super) use self::keep::Role;
use self::memory::Memory;
use super::answer::refuse;
use super::call::Call;
use super::error::RelayError;
use super::record::CallRecord;
use crate::config;
use crate::gateway::cache::control::Control;
use crate::gateway::cache::kept::Kept;
use crate::gateway::cache::{Asked, Key, Rules, VARYING, key};
use crate::gateway::event::{Cache as Outcome, Outcome as End};
use crate::gateway::skim::TextKeys;
use crate::gateway::sse::SseScanner;
use crate::gateway::time::Timestamp;
use crate::store::blobs::Blobs;

/// What became of the call in the cache.
pub(super) const CACHE: HeaderName = HeaderName::from_static("x-spillway-cache");

/// The kept answers.
#[derive(Debug)]
pub(super) struct Cache {
    memory: Memory,
    flights: Arc<Flights>,
    behind: OnceLock<Behind>,
    /// Most bytes of an answer.
    max_answer: usize,
    /// How long a call waits for another's answer; zero: not at all.
    wait: Duration,
}

/// What asking came to.
pub(super) enum Answer {
    /// An answer.
    There(Response),
    /// The call is to be made.
    GoesOn(CallRecord),
}

impl Cache {
    /// A cache with nothing in it.
    pub(super) fn new(settings: &config::Cache) -> Self {
        Self {
            memory: Memory::new(config::mebibytes(settings.memory_mb), settings.max_entries),
            flights: Arc::default(),
            behind: OnceLock::new(),
            max_answer: settings.max_answer(),
            wait: Duration::from_millis(settings.wait_ms),
        }
    }

    /// Puts blobs behind the memory. What writes them has to be run.
    pub(super) fn put_behind(
        &self,
        blobs: Arc<dyn Blobs>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (behind, written) = Behind::new(Arc::clone(&blobs));
        // The second of two would be of the same configuration.
        let _ = self.behind.set(behind);
        written.keep(blobs)
    }

    fn put(&self, key: Key, kept: &Arc<Kept>) {
        self.memory.put(key, Arc::clone(kept));
        if let Some(behind) = self.behind.get() {
            behind.write(key, kept);
        }
    }

    async fn behind(&self, key: Key) -> Option<Arc<Kept>> {
        let kept = self.behind.get()?.read(key).await?;
        self.memory.put(key, Arc::clone(&kept));
        Some(kept)
    }
}

/// A call that may be given an answer.
struct Ask<'c, 'a> {
    call: &'c Call<'a>,
    cache: &'c Arc<Cache>,
    rules: Rules,
    control: Control,
    key: Key,
}

/// Answers the call with what is kept, or with what another call is about to be answered. A call that has
/// to be made notes in its record what it is to the cache.
pub(super) async fn ask(call: &Call<'_>, rules: Rules, record: CallRecord) -> Answer {
    let values = call.headers.get_all(CACHE_CONTROL).iter();
    let control = Control::read(values.filter_map(|value| value.to_str().ok()));
    let key = call_key(call, &rules).filter(|_| !control.no_store);
    let Some(key) = key else {
        return if control.only_if_cached {
            Answer::There(refuse(RelayError::NotKept, record))
        } else {
            Answer::GoesOn(record)
        };
    };
    let ask = Ask {
        call,
        cache: &call.relay.cache,
        rules,
        control,
        key,
    };
    ask.answer(record).await
}

/// What the call's answer is kept under; `None` where it may not be.
fn call_key(call: &Call<'_>, rules: &Rules) -> Option<Key> {
    let reading = &call.reading;
    let is_stateful = call.pinned.is_some()
        || call.route.stored_id().is_some()
        || reading.stored_ids().next().is_some()
        || call.route.makes_stored(reading.store());
    if call.method != Method::POST || is_stateful || !reading.is_json() {
        return None;
    }
    let value = |name: &str| {
        call.headers
            .get(name)
            .map_or(&b""[..], HeaderValue::as_bytes)
    };
    let asked = Asked {
        app: &call.caller.app,
        route: &call.route,
        model: &call.model,
        is_stream: reading.stream(),
        headers: VARYING.map(value),
        body: &call.body,
    };
    key(rules, &asked)
}

impl Ask<'_, '_> {
    async fn answer(&self, mut record: CallRecord) -> Answer {
        let now = record.now();
        if let Some(kept) = self
            .cache
            .memory
            .get(&self.key)
            .filter(|k| self.takes(k, now))
        {
            return self.hit(kept, record).await;
        }
        if self.control.only_if_cached {
            return match self.cache.behind(self.key).await {
                Some(kept) if self.takes(&kept, now) => self.hit(kept, record).await,
                _ => Answer::There(refuse(RelayError::NotKept, record)),
            };
        }
        // An answer that was begun before the call came is no fresh one.
        if self.control.no_cache || self.cache.wait.is_zero() {
            return self.make(None, record);
        }
        match self.cache.flights.join(self.key) {
            Place::Lead(lead) => self.lead(lead, record).await,
            Place::Seat(seat) => {
                let waiting = tokio::time::timeout(self.cache.wait, seat.waiting().leads());
                // Whoever leaves while it waits may have a part of the answer all the same.
                record.cache = Some(Box::new(Role::Waits(seat)));
                let is_to_lead = waiting.await.unwrap_or(false);
                let Some(Role::Waits(seat)) = record.cache.take().map(|role| *role) else {
                    return Answer::GoesOn(record);
                };
                if is_to_lead {
                    return self.lead(seat.lead(), record).await;
                }
                match seat.part() {
                    Some(part) => self.give(part, record).await,
                    None => self.make(None, record),
                }
            }
        }
    }

    /// Whether an answer will do.
    fn takes(&self, kept: &Kept, now: Timestamp) -> bool {
        self.control
            .takes(now.ms_since(kept.made), self.rules.ttl_ms)
    }

    /// Leads: what came while the call did not, or lies behind, is there for all; else it makes the answer.
    async fn lead(&self, lead: Lead, record: CallRecord) -> Answer {
        let takes = |kept: &Arc<Kept>| self.takes(kept, record.now());
        let found = match self.cache.memory.get(&self.key).filter(takes) {
            Some(kept) => Some(kept),
            None => self.cache.behind(self.key).await.filter(takes),
        };
        match found {
            Some(kept) => {
                lead.found(Arc::clone(&kept));
                self.hit(kept, record).await
            }
            None => self.make(Some(lead), record),
        }
    }

    fn make(&self, lead: Option<Lead>, mut record: CallRecord) -> Answer {
        let keep = Keep::new(Arc::clone(self.cache), self.key, lead);
        record.cache = Some(Box::new(Role::Makes(keep)));
        Answer::GoesOn(record)
    }

    async fn hit(&self, answer: Arc<Kept>, record: CallRecord) -> Answer {
        let part = Part {
            answer,
            calls: 0,
            index: 0,
        };
        self.give(part, record).await
    }

    /// Answers with what is kept, or shared.
    async fn give(&self, part: Part, mut record: CallRecord) -> Answer {
        let call = self.call;
        let kept = Arc::clone(&part.answer);
        let body = if kept.is_stream && call.reading.hides_usage() {
            without_usage(&kept.body)
        } else {
            kept.body.clone()
        };
        record.event.status = 200;
        record.event.streamed = kept.is_stream;
        let elapsed = call.started.elapsed().as_millis();
        record.event.first_byte_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        if let Some(prompt) = &mut record.prompt {
            if kept.is_stream {
                prompt.is_streamed();
            }
            prompt.take(&kept.body);
        }
        let role = Role::Given(part);
        let outcome = role.outcome();
        let now = record.now();
        record.cache = Some(Box::new(role));
        if let Some(lasting) = record.finish(End::Completed, None, 0) {
            // An error is the end of waiting too: the event could not be made to last.
            let _ = lasting.await;
        }
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        if let Ok(content_type) = HeaderValue::from_str(&kept.content_type) {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if outcome == Outcome::Hit {
            headers.insert(AGE, (now.ms_since(kept.made) / 1000).into());
        }
        if call.relay.settings.gateway.answer_headers {
            headers.insert(CACHE, HeaderValue::from_static(outcome.as_str()));
        }
        Answer::There(response)
    }
}

/// A stream without the usage that only the gateway asked for.
fn without_usage(stream: &Bytes) -> Bytes {
    let mut scanner = SseScanner::new(TextKeys::None, true);
    let mut out = VecDeque::new();
    scanner.push(stream, |part| out.push_back(part));
    scanner.finish(|part| out.push_back(part));
    out.make_contiguous().concat().into()
}
