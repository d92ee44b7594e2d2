use proptest::prelude::*;

use super::spill::{Call, NOBODY, Spills, Was};
use super::split::{rounded, split};
use super::*;
use crate::gateway::event::Tokens;
use crate::gateway::price::{OwnPrice, Price, RegionClass};

/// 2026-11-23T00:00:00.000Z.
const START: Timestamp = Timestamp::from_unix_ms(1_795_392_000_000);
const NEXT_DAY: Timestamp = START.plus_ms(24 * HOUR_MS);

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn ptu(name: &str, since: Timestamp) -> PricedDeployment {
    PricedDeployment {
        backend: "sweden".into(),
        name: name.into(),
        model: "chat".into(),
        base_model: "gpt-4o".into(),
        kind: Kind::Ptu,
        region_class: RegionClass::Global,
        region: "swedencentral".into(),
        ptus: 100,
        before: Vec::new(),
        since,
        deleted: None,
    }
}

/// 100 PTUs at 1.00 an hour; they do 15,000,000 weighted tokens in it.
fn prices() -> Prices {
    Prices::new([ptu("ptu", Timestamp::default())], Vec::new(), "USD")
}

const CAPACITY: u64 = 15_000_000;

fn used(app: &str, hour: u8, weighted: u64) -> PtuUse {
    PtuUse {
        app: app.into(),
        hour,
        backend: "sweden".into(),
        deployment: "ptu".into(),
        model: "chat".into(),
        weighted,
        ..PtuUse::default()
    }
}

fn wanted(by: &[By]) -> Wanted {
    Wanted {
        by: by.to_vec(),
        ..Wanted::default()
    }
}

fn bill_of(prices: &Prices, wanted: Wanted, uses: &[PtuUse], now: Timestamp) -> Bill {
    let mut reckoning = Reckoning::new(prices, wanted);
    uses.iter().cloned().for_each(|one| reckoning.add_ptu(one));
    reckoning
        .close_day(&"2026-11-23".into(), START, now)
        .unwrap();
    reckoning.finish().unwrap()
}

/// What each line says it is for, and its cost.
fn costs(bill: &Bill) -> Vec<(String, Decimal)> {
    let name = |line: &Line| {
        if line.is_idle {
            IDLE.to_owned()
        } else {
            line.of.join("|")
        }
    };
    bill.lines
        .iter()
        .map(|line| (name(line), line.ptu_cost))
        .collect()
}

#[test]
fn an_hour_is_shared_by_weight_and_what_nobody_used_is_idle() {
    // Of 15 million, a fifth and two fifths.
    let uses = [used("a", 9, CAPACITY / 5), used("b", 9, CAPACITY / 5 * 2)];
    let bill = bill_of(
        &prices(),
        wanted(&[By::App]),
        &uses,
        START.plus_ms(9 * HOUR_MS + 1),
    );
    // Ten hours have begun, nine of which nobody used.
    let expected = [("(idle)", "940"), ("a", "20"), ("b", "40")];
    assert_eq!(
        costs(&bill),
        expected.map(|(name, cost)| (name.to_owned(), dec(cost)))
    );
    assert_eq!(bill.total.ptu_cost, dec("1000"));
    assert_eq!(bill.total.weighted, CAPACITY / 5 * 3);
}

#[test]
fn those_who_use_a_ptu_can_bear_what_is_idle_in_that_hour() {
    let uses = [used("a", 0, 1), used("b", 0, 3)];
    let users = Wanted {
        idle: Idle::Users,
        ..wanted(&[By::App])
    };
    let bill = bill_of(&prices(), users, &uses, START.plus_ms(HOUR_MS + 1));
    let expected = [("(idle)", "100"), ("a", "25"), ("b", "75")];
    assert_eq!(
        costs(&bill),
        expected.map(|(name, cost)| (name.to_owned(), dec(cost)))
    );
}

