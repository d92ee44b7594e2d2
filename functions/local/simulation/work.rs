//! What a simulated provisioned deployment did, minute by minute: what Azure Monitor would say of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::resource::Resource;
use crate::gateway::pacing::window::{Capacity, MINUTE_MS, Minute};
use crate::gateway::ptu::{CallTokens, ModelRate, Utilization};
use crate::gateway::time::Timestamp;

/// Minutes that are remembered.
const MINUTES: u64 = 120;

/// The weighted tokens of a deployment's minutes. A call counts in the minute in which it ends.
#[derive(Debug)]
pub(super) struct Work {
    rate: ModelRate,
    capacity: Capacity,
    minutes: BTreeMap<Minute, u64>,
}

impl Work {
    pub(super) fn new(ptus: u32, model: &str) -> Self {
        Self {
            rate: ModelRate::of(model).unwrap_or(ModelRate::ASSUMED),
            capacity: Capacity::of(ptus, model),
            minutes: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, used: CallTokens, now: Timestamp) {
        let minute = Minute::of(now);
        self.minutes = self.minutes.split_off(&minute.before(MINUTES));
        let output = used.output.saturating_mul(self.rate.output_ratio);
        let tokens = used
            .prompt
            .saturating_sub(used.cached)
            .saturating_add(output);
        let sum = self.minutes.entry(minute).or_default();
        *sum = sum.saturating_add(tokens);
    }

    pub(super) fn minutes(&self) -> BTreeMap<Minute, Utilization> {
        let minutes = self.minutes.iter();
        let utilization = |tokens: u64| self.capacity.utilization(tokens, MINUTE_MS);
        minutes
            .map(|(minute, tokens)| (*minute, utilization(*tokens)))
            .collect()
    }
}

/// The provisioned deployments of a simulated resource, as Azure Monitor sees them.
#[derive(Clone, Debug)]
pub struct Metered(pub(super) Arc<Resource>);

impl Metered {
    /// The minutes of each deployment in which calls ended.
    pub fn minutes(&self) -> Vec<(String, BTreeMap<Minute, Utilization>)> {
        let deployments = self.0.deployments().iter();
        let minutes = deployments.filter_map(|d| Some((d.name.clone(), d.work()?)));
        minutes.collect()
    }

    /// The resource's time.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
