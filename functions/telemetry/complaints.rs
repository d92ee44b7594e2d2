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
    /// Why others were lost since then.
    unsaid: Option<String>,
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
            state.unsaid = Some(why.to_owned());
            return;
        }
        state.unsaid = None;
        state.last = Some(Instant::now());
        state.known = self.dropped.count();
        let dropped_spans = state.known;
        tracing::warn!(signal, why, dropped_spans, "telemetry is not taken");
    }

    /// Says that spans were dropped of which nothing was said yet.
    pub(super) fn look(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dropped.count() == state.known {
            return;
        }
        let why = state.unsaid.take();
        drop(state);
        self.hear(
            "traces",
            why.as_deref().unwrap_or("more calls come than can be sent"),
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_not_said_within_the_minute_is_said_after_it_with_its_reason() {
        let complaints = Complaints::new(Arc::default());
        let state = || {
            let state = complaints.state.lock().unwrap();
            (state.known, state.unsaid.clone())
        };
        complaints.hear("traces", "first");
        complaints.dropped(2);
        complaints.hear("traces", "second");
        complaints.look();
        assert_eq!(state(), (0, Some("second".into())));
        tokio::time::advance(EVERY).await;
        complaints.look();
        assert_eq!(state(), (2, None));
    }

    #[test]
    fn no_more_spans_are_counted_than_were_sent() {
        let complaints = Complaints::new(Arc::default());
        let said = |rejected| PartialSuccess {
            rejected,
            error_message: String::new(),
        };
        for rejected in [3, 100, -1] {
            complaints.rejected("traces", &said(rejected), 5);
        }
        complaints.rejected("metrics", &said(7), 0);
        assert_eq!(complaints.dropped.count(), 3 + 5);
    }
}
