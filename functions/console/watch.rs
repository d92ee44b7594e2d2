//! Looks at what is counted, every ten seconds: for the last minute's figures, and to keep each minute
//! and hour, and the calls that failed or were slow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::gateway::event::UsageEvent;
use crate::gateway::metrics::window::Lately;
use crate::gateway::metrics::{Metrics, Rollup, Totals, Window};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::console::{self, Counted, HOUR_MS, MINUTE_MS, Span};
use crate::store::{Store, StoreError};

/// Time from look to look, ms.
const EVERY_MS: u64 = 10_000;

/// Most notable calls that are in memory.
const MAX_CALLS: usize = 500;

/// Most minutes and hours that wait for the store.
const MAX_WAITING: usize = 180;

/// How old another instance's minutes may be when they are read again, ms.
const OTHERS_MS: u64 = 10_000;

/// What is seen.
#[derive(Debug)]
pub(super) struct Watch {
    /// This process, for others.
    instance: String,
    started: Timestamp,
    state: Mutex<State>,
    others: tokio::sync::Mutex<(Timestamp, Arc<Vec<Counted>>)>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    /// The newest notable calls, oldest first.
    calls: VecDeque<UsageEvent>,
    /// How many of the newest of them the store does not have yet.
    unwritten: usize,
    minute: Option<Open>,
    hour: Option<Open>,
    waiting: VecDeque<(Span, Counted)>,
}

/// A minute or hour that is not over, and what had been counted when it began.
#[derive(Debug)]
struct Open {
    start: Timestamp,
    totals: Totals,
}

impl Watch {
    pub(super) fn new(metrics: &Metrics, now: Timestamp) -> Self {
        let mut state = State::default();
        state.window.look(now, &metrics.totals());
        Self {
            // Nobody gains by guessing it: the cryptography's randomness takes 24 ms to seed itself, of each start.
            instance: format!("{}-{:08x}", now.unix_ms(), fastrand::u32(..)),
            started: now,
            state: Mutex::new(state),
            others: tokio::sync::Mutex::default(),
        }
    }

    /// When this process began to count.
    pub(super) const fn started(&self) -> Timestamp {
        self.started
    }

    /// What this process has counted in the last minute.
    pub(super) fn lately(&self, metrics: &Metrics, now: Timestamp) -> Option<Lately> {
        let totals = metrics.totals();
        self.state().window.lately(now, &totals)
    }

    /// The notable calls in memory, newest first.
    pub(super) fn calls(&self) -> Vec<UsageEvent> {
        self.state().calls.iter().rev().cloned().collect()
    }

