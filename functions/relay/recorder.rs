//! Where usage events go: a bounded queue, and a thread behind it. A full queue never holds up a
//! call; what it could not take is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::gateway::event::UsageEvent;

/// The calls' end of the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: SyncSender<UsageEvent>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A queue of at most `capacity` events, and its other end.
    pub fn new(capacity: usize) -> (Self, Receiver<UsageEvent>) {
        let (queue, receiver) = sync_channel(capacity);
        let recorder = Self {
            queue,
            dropped: Arc::default(),
        };
        (recorder, receiver)
    }

    /// Hands an event on.
    pub fn record(&self, event: UsageEvent) {
        if self.queue.try_send(event).is_err() {
            let count = self.dropped.fetch_add(1, Relaxed) + 1;
            if count.is_power_of_two() {
                tracing::error!(count, "usage events were dropped: the queue is full");
            }
        }
    }

    /// Events that found the queue full, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Writes each event as a JSON line at debug level, until the last recorder is gone.
pub fn log_events(events: &Receiver<UsageEvent>) {
    while let Ok(event) = events.recv() {
        if tracing::enabled!(tracing::Level::DEBUG) {
            match serde_json::to_string(&event) {
                Ok(event) => tracing::debug!(event, "call"),
                Err(error) => tracing::error!(%error, "a usage event could not be written"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_counts_what_it_drops() {
        let (recorder, _events) = Recorder::new(1);
        for _ in 0..3 {
            recorder.record(super::super::record::tests::event());
        }
        assert_eq!(recorder.dropped(), 2);
    }
}
