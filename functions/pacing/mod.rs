//! Low-priority slots, shared by all instances, and how full provisioned deployments are. The rules
//! are [`crate::gateway::pacing`].
//!
//! [`Slots::acquire`] is all that a low-priority call needs. However many calls wait in a process, one
//! task a model ([`Slots::keep`]) reads and writes the table for them.

mod gauge;
mod lane;
mod meter;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

pub use self::gauge::{Gauge, Reading};
use self::lane::Lane;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::{Store, StoreError};

/// The slots of all models that have some.
#[derive(Debug)]
pub struct Slots {
    lanes: HashMap<Arc<str>, Arc<Lane>>,
    gauge: Arc<Gauge>,
}

/// A place among the low-priority calls that may run now. It is renewed while it is held and given
/// back when it is dropped.
#[derive(Debug)]
#[must_use = "a slot that is dropped is given back"]
pub struct Slot {
    /// `None`: the model needs no slots.
    held: Option<Held>,
}

/// Which slot, and which time that this process has it: a lease that ran out can be had again.
#[derive(Debug)]
struct Held {
    lane: Arc<Lane>,
    number: u32,
    turn: u64,
}

/// How the slots of a model stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotsNow {
    /// Slots in use, of all instances.
    pub in_use: u32,
    /// Slots that are open.
    pub open: u32,
    /// Most that there are.
    pub most: u32,
    /// Calls that wait for one, of all instances.
    pub waiting: u32,
}

/// No slot was to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot {
    /// When it is worth asking again, ms: a guess, by how long slots are held and how many wait.
    pub retry_after_ms: u64,
}

impl Slot {
    /// The slot's number; `None` where the model needs no slots.
    pub fn number(&self) -> Option<u32> {
        self.held.as_ref().map(|held| held.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            Lane::give_back(&held);
        }
    }
}

impl Slots {
    /// The slots of a configuration, none without `[pacing]` or without a store.
    pub fn of(gauge: &Arc<Gauge>, store: Option<&Arc<dyn Store>>, clock: Clock) -> Self {
        if let Some(store) = store {
            return Self::new(gauge, store, clock);
        }
        if gauge.models().next().is_some() {
            tracing::warn!(
                "[pacing] needs storage.tables: low-priority calls are not paced without it"
            );
        }
        Self {
            lanes: HashMap::new(),
            gauge: Arc::clone(gauge),
        }
    }

    /// The slots of the models that `gauge` knows, kept in `store`.
    pub fn new(gauge: &Arc<Gauge>, store: &Arc<dyn Store>, clock: Clock) -> Self {
        let instance = format!("{:032x}", fastrand::u128(..));
        let lane = |model: &Arc<str>| {
            Lane::new(
                Arc::clone(model),
                instance.clone(),
                Arc::clone(store),
                Arc::clone(gauge),
                clock,
            )
        };
        let lanes = gauge
            .models()
            .map(|model| (Arc::clone(model), Arc::new(lane(model))));
        Self {
            lanes: lanes.collect(),
            gauge: Arc::clone(gauge),
        }
    }

    /// What the slots go by.
    pub const fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Whether low-priority calls to this model need a slot.
    pub fn are_needed_for(&self, model: &str) -> bool {
        self.lanes.contains_key(model)
    }

    /// Waits for a slot for a low-priority call to `model`, until `until` at most; calls get theirs in
    /// the order in which they came. A model without provisioned deployments needs none: it gets
    /// one at once that holds nothing.
    ///
    /// # Errors
    /// [`NoSlot`] when there was none in time, or too many calls wait already.
    pub async fn acquire(&self, model: &str, until: Timestamp) -> Result<Slot, NoSlot> {
        match self.lanes.get(model) {
            Some(lane) => lane.acquire(until).await,
            None => Ok(Slot { held: None }),
        }
    }

    /// How the slots of a model stand at `now`; `None` where it needs none. Reads the tables where
    /// that is due.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(&self, model: &str, now: Timestamp) -> Result<Option<SlotsNow>, StoreError> {
        match (self.lanes.get(model), self.gauge.pace()) {
            (Some(lane), Some(pace)) => lane.look(&pace, now).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Calls that wait for a slot of `model` in this process.
    pub fn waiting(&self, model: &str) -> usize {
        self.lanes.get(model).map_or(0, |lane| lane.waiting())
    }

    /// Takes, renews and gives back slots, for ever. Ends at once where no model needs any.
    pub async fn keep(self: Arc<Self>) {
        let mut lanes = JoinSet::new();
        for lane in self.lanes.values() {
            lanes.spawn(Arc::clone(lane).keep());
        }
        lanes.join_all().await;
    }
}

#[cfg(test)]
mod tests;