    /// What the other instances have counted in their last minute.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn others(
        &self,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Arc<Vec<Counted>>, StoreError> {
        let mut known = self.others.lock().await;
        if known.0 > Timestamp::default() && now.ms_since(known.0) < OTHERS_MS {
            return Ok(Arc::clone(&known.1));
        }
        // A minute that is over is written within ten seconds, and the next one a minute later.
        let from = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(2 * MINUTE_MS + EVERY_MS));
        let mut rows = console::read(store, Span::Minute, from, now).await?;
        rows.retain(|row| row.instance != self.instance);
        rows.sort_by(|a, b| (&a.instance, b.start).cmp(&(&b.instance, a.start)));
        rows.dedup_by(|b, a| a.instance == b.instance);
        *known = (now, Arc::new(rows));
        Ok(Arc::clone(&known.1))
    }

    /// Looks, for ever.
    pub(super) async fn keep(&self, metrics: &Metrics, store: Option<&dyn Store>, clock: Clock) {
        let mut swept = clock.now();
        loop {
            let ms = EVERY_MS - clock.now().unix_ms() % EVERY_MS;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let now = clock.now();
            self.look(metrics, now);
            let Some(store) = store else { continue };
            if let Err(error) = self.write(store).await {
                tracing::warn!(%error, "what the console shows of the past can't be kept; it waits");
            }
            if now.ms_since(swept) >= HOUR_MS {
                swept = now;
                if let Err(error) = console::sweep(store, now).await {
                    tracing::warn!(%error, "what the console shows no more can't be deleted");
                }
            }
        }
    }

    fn look(&self, metrics: &Metrics, now: Timestamp) {
        let totals = metrics.totals();
        let notable = metrics.take_notable();
        let mut state = self.state();
        state.window.look(now, &totals);
        for call in notable.into_events() {
            state.calls.push_back(call);
            state.unwritten += 1;
        }
        while state.calls.len() > MAX_CALLS {
            state.calls.pop_front();
        }
        state.unwritten = state.unwritten.min(state.calls.len());
        let counted = |open: &Open| Counted {
            start: open.start,
            instance: self.instance.clone(),
            rollup: Rollup::of(&totals.since(&open.totals)),
        };
        let is_new_minute = state
            .minute
            .as_ref()
            .is_none_or(|open| is_over(open, Span::Minute, now));
        if !is_new_minute {
            return;
        }
        if let Some(minute) = state.minute.as_ref().map(counted) {
            state.wait(Span::Minute, minute);
        }
        if let Some(hour) = state.hour.as_ref().map(counted) {
            state.wait(Span::Hour, hour);
        }
        if state
            .hour
            .as_ref()
            .is_none_or(|open| is_over(open, Span::Hour, now))
        {
            state.hour = Some(Open::at(now, Span::Hour, &totals));
        }
        state.minute = Some(Open::at(now, Span::Minute, &totals));
    }

    /// Brings the store what waits.
    async fn write(&self, store: &dyn Store) -> Result<(), StoreError> {
        loop {
            let next = self.state().waiting.front().cloned();
            let Some((span, counted)) = next else { break };
            match console::write(store, span, &counted).await {
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                // What is refused would be refused again.
                Err(error) => tracing::error!(%error, "a minute's counts can't be stored"),
                Ok(()) => {}
            }
            self.state().waiting.pop_front();
        }
        let calls: Vec<UsageEvent> = {
            let state = self.state();
            let newest = state.calls.iter().rev().take(state.unwritten);
            newest.cloned().collect()
        };
        if !calls.is_empty() {
            console::write_calls(store, &calls).await?;
            let mut state = self.state();
            state.unwritten = state.unwritten.saturating_sub(calls.len());
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts what was counted in line for the store. An hour that waits already is replaced.
    fn wait(&mut self, span: Span, counted: Counted) {
        if counted.rollup.is_none() {
            return;
        }
        if span == Span::Hour {
            let same = |(other, waiting): &(Span, Counted)| {
                *other == Span::Hour && waiting.start == counted.start
            };
            self.waiting.retain(|waiting| !same(waiting));
        }
        self.waiting.push_back((span, counted));
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
    }
}

impl Open {
    fn at(now: Timestamp, span: Span, totals: &Totals) -> Self {
        let ms = now.unix_ms();
        Self {
            start: Timestamp::from_unix_ms(ms - ms % span.ms()),
            totals: totals.clone(),
        }
    }
}

const fn is_over(open: &Open, span: Span, now: Timestamp) -> bool {
    now.ms_since(open.start) >= span.ms()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Outcome;
    use crate::gateway::metrics::Names;
    use crate::store::embedded::Embedded;

    /// 2026-11-23T17:06:30.000Z.
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    fn metrics() -> Metrics {
        Metrics::new(Arc::new(Names::new(Vec::new(), ["portal".into()])))
    }

    fn failed(id: &str, time: Timestamp) -> UsageEvent {
        UsageEvent {
            id: id.to_owned(),
            time,
            app: "portal".into(),
            status: 503,
            outcome: Outcome::Failed,
            ..UsageEvent::default()
        }
    }

    #[tokio::test]
    async fn minutes_hours_and_failures_are_kept_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let metrics = metrics();
        let shard = metrics.shard();
        let watch = Watch::new(&metrics, NOW);
        for second in (0..3 * 3600).step_by(10) {
            let now = NOW.plus_ms(second * 1000);
            shard.count(&failed(&format!("{second:05}"), now));
            watch.look(&metrics, now);
            watch.write(&store).await.unwrap();
        }
        let end = NOW.plus_ms(3 * HOUR_MS);
        let minutes = console::read(&store, Span::Minute, NOW, end).await.unwrap();
        assert_eq!(minutes.len(), 179 + 1);
        // The first look is at half a minute, and what came before it is in no minute.
        assert_eq!(minutes[0].rollup.models[0].total().calls(), 3);
        let calls = |rows: &[Counted]| -> u64 {
            let rows = rows.iter().flat_map(|row| &row.rollup.models);
            rows.map(|model| model.total().calls()).sum()
        };
        assert!(minutes[1..].chunks(1).all(|minute| calls(minute) == 6));
        let hours = console::read(&store, Span::Hour, NOW, end).await.unwrap();
        assert_eq!(hours.len(), 4);
        assert_eq!(calls(&hours), calls(&minutes));
        let mut newest = console::NewestCalls::new(&store, end);
        let mut kept = Vec::new();
        while let Some(some) = newest.next().await.unwrap() {
            kept.extend(some.iter().map(|call| call.get_text("id").to_owned()));
        }
        assert_eq!(kept.len(), 1080);
        assert_eq!(kept[0], "10790", "newest first");
        assert_eq!(watch.calls().len(), MAX_CALLS);
        assert_eq!(watch.calls()[0].id, "10790", "newest first");
    }

    #[tokio::test]
    async fn another_instances_last_minute_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let (mine, theirs) = (metrics(), metrics());
        let watch = Watch::new(&mine, NOW);
        let other = Watch::new(&theirs, NOW);
        let shard = theirs.shard();
        for second in [0, 30, 60, 90, 120] {
            let now = NOW.plus_ms(second * 1000);
            for (watch, metrics) in [(&watch, &mine), (&other, &theirs)] {
                watch.look(metrics, now);
                watch.write(&store).await.unwrap();
            }
            shard.count(&failed("x", now));
        }
        let now = NOW.plus_ms(120_000);
        let others = watch.others(&store, now).await.unwrap();
        assert_eq!(others.len(), 1, "once, with its newest minute");
        assert_eq!(others[0].instance, other.instance);
        assert_eq!(others[0].start, NOW.plus_ms(30_000));
        let none = other.others(&store, now).await.unwrap();
        assert!(none.is_empty(), "the first one has counted nothing");
    }
}
