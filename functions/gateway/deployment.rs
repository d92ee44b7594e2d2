//! A deployment as the gateway sees it now: calls in flight, speed, and whether it is marked.
//!
//! The state is per process, and atomics: every call reads it. It outlives what the configuration says of
//! the deployment ([`Deployment::after`]).

use std::sync::Arc;

use super::event::Kind;
use super::time::Timestamp;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What the configuration says of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentSpec {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The deployment's name on the backend.
    pub name: Arc<str>,
    /// How it is paid for.
    pub kind: Kind,
    /// Lower is tried first.
    pub tier: u8,
    /// Share of the calls within the tier; at least 1.
    pub weight: u32,
    /// The backend's Azure region, where the configuration names it.
    pub region: Option<Arc<str>>,
    /// The apps whose own it is; empty: every app may use it.
    pub apps: Vec<Arc<str>>,
}

impl DeploymentSpec {
    /// Whether it is no other app's own.
    pub fn is_open_to(&self, app: &str) -> bool {
        self.apps.is_empty() || self.is_own_of(app)
    }

    /// Whether it is this app's own.
    pub fn is_own_of(&self, app: &str) -> bool {
        self.apps.iter().any(|own| &**own == app)
    }
}

/// Why a deployment is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkReason {
    /// It said 429: it is full, and asking again only costs time.
    Throttled,
    /// It broke (no connection, time-out, 408, 5xx). It is asked all the same when nothing else
    /// is left: a single deployment's hiccup must not become the gateway's outage.
    Failed,
    /// It refused the gateway itself (401, 403, no such deployment): an operator has to act.
    Misconfigured,
}

impl MarkReason {
    /// The word used in health, logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Misconfigured => "misconfigured",
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Throttled,
            1 => Self::Failed,
            _ => Self::Misconfigured,
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::Throttled => 0,
            Self::Failed => 1,
            Self::Misconfigured => 2,
        }
    }
}

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it ends.
    pub until: Timestamp,
    /// Why it was set.
    pub reason: MarkReason,
}

impl Mark {
    /// The lowest bits of a packed mark are its reason's code. Above them is its end, so that of two
    /// the one that ends later is greater.
    const REASON_BITS: u32 = 2;

    const fn pack(self) -> u64 {
        let until = self.until.unix_ms();
        let most = u64::MAX >> Self::REASON_BITS;
        let until = if until < most { until } else { most };
        until << Self::REASON_BITS | self.reason.code()
    }

    const fn unpack(packed: u64) -> Self {
        Self {
            until: Timestamp::from_unix_ms(packed >> Self::REASON_BITS),
            reason: MarkReason::from_code(packed & ((1 << Self::REASON_BITS) - 1)),
        }
    }

    /// Whether it was for a throttle and ended a moment before `now`.
    const fn is_throttle_of_late(self, now: Timestamp) -> bool {
        let is_throttle = matches!(self.reason, MarkReason::Throttled);
        is_throttle && self.until.unix_ms() > 0 && now.ms_since(self.until) <= RELAPSE_MS
    }
}

/// A deployment and its state in this process.
#[derive(Debug)]
pub struct Deployment {
    /// What the configuration says of it.
    pub spec: DeploymentSpec,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: AtomicU32,
    /// Smoothed time to first byte, microseconds; 0 before the first answer.
    latency_us: AtomicU32,
    /// The last mark, packed, so that its end and its reason change together; 0: there was none.
    mark: AtomicU64,
    /// When the last throttle that calls of this instance met ends; 0: they met none.
    throttled_until: AtomicU64,
    /// This instance's turn, packed; 0: it is alone.
    turn: AtomicU64,
}

/// A deployment that throttles within this time after its last throttle's end is full, ms.
pub(super) const RELAPSE_MS: u64 = 1000;

/// How long a deployment that is full is left alone at least, ms.
///
/// A full PTU answers `retry-after-ms: 4`, admits one call 4 ms later and throttles the next: half
/// of all calls to it would be wasted. Left alone for 50 ms it admits several in a row. It loses
/// nothing by that: what drains meanwhile, a thousandth of the minute's work that it holds, is
/// admitted afterwards.
const FULL_HOLD_MS: u64 = 50;

