//! Has apps' names asked for, where the configuration wants that.

use std::io;
use std::sync::Arc;

use super::opening::fresh_token;
use super::{Gateway, Place};
use crate::azure::graph::{Graph, SCOPE, SERVICE};
use crate::billing::names;
use crate::config::Config;
use crate::host::clock::Clock;
use crate::store::Store;

impl Gateway {
    /// This gateway, which asks Microsoft Graph for the names of apps that are known by an id only.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn with_names(
        mut self,
        place: Place,
        config: &Config,
        store: &Arc<dyn Store>,
    ) -> io::Result<Self> {
        if config.chargeback.graph_names {
            let token = fresh_token(place, SCOPE)?;
            let graph = Graph::new(SERVICE, Some(token)).map_err(io::Error::other)?;
            let clock = Clock::new();
            self.background
                .spawn(names::keep(Arc::clone(store), graph, clock));
        }
        Ok(self)
    }
}
