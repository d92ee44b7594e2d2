//! The embedded queue of `spillway local`: Service Bus queues in a file of this machine, spoken to in
//! Service Bus's own REST form, and a stand-in for the Functions host that calls the batch function.
//!
//! [`broker`] has the rules, `journal` and `record` the file, `rest` the endpoint, `pump` and [`host_form`] do what the
//! host does.

pub mod broker;
pub mod host_form;
mod journal;
mod pump;
mod record;
mod rest;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::broker::{Broker, Delivery, Limits, NoSuchQueue};
use self::journal::Journal;
use crate::azure::service_bus::{CountError, Counted, Counts};
use crate::config::Batch;
use crate::gateway::batch::message::{Outgoing, Received};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// How long a message stays locked that nobody renews.
const LOCK: Duration = Duration::from_secs(60);

/// How often a queue is looked at for what became due without anybody saying so.
const LOOK: Duration = Duration::from_millis(250);

/// The queues of one process.
#[derive(Clone, Debug)]
pub struct Queues {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Mutex<Broker>,
    names: Vec<String>,
    journal: Journal,
    /// Something may be there to be taken.
    news: Notify,
    clock: Clock,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueError {
    NoSuchQueue,
    /// The file can't be written.
    NotKept,
}

impl IntoResponse for QueueError {
    fn into_response(self) -> Response {
        match self {
            Self::NoSuchQueue => rest::say(StatusCode::NOT_FOUND, "there is no such queue"),
            Self::NotKept => rest::say(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file can't be written",
            ),
        }
    }
}

impl From<NoSuchQueue> for QueueError {
    fn from(_: NoSuchQueue) -> Self {
        Self::NoSuchQueue
    }
}

impl Queues {
    /// The queues that `batch` names, as they are in `folder`.
    ///
    /// # Errors
    /// When the file there can't be opened.
    pub fn open(folder: &Path, batch: &Batch) -> io::Result<Self> {
        let mut names = vec![batch.queue.clone()];
        names.extend(batch.reply_queues.iter().cloned());
        let limits = Limits {
            max_deliveries: batch.max_deliveries,
            ..Limits::default()
        };
        let mut broker = Broker::new(names.iter().map(|name| (name.as_str(), limits)));
        let (journal, kept) = Journal::open(folder)?;
        broker.restore(kept);
        Ok(Self {
            shared: Arc::new(Shared {
                broker: Mutex::new(broker),
                names,
                journal,
                news: Notify::new(),
                clock: Clock::new(),
            }),
        })
    }

    /// Serves the REST form on `listener`, and hands the messages of the first queue to the
    /// function at `handler`, until the end of the process.
    pub fn start(&self, listener: TcpListener, handler: SocketAddr) {
        let router = rest::router(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the embedded queue has ended");
            }
        });
        if let Some(queue) = self.shared.names.first() {
            tokio::spawn(pump::run(self.clone(), queue.clone(), handler));
        }
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.shared
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the queues, and hands what it changes to the file, in the same order.
    fn change<T>(&self, act: impl FnOnce(&mut Broker, Timestamp) -> T) -> (T, Kept) {
        let mut broker = self.broker();
        let done = act(&mut broker, self.now());
        let changes = broker.take_changes();
        let kept = (!changes.is_empty()).then(|| self.shared.journal.write(changes));
        (done, Kept(kept))
    }

    async fn send(&self, queue: &str, messages: Vec<Outgoing>) -> Result<(), QueueError> {
        let (sent, kept) = self.change(|broker, now| {
            let mut each = messages.into_iter();
            each.try_for_each(|message| broker.send(queue, message, now).map(drop))
        });
        sent?;
        kept.wait().await?;
        self.shared.news.notify_waiters();
        Ok(())
    }

    /// The next message, taken out, when there is one within `patience`.
    async fn take(&self, queue: &str, patience: Duration) -> Result<Option<Received>, QueueError> {
        let end = Instant::now() + patience;
        loop {
            let news = self.shared.news.notified();
            let (taken, kept) = self.change(|broker, now| broker.take(queue, now));
            if let Some(received) = taken? {
                kept.wait().await?;
                return Ok(Some(received));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            let _ = tokio::time::timeout(LOOK, news).await;
        }
    }

    /// The next message, under a lock, when there is one.
    async fn receive(&self, queue: &str) -> Delivery {
        loop {
            let news = self.shared.news.notified();
            let (received, _) = self.change(|broker, now| broker.receive(queue, now));
            if let Ok(Some(delivery)) = received {
                return delivery;
            }
            let _ = tokio::time::timeout(LOOK, news).await;
        }
    }

    fn renew(&self, queue: &str, token: u64) {
        self.change(|broker, now| broker.renew(queue, token, now));
    }

    fn complete(&self, queue: &str, token: u64) {
        self.change(|broker, now| broker.complete(queue, token, now));
    }

    fn abandon(&self, queue: &str, token: u64) {
        self.change(|broker, now| broker.abandon(queue, token, now));
        self.shared.news.notify_waiters();
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// How many messages there are.
    fn lengths(&self) -> Value {
        let broker = self.broker();
        let queue = |name: &String| json!({"name": name, "messages": broker.length(name), "dead_letters": broker.dead(name)});
        let queues: Vec<Value> = self.shared.names.iter().map(queue).collect();
        json!({"queues": queues})
    }
}

impl Counts for Queues {
    fn count<'a>(&'a self, queue: &'a str) -> Counted<'a> {
        let messages = self.broker().messages(queue, self.now());
        let none = || CountError::Unreadable("there is no such queue".into());
        Box::pin(std::future::ready(messages.ok_or_else(none)))
    }
}

/// What lasts some time later; `None`: nothing has changed.
struct Kept(Option<oneshot::Receiver<()>>);

impl Kept {
    async fn wait(self) -> Result<(), QueueError> {
        match self.0 {
            Some(lasts) => lasts.await.map_err(|_| QueueError::NotKept),
            None => Ok(()),
        }
    }
}
