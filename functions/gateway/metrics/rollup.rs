//! What is kept of a minute or an hour: what was counted of each deployment and model in it.
//!
//! As JSON, in arrays, since there is one every minute; by name, since the next process may have
//! another configuration.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::DeploymentName;
use super::shard::{Count, Size};
use super::totals::{Total, Totals};
use crate::gateway::event::Kind;

/// What was counted in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollup {
    /// By deployment.
    #[serde(rename = "d", default)]
    pub deployments: Vec<DeploymentRoll>,
    /// By model.
    #[serde(rename = "m", default)]
    pub models: Vec<ModelRoll>,
}

/// A deployment's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRoll {
    /// The backend's name.
    #[serde(rename = "b")]
    pub backend: Arc<str>,
    /// The deployment's name.
    #[serde(rename = "d")]
    pub deployment: Arc<str>,
    /// The model that it serves.
    #[serde(rename = "m")]
    pub model: Arc<str>,
    /// How it is paid for.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// What was counted.
    #[serde(flatten)]
    counted: Counted,
}

/// A model's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRoll {
    /// Its name.
    #[serde(rename = "m")]
    pub model: Arc<str>,
    /// What was counted.
    #[serde(flatten)]
    counted: Counted,
}

/// Counts in the order of [`Count`], and the filled buckets of the times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    #[serde(rename = "c")]
    counts: Vec<u64>,
    #[serde(rename = "t", default)]
    duration: Vec<(usize, u64)>,
    #[serde(rename = "f", default)]
    first_byte: Vec<(usize, u64)>,
}

impl Counted {
    fn of(total: &Total) -> Self {
        let filled = |size| total.size(size).map(|tally| tally.filled().collect());
        let last = total.counts.iter().rposition(|count| *count > 0);
        let counts = total.counts.iter().take(last.map_or(0, |last| last + 1));
        Self {
            counts: counts.copied().collect(),
            duration: filled(Size::Duration).unwrap_or_default(),
            first_byte: filled(Size::FirstByte).unwrap_or_default(),
        }
    }

    /// As plain numbers. The histograms of tokens are not kept, and stay empty.
    fn total(&self) -> Total {
        let mut total = Total::none(&Size::ALL);
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum = *count;
        }
        let kept = [&self.duration, &self.first_byte];
        for (tally, filled) in total.sizes.iter_mut().zip(kept) {
            for (place, count) in filled {
                tally.fill(*place, *count);
            }
        }
        total
    }
}

impl DeploymentRoll {
    /// What was counted.
    pub fn total(&self) -> Total {
        self.counted.total()
    }
}

impl ModelRoll {
    /// What was counted.
    pub fn total(&self) -> Total {
        self.counted.total()
    }
}

impl Rollup {
    /// What `totals`, the difference of two looks, has. What counted nothing is left out.
    pub fn of(totals: &Totals) -> Self {
        let names = &totals.names;
        let deployments = names.deployments.iter().zip(&totals.deployments);
        let deployments = deployments.filter(|(_, total)| !total.is_none());
        let models = names.models.iter().zip(&totals.models);
        let models = models.filter(|(_, total)| !total.is_none());
        Self {
            deployments: deployments.map(|(name, total)| roll(name, total)).collect(),
            models: models
                .map(|(name, total)| ModelRoll {
                    model: Arc::clone(name),
                    counted: Counted::of(total),
                })
                .collect(),
        }
    }

    /// Whether nothing was counted.
    pub fn is_none(&self) -> bool {
        self.deployments.is_empty() && self.models.is_empty()
    }

    /// A count, summed over the deployments of a kind and, where one is named, of a model.
    pub fn sum(&self, kind: Kind, model: Option<&str>, count: Count) -> u64 {
        let mut deployments = self.deployments.iter();
        deployments.by_ref().fold(0, |sum, one| {
            let is_meant = one.kind == kind && model.is_none_or(|model| *one.model == *model);
            let counted = one.counted.counts.get(count as usize);
            sum + counted.copied().filter(|_| is_meant).unwrap_or_default()
        })
    }
}

fn roll(name: &DeploymentName, total: &Total) -> DeploymentRoll {
    DeploymentRoll {
        backend: Arc::clone(&name.backend),
        deployment: Arc::clone(&name.deployment),
        model: Arc::clone(&name.model),
        kind: name.kind,
        counted: Counted::of(total),
    }
}
