//! Utilization from the calls themselves: the tokens of a deployment's minutes, weighted as Azure
//! weights them, over what its PTUs do in a minute.
//!
//! `input - cached + ratio * output` tokens, divided by the rate per PTU and the PTUs (Microsoft
//! Learn, "Understanding costs associated with provisioned throughput units"). A call counts in the
//! minute in which it ended: that is when its tokens are known, and its event is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::figure::{MeanSlots, SlotUse};
use crate::gateway::event::{Kind, UsageEvent, UsageSource};
use crate::gateway::priority::Priority;
use crate::gateway::ptu::{ModelRate, Utilization};
use crate::gateway::time::Timestamp;

/// Milliseconds of a minute.
pub const MINUTE_MS: u64 = 60_000;

/// Minutes that are remembered: an event that is older comes too late for any use.
const MINUTES: u64 = 30;

/// A shorter stretch than this says nothing of utilization, ms.
const SHORTEST_MS: u64 = 20_000;

/// Calls that together took less say nothing of what a slot adds, ms.
const ENOUGH_MS: u64 = 1_000;

/// A deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeploymentId {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The deployment's name on it.
    pub deployment: Arc<str>,
}

/// The minute that a moment is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Minute(u64);

impl Minute {
    /// The minute of a moment.
    pub const fn of(moment: Timestamp) -> Self {
        Self(moment.unix_ms() / MINUTE_MS)
    }

    /// Its first millisecond.
    pub const fn start(self) -> Timestamp {
        Timestamp::from_unix_ms(self.0 * MINUTE_MS)
    }

    /// Its end, which is the next one's start.
    pub const fn end(self) -> Timestamp {
        self.start().plus_ms(MINUTE_MS)
    }

    /// The minute so many before it.
    #[must_use]
    pub const fn before(self, minutes: u64) -> Self {
        Self(self.0.saturating_sub(minutes))
    }

    /// Whether its number since the epoch can be divided by `n`.
    pub const fn is_nth(self, n: u64) -> bool {
        self.0.is_multiple_of(n)
    }

    /// As keys name it, for example `2026-11-23T17:06`.
    pub fn key(self) -> String {
        self.start().rfc3339().chars().take(16).collect()
    }
}

/// Weighted tokens, in input tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Of all calls.
    pub all: u64,
    /// Of low-priority calls.
    pub low: u64,
    /// How long these took together, ms.
    pub low_ms: u64,
}

impl Use {
    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_add(other.all),
            low: self.low.saturating_add(other.low),
            low_ms: self.low_ms.saturating_add(other.low_ms),
        }
    }
}

/// What a call used of a provisioned deployment; `None` where it used none. `rate` is that of the model
/// that the deployment serves: the event names the one that was asked for, and another may have served
/// in its place.
pub fn use_of(event: &UsageEvent, rate: ModelRate) -> Option<(DeploymentId, Minute, Use)> {
    let served = event.served();
    if served.kind != Some(Kind::Ptu) || event.usage == UsageSource::None {
        return None;
    }
    let tokens = &event.tokens;
    let input = tokens.input.saturating_sub(tokens.cached);
    let output = tokens.output.saturating_mul(rate.output_ratio);
    let all = input.saturating_add(output);
    let (low, low_ms) = match event.priority {
        Priority::Low => (all, ms_at_deployment(event)),
        Priority::High => (0, 0),
    };
    let id = DeploymentId {
        backend: Arc::clone(served.backend),
        deployment: Arc::clone(served.deployment),
    };
    let ended = event.time.plus_ms(event.total_ms);
    Some((id, Minute::of(ended), Use { all, low, low_ms }))
}

/// How long the deployment that charges had to do with the call, ms; what was before, such as the
/// wait for a slot, is left out.
fn ms_at_deployment(event: &UsageEvent) -> u64 {
    let billed = event.billed();
    let to_first_byte = billed.map_or(0, |attempt| attempt.ms);
    // Without a status nothing came after the attempt's own time: its client had left.
    let has_answered = billed.is_none_or(|attempt| attempt.status.is_some());
    let after_it = if has_answered {
        event.total_ms.saturating_sub(event.first_byte_ms)
    } else {
        0
    };
    to_first_byte.saturating_add(after_it)
}

