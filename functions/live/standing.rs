//! How the configuration stands: which one runs, since when, and what became of the last one that came.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::gateway::time::Timestamp;

/// A configuration that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The beginning of its text's SHA-256.
    pub hash: String,
    /// Since when it runs here.
    pub since: Timestamp,
    /// Where it is from.
    pub from: String,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The beginning of its text's SHA-256.
    pub hash: String,
    /// When.
    pub at: Timestamp,
    /// All that is wrong with it. No value of the environment's or of a key is in it.
    pub mistakes: Vec<String>,
}

/// A configuration that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

/// How the configuration stands in this process.
#[derive(Debug)]
pub struct Standing(Mutex<State>);

/// As [`Standing`], at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The one that runs.
    pub running: Generation,
    /// The one that came last, where it was refused.
    pub refused: Option<Refused>,
    /// Why nobody knows whether there is another one.
    pub missed: Option<Missed>,
}

impl Standing {
    pub(super) fn new(running: Generation) -> Self {
        Self(Mutex::new(State {
            running,
            refused: None,
            missed: None,
        }))
    }

    /// How it stands now.
    pub fn now(&self) -> State {
        self.state().clone()
    }

    pub(super) fn running(&self) -> Generation {
        self.state().running.clone()
    }

    pub(super) fn is_fine(&self) -> bool {
        let state = self.state();
        state.refused.is_none() && state.missed.is_none()
    }

    pub(super) fn take(&self, generation: Generation) {
        let mut state = self.state();
        state.running = generation;
        state.refused = None;
    }

    /// The one that runs is what is there, again.
    pub(super) fn stays(&self) {
        if self.state().refused.take().is_some() {
            tracing::info!("the configuration that runs is there again");
        }
    }

    pub(super) fn refuse(&self, refused: Refused) {
        self.state().refused = Some(refused);
    }

    pub(super) fn missed(&self, now: Timestamp, why: String) {
        let mut state = self.state();
        let since = state.missed.as_ref().map_or(now, |missed| missed.since);
        if state.missed.is_none() {
            tracing::error!(
                why,
                "the configuration can't be looked at: the one that runs goes on"
            );
        }
        state.missed = Some(Missed { since, why });
    }

    pub(super) fn reached(&self) {
        if self.state().missed.take().is_some() {
            tracing::info!("the configuration can be looked at again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
