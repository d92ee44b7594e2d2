//! The Event Hub function: usage events become rows and sums.
//!
//! The host delivers events in batches. Each event is read (`reader`), whoever wrote it; those that
//! can't be are kept whole in table `chargebackrejects` and hold up nothing. The others are recorded
//! ([`Ledger`]), each once, whatever is delivered again.
//!
//! Where the store fails, the invocation fails, and the retry policy in function.json brings the
//! batch again, for as long as it takes: the hub keeps what comes meanwhile.

mod reader;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;

use serde_json::Value;

use self::reader::Apps;
use crate::config::Config;
use crate::current::Current;
use crate::gateway::event::UsageEvent;
use crate::gateway::price::Prices;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::host::invocation::{Invocation, done, failed};
use crate::store::StoreError;
use crate::store::ledger::Ledger;
use crate::store::rejects::{self, Reject};

/// The function's name: its folder's.
const FUNCTION: &str = "chargeback";

/// The binding's name in function.json.
const BINDING: &str = "events";

/// Longest that an invocation may take: well below functionTimeout, which would kill the process and
/// all calls in it.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// What takes the hub's events.
#[derive(Debug)]
pub struct Consumer {
    ledger: Arc<Ledger>,
    prices: Prices,
    apps: Apps,
    clock: Clock,
}

/// An event as the hub delivers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The event.
    pub body: Vec<u8>,
    /// Its place: hub, partition, sequence number and time; empty where that is not known. The same
    /// however often it is delivered.
    pub place: String,
    /// When it came to the hub, where that is known.
    pub enqueued: Option<Timestamp>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Events that were counted now.
    pub counted: usize,
    /// Events that had been counted before.
    pub duplicates: usize,
    /// Events that could not be read.
    pub rejected: usize,
}

impl Consumer {
    /// A consumer that records in `ledger`, at the configuration's prices.
    pub fn new(config: &Config, ledger: Arc<Ledger>) -> Self {
        let ids = config.apps.iter().flat_map(|app| {
            let ids = app.entra_app_ids.iter();
            ids.map(|id| (id.to_ascii_lowercase(), app.name.as_str().into()))
        });
        Self {
            ledger,
            prices: config.prices(),
            apps: ids.collect(),
            clock: Clock::new(),
        }
    }

    /// The consumer of the next configuration. Calls that were made at deployments which are gone
    /// are still charged as theirs.
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        let next = Self::new(config, Arc::clone(&self.ledger));
        Self {
            prices: next.prices.after(&self.prices),
            ..next
        }
    }

    /// Takes a batch: each event is recorded or rejected when this returns.
    ///
    /// # Errors
    /// When the store fails: all of the batch can be taken again.
    pub async fn take(&self, batch: &[Delivered]) -> Result<Taken, StoreError> {
        let now = self.clock.now();
        let reject = |reason: String, one: &Delivered| Reject {
            came: one.enqueued.unwrap_or(now),
            place: one.place.clone(),
            reason,
            body: one.body.clone(),
        };
        let (mut events, mut from, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for one in batch {
            match reader::read(one, &self.apps) {
                Ok(event) => {
                    events.push(event);
                    from.push(one);
                }
                Err(reason) => rejects.push(reject(reason, one)),
            }
        }
        let all: Vec<&UsageEvent> = events.iter().collect();
        let charging = |event: &UsageEvent| self.prices.charge(event);
        let recorded = self.ledger.record(&all, &charging).await?;
        for (index, reason) in recorded.refused {
            rejects.extend(from.get(index).map(|one| reject(reason, one)));
        }
        rejects::write(self.ledger.store().as_ref(), &rejects).await?;
        Ok(Taken {
            counted: recorded.counted.len(),
            duplicates: recorded.duplicates.len(),
            rejected: rejects.len(),
        })
    }
}

/// The function's route.
pub fn router(consumer: Current<Consumer>) -> Router {
    Router::new()
        .route("/chargeback", post(invoked))
        .with_state(consumer)
}

async fn invoked(
    State(consumer): State<Arc<Consumer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let batch = Invocation::read(&headers, &body).and_then(|invocation| {
        let bodies = invocation.binaries(BINDING)?;
        Ok(delivered(&invocation, bodies))
    });
    let batch = match batch {
        Ok(batch) => batch,
        Err(error) => return failed(FUNCTION, &error),
    };
    match tokio::time::timeout(DEADLINE, consumer.take(&batch)).await {
        Ok(Ok(taken)) => {
            say(&taken);
            done()
        }
        Ok(Err(error)) => failed(FUNCTION, &error),
        Err(_) => failed(FUNCTION, &"the store takes too long"),
    }
}

fn say(taken: &Taken) {
    let (counted, duplicates, rejected) = (taken.counted, taken.duplicates, taken.rejected);
    tracing::debug!(counted, duplicates, "usage events were taken");
    if rejected > 0 {
        tracing::error!(
            rejected,
            "usage events could not be read; they are in table chargebackrejects"
        );
    }
}

/// The events of an invocation with what the hub says of each. An event's place is made of what
/// stays the same when it is delivered again.
fn delivered(invocation: &Invocation, bodies: Vec<Vec<u8>>) -> Vec<Delivered> {
    let partition = ["PartitionContext", "TriggerPartitionContext"];
    let partition = partition
        .into_iter()
        .find_map(|name| invocation.value(name));
    let said = |name: &str| {
        let value = partition.as_ref().and_then(|partition| partition.get(name));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let hub = format!(
        "{}|{}|{}",
        said("FullyQualifiedNamespace"),
        said("EventHubName"),
        said("PartitionId")
    );
    let numbers = invocation.array("SequenceNumberArray");
    let moments = invocation.array("EnqueuedTimeUtcArray");
    let each = bodies.into_iter().enumerate().map(|(i, body)| {
        let moment = moments.get(i).and_then(Value::as_str).unwrap_or_default();
        let place = match numbers.get(i).and_then(Value::as_i64) {
            // The numbers of a hub that was made anew begin anew.
            Some(number) => format!("{hub}|{number}|{moment}"),
            None => String::new(),
        };
        Delivered {
            body,
            place,
            enqueued: Timestamp::parse(moment),
        }
    });
    each.collect()
}
