//! A share of a limit, and what an instance says of its own.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Slices of a minute that an instance tells its use by.
pub const SLICES: usize = 12;

/// Seconds of one slice.
pub const SLICE_S: u64 = 5;

/// A share of a limit, in millionths; never more than the whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "u32")]
pub struct Share(u32);

impl From<u32> for Share {
    fn from(millionths: u32) -> Self {
        Self::of_millionths(millionths)
    }
}

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// A share of so many millionths; more than the whole is the whole.
    pub const fn of_millionths(millionths: u32) -> Self {
        if millionths > Self::WHOLE.0 {
            return Self::WHOLE;
        }
        Self(millionths)
    }

    /// The share that `part` is of `whole`; all of it where `whole` is 0.
    pub fn of(part: u64, whole: u64) -> Self {
        let millionths = (u128::from(part) * 1_000_000).checked_div(u128::from(whole));
        let millionths = millionths.and_then(|n| u32::try_from(n).ok());
        millionths.map_or(Self::WHOLE, Self::from)
    }

    /// Millionths of the whole.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// This share of `calls`, rounded down, but at least 1.
    pub(super) fn of_calls(self, calls: u32) -> u32 {
        let part = u64::from(calls) * u64::from(self.0) / 1_000_000;
        u32::try_from(part).unwrap_or(calls).max(1)
    }
}

/// Which limit: an app's, or an app's with one model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId {
    /// The app.
    pub app: Arc<str>,
    /// The model, where the limit is that model's.
    pub model: Option<Arc<str>>,
}

impl LimitId {
    /// The limit of all that an app does.
    pub fn app(app: &Arc<str>) -> Self {
        Self {
            app: Arc::clone(app),
            model: None,
        }
    }

    /// The limit of what an app does with a model.
    pub fn model(app: &Arc<str>, model: &Arc<str>) -> Self {
        Self {
            app: Arc::clone(app),
            model: Some(Arc::clone(model)),
        }
    }
}

impl fmt::Display for LimitId {
    /// `app` or `app/model`. An app's name has no slash, so no two limits read the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.model {
            Some(model) => write!(f, "{}/{model}", self.app),
            None => f.write_str(&self.app),
        }
    }
}

/// What an instance did with a limit lately, of the whole limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// What is in use, counted against the last minute or in flight; and what of that will still
    /// be after one slice of time, two, ..., when nothing else comes.
    pub used: [Share; SLICES],
    /// What was asked for: used, or refused lately.
    pub wanted: Share,
    /// This instance's share now.
    pub share: Share,
}
