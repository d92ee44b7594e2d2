//! What the gateway counts of its calls: by deployment, by model and by app, never more than the
//! configuration names.
//!
//! A worker has a [`Shard`] of its own and counts a call in it when the call ends: additions, no
//! allocation, no lock, and no cache line that another worker writes. Whoever looks sums the shards
//! ([`Metrics::totals`]). Everything only grows; what happened within a time is the difference of two
//! looks ([`Window`]), so that counting needs no clock. Where the configuration names others, they are
//! counted from then on ([`Metrics::adopt`]), and the counters of those that stay go on.
//!
//! [`Rollup`] is what is kept of a minute or an hour, [`notable`] the calls that somebody may ask
//! about: failures and slow ones.

pub mod family;
pub mod histogram;
pub mod names;
pub mod notable;
pub mod rollup;
pub mod shard;
pub mod totals;
pub mod window;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::names::{DeploymentName, Names};
pub use self::notable::Notable;
pub use self::rollup::Rollup;
pub use self::shard::{Count, Shard};
pub use self::totals::{Total, Totals};
pub use self::window::Window;

#[cfg(test)]
mod tests;

/// All counters of a process.
#[derive(Debug)]
pub struct Metrics(Mutex<State>);

#[derive(Debug)]
struct State {
    names: Arc<Names>,
    shards: Vec<Arc<Shard>>,
}

impl Metrics {
    /// Counters for these names, all 0.
    pub fn new(names: Arc<Names>) -> Self {
        let shards = Vec::new();
        Self(Mutex::new(State { names, shards }))
    }

    /// What is counted.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.state().names)
    }

    /// Counts by other names from now on. The counters of names that stay go on; those of names that
    /// are gone end.
    pub fn adopt(&self, names: Arc<Names>) {
        let mut state = self.state();
        if state.names == names {
            return;
        }
        for shard in &state.shards {
            shard.adopt(&names);
        }
        state.names = names;
    }

    /// Another shard, for one more thread that counts.
    pub fn shard(&self) -> Arc<Shard> {
        let mut state = self.state();
        let shard = Arc::new(Shard::new(Arc::clone(&state.names)));
        state.shards.push(Arc::clone(&shard));
        shard
    }

    /// What has been counted so far, by all shards.
    pub fn totals(&self) -> Totals {
        let state = self.state();
        let mut totals = Totals::none(&state.names);
        for shard in &state.shards {
            shard.add_to(&mut totals);
        }
        totals
    }

    /// Calls that have ended so far. Nothing is allocated for it.
    pub fn ended(&self) -> u64 {
        self.state().shards.iter().map(|shard| shard.ended()).sum()
    }

    /// The notable calls since they were last taken, oldest first.
    pub fn take_notable(&self) -> Notable {
        let mut all = Notable::default();
        for shard in &self.state().shards {
            all.merge(shard.take_notable());
        }
        all.sort();
        all
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
