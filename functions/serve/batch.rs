//! Puts the batch function into the process: its way into the relay, Service Bus, and the calls that
//! are answered later.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;

use super::requests;
use super::{Gateway, Place, surroundings};
use crate::async_calls::{AsyncCalls, MAX_ANSWER};
use crate::azure::own_token::OwnTokens;
use crate::azure::service_bus::{Counts, SCOPE, Sends, ServiceBus};
use crate::batch;
use crate::batch::settings::Settings;
use crate::batch::worker::Worker;
use crate::config::{self, Scheme};
use crate::console::{Console, QueueAges};
use crate::current::Current;
use crate::gateway::app::App;
use crate::gateway::classify::error_code;
use crate::gateway::event::Kind;
use crate::gateway::time::Timestamp;
use crate::host::bodies::{Ungathered, discard, gather_answer};
use crate::relay::Relay;
use crate::relay::inside::Inside;
use crate::store::Store;
use crate::store::blobs::Blobs;
use crate::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};

/// Most that is taken in of an answer beyond the largest that is kept, bytes, and for how long.
const MAX_REST: usize = 1 << 30;
const REST_TIME: Duration = Duration::from_secs(300);

/// Whether this process is handed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By the Functions host, or by the embedded queue.
    Invoked,
    /// By nobody: it only takes calls in that are answered later.
    Absent,
}

impl Gateway {
    /// This gateway, with batch messages as the configuration's section says. `counts` counts those
    /// that wait, in Service Bus's place.
    ///
    /// # Errors
    /// When the system has no usable certificate roots although the namespace needs them.
    pub fn with_batch(
        mut self,
        place: Place,
        batch: &config::Batch,
        store: &Arc<dyn Store>,
        blobs: Option<&Arc<dyn Blobs>>,
        counts: Option<Arc<dyn Counts>>,
        trigger: Trigger,
    ) -> io::Result<Self> {
        let bus = self.service_bus(place, batch)?;
        let counts = counts.unwrap_or_else(|| Arc::<ServiceBus>::clone(&bus) as Arc<dyn Counts>);
        let bus: Arc<dyn Sends> = bus;
        let calls = Arc::new(AsyncCalls::new(
            batch,
            Arc::clone(store),
            blobs.cloned(),
            Arc::clone(&bus),
        ));
        self.relay.get().take_async_calls(Arc::clone(&calls));
        self.triggers = self.triggers.merge(requests::router(&self.relay, &calls));
        self.background
            .spawn(super::sweep_requests(Arc::clone(store), blobs.cloned()));
        if trigger == Trigger::Absent {
            self.show_queue(&batch.queue, counts, None);
            return Ok(self);
        }
        let clock = self.relay.get().clock;
        let way = IntoRelay::new(&self.relay, &self.tls, MAX_ANSWER);
        let worker = Arc::new(Worker::new(
            Settings::new(batch),
            Arc::new(way),
            Arc::clone(store),
            blobs.cloned(),
            bus,
            Arc::new(move || clock.now()),
        ));
        let handed = Arc::clone(&worker);
        let age = Box::new(move || handed.queue_age());
        self.show_queue(&batch.queue, counts, Some(age));
        Ok(self.with_trigger(batch::router(worker)))
    }

    fn show_queue(&self, name: &str, counts: Arc<dyn Counts>, age: Option<QueueAges>) {
        let console = Console::clone(&self.swap.console.get());
        self.swap.console.set(console.with_queue(name, counts, age));
    }

    fn service_bus(&mut self, place: Place, batch: &config::Batch) -> io::Result<Arc<ServiceBus>> {
        let mut tokens = OwnTokens::new(surroundings(place));
        let token = match batch.namespace.scheme() {
            Scheme::Http => None,
            Scheme::Https => {
                let token = tokens.get(batch.client_id.as_deref(), SCOPE);
                Some(token.map_err(io::Error::other)?)
            }
        };
        self.tokens.extend_from_slice(tokens.all());
        let bus = ServiceBus::new(batch.namespace.clone(), token).map_err(io::Error::other)?;
        Ok(Arc::new(bus))
    }
}

