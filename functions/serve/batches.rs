//! Puts the batch API into the process.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::Gateway;
use super::batch::IntoRelay;
use crate::batches::{Batches, Callers, Kept};
use crate::config::BatchApi;
use crate::gateway::app::App;
use crate::relay::Relay;
use crate::way::Later;

impl Gateway {
    /// This gateway, with the batch API, whose things are in `kept`.
    #[must_use]
    pub(super) fn with_batch_api(mut self, settings: &BatchApi, kept: Kept) -> Self {
        let clock = self.relay.clock;
        let batches = Arc::new(Batches::new(
            settings.clone(),
            self.relay.settings.gateway.max_body(),
            kept,
            Arc::new(IntoRelay::new(&self.relay, &self.tls)),
            Arc::new(Door(Arc::clone(&self.relay))),
            Arc::new(move || clock.now()),
        ));
        self.background.spawn(Arc::clone(&batches).run_all());
        self.batches = Some(batches);
        self
    }
}

/// The gateway's door, for the batch API.
#[derive(Debug)]
struct Door(Arc<Relay>);

impl Callers for Door {
    fn identify<'a>(&'a self, headers: &'a HeaderMap) -> Later<'a, Option<Arc<App>>> {
        let now = self.0.clock.now();
        Box::pin(async move {
            let caller = self.0.door.identify(headers, now).await;
            caller.ok().map(|caller| caller.app)
        })
    }
}
