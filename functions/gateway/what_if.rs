//! What provisioned throughput would have come to: recorded hours, replayed against a number of PTUs.
//!
//! The model is simple, and said where its figures are shown. Everything that a model was asked for
//! in an hour, at PTUs and pay-as-you-go, is *demand*, in weighted tokens ([`super::ptu`]): so many
//! of them as the PTUs can do in the hour are served by PTUs, the rest spills to pay-as-you-go. Within
//! an hour demand counts as even, so that shorter bursts spill more than this says. Pay-as-you-go
//! costs what the recorded calls would have cost on average, a PTU its list price by the hour.

use rust_decimal::Decimal;

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
}

/// What some PTUs would have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// How many.
    pub ptus: u32,
    /// Weighted tokens that they would have served.
    pub served: u64,
    /// Weighted tokens that would have spilled.
    pub spilled: u64,
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
    let (mut served, mut spilled, mut full_hours) = (0u64, 0u64, 0);
    for hour in hours {
        served = served.saturating_add(hour.demand.min(capacity));
        spilled = spilled.saturating_add(hour.demand.saturating_sub(capacity));
        full_hours += usize::from(hour.demand > capacity);
    }
    let count = u64::try_from(hours.len()).unwrap_or(u64::MAX);
    let ptu_hours = Decimal::from(count).checked_mul(Decimal::from(ptus));
    let per_million = |price: Decimal| {
        let cost = price.checked_mul(Decimal::from(spilled))?;
        cost.checked_div(Decimal::from(1_000_000))
    };
    Replay {
        ptus,
        served,
        spilled,
        capacity: capacity.saturating_mul(count),
        full_hours,
        ptu_cost: terms
            .ptu_hour
            .and_then(|price| price.checked_mul(ptu_hours?)),
        payg_cost: if spilled == 0 {
            Some(Decimal::ZERO)
        } else {
            terms.payg_million.and_then(per_million)
        },
    }
}

/// The number of PTUs that would have served every hour whole.
pub fn enough(hours: &[Hour], terms: &Terms) -> u32 {
    let most = hours.iter().map(|hour| hour.demand).max().unwrap_or(0);
    let enough = most.div_ceil(terms.capacity(1).max(1));
    u32::try_from(enough).unwrap_or(u32::MAX)
}

/// The number of PTUs that would have cost least together with what spills, from none to enough, to
/// within a four-hundredth of that; `None` where a price is not known.
pub fn cheapest(hours: &[Hour], terms: &Terms) -> Option<Replay> {
    let enough = u64::from(enough(hours, terms));
    let step = enough.div_ceil(MOST_TRIED).max(1);
    let mut best: Option<Replay> = None;
    for number in 0..=enough.div_ceil(step) {
        let ptus = u32::try_from((number * step).min(enough)).ok()?;
        let tried = replay(hours, ptus, terms);
        let cost = tried.cost()?;
        let is_better = best
            .as_ref()
            .and_then(Replay::cost)
            .is_none_or(|least| cost < least);
        if is_better {
            best = Some(tried);
        }
    }
    best
}

/// An hour of the week, over some weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeekHour {
    /// Hours that were recorded.
    pub hours: u32,
    /// Capacity of those hours, in weighted tokens.
    pub capacity: u64,
    /// The part of it that was not used.
    pub idle: u64,
    /// What that part cost in an average week; 0 where the price is not known.
    pub cost: Decimal,
}

