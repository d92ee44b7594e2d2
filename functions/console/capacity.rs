//! What provisioned deployments can do, and how full the gateway's own counts say that they are.
//!
//! It is Azure's rule for utilization (weighted tokens a minute, [`crate::gateway::ptu`]) on the
//! tokens that went through this gateway: what others send to a deployment is not in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::gateway::metrics::shard::Count;
use crate::gateway::price::Prices;
use crate::gateway::ptu::ModelRate;
use crate::gateway::time::Timestamp;

/// A provisioned deployment.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// The model that apps ask for.
    pub(super) model: Arc<str>,
    /// Its PTUs; 0 where the configuration does not say.
    pub(super) ptus: u32,
    /// What a PTU of its model can do.
    pub(super) rate: ModelRate,
    /// Weighted tokens an hour; 0 where its PTUs are not known.
    pub(super) per_hour: u64,
}

impl Capacity {
    /// What tokens weigh at a PTU of this model. `get` says what was counted.
    pub(super) fn weighted(&self, get: impl Fn(Count) -> u64) -> u64 {
        weighted(get, &self.rate)
    }
}

/// What tokens weigh at a PTU of such a rate. `get` says what was counted.
pub(super) fn weighted(get: impl Fn(Count) -> u64, rate: &ModelRate) -> u64 {
    weigh(get, rate, [Count::Input, Count::Cached, Count::Output])
}

/// What the tokens of low-priority calls among them weigh.
pub(super) fn low_weighted(get: impl Fn(Count) -> u64, rate: &ModelRate) -> u64 {
    let counts = [Count::LowInput, Count::LowCached, Count::LowOutput];
    weigh(get, rate, counts)
}

fn weigh(get: impl Fn(Count) -> u64, rate: &ModelRate, counts: [Count; 3]) -> u64 {
    let [input, cached, output] = counts.map(get);
    let input = input.saturating_sub(cached);
    input.saturating_add(output.saturating_mul(rate.output_ratio))
}

/// The provisioned deployments, by backend and name.
#[derive(Debug, Default)]
pub(super) struct Capacities(BTreeMap<(Arc<str>, Arc<str>), Capacity>);

impl Capacities {
    pub(super) fn new(prices: &Prices) -> Self {
        let here = prices.ptus().into_iter().filter(|of| of.deleted.is_none());
        let all = here.map(|of| {
            let rate = ModelRate::of(&of.base_model).unwrap_or(ModelRate::ASSUMED);
            let known = prices.ptu(&of.backend, &of.name, Timestamp::from_unix_ms(u64::MAX));
            let capacity = Capacity {
                model: Arc::clone(&of.model),
                ptus: of.ptus,
                rate,
                per_hour: known.map_or(0, |known| known.capacity),
            };
            ((Arc::clone(&of.backend), Arc::clone(&of.name)), capacity)
        });
        Self(all.collect())
    }

    pub(super) fn get(&self, backend: &Arc<str>, deployment: &Arc<str>) -> Option<&Capacity> {
        let key = (Arc::clone(backend), Arc::clone(deployment));
        self.0.get(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(Arc<str>, Arc<str>), &Capacity)> {
        self.0.iter()
    }
}

/// The limits between which low-priority work is paced, percent, where it is.
pub(super) fn limits(config: &Config) -> Option<(u32, u32)> {
    let pacing = config.pacing.as_ref()?;
    Some((pacing.lower_percent, pacing.upper_percent))
}
