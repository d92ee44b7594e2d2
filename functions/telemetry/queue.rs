//! Where calls wait for their spans: a bounded queue, behind the one that brings usage events to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc::error::TrySendError::{Closed, Full};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::spans;
use crate::gateway::event::UsageEvent;

/// Most calls that wait, some kilobyte each.
pub(super) const CAPACITY: usize = 8192;

/// A call that is traced.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) trace_id: u128,
    pub(super) event: Box<UsageEvent>,
}

/// The end of the queue that calls are put in at.
#[derive(Clone, Debug)]
pub struct Queue {
    calls: Sender<Traced>,
    dropped: Arc<Dropped>,
    sampling: Sampling,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    /// How many of 100 that nobody else decides about.
    pub(super) percent: u32,
    /// Whether the client decides about those that it named.
    pub(super) follows_client: bool,
}

/// Counts spans that were to be sent and were not.
#[derive(Debug, Default)]
pub struct Dropped(AtomicU64);

impl Dropped {
    /// How many, so far.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, spans: u64) {
        self.0.fetch_add(spans, Relaxed);
    }
}

impl Queue {
    pub(super) fn new(capacity: usize, sampling: Sampling) -> (Self, Receiver<Traced>) {
        let (calls, receiver) = channel(capacity);
        let queue = Self {
            calls,
            dropped: Arc::default(),
            sampling,
        };
        (queue, receiver)
    }

    /// Takes a call that has ended, if its trace is recorded. Never waits: what finds no room is counted.
    pub fn offer(&self, event: Box<UsageEvent>) {
        // Each call has an id that is a number.
        let trace_id = event.trace().unwrap_or_else(|| fastrand::u128(1..));
        let parent = event.parent.filter(|_| self.sampling.follows_client);
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled,
            None => is_among(trace_id, self.sampling.percent),
        };
        if !is_sampled {
            return;
        }
        if let Err(error) = self.calls.try_send(Traced { trace_id, event }) {
            let (Full(call) | Closed(call)) = error;
            self.dropped.add(spans::count(&call.event));
        }
    }

    pub(super) fn dropped(&self) -> Arc<Dropped> {
        Arc::clone(&self.dropped)
    }
}

/// Whether a trace is among so many of 100, by its last 56 bits, which are random: all who go by this rule
/// keep the same traces (OpenTelemetry, "Probability sampling").
fn is_among(trace_id: u128, percent: u32) -> bool {
    const BITS: u32 = 56;
    let random = trace_id & ((1 << BITS) - 1);
    let left_out = u128::from(100 - percent.min(100));
    random * 100 >= left_out << BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Attempt;
    use crate::gateway::trace::Parent;

    const ALL: Sampling = Sampling {
        percent: 100,
        follows_client: true,
    };

    fn call(id: u64) -> Box<UsageEvent> {
        Box::new(UsageEvent {
            trace_id: format!("{id:032x}"),
            ..UsageEvent::default()
        })
    }

    #[test]
    fn a_full_queue_counts_the_spans_that_it_drops() {
        let (queue, mut calls) = Queue::new(1, ALL);
        queue.offer(call(1));
        let mut tried = call(2);
        tried.attempts = vec![Attempt {
            backend: "a".into(),
            deployment: "b".into(),
            kind: crate::gateway::event::Kind::Payg,
            status: None,
            error: None,
            after_ms: 0,
            ms: 1,
            billed: false,
        }];
        queue.offer(tried);
        assert_eq!(queue.dropped().count(), 2);
        assert_eq!(calls.try_recv().unwrap().trace_id, 1);
        drop(calls);
        queue.offer(call(3));
        assert_eq!(queue.dropped().count(), 3);
    }

    #[test]
    fn a_client_says_whether_its_trace_is_recorded() {
        let sampling = |follows_client| Sampling {
            percent: 0,
            follows_client,
        };
        let (queue, mut calls) = Queue::new(9, sampling(true));
        queue.offer(call(u64::MAX));
        for (id, is_sampled) in [(1, false), (2, true)] {
            let mut event = call(id);
            event.parent = Some(Parent {
                span_id: 1,
                is_sampled,
            });
            queue.offer(event);
        }
        assert_eq!(calls.try_recv().unwrap().trace_id, 2);
        assert!(calls.try_recv().is_err());
        let (deaf, mut none) = Queue::new(9, sampling(false));
        let mut recorded = call(3);
        recorded.parent = Some(Parent {
            span_id: 1,
            is_sampled: true,
        });
        deaf.offer(recorded);
        assert!(none.try_recv().is_err(), "it is not asked");
        assert_eq!(
            queue.dropped().count(),
            0,
            "what is not recorded is not lost"
        );
    }

    #[test]
    fn so_many_of_100_traces_are_recorded() {
        let mut random = fastrand::Rng::with_seed(7);
        let ids: Vec<u128> = (0..10_000).map(|_| random.u128(..)).collect();
        let kept = |percent| ids.iter().filter(|id| is_among(**id, percent)).count();
        assert_eq!((kept(0), kept(100)), (0, 10_000));
        assert!((900..1100).contains(&kept(10)), "{}", kept(10));
        let of_ten = ids.iter().filter(|id| is_among(**id, 10));
        assert!(
            of_ten.clone().all(|id| is_among(*id, 20)),
            "more keep the same"
        );
    }
}