/// What one process has counted: its part of each deployment's minutes.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    minutes: BTreeMap<(Minute, DeploymentId), Counted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    used: Use,
    is_written: bool,
}

impl Windows {
    /// Counts a call at a deployment whose model does `rate`. Whether the deployment is provisioned, and
    /// the call of late.
    pub fn note(&mut self, event: &UsageEvent, rate: ModelRate, now: Timestamp) -> bool {
        let Some((id, minute, used)) = use_of(event, rate) else {
            return false;
        };
        if minute < Minute::of(now).before(MINUTES) || minute > Minute::of(now).before(0) {
            // Too late for any use, or of a clock that is wrong.
            return false;
        }
        let counted = self.minutes.entry((minute, id)).or_default();
        counted.used = counted.used.and(used);
        counted.is_written = false;
        true
    }

    /// The minutes that have changed since they were taken last. Those that nobody asks for any more
    /// are forgotten.
    pub fn changed(&mut self, now: Timestamp) -> Vec<(Minute, DeploymentId, Use)> {
        let oldest = Minute::of(now).before(MINUTES);
        self.minutes.retain(|(minute, _), _| *minute >= oldest);
        let changed = self.minutes.iter_mut().filter(|(_, c)| !c.is_written);
        changed
            .map(|((minute, id), counted)| {
                counted.is_written = true;
                (*minute, id.clone(), counted.used)
            })
            .collect()
    }

    /// Has a minute taken again, whose row could not be written.
    pub fn take_back(&mut self, minute: Minute, id: &DeploymentId) {
        if let Some(counted) = self.minutes.get_mut(&(minute, id.clone())) {
            counted.is_written = false;
        }
    }
}

/// What a deployment's PTUs do in a minute, in input tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity(pub u64);

impl Capacity {
    /// Of so many PTUs of a model.
    pub fn of(ptus: u32, model: &str) -> Self {
        let rate = ModelRate::of(model).unwrap_or(ModelRate::ASSUMED);
        Self(u64::from(ptus).saturating_mul(rate.input_tpm_per_ptu))
    }

    /// The utilization that `used` tokens make in `ms`.
    pub fn utilization(self, used: u64, ms: u64) -> Utilization {
        Utilization::of_tenths(self.part(used, ms, 1_000))
    }

    /// What one slot adds, by what low-priority calls used and how long they took. `None` where there
    /// were too few.
    pub fn slot_use(self, used: Use) -> Option<SlotUse> {
        let is_enough = used.low > 0 && used.low_ms >= ENOUGH_MS;
        is_enough.then(|| SlotUse(self.part(used.low, used.low_ms, 1_000_000)))
    }