/// Adds a provisioned deployment's hours to the hours of the week, Monday's first in UTC. `capacity`
/// is what it can do in an hour, `price` what that costs.
pub fn add_idle(
    week: &mut [WeekHour; WEEK_HOURS],
    hours: &[Hour],
    capacity: u64,
    price: Option<Decimal>,
) {
    let weeks = hours.len().div_ceil(WEEK_HOURS).max(1);
    for hour in hours {
        let Some(cell) = week.get_mut(hour_of_week(hour.start)) else {
            continue;
        };
        let idle = capacity.saturating_sub(hour.demand);
        cell.hours += 1;
        cell.capacity = cell.capacity.saturating_add(capacity);
        cell.idle = cell.idle.saturating_add(idle);
        let part = Decimal::from(idle).checked_div(Decimal::from(capacity));
        let cost = price
            .zip(part)
            .and_then(|(price, part)| price.checked_mul(part))
            .and_then(|cost| cost.checked_div(Decimal::from(weeks)));
        cell.cost = cell.cost.saturating_add(cost.unwrap_or_default());
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> Terms {
        Terms {
            rate: ModelRate {
                input_tpm_per_ptu: 1000,
                output_ratio: 4,
            },
            ptu_hour: Some(Decimal::ONE),
            payg_million: Some(Decimal::from(50)),
        }
    }

    /// 2026-11-23T00:00:00Z, a Monday.
    const MONDAY: Timestamp = Timestamp::from_unix_ms(1_795_392_000_000);

    fn hours(demands: &[u64]) -> Vec<Hour> {
        let all = (0..).zip(demands);
        all.map(|(number, demand)| Hour {
            start: MONDAY.plus_ms(number * HOUR_MS),
            demand: *demand,
        })
        .collect()
    }

    #[test]
    fn what_ptus_can_not_do_spills_and_costs_by_the_token() {
        // A PTU does 60,000 an hour here, for 1; as much costs 3 at pay-as-you-go.
        let replay = replay(&hours(&[30_000, 180_000, 0]), 2, &terms());
        assert_eq!((replay.served, replay.spilled), (150_000, 60_000));
        assert_eq!((replay.capacity, replay.full_hours), (360_000, 1));
        assert_eq!(replay.ptu_cost, Some(Decimal::from(6)));
        assert_eq!(replay.payg_cost, Some(Decimal::from(3)));
        assert_eq!(replay.cost(), Some(Decimal::from(9)));
    }

    #[test]
    fn a_ptu_pays_where_it_is_used_for_a_third_of_its_time() {
        let even = |share: u64| hours(&[60_000 * share / 100; 24]);
        let best = |share| cheapest(&even(share), &terms()).unwrap().ptus;
        assert_eq!((best(30), best(33), best(34), best(100)), (0, 0, 1, 1));
        assert_eq!(enough(&even(250), &terms()), 3);
    }

    #[test]
    fn without_a_price_there_is_no_cost() {
        let unpriced = Terms {
            payg_million: None,
            ..terms()
        };
        let some = hours(&[100_000]);
        assert_eq!(replay(&some, 1, &unpriced).cost(), None);
        assert_eq!(cheapest(&some, &unpriced), None);
        let nothing_spills = replay(&some, 2, &unpriced);
        assert_eq!(nothing_spills.cost(), Some(Decimal::from(2)));
    }

    #[test]
    fn idle_hours_lie_where_they_belong_in_the_week() {
        assert_eq!(hour_of_week(MONDAY), 0);
        assert_eq!(hour_of_week(MONDAY.plus_ms(7 * DAY_MS - 1)), 167);
        let mut week = [WeekHour::default(); WEEK_HOURS];
        let two_weeks = hours(&[vec![25u64; WEEK_HOURS], vec![200; WEEK_HOURS]].concat());
        add_idle(&mut week, &two_weeks, 100, Some(Decimal::TWO));
        for cell in week {
            assert_eq!((cell.hours, cell.capacity, cell.idle), (2, 200, 75));
            assert_eq!(cell.cost, Decimal::new(75, 2));
        }
    }

    proptest! {
        #[test]
        fn demand_is_served_or_spills_and_more_ptus_never_spill_more(
            demands in proptest::collection::vec(0u64..10_000_000, 0..50),
            ptus in 0u32..500,
        ) {
            let hours = hours(&demands);
            let some = replay(&hours, ptus, &terms());
            prop_assert_eq!(some.served + some.spilled, demands.iter().sum::<u64>());
            prop_assert!(some.served <= some.capacity);
            prop_assert!(replay(&hours, ptus + 1, &terms()).spilled <= some.spilled);
            let enough = enough(&hours, &terms());
            prop_assert_eq!(replay(&hours, enough, &terms()).spilled, 0);
            let best = cheapest(&hours, &terms()).unwrap().cost();
            prop_assert!(best <= replay(&hours, ptus, &terms()).cost() || ptus > enough);
        }
    }
}
