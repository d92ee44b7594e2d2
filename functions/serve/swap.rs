//! Puts the next generation of the configuration in the place of the running one.

use std::sync::{Arc, Mutex, PoisonError};

use crate::alert::Alerts;
use crate::azure::own_token::OwnTokens;
use crate::chargeback::Consumer;
use crate::config::Config;
use crate::console::Console;
use crate::current::Current;
use crate::gateway::price::Prices;
use crate::relay::Relay;
use crate::utilization::poll::Poller;

/// All that goes by the configuration in a running process.
///
/// What a call reads is one [`Relay`], behind one pointer: it has the old generation or the new one,
/// never parts of both. What is counted, marked and held is in none of them and goes on.
#[derive(Clone, Debug)]
pub struct Swap {
    pub(super) relay: Current<Relay>,
    pub(super) console: Current<Console>,
    pub(super) alerts: Current<Alerts>,
    /// Where usage events are charged on their way to the store.
    pub(super) prices: Option<Current<Prices>>,
    pub(super) consumer: Option<Current<Consumer>>,
    pub(super) poller: Option<Current<Poller>>,
    /// Held while one is put in: the next one waits.
    pub(super) tokens: Arc<Mutex<OwnTokens>>,
}

impl Swap {
    /// Has the process go by `config`, which may differ only in what can change in a running process
    /// ([`crate::config::diff`]). Calls that are under way end under the generation that they began
    /// with. Tokens that are new are fetched in the runtime that this is called in.
    ///
    /// # Errors
    /// When it can't be gone by; then nothing has changed.
    pub fn to(&self, config: &Config) -> Result<(), String> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let relay = self.relay.get();
        let known = tokens.all().len();
        let settings = relay.settings.after(config, &mut tokens)?;
        let door = relay.door.after(config);
        // From here on nothing can fail.
        for token in tokens.all().iter().skip(known) {
            tokio::spawn(Arc::clone(token).keep_fresh(relay.clock));
        }
        relay.slots.gauge().adopt(config);
        relay.slots.adopt();
        if let Some(prices) = &self.prices {
            prices.set(config.prices().after(&prices.get()));
        }
        if let Some(consumer) = &self.consumer {
            consumer.set(consumer.get().after(config));
        }
        let quotas = relay.quotas.after(config, relay.clock.now());
        let next = Arc::new(relay.after(settings, door, quotas));
        self.relay.set(Arc::clone(&next));
        self.console
            .set(self.console.get().after(config, Arc::clone(&next)));
        self.alerts.set(self.alerts.get().after(config, next));
        if let Some(poller) = &self.poller {
            poller.set(poller.get().after(config));
        }
        Ok(())
    }
}