    /// `used` tokens in `ms` as a part of what can be used then, where all of it is `whole`.
    fn part(self, used: u64, ms: u64, whole: u64) -> u64 {
        let wide = |n: u64| u128::from(n);
        let part = wide(used).saturating_mul(wide(whole) * wide(MINUTE_MS));
        let part = part / (wide(self.0) * wide(ms)).max(1);
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl Use {
    /// The slots that these low-priority calls would have kept in use, end to end, for `ms`.
    pub fn slots(self, ms: u64) -> MeanSlots {
        let thousandths = u128::from(self.low_ms) * 1_000 / u128::from(ms.max(1));
        MeanSlots(u64::try_from(thousandths).unwrap_or(u64::MAX))
    }
}

/// What was used in a minute, up to when it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The minute.
    pub minute: Minute,
    /// What was used in it.
    pub used: Use,
    /// When it was written.
    pub seen: Timestamp,
}

/// The newest stretch of a deployment's minutes: from when to when, and what was used. It is the
/// last whole minute and what there is of the one after it: one alone would be too short at its
/// start and too old at its end.
pub fn newest(minutes: &[Counts]) -> Option<(Timestamp, Timestamp, Use)> {
    let last = minutes.iter().map(|counts| counts.minute).max()?;
    let seen = minutes.iter().map(|counts| counts.seen).max()?;
    let sum = |wanted: Minute| {
        let mut of_minute = minutes.iter().filter(|c| c.minute == wanted).peekable();
        of_minute.peek()?;
        Some(of_minute.fold(Use::default(), |sum, c| sum.and(c.used)))
    };
    let until = seen.min(last.end()).max(last.start());
    let (from, used) = match sum(last.before(1)) {
        Some(before) => (last.before(1).start(), before.and(sum(last)?)),
        None => (last.start(), sum(last)?),
    };
    (until.ms_since(from) >= SHORTEST_MS).then_some((from, until, used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::{Attempt, Tokens};

    const START: Timestamp = Timestamp::from_unix_ms(1_795_453_560_000);

    /// That of gpt-4o.
    const RATE: ModelRate = ModelRate {
        input_tpm_per_ptu: 2_500,
        output_ratio: 4,
    };

    fn event(ms: u64, priority: Priority) -> UsageEvent {
        UsageEvent {
            time: START.plus_ms(ms),
            first_byte_ms: 1_500,
            total_ms: 2_000,
            attempts: vec![Attempt {
                backend: "swe".into(),
                deployment: "gpt-4o-ptu".into(),
                kind: Kind::Ptu,
                status: Some(200),
                error: None,
                after_ms: 0,
                ms: 300,
                billed: true,
            }],
            priority,
            model: "gpt-4o".into(),
            backend: "swe".into(),
            deployment: "gpt-4o-ptu".into(),
            kind: Some(Kind::Ptu),
            usage: UsageSource::Reported,
            tokens: Tokens {
                input: 1_000,
                cached: 400,
                output: 100,
                ..Tokens::default()
            },
            ..UsageEvent::default()
        }
    }

    #[test]
    fn a_call_counts_its_weighted_tokens_in_the_minute_in_which_it_ends() {
        let (id, minute, used) = use_of(&event(59_000, Priority::High), RATE).unwrap();
        assert_eq!((&*id.backend, &*id.deployment), ("swe", "gpt-4o-ptu"));
        assert_eq!(minute.key(), "2026-11-23T17:07");
        let mut expected = Use {
            all: 1_000,
            low: 0,
            low_ms: 0,
        };
        assert_eq!(used, expected);
        let (_, _, low) = use_of(&event(0, Priority::Low), RATE).unwrap();
        (expected.low, expected.low_ms) = (1_000, 800);
        assert_eq!(low, expected, "its wait for the slot is left out");
    }

    #[test]
    fn a_slot_adds_what_its_calls_use_while_they_run() {
        let capacity = Capacity(250_000);
        let used = Use {
            all: 200_000,
            low: 50_000,
            low_ms: 240_000,
        };
        // 4 slots for a minute made 20 %.
        assert_eq!(used.slots(60_000), MeanSlots::of(4));
        assert_eq!(capacity.slot_use(used), Some(SlotUse(50_000)));
        let few = Use {
            low_ms: 999,
            ..used
        };
        assert_eq!(capacity.slot_use(few), None);
    }

    #[test]
    fn calls_that_use_nothing_of_a_ptu_do_not_count() {
        let payg = UsageEvent {
            kind: Some(Kind::Payg),
            attempts: Vec::new(),
            ..event(0, Priority::High)
        };
        let failed = UsageEvent {
            usage: UsageSource::None,
            ..event(0, Priority::High)
        };
        assert_eq!(use_of(&payg, RATE), None);
        assert_eq!(use_of(&failed, RATE), None);
    }

    #[test]
    fn a_call_counts_at_the_ptu_that_charges_for_it() {
        let charged = event(0, Priority::Low);
        // Its client left before the PTU answered, or others say that another deployment did.
        for kind in [None, Some(Kind::Payg)] {
            let mut event = UsageEvent {
                backend: "elsewhere".into(),
                deployment: "another".into(),
                kind,
                ..charged.clone()
            };
            event.attempts.push(Attempt {
                billed: false,
                ..event.attempts[0].clone()
            });
            assert_eq!(use_of(&event, RATE), use_of(&charged, RATE));
        }
        let mut elsewhere = charged;
        elsewhere.attempts[0].kind = Kind::Payg;
        assert_eq!(use_of(&elsewhere, RATE), None);
    }

    #[test]
    fn a_client_that_leaves_before_the_answer_has_kept_the_ptu_busy_until_then() {
        let mut left = event(0, Priority::Low);
        left.first_byte_ms = 0;
        left.attempts[0].status = None;
        let (_, _, used) = use_of(&left, RATE).unwrap();
        assert_eq!(used.low_ms, 300, "the wait before the attempt is left out");
    }

    #[test]
    fn a_minute_is_written_when_it_has_changed() {
        let mut windows = Windows::default();
        let now = START.plus_ms(70_000);
        for ms in [0, 1_000, 60_000] {
            assert!(windows.note(&event(ms, Priority::High), RATE, now));
        }
        let changed = windows.changed(now);
        let used: Vec<u64> = changed.iter().map(|(_, _, used)| used.all).collect();
        assert_eq!(used, [2_000, 1_000]);
        assert!(windows.changed(now).is_empty());
        windows.note(&event(5_000, Priority::Low), RATE, now);
        let changed = windows.changed(now);
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].2.all, changed[0].2.low), (3_000, 1_000));
        windows.take_back(changed[0].0, &changed[0].1);
        assert_eq!(windows.changed(now), changed, "it could not be written");
    }

