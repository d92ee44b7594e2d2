//! The thread that brings to the store, or to the hub, what calls leave behind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Place;
use super::opening::fresh_token;
use super::thread::Thread;
use crate::azure::event_hub::{self, EventHub};
use crate::config::Config;
use crate::current::Current;
use crate::gateway::price::Prices;
use crate::outbox::{self, Outbox, Ways};
use crate::relay::keeper::Inbox;
use crate::store::Store;
use crate::store::ledger::Ledger;
use crate::telemetry::Queue;

/// What brings to the store, or to the hub, what calls leave behind. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "what calls leave behind is lost without it"]
pub struct Keeping {
    thread: Thread,
    prices: Current<Prices>,
}

impl Keeping {
    /// What usage events are charged by.
    pub const fn prices(&self) -> &Current<Prices> {
        &self.prices
    }

    /// Waits, `patience` at most, until all that has come is delivered or in a file. Whether it is.
    pub async fn finish(self, patience: Duration) -> bool {
        self.thread.finish(patience).await
    }
}

/// Brings what calls leave behind to the store, or to the hub, in a thread of its own, and then to `traces`,
/// where they are traced. Tokens for the hub are fetched in the runtime that this is called in.
///
/// # Errors
/// When the thread can't be started, the system has no usable certificate roots, or what is to be durable has
/// no folder.
pub fn keep(
    place: Place,
    config: &Config,
    inbox: Inbox,
    traces: Option<Queue>,
    store: Option<Arc<dyn Store>>,
    ledger: Option<Arc<Ledger>>,
) -> io::Result<Keeping> {
    let prices = Current::new(config.prices());
    let ways = Ways {
        hub: open_hub(place, config)?,
        ledger,
        prices: prices.clone(),
        traces,
    };
    let outbox = Outbox::new(ways, outbox::Settings::new(config))?;
    let Inbox { events, owners } = inbox;
    let thread = Thread::start("keeper", move |stop| async move {
        let owners = async {
            if let Some(store) = store.as_deref() {
                owners.keep(store).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = outbox.run(events, stop) => {}
            () = owners => {}
        }
    })?;
    Ok(Keeping { thread, prices })
}

fn open_hub(place: Place, config: &Config) -> io::Result<Option<EventHub>> {
    let Some(hub) = &config.chargeback.event_hub else {
        return Ok(None);
    };
    EventHub::new(hub, fresh_token(place, event_hub::SCOPE)?)
        .map(Some)
        .map_err(io::Error::other)
}
