//! Tells other instances which deployments are full, and hears it from them, beside the calls. The
//! rules are [`crate::gateway::marks`].

use std::sync::Arc;
use std::time::Duration;

use super::Relay;
use crate::current::Current;
use crate::gateway::marks::{Board, TICK_MS, is_listening};
use crate::gateway::time::Timestamp;
use crate::store::{Store, StoreError, in_time, marks};

/// Pause after the store has failed, ms.
const FAILED_MS: u64 = 5_000;

/// Shares marks for ever.
pub async fn keep(relay: Current<Relay>, store: Arc<dyn Store>) {
    let mut sharing = Sharing {
        board: Board::new(format!("{:032x}", fastrand::u128(..))),
        ended: 0,
        // One that has just been started was mostly started because there is much to do.
        last_call: relay.get().clock.now(),
        next_read: Timestamp::default(),
        relay,
        store,
    };
    let mut is_failing = false;
    loop {
        let pause_ms = match sharing.tick().await {
            Ok(()) => {
                if is_failing {
                    tracing::info!("marks are shared again");
                }
                is_failing = false;
                TICK_MS
            }
            Err(error) => {
                if !is_failing {
                    tracing::error!(%error, "table instances can't be read or written: marks are not shared");
                }
                is_failing = true;
                sharing.forget_others();
                FAILED_MS
            }
        };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

struct Sharing {
    board: Board,
    relay: Current<Relay>,
    store: Arc<dyn Store>,
    /// Calls that had ended at the last tick.
    ended: u64,
    last_call: Timestamp,
    next_read: Timestamp,
}

impl Sharing {
    async fn tick(&mut self) -> Result<(), StoreError> {
        let relay = self.relay.get();
        let (deployments, now) = (relay.settings.pool.deployments(), relay.clock.now());
        if let Some(row) = self.board.news(deployments, now) {
            in_time(marks::write(&*self.store, &row)).await?;
            self.board.told(&row);
        }
        let ended = relay.metrics.ended();
        if ended != self.ended || relay.calls().count() > 0 {
            self.last_call = now;
        }
        self.ended = ended;
        if is_listening(self.last_call, now) && now >= self.next_read {
            let rows = in_time(marks::read(&*self.store)).await?;
            let (max_ms, now) = (relay.settings.marks.max_ms, relay.clock.now());
            let learnt = self.board.learn(&rows, deployments, max_ms, now);
            self.next_read = now.plus_ms(learnt.next_ms);
            for gone in &learnt.forgotten {
                in_time(marks::forget(&*self.store, gone)).await?;
            }
        }
        Ok(())
    }

    fn forget_others(&self) {
        let relay = self.relay.get();
        let deployments = relay.settings.pool.deployments();
        self.board.forget_others(deployments, relay.clock.now());
    }
}