/// When an instance may ask a full deployment again, beside others that find it full too: they take
/// turns of [`FULL_HOLD_MS`] by the clock, so that together they ask no more often than one would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// This instance's place among them, from 0.
    pub(super) place: u32,
    /// How many they are, this one included.
    pub(super) of: u32,
}

impl Turn {
    /// No other instance finds the deployment full.
    pub(super) const ALONE: Self = Self { place: 0, of: 1 };

    const fn pack(self) -> u64 {
        (self.place as u64) << 32 | self.of as u64
    }

    const fn unpack(packed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "each half is a number")]
        Self {
            place: (packed >> 32) as u32,
            of: packed as u32,
        }
    }

    /// The first moment from `end` on that is in this turn.
    fn at_or_after(self, end: Timestamp) -> Timestamp {
        if self.of <= 1 {
            return end;
        }
        let round = FULL_HOLD_MS * u64::from(self.of);
        let begins = FULL_HOLD_MS * u64::from(self.place) % round;
        let into = (end.unix_ms() % round + round - begins) % round;
        if into < FULL_HOLD_MS {
            end
        } else {
            end.plus_ms(round - into)
        }
    }
}

impl Deployment {
    /// A deployment that nothing is known of yet.
    pub fn new(spec: DeploymentSpec) -> Self {
        Self {
            spec,
            state: Arc::default(),
        }
    }

    /// What `before` is from now on, by a changed configuration: the same deployment, with the marks,
    /// calls under way and speed that it has.
    pub fn after(before: &Self, spec: DeploymentSpec) -> Self {
        Self {
            spec,
            state: Arc::clone(&before.state),
        }
    }

    /// Calls that are under way now.
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Relaxed)
    }

    /// Smoothed time to first byte in microseconds; `None` before the first answer.
    pub fn latency_us(&self) -> Option<u32> {
        Some(self.state.latency_us.load(Relaxed)).filter(|us| *us > 0)
    }

    /// The mark in force at `now`.
    pub fn mark(&self, now: Timestamp) -> Option<Mark> {
        let last = Mark::unpack(self.state.mark.load(Relaxed));
        (last.until > now).then_some(last)
    }

    /// Counts a call in, until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.state.in_flight.fetch_add(1, Relaxed);
        InFlight {
            deployment: Arc::clone(self),
        }
    }

    /// Notes an answer and its time to first byte.
    pub fn succeeded(&self, first_byte_us: u64) {
        let sample = u32::try_from(first_byte_us).unwrap_or(u32::MAX).max(1);
        let old = self.state.latency_us.load(Relaxed);
        // An eighth of the new sample, as TCP smooths round trips (RFC 6298). A lost update
        // between threads costs one sample.
        let new = if old == 0 {
            sample
        } else {
            old - old / 8 + sample / 8
        };
        self.state.latency_us.store(new.max(1), Relaxed);
    }

    /// Marks the deployment for `ms` from `now`. Returns the mark in force, which ends later where
    /// the deployment keeps throttling.
    ///
    /// A mark never shortens one that is in force.
    pub fn set_mark(&self, reason: MarkReason, ms: u64, now: Timestamp) -> Mark {
        let is_throttle = reason == MarkReason::Throttled;
        let turn = if is_throttle {
            self.turn()
        } else {
            Turn::ALONE
        };
        let mut before = self.state.mark.load(Relaxed);
        loop {
            let last = Mark::unpack(before);
            let in_force = last.until > now;
            // A call that was under way when the mark was set tells nothing new.
            let is_full = is_throttle && !in_force && last.is_throttle_of_late(now);
            let end = now.plus_ms(if is_full { ms.max(FULL_HOLD_MS) } else { ms });
            let until = turn.at_or_after(end);
            let mark = Mark { until, reason };
            let longest = if in_force && last.until >= until {
                last
            } else {
                mark
            };
            let put = (self.state.mark).compare_exchange(before, longest.pack(), Relaxed, Relaxed);
            match put {
                Ok(_) => {
                    if is_throttle {
                        let throttled_until = &self.state.throttled_until;
                        throttled_until.fetch_max(end.unix_ms(), Relaxed);
                    }
                    return longest;
                }
                // Another thread has marked it meanwhile.
                Err(there) => before = there,
            }
        }
    }

    /// When the last throttle that this instance's own calls met ends, where that is not long ago:
    /// to them the deployment is full.
    pub(super) fn found_full_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = Timestamp::from_unix_ms(self.state.throttled_until.load(Relaxed));
        (until.unix_ms() > 0 && now.ms_since(until) <= RELAPSE_MS).then_some(until)
    }

    /// Takes over what other instances say: that it is full until then, and whose turn it is to ask
    /// again. It never shortens a mark.
    pub(super) fn others_say(&self, full_until: Option<Timestamp>, turn: Turn, now: Timestamp) {
        self.state.turn.store(turn.pack(), Relaxed);
        let Some(until) = full_until.filter(|until| *until > now) else {
            return;
        };
        let mark = Mark {
            until: turn.at_or_after(until),
            reason: MarkReason::Throttled,
        };
        self.state.mark.fetch_max(mark.pack(), Relaxed);
    }

    fn turn(&self) -> Turn {
        Turn::unpack(self.state.turn.load(Relaxed))
    }

    /// Whether the deployment takes a call at `now`: not marked, and, for `ramp_ms` after it
    /// came back from a failure, only a growing share of the calls (`draw` is uniform in 0..1000).
    pub fn admits(&self, now: Timestamp, ramp_ms: u64, draw: u32) -> bool {
        let last = Mark::unpack(self.state.mark.load(Relaxed));
        if last.until > now {
            return false;
        }
        let since = now.ms_since(last.until);
        if last.reason == MarkReason::Throttled || since >= ramp_ms {
            return true;
        }
        // From a tenth of its share, so that the first call finds out cheaply.
        let permille = 100 + since.saturating_mul(900) / ramp_ms.max(1);
        u64::from(draw) < permille
    }
}

