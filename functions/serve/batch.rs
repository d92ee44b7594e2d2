//! Puts the batch function into the process: its way into the relay, Service Bus, and the calls that
//! are answered later.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::http::HeaderMap;

use super::requests;
use super::{Gateway, Place, surroundings};
use crate::async_calls::AsyncCalls;
use crate::azure::own_token::OwnTokens;
use crate::azure::service_bus::{SCOPE, Sends, ServiceBus};
use crate::batch;
use crate::batch::settings::Settings;
use crate::batch::worker::Worker;
use crate::config::{self, Scheme};
use crate::current::Current;
use crate::gateway::app::App;
use crate::gateway::classify::error_code;
use crate::gateway::event::Kind;
use crate::gateway::time::Timestamp;
use crate::relay::Relay;
use crate::relay::inside::Inside;
use crate::store::Store;
use crate::store::blobs::Blobs;
use crate::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};

/// Whether this process is handed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By the Functions host, or by the embedded queue.
    Invoked,
    /// By nobody: it only takes calls in that are answered later.
    Absent,
}

impl Gateway {
    /// This gateway, with batch messages as the configuration's section says.
    ///
    /// # Errors
    /// When the system has no usable certificate roots although the namespace needs them.
    pub fn with_batch(
        mut self,
        place: Place,
        batch: &config::Batch,
        store: &Arc<dyn Store>,
        blobs: Option<&Arc<dyn Blobs>>,
        trigger: Trigger,
    ) -> io::Result<Self> {
        let bus = self.service_bus(place, batch)?;
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
            return Ok(self);
        }
        let clock = self.relay.get().clock;
        let way = IntoRelay::new(&self.relay, &self.tls);
        let worker = Worker::new(
            Settings::new(batch),
            Arc::new(way),
            Arc::clone(store),
            blobs.cloned(),
            bus,
            Arc::new(move || clock.now()),
        );
        Ok(self.with_trigger(batch::router(Arc::new(worker))))
    }

    fn service_bus(&mut self, place: Place, batch: &config::Batch) -> io::Result<Arc<dyn Sends>> {
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
    /// A way with connections of its own.
    pub(super) fn new(relay: &Current<Relay>, tls: &rustls::ClientConfig) -> Self {
        Self {
            inside: Inside::new(relay, tls),
            max_answer: relay.get().settings.gateway.max_body(),
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
            let body = to_bytes(body, self.max_answer).await;
            // Its place is free when its answer has ended.
            drop(slot);
            let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
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
            })
        })
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
