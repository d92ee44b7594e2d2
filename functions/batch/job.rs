//! A message that was read: it waits for its place, is called, and answered.
//!
//! | what happens | what its sender gets | the message |
//! | --- | --- | --- |
//! | a backend or the gateway answers, 4xx too | the answer | is completed |
//! | no slot, all deployments full, the store is down | nothing yet | is held, then put off by a scheduled copy |
//! | its deadline is near | the answer of pay-as-you-go, where its app's tiers allow that | is completed |
//! | its deadline passes | the error `batch_expired` | is completed |
//! | nobody can answer, or it can't be put off | nothing yet | fails after a pause, and is delivered again |
//! | the same as often as the queue delivers | the error `not_answered` | fails, and the broker dead-letters it |
//! | another delivery works on it all the time | nothing yet | is put off, or fails: it is never given up beside one |

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{LEASE_MS, Seen};
use super::worker::{Case, End, Worker};
use crate::azure::service_bus::SendError;
use crate::gateway::app::App;
use crate::gateway::batch::fault::Fault;
use crate::gateway::batch::order::{Order, later};
use crate::gateway::batch::outcome::{Verdict, judge};
use crate::gateway::batch::patience::{Next, Standing};
use crate::gateway::batch::reply::Answer;
use crate::gateway::event::Kind;
use crate::gateway::priority::Priority;
use crate::gateway::time::Timestamp;
use crate::store::Etag;
use crate::store::requests::Dead;
use crate::way::{Called, Errand, Slot};

/// How often a message asks whether another delivery of it has brought an answer, ms.
const POLL_MS: u64 = 1000;

/// The first pause and the longest before a message that could not be taken on is tried again, ms.
const TAKE_PAUSES_MS: (u64, u64) = (100, 5000);

/// A claim is renewed so often while a call runs.
const RENEW: Duration = Duration::from_millis(LEASE_MS / 3);

/// A message under way.
pub(super) struct Job<'a> {
    worker: &'a Worker,
    case: Case<'a>,
    order: Order,
    app: Arc<App>,
    priority: Priority,
    delivered: Timestamp,
    /// Whether it goes to pay-as-you-go, its deadline being near.
    spills: bool,
    /// How long it waits where it can't be taken on, ms.
    take_pause_ms: u64,
}