/// A call under way at a deployment; counted out when dropped.
#[derive(Debug)]
pub struct InFlight {
    deployment: Arc<Deployment>,
}

impl InFlight {
    /// The deployment that the call is at.
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.deployment.state.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Arc<Deployment> {
        Arc::new(Deployment::new(DeploymentSpec {
            backend: "ptu-sweden".into(),
            name: "gpt-4o-ptu".into(),
            kind: Kind::Ptu,
            tier: 1,
            weight: 1,
            region: None,
            apps: Vec::new(),
        }))
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_000_000 + ms)
    }

    #[test]
    fn a_mark_lasts_until_its_time_and_no_longer() {
        let d = deployment();
        d.set_mark(MarkReason::Throttled, 500, at(0));
        let mark = d.mark(at(499)).unwrap();
        assert_eq!((mark.until, mark.reason), (at(500), MarkReason::Throttled));
        assert!(!d.admits(at(499), 10_000, 0));
        assert_eq!(d.mark(at(500)), None);
        assert!(
            d.admits(at(500), 10_000, 999),
            "a throttled deployment comes back wholly"
        );
    }

    #[test]
    fn a_shorter_mark_does_not_shorten_a_longer_one() {
        let d = deployment();
        d.set_mark(MarkReason::Failed, 10_000, at(0));
        let in_force = d.set_mark(MarkReason::Throttled, 10, at(5));
        assert_eq!(
            in_force,
            Mark {
                until: at(10_000),
                reason: MarkReason::Failed
            }
        );
    }

    #[test]
    fn a_deployment_that_failed_comes_back_gradually() {
        let d = deployment();
        d.set_mark(MarkReason::Failed, 1000, at(0));
        assert!(d.admits(at(1000), 10_000, 99));
        assert!(!d.admits(at(1000), 10_000, 100));
        assert!(d.admits(at(6000), 10_000, 549));
        assert!(!d.admits(at(6000), 10_000, 550));
        assert!(d.admits(at(11_000), 10_000, 999));
    }

    #[test]
    fn a_deployment_that_throttles_again_at_once_is_left_alone_for_longer() {
        let d = deployment();
        let first = d.set_mark(MarkReason::Throttled, 10, at(0));
        assert_eq!(first.until, at(10));
        let second = d.set_mark(MarkReason::Throttled, 10, at(15));
        assert_eq!(second.until, at(15 + FULL_HOLD_MS));
        let asked_for_more = d.set_mark(MarkReason::Throttled, 400, at(100));
        assert_eq!(asked_for_more.until, at(500));
        let failed = d.set_mark(MarkReason::Failed, 10, at(501));
        assert_eq!(failed.until, at(511));
        let after_a_failure = d.set_mark(MarkReason::Throttled, 10, at(520));
        assert_eq!(after_a_failure.until, at(530));
    }

    /// A PTU that admits 100 calls a second, 10 at once, is offered 300 a second.
    #[test]
    fn a_full_deployment_is_used_whole_with_few_wasted_calls() {
        let d = deployment();
        let (mut bucket, mut served, mut wasted, mut last) = (10.0_f64, 0, 0, 0_u64);
        for call in 0..3000 {
            let now = call * 10 / 3;
            if !d.admits(at(now), 0, 0) {
                continue;
            }
            bucket = (bucket + f64::from(u32::try_from(now - last).unwrap()) / 10.0).min(10.0);
            last = now;
            if bucket >= 1.0 {
                bucket -= 1.0;
                served += 1;
            } else {
                wasted += 1;
                d.set_mark(MarkReason::Throttled, 10, at(now));
            }
        }
        assert!(served >= 980, "{served} of 1,000 that it can");
        assert!(wasted <= 150, "{wasted} in 10 s");
    }

    #[test]
    fn a_late_throttle_is_no_relapse() {
        let d = deployment();
        d.set_mark(MarkReason::Throttled, 10, at(0));
        let until = d.set_mark(MarkReason::Throttled, 10, at(60_000)).until;
        assert_eq!(until, at(60_010));
    }

    #[test]
    fn in_flight_counts_calls_until_their_guard_is_dropped() {
        let d = deployment();
        let first = d.enter();
        let second = first.deployment().enter();
        assert_eq!(d.in_flight(), 2);
        drop((first, second));
        assert_eq!(d.in_flight(), 0);
    }

    #[test]
    fn latency_follows_the_answers_smoothly() {
        let d = deployment();
        assert_eq!(d.latency_us(), None);
        d.succeeded(8000);
        assert_eq!(d.latency_us(), Some(8000));
        d.succeeded(16_000);
        assert_eq!(d.latency_us(), Some(9000));
        d.succeeded(u64::MAX);
        assert!(d.latency_us().unwrap() > 9000);
    }

    #[test]
    fn what_others_say_marks_and_never_shortens() {
        let d = deployment();
        d.others_say(Some(at(500)), Turn::ALONE, at(0));
        let throttled = |ms| Mark {
            until: at(ms),
            reason: MarkReason::Throttled,
        };
        assert_eq!(d.mark(at(1)), Some(throttled(500)));
        assert_eq!(d.found_full_until(at(1)), None, "its own calls met none");
        d.others_say(Some(at(200)), Turn::ALONE, at(2));
        d.others_say(None, Turn::ALONE, at(2));
        assert_eq!(d.mark(at(3)), Some(throttled(500)));
        d.set_mark(MarkReason::Failed, 2000, at(4));
        d.others_say(Some(at(900)), Turn::ALONE, at(5));
        assert_eq!(d.mark(at(6)).unwrap().reason, MarkReason::Failed);
        d.others_say(Some(at(50)), Turn::ALONE, at(3000));
        assert_eq!(d.mark(at(3000)), None, "it is over");
    }

    #[test]
    fn instances_that_find_it_full_together_ask_one_after_the_other() {
        let mut ends = Vec::new();
        for place in [2, 0, 1] {
            let d = deployment();
            d.others_say(None, Turn { place, of: 3 }, at(0));
            ends.push(d.set_mark(MarkReason::Throttled, 10, at(0)).until);
            assert_eq!(d.found_full_until(at(1)), Some(at(10)), "that is its own");
            assert_eq!(d.found_full_until(at(10 + RELAPSE_MS + 1)), None);
        }
        ends.sort();
        // 1,000,010 ms is 110 ms into a round of 150.
        assert_eq!(ends, [at(10), at(50), at(100)]);
    }

    #[test]
    fn reasons_have_their_words() {
        for reason in [
            MarkReason::Throttled,
            MarkReason::Failed,
            MarkReason::Misconfigured,
        ] {
            assert_eq!(MarkReason::from_code(reason.code()), reason);
            assert!(!reason.as_str().is_empty());
        }
    }
}