#[test]
fn a_ptu_used_beyond_its_capacity_costs_what_it_costs() {
    let uses = [used("a", 0, CAPACITY * 2), used("b", 0, CAPACITY * 2)];
    let bill = bill_of(&prices(), wanted(&[By::App]), &uses, START.plus_ms(1));
    assert_eq!(
        costs(&bill),
        [("a".to_owned(), dec("50")), ("b".to_owned(), dec("50"))]
    );
}

#[test]
fn three_thirds_of_an_hour_are_the_hour() {
    let thirds = split(dec("100"), &[1, 1, 1]).unwrap();
    assert_eq!(
        thirds,
        ["33.333333333334", "33.333333333333", "33.333333333333"].map(dec)
    );
}

#[test]
fn idle_cost_has_its_line_however_the_bill_is_broken_down() {
    let uses = [used("a", 0, CAPACITY / 2)];
    for by in [&[][..], &[By::Model], &[By::Kind, By::Day], &[By::User]] {
        let bill = bill_of(&prices(), wanted(by), &uses, START.plus_ms(1));
        let idle: Vec<_> = bill.lines.iter().map(|line| line.is_idle).collect();
        assert_eq!(idle, [false, true], "{by:?}");
        assert!(bill.lines.iter().all(|line| line.of.len() == by.len()));
        assert_eq!(bill.total.ptu_cost, dec("100"));
    }
}

#[test]
fn an_apps_own_bill_has_its_share_beside_the_others_and_no_idle_cost() {
    let uses = [used("a", 0, CAPACITY / 4), used("b", 0, CAPACITY / 4)];
    let only = Wanted {
        app: Some("a".into()),
        ..wanted(&[By::App])
    };
    let bill = bill_of(&prices(), only, &uses, START.plus_ms(1));
    assert_eq!(costs(&bill), [("a".to_owned(), dec("25"))]);
}

#[test]
fn a_ptu_costs_nothing_before_it_is_there() {
    let noon = START.plus_ms(12 * HOUR_MS);
    let prices = Prices::new([ptu("ptu", noon)], Vec::new(), "USD");
    let bill = bill_of(&prices, wanted(&[]), &[], NEXT_DAY);
    assert_eq!(bill.total.ptu_cost, dec("1200"));
}

#[test]
fn a_ptu_without_a_price_shows_its_hours_and_no_amount() {
    let unknown = Prices::new([ptu("ptu", Timestamp::default())], Vec::new(), "EUR");
    let gone = Prices::new([], Vec::new(), "USD");
    for prices in [unknown, gone] {
        let bill = bill_of(&prices, wanted(&[By::App]), &[used("a", 0, 7)], NEXT_DAY);
        let [line] = &bill.lines[..] else {
            panic!("{bill:?}")
        };
        assert_eq!((line.weighted, line.unpriced_weighted), (7, 7));
        assert_eq!(line.ptu_cost, Decimal::ZERO);
    }
}

#[test]
fn a_bill_that_is_broken_down_too_finely_is_refused() {
    let prices = prices();
    let mut reckoning = Reckoning::new(&prices, wanted(&[By::User]));
    let mut one = Use::default();
    for user in 0..MAX_LINES {
        one.user = user.to_string().into();
        reckoning.add(&one).unwrap();
    }
    reckoning.add(&one).unwrap();
    one.user = "one more".into();
    assert_eq!(reckoning.add(&one), Err(BillError::TooManyLines));
}

#[test]
fn rounded_amounts_still_add_up() {
    let thirds = split(dec("100"), &[1, 1, 1]).unwrap();
    assert_eq!(
        rounded(&thirds, 2).unwrap(),
        ["33.34", "33.33", "33.33"].map(dec)
    );
    assert_eq!(
        rounded(&[dec("0.004"), dec("0.004")], 2).unwrap(),
        ["0.01", "0.00"].map(dec)
    );
    assert_eq!(rounded(&[], 2), Some(Vec::new()));
}

fn call(app: &str, ms: u64, was: Was) -> Call {
    Call {
        time: START.plus_ms(ms),
        app: app.into(),
        model: "chat".into(),
        was,
    }
}

