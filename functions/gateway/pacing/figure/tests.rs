use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace::DEFAULT;
const MINUTE: u64 = 60_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + ms)
}

fn percent(percent: u64) -> Utilization {
    Utilization::of_percent(percent)
}

/// A minute that ended at 0.
fn measured(source: Source, utilization: u64, low: Option<u64>, slots: u32) -> Measured {
    Measured {
        source,
        utilization: percent(utilization),
        low: low.map(percent),
        from: Timestamp::from_unix_ms(at(0).unix_ms() - MINUTE),
        until: at(0),
        slots: MeanSlots::of(slots),
    }
}

fn figure(measured: &[Measured], now: Timestamp) -> Figure {
    Figure::of(measured, &[], None, &PACE, now)
}

#[test]
fn nothing_known_leaves_one_slot_to_find_out() {
    let unknown = figure(&[], at(0));
    assert_eq!(unknown.trust(), 0);
    assert_eq!(unknown.with(0).tenths(), 899);
    assert_eq!(PACE.open_beside(|slots| unknown.with(slots)), 1);
}

#[test]
fn monitor_alone_is_believed_for_a_quarter_of_an_hour_and_then_less_and_less() {
    let at_age = |minutes| {
        figure(
            &[measured(Source::Monitor, 30, None, 3)],
            at(minutes * MINUTE),
        )
    };
    for minutes in [2, 5, 10, 15] {
        assert_eq!(at_age(minutes).with(3), percent(30), "{minutes} min");
    }
    let stale: Vec<u64> = (17..=31).map(|m| at_age(m).with(3).tenths()).collect();
    assert!(stale.is_sorted(), "{stale:?}");
    assert_eq!((stale[0] > 300, stale[14]), (true, 899));
}

#[test]
fn a_full_deployment_stays_full_until_nothing_is_known_of_it() {
    let full = |minutes| {
        figure(
            &[measured(Source::Monitor, 97, None, 0)],
            at(minutes * MINUTE),
        )
    };
    assert_eq!(full(1).with(0), percent(97));
    assert_eq!(full(25).with(0), percent(97));
    assert_eq!(full(31).with(0).tenths(), 899);
}

#[test]
fn events_outweigh_a_monitor_that_is_late() {
    let both = [
        measured(Source::Monitor, 80, None, 0),
        Measured {
            until: at(10 * MINUTE),
            ..measured(Source::Events, 20, Some(0), 0)
        },
    ];
    let now = figure(&both, at(10 * MINUTE)).with(0);
    assert!((200..=250).contains(&now.tenths()), "{now}");
}

#[test]
fn warnings_lift_and_never_lower() {
    let half = [measured(Source::Events, 50, Some(0), 0)];
    let with = |warnings: &[Warning], now| Figure::of(&half, warnings, None, &PACE, now).with(0);
    assert_eq!(
        with(&[Warning::header(percent(10), at(0))], at(0)),
        percent(50)
    );
    let warning = [Warning::header(percent(100), at(0))];
    assert_eq!(with(&warning, at(HEADER_MS - 1)), percent(100));
    assert_eq!(with(&warning, at(HEADER_MS)), percent(50));
}

#[test]
fn slots_taken_since_the_measurement_count() {
    // 5 slots made 20 %, others 30 %.
    let events = figure(&[measured(Source::Events, 50, Some(20), 5)], at(0));
    assert_eq!(events.with(5), percent(50));
    assert_eq!(events.with(10), percent(70));
    assert_eq!(events.with(0), percent(30));
    // Monitor does not say whose the 50 % are: at most all of them are the slots'.
    let monitor = figure(&[measured(Source::Monitor, 50, None, 5)], at(0));
    assert_eq!(monitor.with(6), percent(60));
    // Nothing is known of what a slot makes.
    let first = figure(&[measured(Source::Monitor, 50, None, 0)], at(0));
    assert_eq!(PACE.open_beside(|slots| first.with(slots)), 1);
    // What was seen before is known.
    let usual = Some(SlotUse(40_000));
    let known = Figure::of(
        &[measured(Source::Monitor, 50, None, 0)],
        &[],
        usual,
        &PACE,
        at(0),
    );
    assert_eq!(known.with(5), percent(70));
}

#[test]
fn slots_whose_calls_have_not_ended_are_not_taken_for_free_ones() {
    let running = figure(&[measured(Source::Events, 30, Some(0), 1)], at(0));
    assert_eq!(PACE.open_beside(|slots| running.with(slots)), 2);
}

fn measurements() -> impl Strategy<Value = Vec<Measured>> {
    let source = prop_oneof![Just(Source::Monitor), Just(Source::Events)];
    let one = (
        source,
        0_u64..2_000,
        0_u64..=100,
        any::<bool>(),
        0_u64..50_000,
        0_u64..3_600_000,
    );
    let one = one.prop_map(|(source, tenths, part, knows, slots, until)| Measured {
        source,
        utilization: Utilization::of_tenths(tenths),
        low: knows.then(|| Utilization::of_tenths(tenths * part / 100)),
        from: at(until.saturating_sub(MINUTE)),
        until: at(until),
        slots: MeanSlots(slots),
    });
    prop::collection::vec(one, 0..4)
}

proptest! {
    #[test]
    fn more_slots_never_mean_less_utilization(all in measurements(), now in 0_u64..7_200_000) {
        let figure = figure(&all, at(now));
        for slots in 0..30 {
            prop_assert!(figure.with(slots + 1) >= figure.with(slots));
        }
    }

    #[test]
    fn as_time_passes_without_news_the_figure_comes_to_just_below_the_limit(
        all in measurements(), slots in 0_u32..30
    ) {
        let last = figure(&all, at(7_200_000));
        prop_assert_eq!((last.with(slots).tenths(), last.trust()), (899, 0));
    }

    #[test]
    fn a_source_more_that_is_fresh_never_makes_a_figure_less_believed(
        all in measurements(), now in 3_600_000_u64..7_200_000
    ) {
        let mut more = all.clone();
        more.push(Measured { until: at(now), ..measured(Source::Events, 50, None, 0) });
        prop_assert!(figure(&more, at(now)).trust() >= figure(&all, at(now)).trust());
        prop_assert_eq!(figure(&more, at(now)).trust(), 1000);
    }
}
