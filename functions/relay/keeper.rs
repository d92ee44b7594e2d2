//! Brings to the store what calls leave behind: usage events, and who owns what they made.
//!
//! Both come through bounded queues, so that a slow store holds up no call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::affinity::OwnerChange;
use super::recorder::Events;
use crate::gateway::event::UsageEvent;
use crate::gateway::price::Prices;
use crate::host::clock::Clock;
use crate::pacing::Gauge;
use crate::store::ledger::Ledger;
use crate::store::{Change, Store, StoreError, Table, Write, affinity};

/// The shortest and longest pause before the store is asked again, ms.
const PAUSE_MS: (u64, u64) = (100, 10_000);

/// How often owners that have expired are deleted, and how long after the start for the first time.
const SWEEP: (Duration, Duration) = (Duration::from_secs(24 * 3600), Duration::from_secs(600));

/// Most events that are taken from the queue at once.
const MAX_BATCH: usize = 5000;

/// How long events gather before they are written: what a process that is killed may lose.
const GATHER: Duration = Duration::from_millis(50);

/// The other ends of a relay's queues.
#[derive(Debug)]
pub struct Inbox {
    /// Usage events.
    pub events: Events,
    /// Owners of stored objects.
    pub owners: Owners,
    /// What counts the tokens of provisioned deployments.
    pub gauge: Arc<Gauge>,
}

/// Owners that wait for the store.
#[derive(Debug)]
pub struct Owners(pub(super) mpsc::Receiver<OwnerChange>);

/// Writes each event as a JSON line at debug level, and to `ledger` where there is one, until the
/// last recorder is gone.
pub async fn keep_events(mut events: Events, ledger: Option<&Ledger>, prices: &Prices) {
    let mut batch = Vec::new();
    while events.next_batch(&mut batch, MAX_BATCH, GATHER).await {
        batch.iter().for_each(|event| log(event));
        if let Some(ledger) = ledger {
            record(ledger, prices, &batch).await;
        }
        batch.clear();
    }
}

fn log(event: &UsageEvent) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        match serde_json::to_string(event) {
            Ok(event) => tracing::debug!(event, "call"),
            Err(error) => tracing::error!(%error, "a usage event could not be written"),
        }
    }
}

async fn record(ledger: &Ledger, prices: &Prices, batch: &[Box<UsageEvent>]) {
    let events: Vec<&UsageEvent> = batch.iter().map(|event| &**event).collect();
    until_it_works("usage events", || async {
        let recorded = ledger.record(&events, &|event| prices.charge(event)).await;
        recorded.map(drop)
    })
    .await;
}

/// Tells `store` of owners until the last relay is gone.
pub(super) async fn keep_owners(mut changes: mpsc::Receiver<OwnerChange>, store: &dyn Store) {
    while let Some(change) = changes.recv().await {
        let (id, write) = match &change {
            OwnerChange::Remember(id, owned) => (id, affinity::write(id, owned)),
            OwnerChange::Forget(id) => (
                id,
                Write {
                    row: affinity::key(id).row,
                    change: Change::Delete(None),
                },
            ),
        };
        let partition = affinity::key(id).partition;
        until_it_works("the owner of a stored object", || async {
            match store
                .write(Table::Affinity, &partition, vec![write.clone()])
                .await
            {
                // It was not there to be deleted.
                Err(StoreError::Changed { .. }) => Ok(()),
                other => other,
            }
        })
        .await;
    }
}

impl Owners {
    /// Tells `store` of owners, and has it forget expired ones, until the last relay is gone.
    pub async fn keep(self, store: &dyn Store) {
        tokio::select! {
            () = keep_owners(self.0, store) => {}
            () = sweep_daily(store) => {}
        }
    }
}

async fn sweep_daily(store: &dyn Store) {
    let (every, first) = SWEEP;
    let clock = Clock::new();
    tokio::time::sleep(first).await;
    loop {
        match affinity::sweep(store, clock.now()).await {
            Ok(deleted) => tracing::info!(deleted, "owners that had expired were deleted"),
            Err(error) => tracing::warn!(%error, "owners that have expired can't be deleted"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Tries again, ever more slowly, while the store is unavailable. What it refuses is said and
/// given up: it would be refused again.
async fn until_it_works<F: Future<Output = Result<(), StoreError>>>(
    what: &str,
    write: impl Fn() -> F,
) {
    let (mut pause_ms, longest_ms) = PAUSE_MS;
    loop {
        match write().await {
            Ok(()) => return,
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::error!(%error, pause_ms, "{what} can't be stored; trying again");
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(longest_ms);
            }
            Err(error) => {
                tracing::error!(%error, "{what} can't be stored");
                return;
            }
        }
    }
}
