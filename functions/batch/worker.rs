//! What handles messages: reads one, hands it to a [`Job`], answers it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::again;
use super::job::Job;
use super::ledger::{Claim, KeepError, Keeping, Ledger, Settled, blob_bytes, blob_may_pass};
use super::outbox::{Outbox, Reply};
use super::settings::Settings;
use crate::azure::service_bus::Sends;
use crate::gateway::app::App;
use crate::gateway::batch::fault::Fault;
use crate::gateway::batch::message::Received;
use crate::gateway::batch::order::{Order, Sender, custom_id, is_true, property};
use crate::gateway::batch::patience::QueueAge;
use crate::gateway::batch::reply::Answer;
use crate::gateway::time::Timestamp;
use crate::store::Store;
use crate::store::blobs::Blobs;
use crate::store::blobs::reading::whole;
use crate::store::requests::{self, Dead, Kept};
use crate::way::Way;

/// Says what time it is.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Longest that a message is handled: less than host.json's maxAutoLockRenewalDuration, 29
/// minutes, and than its functionTimeout, after which the host kills the whole process. It may be held for 8
/// minutes and called for 13, as the configuration bounds both, and its answer may take some to be kept and sent.
const LONGEST: Duration = Duration::from_secs(28 * 60);

/// How long it is tried to keep an answer, or to send it, ms.
const TRY_MS: u64 = 60_000;

/// The same in the last delivery, ms: no other one comes to do it.
const LAST_TRY_MS: u64 = 10 * 60_000;

/// How a message's handling ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done with: the host completes it.
    Done,
    /// It is not: the host abandons it, and the broker delivers it again or dead-letters it.
    Failed(String),
}

/// What handles messages.
pub struct Worker {
    pub(super) settings: Settings,
    pub(super) way: Arc<dyn Way>,
    pub(super) outbox: Outbox,
    pub(super) now: Now,
    ledger: Ledger,
    blobs: Option<Arc<dyn Blobs>>,
    age: Mutex<QueueAge>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A message and its place in the book: enough to answer it.
pub(super) struct Case<'a> {
    pub(super) received: &'a Received,
    pub(super) sender: &'a Sender,
    pub(super) claim: &'a Claim,
}

impl Worker {
    /// A worker with these ways to the world. `blobs` is where answers lie that are too large for a
    /// row; without it they can't be kept.
    pub fn new(
        settings: Settings,
        way: Arc<dyn Way>,
        store: Arc<dyn Store>,
        blobs: Option<Arc<dyn Blobs>>,
        bus: Arc<dyn Sends>,
        now: Now,
    ) -> Self {
        let ledger = Ledger::new(store, blobs.clone(), &settings, Arc::clone(&now));
        let outbox = Outbox::new(bus, settings.max_message, Arc::clone(&now));
        Self {
            settings,
            way,
            outbox,
            now,
            ledger,
            blobs,
            age: Mutex::default(),
        }
    }

    /// Handles a message. Where that is cut off at any point, the next delivery goes on.
    pub async fn handle(&self, received: &Received) -> End {
        let handled = tokio::time::timeout(LONGEST, self.handle_in_time(received)).await;
        handled.unwrap_or_else(|_| End::Failed("it took too long".into()))
    }

    async fn handle_in_time(&self, received: &Received) -> End {
        let delivered = (self.now)();
        self.note_age(received, delivered);
        let sender = Sender::of(received, &self.settings.rules);
        let body = match self.body(received, &sender).await {
            Ok(body) => body,
            Err(why) => return End::Failed(why),
        };
        match self.read(received, &body, &sender) {
            Ok((order, app)) => {
                let claim = self.ledger.claim(&sender, &order.custom_id);
                let case = Case {
                    received,
                    sender: &sender,
                    claim: &claim,
                };
                Job::new(self, case, order, app, delivered).run().await
            }
            Err(fault) => {
                let name = custom_id(&body, &sender);
                let claim = self.ledger.claim(&sender, &name);
                let case = Case {
                    received,
                    sender: &sender,
                    claim: &claim,
                };
                self.turn_away(&case, &fault).await
            }
        }
    }

