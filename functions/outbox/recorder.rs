//! Where usage events go: a bounded queue. A full one never holds up a call; what it could not take
//! is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::gateway::event::UsageEvent;
use crate::gateway::metrics::Shard;
use crate::gateway::room::Room;

/// The calls' end of the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: UnboundedSender<Queued>,
    /// Events in the queue. It is bounded by this: a channel that is bounded by itself takes the
    /// memory of a full one from the start.
    waiting: Arc<Room>,
    dropped: Arc<AtomicU64>,
    is_durable: bool,
    /// Calls under way.
    calls: Arc<Room>,
    /// Where this end's calls are counted.
    shard: Option<Arc<Shard>>,
}

/// Resolves when an event lasts, or can't be made to: either way the call need not wait any longer.
pub type Lasting = oneshot::Receiver<()>;

/// An event on its way.
#[derive(Debug)]
pub struct Queued {
    /// The event.
    pub event: Box<UsageEvent>,
    /// Dropped or sent to when the event lasts, where the call waits for that.
    pub lasts: Option<oneshot::Sender<()>>,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Events {
    queue: UnboundedReceiver<Queued>,
    waiting: Arc<Room>,
    dropped: Arc<AtomicU64>,
}

/// Knows how many calls are under way.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Room>);

impl Calls {
    /// Calls whose events have not been recorded yet. The events of all others are in the queue for
    /// whoever has looked.
    pub fn count(&self) -> usize {
        self.0.used()
    }
}

/// Held as long as a call is under way.
#[derive(Debug)]
pub struct UnderWay(Arc<Room>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

impl Events {
    /// Waits for an event, then for `gather` so that more come, and puts up to `most` of them at the
    /// end of `batch`. `false` when there are none and the last recorder is gone. What was taken is
    /// in `batch` also where this is not waited for to its end.
    ///
    /// A receiver that took each event as it comes would be woken by every call: a system call and
    /// a change of threads, on the call's time.
    pub async fn next_batch(
        &mut self,
        batch: &mut Vec<Queued>,
        most: usize,
        gather: Duration,
    ) -> bool {
        let Some(first) = self.queue.recv().await else {
            return false;
        };
        self.waiting.give_back(1);
        batch.push(first);
        if !gather.is_zero() {
            tokio::time::sleep(gather).await;
        }
        self.take(batch, most);
        true
    }

    /// Puts what waits at the end of `batch`, until that has `most`.
    pub fn take(&mut self, batch: &mut Vec<Queued>, most: usize) {
        while batch.len() < most
            && let Ok(next) = self.queue.try_recv()
        {
            self.waiting.give_back(1);
            batch.push(next);
        }
    }

    /// The next event, where one waits.
    pub fn try_next(&mut self) -> Option<Box<UsageEvent>> {
        let next = self.queue.try_recv().ok()?;
        self.waiting.give_back(1);
        Some(next.event)
    }

    /// Counts events that could not be kept.
    pub fn lost(&self, count: usize) {
        count_dropped(
            &self.dropped,
            count,
            "they could not be delivered, and the spool is full",
        );
    }
}

fn count_dropped(dropped: &AtomicU64, more: usize, why: &str) {
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    let before = dropped.fetch_add(more, Relaxed);
    let count = before.saturating_add(more);
    // Each time that the count has doubled.
    if more > 0 && before.checked_ilog2() != count.checked_ilog2() {
        tracing::error!(count, why, "usage events were dropped");
    }
}

impl Recorder {
    /// A queue of at most `capacity` events, and its other end. Whoever records in one that is
    /// `durable` learns when its event lasts.
    pub fn new(capacity: usize, durable: bool) -> (Self, Events) {
        let (queue, receiver) = unbounded_channel();
        let recorder = Self {
            queue,
            waiting: Arc::new(Room::new(capacity)),
            dropped: Arc::default(),
            is_durable: durable,
            calls: Arc::new(Room::unbounded()),
            shard: None,
        };
        let events = Events {
            queue: receiver,
            waiting: Arc::clone(&recorder.waiting),
            dropped: Arc::clone(&recorder.dropped),
        };
        (recorder, events)
    }

    /// Counts an event and hands it on. Where the end of the call's answer has to wait until it lasts, something to
    /// wait for.
    pub fn record(&self, event: Box<UsageEvent>) -> Option<Lasting> {
        if let Some(shard) = &self.shard {
            shard.count(&event);
        }
        let (lasts, lasting) = if self.is_durable {
            let (lasts, lasting) = oneshot::channel();
            (Some(lasts), Some(lasting))
        } else {
            (None, None)
        };
        if self.waiting.take(1) {
            if self.queue.send(Queued { event, lasts }).is_ok() {
                return lasting;
            }
            self.waiting.give_back(1);
        }
        count_dropped(&self.dropped, 1, "the queue is full");
        None
    }

    /// Whether the ends of answers wait for their events.
    pub const fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Events that could not be kept, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// This queue for one more thread, whose calls are counted in `shard`.
    #[must_use]
    pub fn counting(&self, shard: Arc<Shard>) -> Self {
        Self {
            shard: Some(shard),
            ..self.clone()
        }
    }

    /// What a call holds until its event is recorded.
    pub fn under_way(&self) -> UnderWay {
        self.calls.take(1);
        UnderWay(Arc::clone(&self.calls))
    }

    /// Knows how many calls are under way.
    pub fn calls(&self) -> Calls {
        Calls(Arc::clone(&self.calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Box<UsageEvent> {
        Box::default()
    }

    #[test]
    fn a_full_queue_counts_what_it_drops() {
        let (recorder, mut events) = Recorder::new(1, false);
        for _ in 0..3 {
            recorder.record(event());
        }
        assert_eq!(recorder.dropped(), 2);
        assert!(events.try_next().is_some() && events.try_next().is_none());
        recorder.record(event());
        assert_eq!(recorder.dropped(), 2, "what was taken makes room");
    }

    #[test]
    fn a_full_queue_is_not_waited_for() {
        let (recorder, mut events) = Recorder::new(1, true);
        let mut first = recorder.record(event()).unwrap();
        assert!(recorder.record(event()).is_none(), "it is dropped");
        assert!(first.try_recv().is_err());
        let mut batch = Vec::new();
        events.take(&mut batch, 10);
        batch.clear();
        let gone = first.try_recv();
        assert_eq!(gone, Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn calls_under_way_are_counted() {
        let (recorder, _events) = Recorder::new(1, false);
        let calls = recorder.calls();
        let call = recorder.under_way();
        assert_eq!(calls.count(), 1);
        drop(call);
        assert_eq!((calls.count(), recorder.dropped()), (0, 0));
    }
}
