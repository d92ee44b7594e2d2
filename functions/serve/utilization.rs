//! Puts what asks Azure Monitor into the process.

use std::io;
use std::sync::Arc;

use super::{Gateway, Place, surroundings};
use crate::azure::monitor::{BATCH_SCOPE, Monitor, SCOPE, Tokens};
use crate::azure::own_token::OwnTokens;
use crate::billing::reconcile::Reconciler;
use crate::config::Config;
use crate::current::Current;
use crate::store::Store;
use crate::utilization;
use crate::utilization::poll::Poller;

impl Gateway {
    /// This gateway, which asks Azure Monitor when the host's timer says so. Without a backend whose
    /// resource and provisioned deployments the configuration names there is nothing to ask for,
    /// and the function only deletes what is old.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn with_utilization(
        mut self,
        place: Place,
        config: &Config,
        store: &Arc<dyn Store>,
    ) -> io::Result<Self> {
        let monitor = self.monitor(place, config)?;
        let poller = Current::new(Poller::new(config, monitor, Arc::clone(store)));
        self.swap.poller = Some(poller.clone());
        Ok(self.with_trigger(utilization::router(poller)))
    }

    /// This gateway, which compares once a day what was charged with what Azure Monitor counts, where the
    /// configuration asks for that.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn with_reconciliation(
        mut self,
        place: Place,
        config: &Config,
        store: &Arc<dyn Store>,
    ) -> io::Result<Self> {
        if config.chargeback.reconcile {
            let monitor = self.monitor(place, config)?;
            let reconciler = Reconciler::new(config, monitor, Arc::clone(store));
            self.swap.reconciler = Some(Current::new(reconciler));
        }
        Ok(self)
    }

    fn monitor(&mut self, place: Place, config: &Config) -> io::Result<Monitor> {
        let instead = config.pacing.as_ref().and_then(|p| p.monitor.as_ref());
        let monitor = match instead {
            Some(endpoint) => Monitor::on_this_machine(&endpoint.to_string()),
            None => self.azure_monitor(place, config),
        };
        monitor.map_err(io::Error::other)
    }

    /// Azure's Monitor. Its tokens are fetched only where there is something to ask for.
    fn azure_monitor(&mut self, place: Place, config: &Config) -> Result<Monitor, String> {
        let mut tokens = OwnTokens::new(surroundings(place));
        let (one, batch) = (tokens.get(None, SCOPE)?, tokens.get(None, BATCH_SCOPE)?);
        if config.backends.iter().any(|b| b.resource_id.is_some()) || config.live.is_some() {
            self.tokens.extend_from_slice(tokens.all());
        }
        Monitor::azure(Tokens { one, batch })
    }
}
