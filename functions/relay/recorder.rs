//! Where usage events go: a bounded queue. A full one never holds up a call; what it could not take
//! is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::gateway::event::UsageEvent;
use crate::gateway::metrics::Shard;

/// The calls' end of the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: UnboundedSender<Box<UsageEvent>>,
    /// Events in the queue. It is bounded by this count: a channel that is bounded by itself
    /// takes the memory of a full one from the start.
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    dropped: Arc<AtomicU64>,
    /// Where this end's calls are counted.
    shard: Option<Arc<Shard>>,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Events {
    queue: UnboundedReceiver<Box<UsageEvent>>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    /// Waits for an event, then for `gather` so that more come, and puts up to `most` of them at the
    /// end of `batch`. `false` when there are none and the last recorder is gone.
    ///
    /// A receiver that took each event as it comes would be woken by every call: a system call and
    /// a change of threads, on the call's time.
    pub async fn next_batch(
        &mut self,
        batch: &mut Vec<Box<UsageEvent>>,
        most: usize,
        gather: Duration,
    ) -> bool {
        let Some(first) = self.queue.recv().await else {
            return false;
        };
        batch.push(first);
        tokio::time::sleep(gather).await;
        while batch.len() < most
            && let Ok(event) = self.queue.try_recv()
        {
            batch.push(event);
        }
        self.waiting.fetch_sub(batch.len(), Relaxed);
        true
    }

    /// The next event, where one waits.
    pub fn try_next(&mut self) -> Option<Box<UsageEvent>> {
        let event = self.queue.try_recv().ok()?;
        self.waiting.fetch_sub(1, Relaxed);
        Some(event)
    }
}

impl Recorder {
    /// A queue of at most `capacity` events, and its other end.
    pub fn new(capacity: usize) -> (Self, Events) {
        let (queue, receiver) = unbounded_channel();
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
            shard: None,
        };
        (recorder, events)
    }

    /// This queue for one more thread, whose calls are counted in `shard`.
    #[must_use]
    pub fn counting(&self, shard: Arc<Shard>) -> Self {
        Self {
            shard: Some(shard),
            ..self.clone()
        }
    }

    /// Counts an event and hands it on.
    pub fn record(&self, event: Box<UsageEvent>) {
        if let Some(shard) = &self.shard {
            shard.count(&event);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_counts_what_it_drops() {
        let (recorder, mut events) = Recorder::new(1);
        for _ in 0..3 {
            recorder.record(super::super::record::tests::event());
        }
        assert_eq!(recorder.dropped(), 2);
        assert!(events.try_next().is_some() && events.try_next().is_none());
        recorder.record(super::super::record::tests::event());
        assert_eq!(recorder.dropped(), 2, "what was taken makes room");
    }
}
