//! Low-priority slots, shared by all instances, and how full provisioned deployments are. The rules
//! are [`crate::gateway::pacing`].
//!
//! [`Slots::acquire`] is all that a low-priority call needs. However many calls wait in a process, one
//! task a model ([`Slots::keep`]) reads and writes the table for them.

mod gauge;
mod lane;
mod meter;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use self::gauge::Gauge;
use self::lane::Lane;
use crate::current::Current;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::Store;

/// The slots of all models that have some.
#[derive(Debug)]
pub struct Slots {
    /// Also of models that are not paced any more: calls may hold some of their slots.
    lanes: Current<HashMap<Arc<str>, Arc<Lane>>>,
    /// Says that there are more lanes.
    grown: Notify,
    gauge: Arc<Gauge>,
    /// `None`: without a store nothing is paced.
    store: Option<Arc<dyn Store>>,
    instance: String,
    clock: Clock,
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
    /// The slots of the models that `gauge` knows, kept in `store`; none without one.
    pub fn new(gauge: &Arc<Gauge>, store: Option<&Arc<dyn Store>>, clock: Clock) -> Self {
        if store.is_none() && !gauge.models().is_empty() {
            tracing::warn!(
                "[pacing] needs storage.tables: low-priority calls are not paced without it"
            );
        }
        let slots = Self {
            lanes: Current::new(HashMap::new()),
            grown: Notify::new(),
            gauge: Arc::clone(gauge),
            store: store.cloned(),
            instance: format!("{:032x}", fastrand::u128(..)),
            clock,
        };
        slots.adopt();
        slots
    }

    /// Has slots for the models that the gauge knows now. Calls keep the slots that they hold.
    pub fn adopt(&self) {
        let Some(store) = &self.store else { return };
        let mut lanes = HashMap::clone(&self.lanes.get());
        for model in self.gauge.models() {
            lanes.entry(model).or_insert_with_key(|model| {
                Arc::new(Lane::new(
                    Arc::clone(model),
                    self.instance.clone(),
                    Arc::clone(store),
                    Arc::clone(&self.gauge),
                    self.clock,
                ))
            });
        }
        for (model, lane) in &lanes {
            if !self.gauge.paces(model) {
                lane.let_all_go();
            }
        }
        self.lanes.set(lanes);
        self.grown.notify_one();
    }

    /// What the slots go by.
    pub const fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Whether low-priority calls to this model need a slot.
    pub fn are_needed_for(&self, model: &str) -> bool {
        self.store.is_some() && self.gauge.paces(model)
    }

    fn lane(&self, model: &str) -> Option<Arc<Lane>> {
        self.lanes.get().get(model).cloned()
    }

    /// Waits for a slot for a low-priority call to `model`, until `until` at most; calls get theirs in
    /// the order in which they came. A model without provisioned deployments needs none: it gets
    /// one at once that holds nothing.
    ///
    /// # Errors
    /// [`NoSlot`] when there was none in time, or too many calls wait already.
    pub async fn acquire(&self, model: &str, until: Timestamp) -> Result<Slot, NoSlot> {
        match self.lane(model).filter(|_| self.gauge.paces(model)) {
            Some(lane) => lane.acquire(until).await,
            None => Ok(Slot { held: None }),
        }
    }

    /// Calls that wait for a slot of `model` in this process.
    pub fn waiting(&self, model: &str) -> usize {
        self.lane(model).map_or(0, |lane| lane.waiting())
    }

    /// Takes, renews and gives back slots, for ever.
    pub async fn keep(self: Arc<Self>) {
        let (mut kept, mut names) = (JoinSet::new(), HashSet::new());
        loop {
            for (model, lane) in self.lanes.get().iter() {
                if names.insert(Arc::clone(model)) {
                    kept.spawn(Arc::clone(lane).keep());
                }
            }
            self.grown.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