/// Where a call may go, and its right to.
struct Place {
    only: Option<Kind>,
    slot: Option<Slot>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        case: Case<'a>,
        order: Order,
        app: Arc<App>,
        delivered: Timestamp,
    ) -> Self {
        let priority = app.priority.lowered_to(order.priority);
        Self {
            worker,
            case,
            order,
            app,
            priority,
            delivered,
            spills: false,
            take_pause_ms: TAKE_PAUSES_MS.0,
        }
    }

    pub(super) async fn run(mut self) -> End {
        loop {
            if let Break(end) = self.turn().await {
                return end;
            }
        }
    }

    /// One attempt. Continues where there is to be another.
    async fn turn(&mut self) -> ControlFlow<End> {
        let seen = self.look().await?;
        if self.now() >= self.order.deadline {
            return Break(self.worker.turn_away(&self.case, &Fault::Expired).await);
        }
        let place = self.place().await?;
        match self.case.claim.take(seen.as_ref()).await {
            Ok(true) => self.take_pause_ms = TAKE_PAUSES_MS.0,
            Ok(false) => {
                // Others may call meanwhile.
                drop(place);
                return self.not_taken().await;
            }
            Err(error) => {
                let why = format!("it can't be taken on: {error}");
                return Break(self.worker.fail(&self.case, &why).await);
            }
        }
        match self.call(place).await {
            None => Continue(()),
            Some(called) => self.judge(called).await,
        }
    }

    /// What it does where another delivery was faster, which the next look shows, or the store can be
    /// read but not written, which lasts.
    async fn not_taken(&mut self) -> ControlFlow<End> {
        if self.now() >= self.hold_end() {
            return Break(self.put_off(self.now().plus_ms(self.defer_ms())).await);
        }
        let pause_ms = self.take_pause_ms;
        self.take_pause_ms = (pause_ms * 2).min(TAKE_PAUSES_MS.1);
        self.sleep(pause_ms).await;
        Continue(())
    }

    /// The row's version, where the message is free to be taken on.
    async fn look(&self) -> ControlFlow<End, Option<Etag>> {
        let received = self.case.received;
        loop {
            let left_ms = self.hold_end().ms_since(self.now());
            let end = self.now().plus_ms(left_ms);
            let seen = match self.case.claim.look(received, end).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::error!(%error, "the store can't say how a batch message stands; it is put off");
                    return Break(self.put_off(self.now().plus_ms(self.defer_ms())).await);
                }
            };
            match seen {
                Seen::Free(etag) => return Continue(etag),
                // What was written without an answer is as good as taken; it is taken again.
                Seen::Mine(etag) => return Continue(Some(etag)),
                Seen::Settled(settled) => {
                    return Break(self.worker.settled(&self.case, settled).await);
                }
                Seen::Busy(ms) if self.now() < self.hold_end() => self.sleep(ms.min(POLL_MS)).await,
                Seen::Busy(ms) => return Break(self.leave(ms).await),
            }
        }
    }

    /// Waits for a place among the calls that may run now.
    async fn place(&mut self) -> ControlFlow<End, Place> {
        let anywhere = Place {
            only: None,
            slot: None,
        };
        let kinds = self.worker.way.kinds(&self.app, &self.order.model);
        if self.priority == Priority::High || !kinds.ptu {
            return Continue(anywhere);
        }
        loop {
            if self.spills {
                return Continue(Place {
                    only: Some(Kind::Payg),
                    slot: None,
                });
            }
            let spill_ms = if kinds.payg {
                self.worker.settings.patience.spill_before_ms
            } else {
                0
            };
            let left_ms = self
                .order
                .deadline
                .ms_since(self.now())
                .saturating_sub(spill_ms);
            let until = self.hold_end().min(self.now().plus_ms(left_ms));
            match self.worker.way.slot(&self.order.model, until).await {
                Ok(slot) => {
                    return Continue(Place {
                        only: Some(Kind::Ptu),
                        slot: Some(slot),
                    });
                }
                Err(none) => self.rest(none.retry_after_ms).await?,
            }
        }
    }

    /// Makes the call, renewing the claim meanwhile. `None` where another delivery has the message
    /// by now.
    async fn call(&self, place: Place) -> Option<Result<Called, String>> {
        let errand = Errand {
            app: Arc::clone(&self.app),
            path: self.order.path.clone(),
            body: self.order.request.clone(),
            priority: self.priority,
            only: place.only,
        };
        let call = self.worker.way.call(errand, place.slot);
        tokio::pin!(call);
        loop {
            tokio::select! {
                called = &mut call => return Some(called),
                () = tokio::time::sleep(RENEW) => {
                    if !self.case.claim.renew().await {
                        return None;
                    }
                }
            }
        }
    }

    async fn judge(&mut self, called: Result<Called, String>) -> ControlFlow<End> {
        let called = match called {
            Ok(called) => called,
            Err(why) => return Break(self.broken(&why).await),
        };
        match judge(called.status, called.code.as_deref(), called.retry_after_ms) {
            Verdict::Answer => {
                let answer = Answer::from(called);
                Break(self.worker.answer(&self.case, &answer, None).await)
            }
            Verdict::Full { retry_after_ms } => {
                self.case.claim.release().await;
                self.rest(retry_after_ms).await
            }
            Verdict::Broken(why) => Break(self.broken(&why).await),
        }
    }

    /// Nobody could answer: it fails. It is given up one delivery before the queue's last one, which
    /// then has only to see to the reply, should this one be killed. Its sender reads `why`.
    async fn broken(&self, why: &str) -> End {
        let received = self.case.received;
        if received.deliveries + 1 < self.worker.settings.max_deliveries {
            self.case.claim.release().await;
            return self.worker.fail(&self.case, why).await;
        }
        let id = &self.case.sender.id;
        tracing::error!(id, why, "a batch message is given up");
        let deliveries = received.deliveries;
        let dead = Dead {
            sequence: received.sequence,
            at: self.now(),
        };
        let answer = Answer::Error {
            code: "not_answered".into(),
            message: format!(
                "No deployment could answer in {deliveries} deliveries; at last: {why}. The message is in the queue's dead letters."
            ),
        };
        self.worker.answer(&self.case, &answer, Some(dead)).await
    }

    /// What it does while there is no room.
    async fn rest(&mut self, retry_after_ms: u64) -> ControlFlow<End> {
        let standing = Standing {
            now: self.now(),
            delivered: self.delivered,
            deadline: self.order.deadline,
            queue_ms: self.worker.queue_age().wait_ms(self.now()),
            deferrals: self.case.sender.deferrals,
            may_spill: !self.spills && self.worker.way.kinds(&self.app, &self.order.model).payg,
        };
        let patience = &self.worker.settings.patience;
        match patience.next(standing, retry_after_ms, fastrand::u64(..=1000)) {
            Next::Wait(ms) => {
                self.sleep(ms).await;
                Continue(())
            }
            Next::Defer(visible) => Break(self.put_off(visible).await),
            Next::Spill => {
                self.spills = true;
                Continue(())
            }
            Next::Expire => Break(self.worker.turn_away(&self.case, &Fault::Expired).await),
        }
    }

    /// Puts it off. One that is too large with what a copy says beside it can't be put off by any
    /// delivery: its sender is told in the end.
    async fn put_off(&self, visible: Timestamp) -> End {
        match self.send_later(visible).await {
            Ok(()) => End::Done,
            Err(why) => self.broken(why).await,
        }
    }

    /// Puts off what another delivery works on for `ms` at least. Where that can't be done it fails: the
    /// message is the other one's, to answer or to give up.
    async fn leave(&self, ms: u64) -> End {
        match self.send_later(self.now().plus_ms(ms)).await {
            Ok(()) => End::Done,
            Err(why) => self.worker.fail(&self.case, why).await,
        }
    }

    /// Sends a copy that appears later; the message itself is done with then. It costs no delivery.
    /// Where that can't be done, why, in words for whoever sent it: the log has the rest.
    async fn send_later(&self, visible: Timestamp) -> Result<(), &'static str> {
        let Case {
            received, sender, ..
        } = &self.case;
        let copy = later(received, sender, visible);
        let queue = &self.worker.settings.queue;
        let sent = self
            .worker
            .outbox
            .send(queue, &copy, self.worker.soon())
            .await;
        let id = &sender.id;
        if let Err(error) = sent {
            tracing::error!(id, %error, "a batch message can't be put off");
            return Err(match error {
                SendError::TooLarge(_) => "it is too large to be put off",
                _ => "it could not be put off",
            });
        }
        let (deferrals, until) = (sender.deferrals.saturating_add(1), visible.rfc3339());
        tracing::debug!(id, deferrals, until, "a batch message is put off");
        Ok(())
    }

    fn now(&self) -> Timestamp {
        (self.worker.now)()
    }

    /// Until when it is held.
    fn hold_end(&self) -> Timestamp {
        self.delivered
            .plus_ms(self.worker.settings.patience.hold_ms)
    }

    fn defer_ms(&self) -> u64 {
        self.worker.settings.patience.defer_ms
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms.max(1))).await;
    }
}
