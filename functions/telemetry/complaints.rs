//! What is said of telemetry that could not be sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::messages::PartialSuccess;
use super::queue::Dropped;

/// How often is said at most that something could not be sent.
const EVERY: Duration = Duration::from_secs(60);

/// Says that something could not be sent, once a minute at most.
pub(super) struct Complaints {
    dropped: Arc<Dropped>,
    state: Mutex<Complained>,
}

#[derive(Default)]
struct Complained {
    last: Option<Instant>,
    /// Spans whose loss was said.
    known: u64,
}

impl Complaints {
    pub(super) fn new(dropped: Arc<Dropped>) -> Self {
        let state = Mutex::default();
        Self { dropped, state }
    }

    /// Counts spans that are not sent.
    pub(super) fn dropped(&self, spans: u64) {
        self.dropped.add(spans);
    }

    /// Hears that `signal` could not be sent.
    pub(super) fn hear(&self, signal: &str, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        state.last = Some(Instant::now());
        state.known = self.dropped.count();
        let dropped_spans = state.known;
        tracing::warn!(signal, why, dropped_spans, "telemetry is not taken");
    }

    /// Says that spans were dropped of which nothing was said yet.
    pub(super) fn look(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = self.dropped.count() == state.known;
        drop(state);
        if !is_known {
            self.hear("traces", "more calls come than can be sent");
        }
    }

    /// Hears what the collector did not take, of so many spans, or said all the same.
    pub(super) fn rejected(&self, signal: &str, said: &PartialSuccess, spans: u64) {
        let rejected = u64::try_from(said.rejected).unwrap_or(0);
        self.dropped.add(rejected.min(spans));
        if rejected > 0 || !said.error_message.is_empty() {
            let message: String = said.error_message.chars().take(200).collect();
            let why = format!("the collector has rejected {rejected}: {message}");
            self.hear(signal, &why);
        }
    }
}
