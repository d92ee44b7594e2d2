//! What the gateway counts of its calls: by deployment, by model and by app, never more than the
//! configuration names.
//!
//! A worker has a [`Shard`] of its own and counts a call in it when the call ends: additions, no
//! allocation, no lock, and no cache line that another worker writes. Whoever looks sums the shards
//! ([`Metrics::totals`]). Everything only grows; what happened within a time is the difference of two
//! looks ([`Window`]), so that counting needs no clock.
//!
//! [`Rollup`] is what is kept of a minute or an hour, [`notable`] the calls that somebody may ask
//! about: failures and slow ones.

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
pub struct Metrics {
    names: Arc<Names>,
    shards: Mutex<Vec<Arc<Shard>>>,
}

impl Metrics {
    /// Counters for these names, all 0.
    pub fn new(names: Arc<Names>) -> Self {
        Self {
            names,
            shards: Mutex::default(),
        }
    }

    /// What is counted.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Another shard, for one more thread that counts.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(Arc::clone(&self.names)));
        self.shards().push(Arc::clone(&shard));
        shard
    }

    /// What has been counted so far, by all shards.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::none(&self.names);
        for shard in self.shards().iter() {
            shard.add_to(&mut totals);
        }
        totals
    }

    /// Calls that have ended so far. Nothing is allocated for it.
    pub fn ended(&self) -> u64 {
        self.shards().iter().map(|shard| shard.ended()).sum()
    }

    /// The notable calls since they were last taken, oldest first.
    pub fn take_notable(&self) -> Notable {
        let mut all = Notable::default();
        for shard in self.shards().iter() {
            all.merge(shard.take_notable());
        }
        all.sort();
        all
    }

    fn shards(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shard>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
