//! What provisioned throughput would have come to: recorded hours, replayed against a number of PTUs
//! and other limits.
//!
//! The model is simple, and said where its figures are shown. Everything that a model was asked for
//! in an hour, at PTUs and pay-as-you-go, is *demand*, in weighted tokens ([`super::ptu`]): so many
//! of them as the PTUs can do in the hour are served by PTUs, the rest spills to pay-as-you-go. Within
//! an hour demand counts as even, so that shorter bursts spill more than this says. Pay-as-you-go
//! costs what the recorded calls would have cost on average, a PTU its list price by the hour.
//!
//! Where low-priority work is paced it does not spill: in each hour so much of it is done as the slots
//! that are open do ([`Pacing::done`]), and the rest waits for the next hour. Where pay-as-you-go has a
//! limit, what spills beyond it is refused.

use rust_decimal::Decimal;

use super::pacing::rule::Pace;
use super::ptu::ModelRate;
use super::time::{DAY_MS, Timestamp};

/// Milliseconds of an hour.
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Hours of a week.
pub const WEEK_HOURS: usize = 168;

/// Most numbers of PTUs that are tried in search of the cheapest.
const MOST_TRIED: u64 = 400;

/// What was asked for in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When it began.
    pub start: Timestamp,
    /// Weighted tokens.
    pub demand: u64,
    /// The part of them that was of low-priority calls.
    pub low: u64,
}

/// By what an hour is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What a PTU can do.
    pub rate: ModelRate,
    /// What a PTU costs an hour; `None`: not known.
    pub ptu_hour: Option<Decimal>,
    /// What a million weighted tokens cost at pay-as-you-go; `None`: not known.
    pub payg_million: Option<Decimal>,
    /// How low-priority work is paced; `None`: it is work like any other.
    pub pacing: Option<Pacing>,
    /// Most weighted tokens that pay-as-you-go serves in an hour; `None`: any number.
    pub payg_per_hour: Option<u64>,
}

/// How low-priority work is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// The rule.
    pub pace: Pace,
    /// Weighted tokens that a call in a slot does in an hour; `None`: not known, and as many as there is
    /// room for.
    pub slot_per_hour: Option<u64>,
}

impl Pacing {
    /// The low-priority work that is done in an hour beside `urgent` other work, of `capacity`: where
    /// utilization comes to rest. With F what all slots do, L and U the work at the limits, that is all
    /// of F while `urgent + F` is at most L. Beyond, open slots are `(U - urgent - low) / (U - L)` of all,
    /// so that `low = F * (U - urgent) / (U - L + F)`.
    pub fn done(&self, urgent: u64, capacity: u64) -> u64 {
        let at = |limit: u64| u128::from(capacity) * u128::from(limit) / 1000;
        let (lower, upper) = (at(self.pace.lower.tenths()), at(self.pace.upper.tenths()));
        let room = upper.saturating_sub(u128::from(urgent));
        let done = match self.slot_per_hour {
            None => room,
            Some(each) => {
                let all = u128::from(each) * u128::from(self.pace.slots);
                if u128::from(urgent) + all <= lower {
                    all
                } else {
                    let width = upper.saturating_sub(lower) + all;
                    all.saturating_mul(room) / width.max(1)
                }
            }
        };
        u64::try_from(done).unwrap_or(u64::MAX)
    }
}

/// What some PTUs would have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// How many.
    pub ptus: u32,
    /// Weighted tokens that they would have served.
    pub served: u64,
    /// Weighted tokens that would have spilled, and been served by pay-as-you-go.
    pub spilled: u64,
    /// Weighted tokens that would have found pay-as-you-go at its limit too.
    pub refused: u64,
    /// Weighted tokens of low-priority work that would still wait at the end.
    pub left: u64,
    /// Hours at whose end low-priority work would have waited.
    pub waiting_hours: usize,
    /// Weighted tokens that they could have served.
    pub capacity: u64,
    /// Hours in which they would have been full.
    pub full_hours: usize,
    /// What they would have cost; `None` without a price.
    pub ptu_cost: Option<Decimal>,
    /// What the rest would have cost; `None` without a price.
    pub payg_cost: Option<Decimal>,
}