#[test]
fn a_day_on_which_a_ptu_grew_and_one_on_which_it_ended_cost_what_was_there() {
    let hours = |hours: u64| START.plus_ms(hours * HOUR_MS);
    let total = |of: PricedDeployment| {
        let prices = Prices::new([of], Vec::new(), "USD");
        let bill = bill_of(&prices, wanted(&[]), &[], NEXT_DAY);
        costs(&bill)
            .into_iter()
            .map(|(_, cost)| cost)
            .sum::<Decimal>()
    };
    let whole = ptu("ptu", Timestamp::default());
    assert_eq!(total(whole.clone()), dec("2400"));
    let grown = PricedDeployment {
        before: vec![(hours(12), 50)],
        ..whole.clone()
    };
    assert_eq!(total(grown), dec("1800"));
    let ended = PricedDeployment {
        deleted: Some(hours(6)),
        ..whole
    };
    assert_eq!(total(ended), dec("600"));
}

#[test]
fn what_spilling_costs_is_attributed_to_those_who_filled_the_ptu_in_that_minute() {
    let mut spills = Spills::default();
    let calls = [
        call("a", 100, Was::Taken(3000)),
        call("b", 59_999, Was::Taken(1000)),
        call("c", 60_000, Was::Taken(9000)),
        call("c", 30_000, Was::Spilled(400, Some(dec("0.08")))),
    ];
    calls.iter().for_each(|one| spills.add(one).unwrap());
    spills.close_day().unwrap();
    let lines = spills.finish();
    let shown: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                &*line.filled_by,
                &*line.app,
                line.spilled.tokens,
                line.spilled.cost,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("a", "c", 300, dec("0.06")), ("b", "c", 100, dec("0.02"))]
    );
}

#[test]
fn nobody_is_blamed_for_a_minute_in_which_nobody_was_seen() {
    let mut spills = Spills::default();
    spills.add(&call("c", 0, Was::Spilled(400, None))).unwrap();
    spills.close_day().unwrap();
    let lines = spills.finish();
    assert_eq!(
        (&*lines[0].filled_by, lines[0].spilled.tokens),
        (NOBODY, 400)
    );
}

prop_compose! {
    fn any_amount()(units in 0u64..10_000_000_000_000_000, scale in 0u32..=12) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(units), scale)
    }
}

