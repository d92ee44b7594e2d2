//! A deployment as the gateway sees it now: calls in flight, speed, and whether it is marked.
//!
//! The state is per process. Every call reads it, so what a call reads is an atomic; what only
//! a failure touches is behind a mutex.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::event::Kind;
use super::time::Timestamp;

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

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Throttled,
            1 => Self::Failed,
            _ => Self::Misconfigured,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Throttled => 0,
            Self::Failed => 1,
            Self::Misconfigured => 2,
        }
    }
}

/// A mark that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it ends.
    pub until: Timestamp,
    /// Why it was set.
    pub reason: MarkReason,
}

/// A deployment and its state in this process.
#[derive(Debug)]
pub struct Deployment {
    /// What the configuration says of it.
    pub spec: DeploymentSpec,
    in_flight: AtomicU32,
    /// Smoothed time to first byte, microseconds; 0 before the first answer.
    latency_us: AtomicU32,
    marked_until: AtomicU64,
    mark_reason: AtomicU8,
    /// When a failed deployment came back and its share began to grow; 0 when it has it all.
    ramp_from: AtomicU64,
    /// Answers since the last mark.
    served: AtomicU32,
    hold: Mutex<Hold>,
}

/// Longest mark that the gateway adds on its own to a backend's short Retry-After, ms. A PTU's
/// bucket holds far more than a quarter second of work, so it does not run dry meanwhile.
const LONGEST_HOLD_MS: u64 = 250;

/// Answers between two throttles from which on the odd 429 is cheap enough (10 %).
const ENOUGH_SERVED: u32 = 10;

/// How long a throttled deployment is left alone beyond what it asks for.
///
/// A full PTU answers `retry-after-ms: 10`, admits one call 10 ms later and throttles the next:
/// half of all calls to it would be wasted. So the wait doubles from relapse to relapse while
/// that lets more calls through between two throttles, and halves when it does not.
#[derive(Debug, Default)]
struct Hold {
    ms: u64,
    served_before: u32,
    ended: u64,
}

impl Hold {
    fn next(&mut self, now: Timestamp, asked_ms: u64, served: u32) -> u64 {
        let since_end = now.unix_ms().saturating_sub(self.ended);
        let relapse = self.ended > 0 && since_end <= 4 * LONGEST_HOLD_MS;
        if !relapse {
            self.ms = asked_ms;
        } else if served < ENOUGH_SERVED {
            let helped = served > self.served_before || self.ms <= asked_ms;
            self.ms = if helped {
                self.ms.max(5).saturating_mul(2)
            } else {
                self.ms / 2
            };
        }
        self.ms = self.ms.min(LONGEST_HOLD_MS);
        self.served_before = served;
        let ms = self.ms.max(asked_ms);
        self.ended = now.plus_ms(ms).unix_ms();
        ms
    }
}

impl Deployment {
    /// A deployment that nothing is known of yet.
    pub fn new(spec: DeploymentSpec) -> Self {
        Self {
            spec,
            in_flight: AtomicU32::new(0),
            latency_us: AtomicU32::new(0),
            marked_until: AtomicU64::new(0),
            mark_reason: AtomicU8::new(0),
            ramp_from: AtomicU64::new(0),
            served: AtomicU32::new(0),
            hold: Mutex::new(Hold::default()),
        }
    }

    /// Calls that are under way now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Smoothed time to first byte in microseconds; `None` before the first answer.
    pub fn latency_us(&self) -> Option<u32> {
        Some(self.latency_us.load(Relaxed)).filter(|us| *us > 0)
    }

    /// The mark in force at `now`.
    pub fn mark(&self, now: Timestamp) -> Option<Mark> {
        let until = self.marked_until.load(Relaxed);
        (until > now.unix_ms()).then(|| Mark {
            until: Timestamp::from_unix_ms(until),
            reason: MarkReason::from_code(self.mark_reason.load(Relaxed)),
        })
    }

