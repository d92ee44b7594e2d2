//! The batch queue: how many messages wait, and for how long.
//!
//! Who can count them is asked every ten seconds at most while somebody looks. How long messages wait
//! is also known from those that were delivered, wherever that was: the instance that handles them
//! writes it down.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::now::seconds;
use crate::azure::service_bus::{CountError, Counts, Messages};
use crate::gateway::batch::patience::QueueAge;
use crate::gateway::time::Timestamp;
use crate::store::{Store, console};

/// How long counts are good, ms; and how long it is before one who may not count is asked again.
const GOOD_MS: (u64, u64) = (10_000, 60_000);

/// How often it is written down how long messages had waited.
const NOTE: Duration = Duration::from_secs(10);

/// The batch queue.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct QueueNow {
    /// Its name.
    pub(super) queue: String,
    /// Messages that wait or are being handled; `null` where that is not known.
    pub(super) waiting: Option<u64>,
    /// Messages that appear later: those that were put off, too.
    pub(super) scheduled: Option<u64>,
    /// Dead letters.
    pub(super) dead: Option<u64>,
    /// Why they are not known, where they are not.
    pub(super) unknown: Option<String>,
    /// How long the oldest has waited, seconds; `null` where none waits, or nobody says: Service Bus
    /// does not.
    pub(super) oldest_s: Option<f64>,
    /// How long messages that were delivered lately had waited, on average, seconds; `null` where none
    /// was.
    pub(super) waited_s: Option<f64>,
    /// How long ago the last of them was delivered, seconds.
    pub(super) delivered_ago_s: Option<f64>,
}

/// Says how long messages wait, by those that this process was handed.
pub type QueueAges = Box<dyn Fn() -> QueueAge + Send + Sync>;

/// What was counted, and when.
type Last = Option<(Timestamp, Result<Messages, CountError>)>;

/// Looks at the queue.
pub(super) struct Queue {
    name: String,
    counts: Arc<dyn Counts>,
    last: tokio::sync::Mutex<Last>,
    age: Option<QueueAges>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// The queue of this name. `age` is there where messages are handed to this process.
    pub(super) fn new(name: &str, counts: Arc<dyn Counts>, age: Option<QueueAges>) -> Self {
        Self {
            name: name.to_owned(),
            counts,
            last: tokio::sync::Mutex::default(),
            age,
        }
    }

    /// Looks.
    pub(super) async fn look(&self, store: Option<&dyn Store>, now: Timestamp) -> QueueNow {
        let counted = self.count(now).await;
        let delivered = self.delivered(store).await;
        let messages = counted.as_ref().ok();
        let since = |at: Timestamp| seconds(now.ms_since(at));
        QueueNow {
            queue: self.name.clone(),
            waiting: messages.map(|messages| messages.waiting),
            scheduled: messages.map(|messages| messages.scheduled),
            dead: messages.map(|messages| messages.dead),
            unknown: counted.as_ref().err().map(CountError::to_string),
            oldest_s: messages.and_then(|messages| messages.oldest).map(since),
            waited_s: delivered.map(|(waited_ms, _)| seconds(waited_ms)),
            delivered_ago_s: delivered.map(|(_, at)| since(at)),
        }
    }

    async fn count(&self, now: Timestamp) -> Result<Messages, CountError> {
        // Held while it is counted: whoever looks at the same time needs the same.
        let mut last = self.last.lock().await;
        if let Some((at, counted)) = &*last {
            let is_refused = *counted == Err(CountError::Forbidden);
            let good_ms = if is_refused { GOOD_MS.1 } else { GOOD_MS.0 };
            if now.ms_since(*at) < good_ms {
                return counted.clone();
            }
        }
        let counted = self.counts.count(&self.name).await;
        *last = Some((now, counted.clone()));
        counted
    }

    /// How long messages had waited and when the last one was delivered: by this process, or by what
    /// another one wrote.
    async fn delivered(&self, store: Option<&dyn Store>) -> Option<(u64, Timestamp)> {
        let own = self.age.as_ref().map(|age| age());
        if let Some(age) = own
            && let Some(last) = age.last()
        {
            return Some((age.ms(), last));
        }
        let age = console::queue_age(store?, &self.name).await;
        age.inspect_err(|error| tracing::warn!(%error, "the queue's age can't be read"))
            .ok()?
    }

    /// Writes down how long messages had waited, for ever. Ends at once where none is handed to this
    /// process.
    pub(super) async fn keep(&self, store: &dyn Store) {
        let Some(age) = &self.age else { return };
        let mut written = None;
        loop {
            tokio::time::sleep(NOTE).await;
            let age = age();
            let Some(last) = age.last().filter(|last| Some(*last) != written) else {
                continue;
            };
            match console::write_queue_age(store, &self.name, age.ms(), last).await {
                Ok(()) => written = Some(last),
                Err(error) => tracing::warn!(%error, "the queue's age can't be written"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::azure::service_bus::Counted;

    /// 2026-11-23T17:06:30.000Z.
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    #[derive(Debug)]
    struct Counter {
        asked: AtomicU32,
        says: Result<Messages, CountError>,
    }

    impl Counts for Counter {
        fn count<'a>(&'a self, _queue: &'a str) -> Counted<'a> {
            self.asked.fetch_add(1, Relaxed);
            Box::pin(std::future::ready(self.says.clone()))
        }
    }

    fn queue(says: Result<Messages, CountError>) -> (Arc<Counter>, Queue) {
        let counter = Arc::new(Counter {
            asked: AtomicU32::new(0),
            says,
        });
        let counts: Arc<dyn Counts> = Arc::<Counter>::clone(&counter);
        (counter, Queue::new("batch", counts, None))
    }

    #[tokio::test]
    async fn what_is_not_known_is_not_none() {
        let (counter, queue) = queue(Err(CountError::Forbidden));
        for ms in [0, 50_000] {
            let looked = queue.look(None, NOW.plus_ms(ms)).await;
            assert_eq!((looked.waiting, looked.oldest_s), (None, None));
            assert!(looked.unknown.unwrap().contains("Data Owner"));
        }
        assert_eq!(counter.asked.load(Relaxed), 1, "it would say the same");
        queue.look(None, NOW.plus_ms(60_000)).await;
        assert_eq!(counter.asked.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn messages_are_counted_and_the_oldest_has_its_age() {
        let (counter, queue) = queue(Ok(Messages {
            waiting: 3,
            scheduled: 2,
            dead: 1,
            oldest: Some(NOW),
        }));
        let later = NOW.plus_ms(1_500);
        let looked = queue.look(None, later).await;
        assert_eq!((looked.waiting, looked.oldest_s), (Some(3), Some(1.5)));
        assert_eq!((looked.waited_s, looked.unknown), (None, None));
        queue.look(None, later.plus_ms(10_000)).await;
        assert_eq!(counter.asked.load(Relaxed), 2);
    }
}
