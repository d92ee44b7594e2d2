//! What has been counted, as plain numbers.

use std::sync::Arc;

use super::histogram::Tally;
use super::names::Names;
use super::shard::{Count, Size};

/// What has been counted of one deployment, model or app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    pub(super) counts: [u64; Count::LEN],
    pub(super) sizes: Vec<Tally>,
}

impl Total {
    /// Nothing, with these histograms.
    pub fn none(sizes: &[Size]) -> Self {
        let sizes = sizes.iter().map(|size| Tally::none(size.bounds()));
        Self {
            counts: [0; Count::LEN],
            sizes: sizes.collect(),
        }
    }

    /// A count.
    pub fn get(&self, count: Count) -> u64 {
        self.counts.get(count as usize).copied().unwrap_or_default()
    }

    /// A histogram; apps have none.
    pub fn size(&self, size: Size) -> Option<&Tally> {
        self.sizes.get(size as usize)
    }

    /// A quantile of a histogram; `None` where nothing was counted.
    pub fn quantile(&self, size: Size, percent: u64) -> Option<u64> {
        self.size(size)?.quantile(percent)
    }

    /// Calls, however they ended.
    pub fn calls(&self) -> u64 {
        use Count::{ClientError, ClientGone, Good, ServerError, Throttled};
        let classes = [Good, ClientError, Throttled, ServerError, ClientGone];
        classes.iter().map(|class| self.get(*class)).sum()
    }

    /// Attempts, whatever came of them.
    pub fn attempts(&self) -> u64 {
        use Count::{AttemptFailed, AttemptRefused, AttemptServed, AttemptThrottled};
        let classes = [
            AttemptServed,
            AttemptThrottled,
            AttemptFailed,
            AttemptRefused,
        ];
        classes.iter().map(|class| self.get(*class)).sum()
    }

    /// Prompt and generated tokens together.
    pub fn tokens(&self) -> u64 {
        self.get(Count::Input)
            .saturating_add(self.get(Count::Output))
    }

    /// Whether nothing was counted.
    pub fn is_none(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.sizes.iter_mut().zip(&other.sizes) {
            mine.add(theirs);
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, then) in counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(then);
        }
        let pairs = self.sizes.iter().zip(&earlier.sizes);
        Self {
            counts,
            sizes: pairs.map(|(now, then)| now.since(then)).collect(),
        }
    }
}

/// What has been counted of everything, in the order of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// What is counted.
    pub names: Arc<Names>,
    /// By deployment.
    pub deployments: Vec<Total>,
    /// By model.
    pub models: Vec<Total>,
    /// By app.
    pub apps: Vec<Total>,
}

impl Totals {
    /// Nothing, for these names.
    pub fn none(names: &Arc<Names>) -> Self {
        let none = |count: usize, sizes: &[Size]| vec![Total::none(sizes); count];
        Self {
            deployments: none(names.deployments.len(), &Size::ALL),
            models: none(names.models.len(), &Size::ALL),
            apps: none(names.apps.len(), &[]),
            names: Arc::clone(names),
        }
    }

    /// What was counted since `earlier`; of a name that was not counted then, all.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let then = &earlier.names;
        let deployments = self.names.deployments.iter();
        let deployments = deployments.map(|name| then.deployment(&name.backend, &name.deployment));
        let models = self.names.models.iter().map(|name| then.known_model(name));
        let apps = self.names.apps.iter().map(|name| then.known_app(name));
        Self {
            deployments: since(&self.deployments, &earlier.deployments, deployments),
            models: since(&self.models, &earlier.models, models),
            apps: since(&self.apps, &earlier.apps, apps),
            names: Arc::clone(&self.names),
        }
    }
}

/// What was counted since: `places` says where each stood then, if it did.
fn since(now: &[Total], then: &[Total], places: impl Iterator<Item = Option<usize>>) -> Vec<Total> {
    let pairs = now.iter().zip(places);
    let pairs = pairs.map(|(now, place)| (now, place.and_then(|place| then.get(place))));
    pairs
        .map(|(now, then)| then.map_or_else(|| now.clone(), |then| now.since(then)))
        .collect()
}