    /// A message that failed came back at once: it says nothing of the queue.
    fn note_age(&self, received: &Received, delivered: Timestamp) {
        if received.deliveries <= 1 {
            let waited_ms = delivered.ms_since(received.enqueued);
            self.age().saw(waited_ms, delivered);
        }
    }

    /// How long messages wait in the queue, by those that came here.
    pub fn queue_age(&self) -> QueueAge {
        *self.age()
    }

    fn age(&self) -> std::sync::MutexGuard<'_, QueueAge> {
        self.age.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the message holds, or what it points to: that of an asynchronous call can lie in a blob.
    async fn body(&self, received: &Received, sender: &Sender) -> Result<Bytes, String> {
        let message = &received.message;
        let points = sender.address.queue.is_none() && is_true(message, property::IN_BLOB);
        let Some(blobs) = self.blobs.as_ref().filter(|_| points) else {
            return Ok(message.body.clone());
        };
        let blob = requests::request_blob(&sender.app, &sender.key);
        let most = self.settings.rules.max_request;
        let read = || whole(&**blobs, &blob, most);
        let read = again::until(&self.now, self.soon(), blob_may_pass, read).await;
        match read {
            Ok(body) => Ok(body.unwrap_or_default()),
            Err(error) => Err(format!("its request can't be read: {error}")),
        }
    }

    fn read(
        &self,
        received: &Received,
        body: &Bytes,
        sender: &Sender,
    ) -> Result<(Order, Arc<App>), Fault> {
        let rules = &self.settings.rules;
        let order = Order::read(received, body, sender, rules)?;
        match (&*sender.app, self.way.app(&sender.app)) {
            (_, Some(app)) => Ok((order, app)),
            ("", None) => Err(Fault::NoApp),
            (name, None) => Err(Fault::UnknownApp(name.to_owned())),
        }
    }

    /// Tells the sender what is wrong.
    pub(super) async fn turn_away(&self, case: &Case<'_>, fault: &Fault) -> End {
        let (id, app) = (&case.sender.id, &case.sender.app);
        tracing::info!(
            id,
            app,
            code = fault.code(),
            "a batch message was turned away"
        );
        let answer = Answer::from(fault);
        // The same message is told the same again, so that nothing has to be kept, unless its
        // answer is fetched.
        if case.sender.address.queue.is_some() {
            return self.deliver(case, &answer, None).await;
        }
        self.answer(case, &answer, None).await
    }

    /// Keeps an answer and sends it; `dead` says so where the message is given up.
    pub(super) async fn answer(&self, case: &Case<'_>, answer: &Answer, dead: Option<Dead>) -> End {
        let end = match case.sender.address.queue {
            Some(_) => self.soon(),
            None => self.reply_end(case.received),
        };
        match case.claim.keep(case.received, answer, dead, end).await {
            Ok(Keeping::Kept(kept)) => self.deliver(case, answer, Some(&kept)).await,
            Ok(Keeping::Late(settled)) => self.settled(case, settled).await,
            Ok(Keeping::Busy) => self.fail(case, "another delivery works on it").await,
            Err(error) if case.sender.address.queue.is_none() => {
                self.fail(case, &format!("its answer can't be kept: {error}"))
                    .await
            }
            // The last delivery may answer it after all.
            Err(error) if dead.is_some() && !self.is_last(case.received) => {
                let why = format!("it can't be noted that it is given up: {error}");
                self.fail(case, &why).await
            }
            Err(error) => {
                let id = &case.sender.id;
                tracing::error!(id, %error, "an answer can't be kept; it is sent all the same");
                let end = self.reply_end(case.received);
                let keeping = case.claim.keep(case.received, answer, dead, end);
                let end = self.deliver_while(case, answer, keeping).await;
                match dead {
                    Some(_) => given_up(),
                    None => end,
                }
            }
        }
    }

