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
        pacing: None,
        payg_per_hour: None,
    }
}

/// 2026-11-23T00:00:00Z, a Monday.
const MONDAY: Timestamp = Timestamp::from_unix_ms(1_795_392_000_000);

fn hours(demands: &[u64]) -> Vec<Hour> {
    let all = (0..).zip(demands);
    all.map(|(number, demand)| Hour {
        start: MONDAY.plus_ms(number * HOUR_MS),
        demand: *demand,
        low: 0,
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
fn break_even_is_where_a_ptu_costs_what_its_tokens_would() {
    let third = terms().break_even().unwrap().round_dp(2);
    assert_eq!(third, Decimal::new(3333, 2));
    let unpriced = Terms {
        ptu_hour: None,
        ..terms()
    };
    assert_eq!(unpriced.break_even(), None);
}

#[test]
fn what_spills_beyond_the_limit_of_pay_as_you_go_is_refused() {
    let limited = Terms {
        payg_per_hour: Some(50_000),
        ..terms()
    };
    let replay = replay(&hours(&[180_000, 70_000]), 1, &limited);
    assert_eq!(
        (replay.served, replay.spilled, replay.refused),
        (120_000, 60_000, 70_000)
    );
    assert_eq!(replay.payg_cost, Some(Decimal::from(3)));
}

const PACING: Pacing = Pacing {
    pace: Pace::DEFAULT,
    slot_per_hour: Some(6_000),
};

#[test]
fn low_priority_work_comes_to_rest_where_the_rule_says() {
    // All ten slots do as much as a PTU can.
    let done = |urgent| PACING.done(urgent, 60_000);
    // 0.9 / 1.7 of it, 52.9 % full: 5.3 slots of ten by the rule.
    assert_eq!((done(0), done(54_000), done(60_000)), (31_764, 0, 0));
    assert_eq!(
        PACING.done(0, 600_000),
        60_000,
        "below the lower limit all run"
    );
    let unknown = Pacing {
        slot_per_hour: None,
        ..PACING
    };
    assert_eq!(unknown.done(10_000, 60_000), 44_000);
}

#[test]
fn low_priority_work_waits_for_the_hours_that_have_room() {
    let paced = Terms {
        pacing: Some(Pacing {
            slot_per_hour: None,
            ..PACING
        }),
        ..terms()
    };
    let mut day = hours(&[70_000, 90_000, 0, 0]);
    for hour in &mut day[..2] {
        hour.low = 30_000;
    }
    // 40,000 and 60,000 are urgent; of 54,000 there is room for 14,000, 0 and 46,000 of the rest.
    let replay = replay(&day, 1, &paced);
    assert_eq!((replay.served, replay.spilled), (160_000, 0));
    assert_eq!((replay.waiting_hours, replay.left), (2, 0));
    let few = super::replay(&day[..2], 1, &paced);
    assert_eq!(
        (few.served, few.left, few.waiting_hours),
        (114_000, 46_000, 2)
    );
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
    let two_weeks = ptu_hours(&[vec![25u64; WEEK_HOURS], vec![200; WEEK_HOURS]].concat());
    add_idle(&mut week, &two_weeks, &[2; WEEK_HOURS]);
    for cell in week {
        assert_eq!((cell.hours, cell.capacity, cell.idle), (2, 200, 75));
        assert_eq!(cell.cost, Decimal::new(75, 2));
    }
}

/// Hours of a deployment that can do 100 an hour, for 2.
fn ptu_hours(demands: &[u64]) -> Vec<PtuHour> {
    let all = hours(demands).into_iter();
    all.map(|hour| PtuHour {
        start: hour.start,
        demand: hour.demand,
        capacity: 100,
        cost: Some(Decimal::TWO),
    })
    .collect()
}

/// What idle hours come to in an average week of the first `recorded` hours.
fn idle_cost(deployments: &[Vec<PtuHour>], recorded: usize) -> Decimal {
    let mut week = [WeekHour::default(); WEEK_HOURS];
    let recorded: Vec<Timestamp> = hours(&vec![0; recorded])
        .iter()
        .map(|hour| hour.start)
        .collect();
    let recorded = week_hours(&recorded);
    deployments
        .iter()
        .for_each(|hours| add_idle(&mut week, hours, &recorded));
    week.iter().map(|cell| cell.cost).sum()
}

#[test]
fn an_idle_week_costs_the_same_however_long_it_was_looked_at() {
    let idle = |hours: usize| idle_cost(&[ptu_hours(&vec![0; hours])], hours);
    for hours in [168, 169, 335, 336, 672] {
        assert_eq!(idle(hours), Decimal::from(2 * 168), "{hours} hours");
    }
    assert_eq!(
        idle(24),
        Decimal::from(2 * 24),
        "of a day its hours are known"
    );
}

#[test]
fn one_that_took_anothers_place_is_not_idle_beside_it() {
    let month = ptu_hours(&vec![0; 28 * 24]);
    let (one, other) = month.split_at(14 * 24);
    let both = idle_cost(&[one.to_vec(), other.to_vec()], 28 * 24);
    assert_eq!(both, Decimal::from(2 * 168));
    let two_days = month[26 * 24..].to_vec();
    let both = idle_cost(&[month, two_days], 28 * 24);
    assert_eq!(both, Decimal::from(2 * 168 + 2 * 48 / 4));
}

#[test]
fn hours_without_a_price_are_idle_and_do_not_make_the_others_cheaper() {
    let mut two_weeks = ptu_hours(&vec![0; 336]);
    two_weeks[..168]
        .iter_mut()
        .for_each(|hour| hour.cost = None);
    assert_eq!(idle_cost(&[two_weeks], 336), Decimal::from(2 * 168));
    let mut unpriced = ptu_hours(&[0]);
    unpriced[0].cost = None;
    let mut week = [WeekHour::default(); WEEK_HOURS];
    add_idle(&mut week, &unpriced, &[1; WEEK_HOURS]);
    assert_eq!((week[0].idle, week[0].cost), (100, Decimal::ZERO));
}

proptest! {
    #[test]
    fn demand_is_served_or_spills_and_more_ptus_never_spill_more(
        demands in proptest::collection::vec(0u64..10_000_000, 0..50),
        ptus in 0u32..500,
        low_percent in 0u64..=100,
        payg_per_hour in proptest::option::of(0u64..5_000_000),
    ) {
        let mut hours = hours(&demands);
        for hour in &mut hours {
            hour.low = hour.demand * low_percent / 100;
        }
        let limited = Terms { pacing: Some(PACING), payg_per_hour, ..terms() };
        let all = replay(&hours, ptus, &limited);
        let parts = all.served + all.spilled + all.refused + all.left;
        prop_assert_eq!(parts, demands.iter().sum::<u64>());
        prop_assert!(all.served <= all.capacity);
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