impl Terms {
    /// What so many PTUs can do in an hour, in weighted tokens.
    pub fn capacity(&self, ptus: u32) -> u64 {
        let per_hour = self.rate.input_tpm_per_ptu.saturating_mul(60);
        per_hour.saturating_mul(u64::from(ptus))
    }
}

impl Replay {
    /// Both costs together; `None` where one is not known.
    pub fn cost(&self) -> Option<Decimal> {
        self.ptu_cost?.checked_add(self.payg_cost?)
    }
}

/// Replays hours against a number of PTUs.
pub fn replay(hours: &[Hour], ptus: u32, terms: &Terms) -> Replay {
    let capacity = terms.capacity(ptus);
    let mut replay = Replay {
        ptus,
        served: 0,
        spilled: 0,
        refused: 0,
        left: 0,
        waiting_hours: 0,
        capacity: 0,
        full_hours: 0,
        ptu_cost: None,
        payg_cost: None,
    };
    for hour in hours {
        replay.pass(hour, capacity, terms);
    }
    let count = u64::try_from(hours.len()).unwrap_or(u64::MAX);
    let ptu_hours = Decimal::from(count).checked_mul(Decimal::from(ptus));
    replay.ptu_cost = terms
        .ptu_hour
        .and_then(|price| price.checked_mul(ptu_hours?));
    replay.payg_cost = if replay.spilled == 0 {
        Some(Decimal::ZERO)
    } else {
        terms.payg_million.and_then(|price| {
            let cost = price.checked_mul(Decimal::from(replay.spilled))?;
            cost.checked_div(Decimal::from(1_000_000))
        })
    };
    replay
}

impl Replay {
    fn pass(&mut self, hour: &Hour, capacity: u64, terms: &Terms) {
        let low = terms.pacing.map_or(0, |_| hour.low.min(hour.demand));
        let urgent = hour.demand - low;
        let served = urgent.min(capacity);
        let spills = urgent - served;
        let spilled = spills.min(terms.payg_per_hour.unwrap_or(u64::MAX));
        let waited = self.left.saturating_add(low);
        let room = terms
            .pacing
            .map_or(0, |pacing| pacing.done(served, capacity));
        let done = waited.min(room);
        self.left = waited - done;
        self.waiting_hours += usize::from(self.left > 0);
        self.served = self.served.saturating_add(served + done);
        self.spilled = self.spilled.saturating_add(spilled);
        self.refused = self.refused.saturating_add(spills - spilled);
        self.capacity = self.capacity.saturating_add(capacity);
        self.full_hours += usize::from(spills > 0);
    }
}

impl Terms {
    /// How much of a PTU's time has to be used for it to cost no more than pay-as-you-go, in
    /// percent; `None` where a price is not known.
    pub fn break_even(&self) -> Option<Decimal> {
        let tokens = Decimal::from(self.capacity(1));
        let instead = self.payg_million?.checked_mul(tokens)?;
        let instead = instead.checked_div(Decimal::from(1_000_000))?;
        self.ptu_hour?
            .checked_mul(Decimal::ONE_HUNDRED)?
            .checked_div(instead)
    }
}

/// The number of PTUs that would have served every hour whole.
pub fn enough(hours: &[Hour], terms: &Terms) -> u32 {
    let most = hours.iter().map(|hour| hour.demand).max().unwrap_or(0);
    let enough = most.div_ceil(terms.capacity(1).max(1));
    u32::try_from(enough).unwrap_or(u32::MAX)
}