proptest! {
    #[test]
    fn shares_add_up_and_none_is_a_unit_off(
        amount in any_amount(),
        weights in prop::collection::vec(0u64..1 << 50, 1..50),
    ) {
        let total: u64 = weights.iter().sum();
        prop_assume!(total > 0);
        let parts = split(amount, &weights).unwrap();
        prop_assert_eq!(parts.iter().sum::<Decimal>(), amount);
        let unit = dec("0.000000000001");
        for (part, weight) in parts.iter().zip(&weights) {
            // Reckoned with more digits than a unit has, where the amount leaves room for them.
            let exact = amount * (Decimal::from(*weight) / Decimal::from(total));
            let slack = unit + amount * dec("0.0000000000000000000000001");
            prop_assert!((part - exact).abs() <= slack, "{part} {exact}");
        }
    }

    #[test]
    fn rounding_keeps_the_sum_and_moves_nothing_by_a_whole_unit(
        amounts in prop::collection::vec(any_amount(), 0..30),
        decimals in 0u32..=6,
    ) {
        let sum: Decimal = amounts.iter().sum();
        let shown = rounded(&amounts, decimals).unwrap();
        let half_up = rust_decimal::RoundingStrategy::MidpointAwayFromZero;
        prop_assert_eq!(shown.iter().sum::<Decimal>(), sum.round_dp_with_strategy(decimals, half_up));
        let unit = Decimal::new(1, decimals);
        for (shown, exact) in shown.iter().zip(&amounts) {
            prop_assert!((shown - exact).abs() < unit || amounts.len() > 1 && (shown - exact).abs() <= unit);
        }
    }

    /// However the bill is broken down: lines add up to the total, the total is what calls and hours
    /// cost, and an app's cost is the same.
    #[test]
    fn a_bill_adds_up_however_it_is_broken_down(
        calls in prop::collection::vec((0..4u8, 0..3u8, 0..3u8, 0..1_000_000u64, 0..10_000_000i64), 0..40),
        uses in prop::collection::vec((0..4u8, 0..3u8, 0..24u8, 0..CAPACITY), 0..40),
        price in 1..100_000_000i64,
        by in prop::collection::vec(0..By::ALL.len(), 0..4),
        shared in any::<bool>(),
    ) {
        let own = OwnPrice {
            ptu_hour: Price::new(Decimal::new(price, 6)),
            ..OwnPrice::default()
        };
        let prices = Prices::new([ptu("ptu", Timestamp::default())], vec![own], "USD");
        let by: Vec<By> = by.into_iter().map(|index| By::ALL[index]).collect();
        let idle = if shared { Idle::Users } else { Idle::OwnLine };
        let make = |by: Vec<By>| {
            let mut reckoning = Reckoning::new(&prices, Wanted { by, app: None, idle });
            for (app, user, model, tokens, cost) in &calls {
                let one = Use {
                    app: format!("app{app}").into(),
                    user: format!("user{user}").into(),
                    model: format!("model{model}").into(),
                    figures: Figures {
                        calls: 1,
                        tokens: Tokens { input: *tokens, ..Tokens::default() },
                        cost: Decimal::new(*cost, 12),
                        ..Figures::default()
                    },
                    ..Use::default()
                };
                reckoning.add(&one).unwrap();
            }
            for (app, user, hour, weighted) in &uses {
                reckoning.add_ptu(PtuUse {
                    user: format!("user{user}").into(),
                    ..used(&format!("app{app}"), *hour, *weighted)
                });
            }
            reckoning.close_day(&"2026-11-23".into(), START, NEXT_DAY).unwrap();
            reckoning.finish().unwrap()
        };
        let bill = make(by);
        let hours = Decimal::new(price, 6) * dec("100") * dec("24");
        let calls_cost: Decimal = calls.iter().map(|(.., cost)| Decimal::new(*cost, 12)).sum();
        prop_assert_eq!(bill.total.ptu_cost, hours);
        prop_assert_eq!(bill.total.figures.cost, calls_cost);
        let lines: Decimal = bill.lines.iter().map(|line| line.cost().unwrap()).sum();
        prop_assert_eq!(lines, bill.total.cost().unwrap());
        prop_assert_eq!(bill.total.figures.calls, u64::try_from(calls.len()).unwrap());

        let of_app = |bill: &Bill, app: &str| -> Decimal {
            let lines = bill.lines.iter().filter(|line| !line.is_idle && &*line.of[0] == app);
            lines.map(|line| line.cost().unwrap()).sum()
        };
        let (coarse, fine) = (make(vec![By::App]), make(vec![By::App, By::User, By::Model]));
        for app in ["app0", "app1", "app2", "app3"] {
            prop_assert_eq!(of_app(&coarse, app), of_app(&fine, app));
        }
    }

    #[test]
    fn all_that_spilled_is_attributed(
        calls in prop::collection::vec((0..4u8, 0..180_000u64, any::<bool>(), 0..1_000_000u64), 0..60),
    ) {
        let mut spills = Spills::default();
        let (mut tokens, mut cost) = (0, Decimal::ZERO);
        for (app, ms, spilled, count) in calls {
            let was = if spilled {
                let one = Decimal::new(i64::try_from(count).unwrap(), 9);
                (tokens, cost) = (tokens + count, cost + one);
                Was::Spilled(count, Some(one))
            } else {
                Was::Taken(count)
            };
            spills.add(&call(&format!("app{app}"), ms, was)).unwrap();
        }
        spills.close_day().unwrap();
        let lines = spills.finish();
        prop_assert_eq!(lines.iter().map(|line| line.spilled.tokens).sum::<u64>(), tokens);
        prop_assert_eq!(lines.iter().map(|line| line.spilled.cost).sum::<Decimal>(), cost);
    }
}
