//! Where usage events go: a bounded queue, and a thread behind it. A full queue never holds up a
//! call; what it could not take is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::gateway::event::UsageEvent;

/// The calls' end of the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: Sender<UsageEvent>,
    /// Events in the queue. It is bounded by this count: a channel that is bounded by itself
    /// takes the memory of a full one from the start.
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    dropped: Arc<AtomicU64>,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Events {
    queue: Receiver<UsageEvent>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    /// The next event, once there is one; `None` when the last recorder is gone.
    pub fn next(&self) -> Option<UsageEvent> {
        self.queue.recv().ok().inspect(|_| self.taken())
    }

    /// The next event, where one waits.
    pub fn try_next(&self) -> Option<UsageEvent> {
        self.queue.try_recv().ok().inspect(|_| self.taken())
    }

    fn taken(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

impl Recorder {
    /// A queue of at most `capacity` events, and its other end.
    pub fn new(capacity: usize) -> (Self, Events) {
        let (queue, receiver) = channel();
        let waiting: Arc<AtomicUsize> = Arc::default();
        let events = Events {
            queue: receiver,
            waiting: Arc::clone(&waiting),
        };
        let recorder = Self {
            queue,
            waiting,
            capacity,
            dropped: Arc::default(),
        };
        (recorder, events)
    }

    /// Hands an event on.
    pub fn record(&self, event: UsageEvent) {
        let waiting = self.waiting.fetch_add(1, Relaxed);
        if waiting < self.capacity && self.queue.send(event).is_ok() {
            return;
        }
        self.waiting.fetch_sub(1, Relaxed);
        let count = self.dropped.fetch_add(1, Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::error!(count, "usage events were dropped: the queue is full");
        }
    }

    /// Events that found the queue full, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Writes each event as a JSON line at debug level, until the last recorder is gone.
pub fn log_events(events: &Events) {
    while let Some(event) = events.next() {
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
        let (recorder, events) = Recorder::new(1);
        for _ in 0..3 {
            recorder.record(super::super::record::tests::event());
        }
        assert_eq!(recorder.dropped(), 2);
        assert!(events.try_next().is_some() && events.try_next().is_none());
        recorder.record(super::super::record::tests::event());
        assert_eq!(recorder.dropped(), 2, "what was taken makes room");
    }
}