    #[test]
    fn what_comes_too_late_or_from_the_future_is_left_out() {
        let mut windows = Windows::default();
        assert!(!windows.note(&event(0, Priority::High), RATE, START.plus_ms(3_600_000)));
        assert!(!windows.note(&event(3_600_000, Priority::High), RATE, START));
    }

    #[test]
    fn utilization_is_ptus_consumed_of_those_deployed() {
        // 100 PTUs of gpt-4o do 250,000 input tokens a minute.
        let capacity = Capacity::of(100, "gpt-4o-2024-11-20");
        assert_eq!(capacity, Capacity(250_000));
        assert_eq!(capacity.utilization(125_000, MINUTE_MS).tenths(), 500);
        assert_eq!(capacity.utilization(125_000, 2 * MINUTE_MS).tenths(), 250);
        assert_eq!(Capacity(0).utilization(1, 0).tenths(), 60_000_000);
    }

    fn counts(minute: u64, all: u64, seen_ms: u64) -> Counts {
        Counts {
            minute: Minute(Minute::of(START).0 + minute),
            used: Use {
                all,
                ..Use::default()
            },
            seen: START.plus_ms(seen_ms),
        }
    }

    #[test]
    fn the_newest_stretch_is_a_whole_minute_and_what_follows_it() {
        let stretch = |minutes: &[Counts]| {
            newest(minutes)
                .map(|(from, until, used)| (from.ms_since(START), until.ms_since(START), used.all))
        };
        assert_eq!(stretch(&[]), None);
        let shards = [
            counts(0, 100, 61_000),
            counts(0, 50, 62_000),
            counts(1, 10, 75_000),
        ];
        assert_eq!(stretch(&shards), Some((0, 75_000, 160)));
        assert_eq!(stretch(&shards[..2]), Some((0, 60_000, 150)));
        assert_eq!(stretch(&[counts(0, 1, 19_000)]), None, "too short");
        assert_eq!(
            stretch(&[counts(0, 9, 50_000), counts(2, 7, 150_000)]),
            Some((120_000, 150_000, 7)),
            "an empty minute is unknown"
        );
    }
}
