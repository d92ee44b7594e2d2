//! Puts the batch API into the process.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;

use super::Gateway;
use super::batch::IntoRelay;
use crate::batches::{Batches, Callers, Kept, Passed};
use crate::config::BatchApi;
use crate::current::Current;
use crate::gateway::app::App;
use crate::gateway::limit::{Refused, Reservation};
use crate::quota::Denial;
use crate::relay::Relay;
use crate::store::blobs::bounds::MAX_PART;
use crate::way::Later;

impl Gateway {
    /// This gateway, with the batch API, whose things are in `kept`.
    #[must_use]
    pub(super) fn with_batch_api(mut self, settings: &BatchApi, kept: Kept) -> Self {
        let relay = self.relay.get();
        let clock = relay.clock;
        let current = self.relay.clone();
        let within = move || {
            let deadline_ms = current.get().settings.gateway.deadline_ms;
            Duration::from_millis(deadline_ms)
        };
        let batches = Arc::new(Batches::new(
            settings.clone(),
            Passed {
                max: relay.settings.gateway.max_body(),
                within: Arc::new(within),
                room: Arc::clone(relay.room()),
            },
            kept,
            // A larger answer would have no place in a file of results.
            Arc::new(IntoRelay::new(&self.relay, &self.tls, MAX_PART)),
            Arc::new(Door(self.relay.clone())),
            Arc::new(move || clock.now()),
        ));
        self.background.spawn(Arc::clone(&batches).run_all());
        self.batches = Some(batches);
        self
    }
}

/// The gateway's door and the limits of apps, for the batch API.
#[derive(Debug)]
struct Door(Current<Relay>);

impl Callers for Door {
    fn identify<'a>(&'a self, headers: &'a HeaderMap) -> Later<'a, Option<Arc<App>>> {
        let relay = self.0.get();
        Box::pin(async move {
            let now = relay.clock.now();
            let caller = relay.door.identify(headers, now).await;
            caller.ok().map(|caller| caller.app)
        })
    }

    fn admit(&self, app: &App) -> Result<Option<Reservation>, Refused> {
        let relay = self.0.get();
        // No model, no tokens, and nothing spent: that is what each line does when it is called.
        let now = relay.clock.now();
        let admission = relay.quotas.admit(&app.name, "", false, || 0, now);
        match admission.verdict {
            Ok(place) => Ok(place),
            Err(Denial::Limit(refused)) => Err(refused),
            // A budget is in the way of what spends alone.
            Err(Denial::Budget(_)) => Ok(None),
        }
    }
}
