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
        Count::OF_CALLS.iter().map(|class| self.get(*class)).sum()
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
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: &[Total], then: &[Total]| {
            let pairs = now.iter().zip(then);
            pairs.map(|(now, then)| now.since(then)).collect()
        };
        Self {
            deployments: since(&self.deployments, &earlier.deployments),
            models: since(&self.models, &earlier.models),
            apps: since(&self.apps, &earlier.apps),
        }
    }
}
