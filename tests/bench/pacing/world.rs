//! The day, event by event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use spillway::gateway::event::{Attempt, Kind, Tokens, UsageEvent, UsageSource};
use spillway::gateway::pacing::figure::Warning;
use spillway::gateway::pacing::history::History;
use spillway::gateway::pacing::known::Known;
use spillway::gateway::pacing::monitor::MonitorMinute;
use spillway::gateway::pacing::rule::Pace;
use spillway::gateway::pacing::window::{Counts, Minute, Windows};
use spillway::gateway::priority::Priority;
use spillway::gateway::ptu::{CallTokens, Reservation, Utilization};
use spillway::gateway::time::Timestamp;

use super::ptu::Ptu;

/// Minutes of the scene.
pub(super) const MINUTES: usize = 24 * 60;

/// Batch calls that wait at its start.
const BACKLOG: u64 = 100_000;

/// How interactive calls come, a minute: at night and at the two peaks of the day.
const INTERACTIVE: (f64, f64) = (30.0, 200.0);

const PACE: Pace = Pace {
    slots: 200,
    lower: Utilization::of_percent(20),
    upper: Utilization::of_percent(90),
};

/// How often the slots' table is read while calls wait, rows of utilization are read and written, and
/// Azure Monitor is asked, ms: as the gateway does.
const BEAT_MS: u64 = 450;
const ROWS_MS: u64 = 5_000;
const POLL_MS: u64 = 60_000;

/// From a call's end to its event's place in the consumer's window, ms.
const EVENT_LATE_MS: u64 = 2_000;

/// 2026-11-23T00:00:00Z.
const START: Timestamp = Timestamp::from_unix_ms(1_795_392_000_000);

/// What the gateway knows a deployment's utilization by.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    /// How late a minute of Azure Monitor is to be had; `None`: never.
    pub(super) monitor_late_min: Option<u64>,
    pub(super) events: bool,
    pub(super) header: bool,
}

/// What became of the day.
#[derive(Default)]
pub(super) struct Day {
    /// By minute, percent.
    pub(super) utilization: Vec<f64>,
    pub(super) slots: Vec<u32>,
    pub(super) queue: Vec<u64>,
    pub(super) drained_min: Option<usize>,
    pub(super) backlog_left: u64,
    pub(super) interactive: u64,
    pub(super) interactive_throttled: u64,
    pub(super) batch: u64,
    pub(super) batch_throttled: u64,
    latencies: Vec<u64>,
}

impl Day {
    /// A quantile of how long interactive calls took, ms.
    pub(super) fn interactive_ms(&self, part: f64) -> u64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        self.latencies
            .get((last * part) as usize)
            .copied()
            .unwrap_or(0)
    }
}

/// A call: when it came, what it uses, how long it runs.
#[derive(Clone, Copy)]
struct Call {
    came: Timestamp,
    priority: Priority,
    tokens: CallTokens,
    most: u64,
    ms: u64,
    waited: bool,
}

enum Event {
    Arrive,
    Try(Call),
    End(Call, Timestamp, Reservation),
    Counted(Box<UsageEvent>),
    Beat,
    Rows,
    Poll,
    Minute,
}

pub(super) struct World {
    sources: Option<Sources>,
    random: fastrand::Rng,
    now: Timestamp,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    next: u64,
    ptu: Ptu,
    day: Day,
    backlog: u64,
    in_use: u32,
    open: u32,
    windows: Windows,
    said: Option<Utilization>,
    table: Known,
    known: Known,
    learnt: Minute,
    history: History,
}

impl World {
    pub(super) fn new(sources: Option<Sources>, seed: u64) -> Self {
        let mut world = Self {
            sources,
            random: fastrand::Rng::with_seed(seed),
            now: START,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
            ptu: Ptu::new(START, MINUTES),
            day: Day::default(),
            backlog: if sources.is_some() { BACKLOG } else { 0 },
            in_use: 0,
            open: 0,
            windows: Windows::default(),
            said: None,
            table: Known::default(),
            known: Known::default(),
            learnt: Minute::of(Timestamp::default()),
            history: History::default(),
        };
        for event in [Event::Arrive, Event::Beat, Event::Rows, Event::Minute] {
            world.at(0, event);
        }
        world.at(20_000, Event::Poll);
        world
    }