/// The way into the relay of functions that make calls.
#[derive(Debug)]
pub(super) struct IntoRelay {
    inside: Inside,
    max_answer: usize,
}

impl IntoRelay {
    /// A way with connections of its own, on which answers have at most `max_answer` bytes.
    pub(super) fn new(
        relay: &Current<Relay>,
        tls: &rustls::ClientConfig,
        max_answer: usize,
    ) -> Self {
        Self {
            inside: Inside::new(relay, tls),
            max_answer,
        }
    }
}

impl Way for IntoRelay {
    fn app(&self, name: &str) -> Option<Arc<App>> {
        self.inside.relay().door.named(name)
    }

    fn kinds(&self, app: &App, model: &str) -> Kinds {
        let relay = self.inside.relay();
        let settings = &relay.settings;
        let has = |kind: Kind| {
            let pool = settings.pool.model(model);
            pool.is_some_and(|pool| {
                let mut all = pool.deployments();
                all.any(|one| one.spec.kind == kind && app.may_use(&one.spec))
            })
        };
        Kinds {
            ptu: has(Kind::Ptu),
            payg: has(Kind::Payg),
        }
    }

    fn slot<'a>(&'a self, model: &'a str, until: Timestamp) -> Later<'a, Result<Slot, NoSlot>> {
        Box::pin(async move {
            let relay = self.inside.relay();
            match relay.slots.acquire(model, until).await {
                Ok(slot) => Ok(Box::new(slot) as Slot),
                Err(none) => Err(NoSlot {
                    retry_after_ms: none.retry_after_ms,
                }),
            }
        })
    }

    fn call(&self, errand: Errand, slot: Option<Slot>) -> Later<'_, Result<Called, String>> {
        Box::pin(async move {
            let is_paced = slot.is_some() || errand.only == Some(Kind::Payg);
            let answer = self.inside.call(errand, is_paced).await;
            let (parts, body) = answer.into_parts();
            let body = whole(body, self.max_answer).await;
            // Its place is free when its answer has ended.
            drop(slot);
            let body = body.map_err(|error| format!("the answer could not be read: {error}"))?;
            let beyond = body.is_none().then_some(self.max_answer);
            let body = body.unwrap_or_default();
            let status = parts.status.as_u16();
            let text = |name: &str| text(&parts.headers, name);
            Ok(Called {
                status,
                request_id: text("x-spillway-request-id").unwrap_or_default().to_owned(),
                retry_after_ms: text("retry-after-ms").and_then(|ms| ms.parse().ok()),
                code: if status < 400 {
                    None
                } else {
                    error_code(&body).map(Cow::into_owned)
                },
                body,
                beyond,
            })
        })
    }
}

/// A body of at most `most` bytes; `None` where it has more. The rest of that is taken in all the
/// same, without being kept: at its end stands what its call is charged by.
async fn whole(mut body: Body, most: usize) -> Result<Option<Bytes>, Ungathered<axum::Error>> {
    let start = gather_answer(&mut body, most).await?;
    if start.bytes.len() <= most {
        return Ok(Some(start.bytes));
    }
    drop(start);
    discard(body, MAX_REST, REST_TIME).await;
    Ok(None)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt, stream};

    use super::*;

    /// A body of so many parts of 4 bytes, and how many were taken of it.
    fn body(parts: usize) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let parts = stream::iter(0..parts).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Bytes::from_static(b"1234"))
        });
        (Body::from_stream(parts), taken)
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_read_to_its_end_and_not_kept() {
        let (fits, _) = body(3);
        let read = whole(fits, 12).await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"123412341234"[..]));
        let (large, taken) = body(50);
        assert_eq!(whole(large, 12).await.unwrap(), None);
        assert_eq!(taken.load(Ordering::SeqCst), 50);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_none() {
        let parts = [Ok(Bytes::from_static(b"1234")), Err("broken")];
        let broken = Body::from_stream(stream::iter(parts));
        assert!(whole(broken, 12).await.is_err());
    }
}