/// The number of PTUs that would have cost least together with what spills, from none to enough, to
/// within a four-hundredth of that; `None` where a price is not known. Of several numbers those come
/// first that leave least undone.
pub fn cheapest(hours: &[Hour], terms: &Terms) -> Option<Replay> {
    let enough = u64::from(enough(hours, terms));
    let step = enough.div_ceil(MOST_TRIED).max(1);
    let mut best: Option<Replay> = None;
    for number in 0..=enough.div_ceil(step) {
        let ptus = u32::try_from((number * step).min(enough)).ok()?;
        let tried = replay(hours, ptus, terms);
        let rank = |replay: &Replay| Some((replay.refused + replay.left, replay.cost()?));
        let rank_of_it = rank(&tried)?;
        if best
            .as_ref()
            .and_then(rank)
            .is_none_or(|least| rank_of_it < least)
        {
            best = Some(tried);
        }
    }
    best
}

/// An hour in which a provisioned deployment was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtuHour {
    /// When it began.
    pub start: Timestamp,
    /// What it was asked for, in weighted tokens.
    pub demand: u64,
    /// What it could do, in weighted tokens.
    pub capacity: u64,
    /// What it cost; `None`: not known.
    pub cost: Option<Decimal>,
}

/// An hour of the week, over some weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeekHour {
    /// Hours that were recorded, of all deployments together.
    pub hours: u32,
    /// Capacity of those hours, in weighted tokens.
    pub capacity: u64,
    /// The part of it that was not used.
    pub idle: u64,
    /// What that part cost in an average week of those that were recorded.
    pub cost: Decimal,
}

/// How often each hour of the week is among these.
pub fn week_hours(hours: &[Timestamp]) -> [u32; WEEK_HOURS] {
    let mut week = [0; WEEK_HOURS];
    for hour in hours {
        if let Some(count) = week.get_mut(hour_of_week(*hour)) {
            *count += 1;
        }
    }
    week
}

/// Adds a provisioned deployment's hours to the hours of the week, Monday's first in UTC. `recorded`: how often
/// each was recorded, whether or not the deployment was there: one that took another's place is not added to it
/// as if both had been there all the time. Hours in which its price is not known count as if they had
/// not been recorded.
pub fn add_idle(
    week: &mut [WeekHour; WEEK_HOURS],
    hours: &[PtuHour],
    recorded: &[u32; WEEK_HOURS],
) {
    let mut costs = recorded.map(|recorded| (Decimal::ZERO, recorded));
    for hour in hours {
        let place = hour_of_week(hour.start);
        let (Some(cell), Some((cost, weeks))) = (week.get_mut(place), costs.get_mut(place)) else {
            continue;
        };
        let idle = hour.capacity.saturating_sub(hour.demand);
        cell.hours += 1;
        cell.capacity = cell.capacity.saturating_add(hour.capacity);
        cell.idle = cell.idle.saturating_add(idle);
        let part = Decimal::from(idle).checked_div(Decimal::from(hour.capacity));
        let idle_cost = hour.cost.zip(part);
        match idle_cost.and_then(|(cost, part)| cost.checked_mul(part)) {
            Some(idle_cost) => *cost = cost.saturating_add(idle_cost),
            None => *weeks = weeks.saturating_sub(1),
        }
    }
    for (cell, (cost, weeks)) in week.iter_mut().zip(costs) {
        let mean = cost.checked_div(Decimal::from(weeks));
        cell.cost = cell.cost.saturating_add(mean.unwrap_or_default());
    }
}

/// The hour of the week, 0 to 167; 0 is Monday's first.
pub fn hour_of_week(at: Timestamp) -> usize {
    // 1970-01-01 was a Thursday.
    let day = (at.unix_ms() / DAY_MS + 3) % 7;
    let hour = at.unix_ms() % DAY_MS / HOUR_MS;
    usize::try_from(day * 24 + hour).unwrap_or_default()
}

#[cfg(test)]
mod tests;