    /// Counts a call in, until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight {
            deployment: Arc::clone(self),
        }
    }

    /// Notes an answer and its time to first byte.
    pub fn succeeded(&self, first_byte_us: u64) {
        self.served.fetch_add(1, Relaxed);
        let sample = u32::try_from(first_byte_us).unwrap_or(u32::MAX).max(1);
        let old = self.latency_us.load(Relaxed);
        // An eighth of the new sample, as TCP smooths round trips (RFC 6298). A lost update
        // between threads costs one sample.
        let new = if old == 0 {
            sample
        } else {
            old - old / 8 + sample / 8
        };
        self.latency_us.store(new.max(1), Relaxed);
    }

    /// Marks the deployment for `ms` from `now`. Returns the mark in force, which ends later where
    /// the deployment keeps throttling.
    ///
    /// A mark never shortens one that is in force.
    pub fn set_mark(&self, reason: MarkReason, ms: u64, now: Timestamp) -> Mark {
        let served = self.served.swap(0, Relaxed);
        let in_force = self.mark(now);
        let ms = match (reason, in_force) {
            // A call that was under way when the mark was set tells nothing new.
            (MarkReason::Throttled, None) => {
                let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
                hold.next(now, ms, served)
            }
            _ => ms,
        };
        let until = now.plus_ms(ms);
        if let Some(longer) = in_force.filter(|mark| mark.until >= until) {
            return longer;
        }
        self.mark_reason.store(reason.code(), Relaxed);
        self.marked_until.store(until.unix_ms(), Relaxed);
        let ramp = if reason == MarkReason::Throttled {
            0
        } else {
            until.unix_ms()
        };
        self.ramp_from.store(ramp, Relaxed);
        Mark { until, reason }
    }

    /// Ends a mark before its time, as an answer that came all the same does.
    pub fn clear_mark(&self) {
        self.marked_until.store(0, Relaxed);
    }

    /// Whether the deployment takes a call at `now`: not marked, and, for `ramp_ms` after it
    /// came back from a failure, only a growing share of the calls (`draw` is uniform in 0..1000).
    pub fn admits(&self, now: Timestamp, ramp_ms: u64, draw: u32) -> bool {
        if self.marked_until.load(Relaxed) > now.unix_ms() {
            return false;
        }
        let from = self.ramp_from.load(Relaxed);
        if from == 0 {
            return true;
        }
        let since = now.unix_ms().saturating_sub(from);
        if since >= ramp_ms {
            self.ramp_from.store(0, Relaxed);
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
        self.deployment.in_flight.fetch_sub(1, Relaxed);
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
    fn a_deployment_that_throttles_again_and_again_is_asked_less_often() {
        let d = deployment();
        let mut now = 0;
        let mut holds = Vec::new();
        for served in [0u32, 1, 2, 4, 8, 12, 12] {
            for _ in 0..served {
                d.succeeded(1000);
            }
            let until = d.set_mark(MarkReason::Throttled, 10, at(now)).until;
            holds.push(until.ms_since(at(now)));
            now = until.ms_since(at(0)) + 5;
        }
        assert_eq!(holds, [10, 20, 40, 80, 160, 160, 160]);
    }

    #[test]
    fn a_longer_hold_that_lets_no_more_calls_through_is_given_up() {
        let d = deployment();
        let mut now = 0;
        let mut holds = Vec::new();
        for _ in 0..6 {
            let until = d.set_mark(MarkReason::Throttled, 10, at(now)).until;
            holds.push(until.ms_since(at(now)));
            now = until.ms_since(at(0)) + 1;
            d.succeeded(1000);
        }
        assert!(holds.iter().all(|ms| *ms <= 40), "{holds:?}");
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
    fn a_mark_can_be_lifted() {
        let d = deployment();
        d.set_mark(MarkReason::Misconfigured, 1000, at(0));
        assert_eq!(d.mark(at(1)).unwrap().reason.as_str(), "misconfigured");
        d.clear_mark();
        assert_eq!(d.mark(at(1)), None);
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