    fn at(&mut self, in_ms: u64, event: Event) {
        self.next += 1;
        self.queue
            .push(Reverse((self.now.plus_ms(in_ms).unix_ms(), self.next)));
        self.events.insert(self.next, event);
    }

    pub(super) fn run(mut self) -> Day {
        let end = START.plus_ms(MINUTES as u64 * 60_000);
        while let Some(Reverse((ms, number))) = self.queue.pop() {
            self.now = Timestamp::from_unix_ms(ms);
            if self.now >= end {
                break;
            }
            if let Some(event) = self.events.remove(&number) {
                self.step(event);
            }
        }
        self.day.utilization = (0..MINUTES)
            .map(|minute| self.ptu.percent(minute))
            .collect();
        self.day.backlog_left = self.backlog + u64::from(self.in_use);
        self.day.latencies.sort_unstable();
        self.day
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                let call = self.interactive();
                self.day.interactive += 1;
                self.at(0, Event::Try(call));
                let per_ms = self.calls_a_minute() / 60_000.0;
                let gap = -(1.0 - self.random.f64()).ln() / per_ms;
                self.at(gap as u64, Event::Arrive);
            }
            Event::Try(call) => self.attempt(call),
            Event::End(call, began, reservation) => self.end(&call, began, reservation),
            Event::Counted(event) => {
                self.windows.note(&event, Ptu::published_rate(), self.now);
            }
            Event::Beat => {
                self.beat();
                self.at(BEAT_MS, Event::Beat);
            }
            Event::Rows => {
                self.rows();
                self.at(ROWS_MS, Event::Rows);
            }
            Event::Poll => {
                self.poll();
                self.at(POLL_MS, Event::Poll);
            }
            Event::Minute => {
                self.day.slots.push(self.in_use);
                self.day.queue.push(self.backlog);
                self.at(60_000, Event::Minute);
            }
        }
    }

    /// Two humps, before and after noon; the night is nearly idle.
    fn calls_a_minute(&self) -> f64 {
        let hour = self.now.ms_since(START) as f64 / 3_600_000.0;
        let hump = |at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
        let shape = hump(10.5, 2.2).max(hump(15.5, 2.6));
        INTERACTIVE.0 + (INTERACTIVE.1 - INTERACTIVE.0) * shape
    }

    fn interactive(&mut self) -> Call {
        let (prompt, output) = (self.random.u64(200..2_200), self.random.u64(50..550));
        Call {
            came: self.now,
            priority: Priority::High,
            tokens: CallTokens {
                prompt,
                cached: 0,
                output,
            },
            most: 600,
            ms: 300 + 15 * output,
            waited: false,
        }
    }

    fn batch_call(&mut self) -> Call {
        let (prompt, output) = (self.random.u64(1_000..3_000), self.random.u64(100..500));
        Call {
            came: self.now,
            priority: Priority::Low,
            tokens: CallTokens {
                prompt,
                cached: 0,
                output,
            },
            most: 600,
            ms: 300 + 20 * output,
            waited: false,
        }
    }

    fn attempt(&mut self, mut call: Call) {
        let estimate = CallTokens {
            output: call.most,
            ..call.tokens
        };
        match self.ptu.admit(estimate, self.now) {
            Ok(reservation) => {
                let end = Event::End(call, self.now, reservation);
                self.at(call.ms, end);
            }
            Err(full) => {
                self.said = Some(Utilization::FULL);
                match call.priority {
                    Priority::High => {
                        // It waits as the gateway has it wait: no pay-as-you-go is there.
                        self.day.interactive_throttled += u64::from(!call.waited);
                        call.waited = true;
                        self.at(full.retry_after_ms.max(50), Event::Try(call));
                    }
                    Priority::Low => {
                        // It is deferred, and its slot given back.
                        self.day.batch_throttled += 1;
                        self.backlog += 1;
                        self.in_use -= 1;
                    }
                }
            }
        }
    }

    fn end(&mut self, call: &Call, began: Timestamp, reservation: Reservation) {
        self.ptu.settle(reservation, call.tokens, began, self.now);
        let header = self.ptu.header(self.now);
        self.said = Some(self.said.map_or(header, |said| said.max(header)));
        self.at(
            EVENT_LATE_MS,
            Event::Counted(Box::new(usage(call, self.now, began))),
        );
        if call.priority == Priority::High {
            self.day.latencies.push(self.now.ms_since(call.came));
            return;
        }
        self.day.batch += 1;
        self.in_use -= 1;
        if self.backlog == 0 && self.in_use == 0 && self.day.drained_min.is_none() {
            self.day.drained_min = Some((self.now.ms_since(START) / 60_000) as usize);
        }
        // The slot is used again in the process, by what was open at the last beat.
        if self.in_use < self.open {
            self.start_one();
        }
    }

    fn start_one(&mut self) {
        if self.backlog > 0 {
            self.backlog -= 1;
            self.in_use += 1;
            let call = self.batch_call();
            self.attempt(call);
        }
    }

    /// What the slots' poller does.
    fn beat(&mut self) {
        if self.sources.is_none() {
            return;
        }
        self.history.note(self.in_use, self.now);
        let capacity = Ptu::published();
        let capacity = self.sources.filter(|s| s.events).map(|_| capacity);
        let figure = self
            .known
            .figure(capacity, &self.history, self.in_use, &PACE, self.now);
        self.open = PACE.open_beside(|slots| figure.with(slots));
        while self.in_use < self.open && self.backlog > 0 {
            let before = self.in_use;
            self.start_one();
            if self.in_use == before {
                break;
            }
        }
    }

    /// Instances write what they have seen, and read the table.
    fn rows(&mut self) {
        let Some(sources) = self.sources else { return };
        for (minute, _, used) in self.windows.changed(self.now) {
            let seen = self.now;
            self.table.counts.retain(|counts| counts.minute != minute);
            if sources.events {
                self.table.counts.push(Counts { minute, used, seen });
            }
        }
        self.table
            .warnings
            .retain(|warning| warning.until > self.now);
        if let Some(said) = self.said.take().filter(|_| sources.header) {
            self.table.warnings.push(Warning::header(said, self.now));
        }
        let oldest = Minute::of(self.now).before(31);
        self.table.counts.retain(|counts| counts.minute >= oldest);
        self.table.monitor.retain(|minute| minute.minute >= oldest);
        self.known = self.table.clone();
    }

    /// The timer function asks Azure Monitor.
    fn poll(&mut self) {
        let Some(late) = self.sources.and_then(|s| s.monitor_late_min) else {
            return;
        };
        let passed = self.now.ms_since(START) / 60_000;
        let there = (0..passed).filter(|minute| minute + 1 + late <= passed);
        let there: Vec<u64> = there.filter(|minute| minute + 31 >= passed).collect();
        let mut settled = Vec::new();
        for number in there {
            let tenths = (self.ptu.percent(number as usize) * 10.0) as u64;
            let minute = MonitorMinute {
                minute: Minute::of(START.plus_ms(number * 60_000)),
                average: Utilization::of_tenths(tenths),
                maximum: Utilization::of_tenths(tenths),
            };
            if minute.is_settled(self.now) {
                settled.push(minute);
            }
        }
        self.table.monitor.clone_from(&settled);
        let capacity = Some(Ptu::published());
        let (calibration, learnt) = self.table.learn(capacity, &settled, self.learnt);
        (self.table.calibration, self.learnt) = (calibration, learnt);
    }
}

fn usage(call: &Call, now: Timestamp, began: Timestamp) -> UsageEvent {
    let ms = now.ms_since(began);
    UsageEvent {
        time: call.came,
        priority: call.priority,
        model: "gpt-4o".into(),
        backend: "ptu".into(),
        deployment: "gpt-4o".into(),
        kind: Some(Kind::Ptu),
        usage: UsageSource::Reported,
        tokens: Tokens {
            input: call.tokens.prompt,
            output: call.tokens.output,
            ..Tokens::default()
        },
        first_byte_ms: now.ms_since(call.came),
        total_ms: now.ms_since(call.came),
        attempts: vec![Attempt {
            backend: "ptu".into(),
            deployment: "gpt-4o".into(),
            kind: Kind::Ptu,
            status: Some(200),
            error: None,
            after_ms: 0,
            ms,
            billed: true,
        }],
        ..UsageEvent::default()
    }
}
