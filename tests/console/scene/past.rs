//! A past for a configuration: calls by day and night, more on workdays, PTU first and pay-as-you-go
//! when that is full; now and then one fails. Always the same but for the day that it ends on.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use spillway::config::Config;
use spillway::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::metrics::{DeploymentName, Metrics, Names, Rollup};
use spillway::gateway::pacing::calibration::Calibration;
use spillway::gateway::pacing::monitor::MonitorMinute;
use spillway::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use spillway::gateway::price::Prices;
use spillway::gateway::priority::Priority;
use spillway::gateway::ptu::Utilization;
use spillway::gateway::time::{DAY_MS, Timestamp};
use spillway::store::console::{self, Counted, HOUR_MS, MINUTE_MS, Span};
use spillway::store::ledger::Ledger;
use spillway::store::utilization::{self, Alert, Current, hours};
use spillway::store::{Store, StoreError, Write, slots};

/// A model's two deployments.
#[derive(Clone)]
struct Pair {
    ptu: DeploymentName,
    payg: DeploymentName,
}

/// What is made up.
pub(crate) struct Past {
    pairs: Vec<Pair>,
    apps: Vec<Arc<str>>,
    names: Arc<Names>,
    days: u64,
    now: Timestamp,
}

impl Past {
    /// The past of a configuration, so many days of it.
    pub(crate) fn new(config: &Config, days: u64) -> Self {
        let deployments: Vec<DeploymentName> = config
            .backends
            .iter()
            .flat_map(|backend| {
                backend.deployments.iter().map(|one| DeploymentName {
                    backend: backend.name.as_str().into(),
                    deployment: one.name.as_str().into(),
                    model: one.model().into(),
                    kind: one.kind,
                    tier: one.tier(),
                })
            })
            .collect();
        let of = |kind| deployments.iter().filter(move |one| one.kind == kind);
        let pairs = of(Kind::Ptu).zip(of(Kind::Payg));
        let pairs = pairs.map(|(ptu, payg)| Pair {
            ptu: ptu.clone(),
            payg: payg.clone(),
        });
        let apps: Vec<Arc<str>> = config
            .apps
            .iter()
            .map(|app| app.name.as_str().into())
            .collect();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
        Self {
            pairs: pairs.collect(),
            names: Arc::new(Names::new(deployments.clone(), apps.iter().cloned())),
            apps: if apps.is_empty() {
                vec!["anonymous".into()]
            } else {
                apps
            },
            days,
            now: Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or_default()),
        }
    }

    /// Writes it.
    pub(crate) async fn write(
        &self,
        store: &Arc<dyn Store>,
        prices: &Prices,
    ) -> Result<(), StoreError> {
        let ledger = Ledger::new(Arc::clone(store));
        for ago in 0..self.days {
            self.charge(&ledger, prices, ago).await?;
        }
        let hour = self.floor(HOUR_MS);
        for ago in 0..self.days.min(8) * 24 {
            let start = before(hour, ago * HOUR_MS);
            // Of the hour that is not over yet, what is.
            let part = self.now.ms_since(start).min(HOUR_MS);
            let calls = scaled(90.0 * Self::load(start), &mut fastrand::Rng::with_seed(ago));
            let calls = calls * part / HOUR_MS;
            self.count(store.as_ref(), Span::Hour, start, calls).await?;
        }
        try_join_all(self.pairs.iter().map(|pair| self.monitor(store, pair))).await?;
        let minute = self.floor(MINUTE_MS);
        for ago in 0..60 {
            let start = before(minute, ago * MINUTE_MS);
            self.count(store.as_ref(), Span::Minute, start, 4).await?;
        }
        Ok(())
    }

    /// Writes a day's calls, some of each app, as the gateway records them.
    async fn charge(&self, ledger: &Ledger, prices: &Prices, ago: u64) -> Result<(), StoreError> {
        let day = before(self.floor(DAY_MS), ago * DAY_MS);
        let mut random = fastrand::Rng::with_seed(ago);
        let calls = if self.apps.len() > 100 { 5 } else { 60 };
        let mut events = Vec::new();
        for (app, pair) in self.apps.iter().zip(self.pairs.iter().cycle()) {
            for number in 0..calls {
                let at = day.plus_ms((number * 2 + 1) * DAY_MS / (calls * 2));
                if at >= self.now {
                    break;
                }
                let mut event = self.call(pair, at, &mut random);
                event.app = Arc::clone(app);
                event.tokens.input *= 1000;
                event.tokens.output *= 1000;
                events.push(event);
            }
        }
        let events: Vec<&UsageEvent> = events.iter().collect();
        ledger
            .record(&events, &|event| prices.charge(event))
            .await?;
        Ok(())
    }

    /// Writes what a made-up instance counted, and what of it is notable.
    async fn count(
        &self,
        store: &dyn Store,
        span: Span,
        start: Timestamp,
        calls: u64,
    ) -> Result<(), StoreError> {
        let metrics = Metrics::new(Arc::clone(&self.names));
        let shard = metrics.shard();
        let mut random = fastrand::Rng::with_seed(start.unix_ms());
        for pair in &self.pairs {
            for number in 0..calls {
                let at = start.plus_ms(number * span.ms() / calls.max(1));
                let mut call = self.call(pair, at, &mut random);
                // Whatever the hour, its minutes have calls of each fate.
                if span == Span::Minute && number == 0 {
                    befall(&mut call, start.unix_ms() / MINUTE_MS % 10);
                }
                // Few calls, each for many: so that a PTU's day has its peaks.
                let many = if span == Span::Hour { 14 } else { 6 };
                call.tokens.input *= many;
                call.tokens.output *= many;
                call.tokens.cached *= many;
                shard.count(&call);
            }
        }
        let notable: Vec<UsageEvent> = metrics.take_notable().into_events().collect();
        if span == Span::Minute && !notable.is_empty() {
            console::write_calls(store, &notable).await?;
        }
        let counted = Counted {
            start,
            instance: "made-up".to_owned(),
            rollup: Rollup::of(&metrics.totals()),
        };
        console::write(store, span, &counted).await
    }

    /// Writes what Azure Monitor and the other sources said of a PTU, an alert at its last peak, and slots
    /// that are in use.
    async fn monitor(&self, store: &Arc<dyn Store>, pair: &Pair) -> Result<(), StoreError> {
        let store = store.as_ref();
        let id = DeploymentId {
            backend: Arc::clone(&pair.ptu.backend),
            deployment: Arc::clone(&pair.ptu.deployment),
        };
        let mut random = fastrand::Rng::with_seed(1);
        let newest = Minute::of(self.now).before(4);
        let mut minutes: Vec<MonitorMinute> = (0..self.days.min(8) * 24 * 60)
            .map(|ago| newest.before(ago))
            .map(|minute| {
                let tenths = scaled(700.0 * Self::load(minute.start()), &mut random).min(1000);
                MonitorMinute {
                    minute,
                    average: Utilization::of_tenths(tenths),
                    maximum: Utilization::FULL,
                }
            })
            .collect();
        hours::write(store, &id, &minutes).await?;
        minutes.truncate(20);
        let Some(last) = minutes.first().copied() else {
            return Ok(());
        };
        let current = Current {
            newest: last,
            asked: self.now,
            calibration: Calibration::of_thousandths(1_080),
            learnt: newest,
        };
        let mut writes: Vec<Write> = minutes
            .iter()
            .map(|minute| utilization::monitor(minute, self.now))
            .collect();
        writes.push(utilization::current(&current));
        writes.push(utilization::header(last.average, self.now, "made-up"));
        for ago in 0..2 {
            let counts = Counts {
                minute: Minute::of(self.now).before(ago),
                used: Use {
                    all: 20_000,
                    low: 6_000,
                    low_ms: 90_000,
                },
                seen: self.now,
            };
            writes.push(utilization::counts(&counts, "made-up", None));
        }
        utilization::write(store, &id, writes).await?;
        let alert = Alert {
            id: "made-up".to_owned(),
            utilization: Utilization::of_percent(97),
            fired: before(self.now, 50 * MINUTE_MS),
            expires: before(self.now, 35 * MINUTE_MS),
            is_over: true,
        };
        utilization::record_alert(store, &id, &alert).await?;
        let rows = slots::read(store, &pair.ptu.model).await?;
        if rows.board.leases.is_empty() {
            let until = self.now.plus_ms(DAY_MS);
            let leases = (0..3).map(|slot| rows.lease(slot, "made-up", until));
            match slots::write(store, &pair.ptu.model, leases.collect()).await {
                // Another PTU of the model was faster.
                Ok(()) | Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How much is asked for, of what a PTU can do: more by day, on workdays, and here and there.
    fn load(at: Timestamp) -> f64 {
        let hours = as_f64(at.unix_ms() % DAY_MS) / as_f64(HOUR_MS);
        let day = 0.65 - 0.55 * (TAU * (hours - 2.0) / 24.0).cos();
        // 1970-01-01 was a Thursday.
        let is_workday = (at.unix_ms() / DAY_MS + 3) % 7 < 5;
        if is_workday { day } else { day * 0.3 }
    }

    fn call(&self, pair: &Pair, at: Timestamp, random: &mut fastrand::Rng) -> UsageEvent {
        let load = Self::load(at);
        let spills = random.f64() < (load - 0.8).max(0.0);
        let served = if spills { &pair.payg } else { &pair.ptu };
        let input = scaled(600.0, random);
        let first_byte_ms = scaled(if spills { 700.0 } else { 250.0 }, random);
        let fate = random.u32(..200);
        let app = random.usize(..self.apps.len().max(1));
        let mut event = UsageEvent {
            id: id(at, random),
            time: at,
            app: self.apps.get(app).cloned().unwrap_or_default(),
            model: Arc::clone(&served.model),
            priority: if input.is_multiple_of(4) {
                Priority::Low
            } else {
                Priority::High
            },
            operation: "chat/completions".to_owned(),
            backend: Arc::clone(&served.backend),
            deployment: Arc::clone(&served.deployment),
            kind: Some(served.kind),
            status: 200,
            streamed: random.bool(),
            spilled: spills,
            outcome: Outcome::Completed,
            tokens: Tokens {
                input,
                output: input / 4,
                cached: input / 3,
                ..Tokens::default()
            },
            usage: UsageSource::Reported,
            first_byte_ms,
            total_ms: first_byte_ms + input * 3,
            ..UsageEvent::default()
        };
        if spills {
            event.attempts.push(attempt(&pair.ptu, Some(429), 12));
        }
        event
            .attempts
            .push(attempt(served, Some(200), first_byte_ms.saturating_sub(15)));
        befall(&mut event, fate.into());
        event
    }

    const fn floor(&self, step: u64) -> Timestamp {
        let ms = self.now.unix_ms();
        Timestamp::from_unix_ms(ms - ms % step)
    }
}

/// What goes wrong with a call, by a number; most numbers stand for nothing.
fn befall(event: &mut UsageEvent, fate: u64) {
    match fate {
        0 => fail(event, 503, None),
        1 => fail(event, 429, Some(429)),
        2 => (event.outcome, event.total_ms) = (Outcome::Cut, 9_000),
        3 => (event.first_byte_ms, event.total_ms) = (14_000, 31_000),
        4 => event.outcome = Outcome::ClientGone,
        5 => event.status = 400,
        _ => {}
    }
}

fn fail(event: &mut UsageEvent, status: u16, last: Option<u16>) {
    event.status = status;
    event.outcome = Outcome::Failed;
    event.backend = "".into();
    event.deployment = "".into();
    event.kind = None;
    event.tokens = Tokens::default();
    event.usage = UsageSource::None;
    for attempt in &mut event.attempts {
        attempt.status = last;
        attempt.error = last.is_none().then(|| "first_byte_timeout".to_owned());
    }
}

fn attempt(at: &DeploymentName, status: Option<u16>, ms: u64) -> Attempt {
    Attempt {
        backend: Arc::clone(&at.backend),
        deployment: Arc::clone(&at.deployment),
        kind: at.kind,
        status,
        error: None,
        after_ms: 0,
        ms,
        billed: status == Some(200),
    }
}

/// An id as the gateway makes them: 26 characters, the first ten its time.
fn id(at: Timestamp, random: &mut fastrand::Rng) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let value = (u128::from(at.unix_ms()) << 80) | (random.u128(..) >> 48);
    let digit = |place: u32| {
        let digit = usize::try_from((value >> (place * 5)) & 31).unwrap_or_default();
        DIGITS.get(digit).copied().map(char::from)
    };
    (0..26).rev().filter_map(digit).collect()
}

fn before(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(at.unix_ms().saturating_sub(ms))
}

#[expect(clippy::cast_precision_loss, reason = "made-up figures")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

/// About `mean`, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is positive and small"
)]
fn scaled(mean: f64, random: &mut fastrand::Rng) -> u64 {
    (mean * (0.3 + random.f64() * 1.4)).max(1.0) as u64
}
