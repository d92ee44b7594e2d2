//! Has one line of a batch answered: it waits for a slot, is called, and called again where nobody
//! could answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Batches;
use crate::gateway::app::App;
use crate::gateway::batch::line::Line;
use crate::gateway::batch::outcome::{Verdict, judge};
use crate::gateway::batch::reply::Answer;
use crate::gateway::event::Kind;
use crate::gateway::priority::Priority;
use crate::gateway::time::Timestamp;
use crate::way::{Called, Errand, Slot};

/// How often a line is called that nobody can answer, and the pause after the first time, doubled
/// each time.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Longest pause before a line asks again for room.
const MAX_REST_MS: u64 = 60_000;

/// Longest single wait for a slot, ms; then whether there is still time is looked at again.
const SLOT_MS: u64 = 10_000;

/// What lines of a batch have in common.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Who pays.
    pub(super) app: Arc<App>,
    /// Until when lines are called.
    pub(super) expires: Timestamp,
    /// From when on lines go to pay-as-you-go, too.
    pub(super) spills: Timestamp,
    /// Whether the batch was called off.
    pub(super) cancelled: watch::Receiver<bool>,
}

/// Where a line may go, and its right to.
struct Place {
    only: Option<Kind>,
    slot: Option<Slot>,
}

impl Shared {
    /// Sleeps, but not on after the batch was called off.
    async fn rest(&self, time: Duration) {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = cancelled.wait_for(|cancelled| *cancelled) => {}
        }
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}

impl Batches {
    /// What a line comes to; `None` where the batch was called off before it was called.
    pub(super) async fn answer(&self, shared: &Shared, line: &Line) -> Option<Answer> {
        let mut failures = 0;
        loop {
            let place = match self.place(shared, &line.model).await {
                Ok(place) => place,
                Err(over) => return over,
            };
            let errand = Errand {
                app: Arc::clone(&shared.app),
                path: line.path.clone(),
                body: line.request.clone(),
                priority: Priority::Low,
                only: place.only,
            };
            let called = self.way.call(errand, place.slot).await;
            match read(&called) {
                Verdict::Answer => return called.ok().map(Answer::from),
                Verdict::Full { retry_after_ms } => {
                    // Lines that wait for the same room don't ask at the same moment.
                    let ms = retry_after_ms.clamp(100, MAX_REST_MS);
                    shared
                        .rest(Duration::from_millis(ms + fastrand::u64(..=ms / 4)))
                        .await;
                }
                Verdict::Broken(why) => {
                    failures += 1;
                    if failures == ATTEMPTS {
                        tracing::warn!(why, "a line of a batch is given up");
                        return Some(called.map_or_else(|why| not_answered(&why), Answer::from));
                    }
                    shared.rest(PAUSE * (1 << (failures - 1))).await;
                }
            }
        }
    }

    /// Waits for a place among the calls that may run now; what the line comes to where there is
    /// none any more.
    async fn place(&self, shared: &Shared, model: &str) -> Result<Place, Option<Answer>> {
        let kinds = self.way.kinds(&shared.app, model);
        loop {
            if shared.is_cancelled() {
                return Err(None);
            }
            let now = self.now();
            if now >= shared.expires {
                return Err(Some(expired()));
            }
            if !kinds.ptu {
                return Ok(Place {
                    only: None,
                    slot: None,
                });
            }
            if kinds.payg && now >= shared.spills {
                return Ok(Place {
                    only: Some(Kind::Payg),
                    slot: None,
                });
            }
            let until = now.plus_ms(SLOT_MS).min(shared.expires);
            let mut cancelled = shared.cancelled.clone();
            let slot = tokio::select! {
                slot = self.way.slot(model, until) => slot,
                _ = cancelled.wait_for(|cancelled| *cancelled) => return Err(None),
            };
            match slot {
                Ok(slot) => {
                    return Ok(Place {
                        only: Some(Kind::Ptu),
                        slot: Some(slot),
                    });
                }
                Err(none) => {
                    let ms = none.retry_after_ms.clamp(100, SLOT_MS);
                    shared.rest(Duration::from_millis(ms)).await;
                }
            }
        }
    }
}

fn read(called: &Result<Called, String>) -> Verdict {
    match called {
        Ok(called) => judge(called.status, called.code.as_deref(), called.retry_after_ms),
        Err(why) => Verdict::Broken(why.clone()),
    }
}

fn not_answered(why: &str) -> Answer {
    Answer::Error {
        code: "not_answered".into(),
        message: format!("No deployment could answer in {ATTEMPTS} attempts; at last: {why}."),
    }
}

/// OpenAI's word and sentence for it (API reference, "The request output object").
fn expired() -> Answer {
    Answer::Error {
        code: "batch_expired".into(),
        message: "This request could not be executed before the completion window expired.".into(),
    }
}
