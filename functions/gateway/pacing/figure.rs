//! One figure from four sources: how full a provisioned deployment is now.
//!
//! Two sources *measure*. Azure Monitor is right, and minutes late. The windows of the calls'
//! tokens ([`super::window`], corrected by [`super::calibration`]) are seconds late, and estimates. Each
//! measurement has a confidence that falls with its age to nothing. It is carried on to the present
//! by the slots: what was measured, and what the slots taken or given back since then add or take
//! away. The figure is the mean of the measurements, by confidence.
//!
//! Two sources *warn*: the header of the deployment's answers, which says how full one instance's
//! last call found it, and Azure's alerts. They lift the figure and never lower it: what they say of
//! a moment or of a threshold is no mean.
//!
//! **Missing or stale means careful, never idle.** The less confidence there is, the nearer the figure
//! comes to the upper limit, and stays just below it. So where nothing is known the least runs that
//! the rule opens, one slot as a rule, and what that call is measured by is the first thing known.

use super::rule::Pace;
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

#[cfg(test)]
mod tests;

/// Who says how full a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Azure Monitor.
    Monitor,
    /// The windows of the calls' tokens.
    Events,
    /// The header of the deployment's answers.
    Header,
    /// An Azure Monitor alert.
    Alert,
}

impl Source {
    /// The word used in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Events => "events",
            Self::Header => "header",
            Self::Alert => "alert",
        }
    }
}

/// How a measurement's confidence falls: whole up to an age, then evenly to nothing at another one.
struct Confidence {
    /// Thousandths.
    whole: u64,
    whole_until_ms: u64,
    nothing_from_ms: u64,
}

impl Confidence {
    /// Monitor's figures come 2 to 15 minutes late: with them alone work goes on. Beside events,
    /// which say more of the present, they weigh little.
    const MONITOR: Self = Self {
        whole: 100,
        whole_until_ms: 3 * 60_000,
        nothing_from_ms: 30 * 60_000,
    };

    /// A window ends with the last call that was counted, a few seconds ago.
    const EVENTS: Self = Self {
        whole: 1_000,
        whole_until_ms: 60_000,
        nothing_from_ms: 5 * 60_000,
    };

    const fn at_age(&self, age_ms: u64) -> u64 {
        if age_ms <= self.whole_until_ms {
            return self.whole;
        }
        let left = self.nothing_from_ms.saturating_sub(age_ms);
        self.whole * left / (self.nothing_from_ms - self.whole_until_ms)
    }
}

/// The confidence, in thousandths, from which on a figure is believed. Monitor alone has it until its
/// newest figure is 16 minutes old.
const ENOUGH: u64 = 50;

/// How long the header of an answer is a warning, ms.
const HEADER_MS: u64 = 30_000;

/// A mean of slots, in thousandths of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeanSlots(pub u64);

impl MeanSlots {
    /// So many slots all the time.
    pub const fn of(slots: u32) -> Self {
        Self(slots as u64 * 1000)
    }
}

/// What one slot in use adds to utilization, in thousandths of a tenth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotUse(pub u64);

impl SlotUse {
    /// What one slot adds where `slots` of them made `low`. `None` where there were too few to tell.
    fn of(low: Utilization, slots: MeanSlots) -> Option<Self> {
        let is_enough = slots.0 >= 500 && low > Utilization::IDLE;
        is_enough.then(|| Self(low.tenths().saturating_mul(1_000_000) / slots.0))
    }
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Who measured.
    pub source: Source,
    /// The mean from `from` to `until`.
    pub utilization: Utilization,
    /// The part of it that low-priority calls made, where the source knows it.
    pub low: Option<Utilization>,
    /// When the measurement began.
    pub from: Timestamp,
    /// When it ended.
    pub until: Timestamp,
    /// Slots in use meanwhile.
    pub slots: MeanSlots,
}

impl Measured {
    /// Whether it still counts at `now`.
    pub const fn counts(&self, now: Timestamp) -> bool {
        weight(self, now) > 0
    }
}

/// A warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Who warns.
    pub source: Source,
    /// At least so full.
    pub utilization: Utilization,
    /// When the answer came, or the alert fired.
    pub since: Timestamp,
    /// Until when it counts.
    pub until: Timestamp,
}

