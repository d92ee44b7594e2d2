//! What is known of one provisioned deployment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::gateway::pacing::figure::Warning;
use crate::gateway::pacing::known::{Known, MINUTES};
use crate::gateway::pacing::window::{Capacity, DeploymentId, Minute};
use crate::gateway::ptu::{ModelRate, Utilization};
use crate::gateway::time::Timestamp;
use crate::store::utilization::Sheet;

/// A provisioned deployment.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) id: DeploymentId,
    /// What it does in a minute; `None` where the configuration does not say its PTUs.
    pub(super) capacity: Option<Capacity>,
    /// What a PTU of its model does.
    pub(super) rate: ModelRate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sheet: Sheet,
    read: Timestamp,
    /// What this instance's own calls were told.
    heard: Option<Heard>,
    /// Whether that is written.
    is_told: bool,
}

/// What calls were told of how full a deployment is: the highest of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) utilization: Utilization,
    first: Timestamp,
    pub(super) last: Timestamp,
}

impl Meter {
    pub(super) fn new(id: DeploymentId, capacity: Option<Capacity>, rate: ModelRate) -> Self {
        Self {
            id,
            capacity,
            rate,
            state: Mutex::default(),
        }
    }

    /// Whether what is known of this one is true of `other` too.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.capacity == other.capacity && self.rate == other.rate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first minute whose rows matter at `now`.
    pub(super) const fn since(now: Timestamp) -> Minute {
        Minute::of(now).before(MINUTES)
    }

    /// When its rows were read last.
    pub(super) fn read_at(&self) -> Timestamp {
        self.state().read
    }

    /// Takes in the rows as they were read.
    pub(super) fn saw(&self, sheet: Sheet, now: Timestamp) {
        let mut state = self.state();
        (state.sheet, state.read) = (sheet, now);
    }

    /// Notes what an answer said.
    pub(super) fn was_said(&self, said: Utilization, now: Timestamp) {
        let mut state = self.state();
        // The highest of the time between two writes; of no more than a warning lasts where they fail.
        let counts = |heard: &Heard| Warning::header(said, heard.first).until > now;
        let before = state.heard.filter(|heard| !state.is_told && counts(heard));
        state.heard = Some(Heard {
            utilization: before.map_or(said, |before| before.utilization.max(said)),
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        state.is_told = false;
    }

    /// What answers said that is not written yet.
    pub(super) fn to_tell(&self) -> Option<Heard> {
        let state = self.state();
        state.heard.filter(|_| !state.is_told)
    }

    /// Notes that this is written. Where answers have said more since, that is not.
    pub(super) fn told(&self, heard: Heard) {
        let mut state = self.state();
        state.is_told |= state.heard == Some(heard);
    }

    /// What its rows say, and what this instance's own calls were told.
    pub(super) fn known(&self) -> Known {
        let state = self.state();
        let heard = state.heard;
        let mut known = state.sheet.known.clone();
        drop(state);
        let warning = heard.map(|heard| Warning::header(heard.utilization, heard.last));
        known.warnings.extend(warning);
        known
    }
}
