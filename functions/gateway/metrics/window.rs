//! What was counted in the last minute: the difference to a look a minute ago.

use std::collections::VecDeque;

use super::totals::Totals;
use crate::gateway::time::Timestamp;

/// How far back the window reaches, ms.
const REACH_MS: u64 = 60_000;

/// Least time between two looks that are kept, ms: it bounds them to seven.
const STEP_MS: u64 = 10_000;

/// Looks at the totals, oldest first.
#[derive(Debug, Default)]
pub struct Window {
    looks: VecDeque<(Timestamp, Totals)>,
}

/// What was counted, and in how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lately {
    /// What.
    pub totals: Totals,
    /// How long, ms. At least 1.
    pub ms: u64,
}

impl Window {
    /// Keeps a look, unless the last one is newer than [`STEP_MS`]. What is older than the window
    /// goes, but for the newest such.
    pub fn look(&mut self, now: Timestamp, totals: &Totals) {
        let last = self.looks.back().map(|(then, _)| *then);
        if last.is_some_and(|then| now.ms_since(then) < STEP_MS) {
            return;
        }
        self.looks.push_back((now, totals.clone()));
        while self
            .looks
            .get(1)
            .is_some_and(|(then, _)| now.ms_since(*then) >= REACH_MS)
        {
            self.looks.pop_front();
        }
    }

    /// What was counted since the oldest look: in a process older than a minute, 60 to 70 seconds.
    /// `None` before the first look.
    pub fn lately(&self, now: Timestamp, totals: &Totals) -> Option<Lately> {
        let (then, earlier) = self.looks.front()?;
        Some(Lately {
            totals: totals.since(earlier),
            ms: now.ms_since(*then).max(1),
        })
    }
}