impl Warning {
    /// What an answer's header says that came at `seen`.
    pub const fn header(utilization: Utilization, seen: Timestamp) -> Self {
        Self {
            source: Source::Header,
            utilization,
            since: seen,
            until: seen.plus_ms(HEADER_MS),
        }
    }
}

/// How full a deployment is now, by how many slots are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    parts: Vec<Part>,
    warning: Utilization,
    /// How much of the figure is believed, thousandths.
    trust: u64,
    /// What it comes to where nothing is believed.
    careful: Utilization,
}

/// A measurement, ready to be carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    weight: u64,
    measured: Measured,
    each: SlotUse,
}

impl Figure {
    /// The figure at `now`. `usual` is what one slot was seen to add lately, where that is known.
    pub fn of(
        measured: &[Measured],
        warnings: &[Warning],
        usual: Option<SlotUse>,
        pace: &Pace,
        now: Timestamp,
    ) -> Self {
        let parts: Vec<Part> = measured
            .iter()
            .map(|measured| Part {
                weight: weight(measured, now),
                measured: *measured,
                each: each(measured, usual, pace),
            })
            .filter(|part| part.weight > 0)
            .collect();
        let best = parts.iter().map(|part| part.weight).max().unwrap_or(0);
        let in_force = warnings.iter().filter(|warning| warning.until > now);
        Self {
            trust: (best * 1000 / ENOUGH).min(1000),
            parts,
            warning: in_force.map(|w| w.utilization).max().unwrap_or_default(),
            careful: Utilization::of_tenths(pace.upper.tenths().saturating_sub(1)),
        }
    }

    /// Utilization with so many slots in use.
    pub fn with(&self, slots: u32) -> Utilization {
        let believed = self.mean(MeanSlots::of(slots)).max(self.warning.tenths());
        let short = self.careful.tenths().saturating_sub(believed);
        Utilization::of_tenths(believed + short * (1000 - self.trust) / 1000)
    }

    /// How much of it is believed, in thousandths: 0 where nothing is known.
    pub const fn trust(&self) -> u64 {
        self.trust
    }

    fn mean(&self, slots: MeanSlots) -> u64 {
        let weights: u64 = self.parts.iter().map(|part| part.weight).sum();
        let sum = self.parts.iter();
        let sum: u64 = sum.map(|part| part.weight * part.with(slots)).sum();
        sum.checked_div(weights).unwrap_or(0)
    }
}

impl Part {
    /// What was measured, and what slots have added or taken away since; never less than what calls
    /// without slots made.
    fn with(&self, slots: MeanSlots) -> u64 {
        let then = self.measured.slots.0;
        let change = |slots: u64| slots.saturating_mul(self.each.0) / 1_000_000;
        let measured = self.measured.utilization.tenths();
        let others =
            measured.saturating_sub(self.measured.low.map_or(measured, |low| low.tenths()));
        let carried = if slots.0 >= then {
            measured.saturating_add(change(slots.0 - then))
        } else {
            measured.saturating_sub(change(then - slots.0))
        };
        // Far beyond full is as full as can be, and weights must not overflow.
        carried.max(others).min(1_000_000)
    }
}

const fn weight(measured: &Measured, now: Timestamp) -> u64 {
    let confidence = match measured.source {
        Source::Monitor => Confidence::MONITOR,
        _ => Confidence::EVENTS,
    };
    confidence.at_age(now.ms_since(measured.until))
}

/// What one slot adds: as seen lately; else as this measurement says; else, where only the whole is
/// known, no more than its part of that; else, where no slot was in use, all the room that there is,
/// so that one is tried.
fn each(measured: &Measured, usual: Option<SlotUse>, pace: &Pace) -> SlotUse {
    let by_all = || SlotUse::of(measured.low.unwrap_or(measured.utilization), measured.slots);
    usual.or_else(by_all).unwrap_or_else(|| {
        let room = pace
            .upper
            .tenths()
            .saturating_sub(measured.utilization.tenths());
        SlotUse(room.max(1).saturating_mul(1000))
    })
}