    /// Sends an answer that was not kept, and goes on trying to keep it while it can't be sent either:
    /// another delivery, whose message's lock was lost, must not find the message unanswered.
    async fn deliver_while(
        &self,
        case: &Case<'_>,
        answer: &Answer,
        keeping: impl Future<Output = Result<Keeping, KeepError>>,
    ) -> End {
        let sending = self.deliver(case, answer, None);
        tokio::pin!(sending);
        tokio::select! {
            end = &mut sending => return end,
            _ = keeping => {}
        }
        sending.await
    }

    /// Finishes a message of which nothing is left to find out.
    pub(super) async fn settled(&self, case: &Case<'_>, settled: Settled) -> End {
        match settled {
            Settled::Answered(kept) => self.deliver_kept(case, &kept).await,
            Settled::GivenUp => given_up(),
            Settled::Done => {
                self.delete_request(case).await;
                End::Done
            }
        }
    }

    /// Whether the broker delivers it no more.
    const fn is_last(&self, received: &Received) -> bool {
        received.deliveries >= self.settings.max_deliveries
    }

    /// Sends an answer that was kept before.
    async fn deliver_kept(&self, case: &Case<'_>, kept: &Kept) -> End {
        let most = self.outbox.max_message();
        match case.claim.answer(kept, most, self.soon()).await {
            Ok(answer) => self.deliver(case, &answer, Some(kept)).await,
            Err(error) => {
                self.fail(case, &format!("its answer can't be read: {error}"))
                    .await
            }
        }
    }

    /// Sends an answer to where replies go.
    async fn deliver(&self, case: &Case<'_>, answer: &Answer, kept: Option<&Kept>) -> End {
        let dead = kept.and_then(|kept| kept.dead);
        let reply = Reply {
            sender: case.sender,
            custom_id: case.claim.custom_id(),
            answer,
            dead: dead.map(|dead| dead.sequence),
            kept_bytes: kept.map(blob_bytes),
        };
        let end = self.reply_end(case.received);
        if let Err(error) = self.outbox.reply(&reply, end).await {
            return self
                .fail(case, &format!("its reply can't be sent: {error}"))
                .await;
        }
        if let Some(kept) = kept {
            case.claim.replied(kept).await;
            self.delete_request(case).await;
        }
        dead.map_or(End::Done, |_| given_up())
    }

    /// The request of an asynchronous call is of no use once it has its answer, or is called off.
    async fn delete_request(&self, case: &Case<'_>) {
        let sender = case.sender;
        let points = is_true(&case.received.message, property::IN_BLOB);
        if let (Some(blobs), true, None) = (&self.blobs, points, &sender.address.queue) {
            let blob = requests::request_blob(&sender.app, &sender.key);
            if let Err(error) = blobs.delete(&blob).await {
                tracing::warn!(%error, "the request of an asynchronous call is left behind");
            }
        }
    }

    /// Fails after a pause: the broker delivers an abandoned message again at once.
    pub(super) async fn fail(&self, case: &Case<'_>, why: &str) -> End {
        let longest_ms = (1000_u64 << case.received.deliveries.min(6)).min(60_000);
        let pause_ms = longest_ms / 2 + fastrand::u64(..longest_ms / 2);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        End::Failed(format!("message {}: {why}", case.sender.id))
    }

    /// Until when it is tried to reply to a message.
    fn reply_end(&self, received: &Received) -> Timestamp {
        let is_last = self.is_last(received);
        (self.now)().plus_ms(if is_last { LAST_TRY_MS } else { TRY_MS })
    }

    /// Until when something is tried.
    pub(super) fn soon(&self) -> Timestamp {
        (self.now)().plus_ms(TRY_MS)
    }
}

/// The broker delivers it at once until it is a dead letter; so do copies of it, each of which it has
/// to dead-letter itself.
pub(super) fn given_up() -> End {
    End::Failed("it was given up: the broker dead-letters it".into())
}
