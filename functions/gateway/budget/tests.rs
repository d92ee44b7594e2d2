use proptest::prelude::*;

use super::*;

const MINUTE_MS: u64 = 60_000;

/// 2026-11-23T17:06:30Z.
fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_795_453_590_000)
}

fn money(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn budget(per_month: &str) -> Budget {
    Budget {
        per_month: money(per_month),
        on_exhausted: OnExhausted::Refuse,
    }
}

fn spend(spent: &str) -> Spend {
    Spend {
        month: Month::of(now()),
        spent: money(spent),
        as_of: now(),
    }
}

#[test]
fn an_app_is_warned_at_four_fifths_and_stopped_at_all_of_its_budget() {
    let state = |spent: &str| {
        let standing = budget("2500.00").standing(Some(&spend(spent)), now());
        (
            standing.state,
            standing.action,
            standing.percent.to_string(),
        )
    };
    let of = |state, action, percent: &str| (state, action, percent.to_owned());
    assert_eq!(state("0"), of(BudgetState::Fine, None, "0"));
    assert_eq!(state("1999.999999"), of(BudgetState::Fine, None, "79.9"));
    assert_eq!(state("2000.00"), of(BudgetState::Warned, None, "80"));
    assert_eq!(state("2499.999999"), of(BudgetState::Warned, None, "99.9"));
    let refuse = Some(OnExhausted::Refuse);
    assert_eq!(state("2500"), of(BudgetState::Exhausted, refuse, "100"));
    assert_eq!(state("3000.5"), of(BudgetState::Exhausted, refuse, "120"));
}

#[test]
fn states_are_in_order_so_that_a_crossing_can_be_told() {
    assert!(BudgetState::Fine < BudgetState::Warned);
    assert!(BudgetState::Warned < BudgetState::Exhausted);
}

#[test]
fn an_app_may_be_demoted_instead() {
    let budget = Budget {
        on_exhausted: OnExhausted::LowPriority,
        ..budget("10")
    };
    let standing = budget.standing(Some(&spend("10")), now());
    assert_eq!(standing.action, Some(OnExhausted::LowPriority));
}

#[test]
fn a_budget_of_nothing_is_spent_from_the_start() {
    let standing = budget("0").standing(None, now());
    assert_eq!(standing.state, BudgetState::Exhausted);
    assert_eq!(standing.percent, Decimal::ONE_HUNDRED);
}

#[test]
fn a_new_month_begins_with_nothing_spent() {
    let last_ms = Timestamp::from_unix_ms(1_796_083_199_999);
    let spend = Spend {
        as_of: last_ms,
        ..spend("12")
    };
    let before = budget("10").standing(Some(&spend), last_ms);
    assert_eq!(
        (before.state, before.renews_in_ms),
        (BudgetState::Exhausted, 1)
    );
    let after = budget("10").standing(Some(&spend), last_ms.plus_ms(1));
    assert_eq!(
        (after.state, after.spent),
        (BudgetState::Fine, Decimal::ZERO)
    );
    assert!(after.is_stale, "nothing is known of this month");
    assert_eq!(after.renews_in_ms, 31 * 24 * 60 * MINUTE_MS);
}

#[test]
fn an_old_figure_is_stale_and_holds_all_the_same() {
    let spend = spend("12");
    let later = now().plus_ms(5 * MINUTE_MS);
    let fresh = budget("10").standing(Some(&spend), now().plus_ms(5 * MINUTE_MS - 1));
    assert!(!fresh.is_stale);
    let stale = budget("10").standing(Some(&spend), later);
    assert!(stale.is_stale);
    assert_eq!(stale.state, BudgetState::Exhausted);
}

#[test]
fn without_a_figure_an_app_is_served() {
    let standing = budget("10").standing(None, now());
    assert_eq!((standing.state, standing.action), (BudgetState::Fine, None));
    assert!(standing.is_stale);
}

#[test]
fn months_are_read_as_they_are_written() {
    let month = Month::of(now());
    assert_eq!(month.to_string(), "2026-11");
    assert_eq!("2026-11".parse(), Ok(month));
    for wrong in [
        "2026-13",
        "2026-00",
        "2026-1",
        "1969-12",
        "26-11",
        "+026-11",
        "2026-11-01",
        "9999-01",
        "9999-12",
        "",
    ] {
        let error = wrong.parse::<Month>().unwrap_err();
        assert!(error.contains("2026-11"), "{error}");
    }
    let december: Month = "2026-12".parse().unwrap();
    assert_eq!(december.next().to_string(), "2027-01");
    assert_eq!(
        december.next().start().rfc3339(),
        "2027-01-01T00:00:00.000Z"
    );
}

#[test]
fn every_month_that_can_be_named_ends_where_another_begins() {
    let names =
        (0..=9999).flat_map(|year| (0..=13).map(move |month| format!("{year:04}-{month:02}")));
    let months: Vec<Month> = names.filter_map(|name| name.parse().ok()).collect();
    assert_eq!(months.len(), (9999 - 1970) * 12);
    for pair in months.windows(2) {
        assert_eq!(pair[0].next(), pair[1]);
    }
    for month in months {
        let days = month.next().start().ms_since(month.start()) / crate::gateway::time::DAY_MS;
        assert!((28..=31).contains(&days), "{month}: {days}");
    }
}

#[test]
fn money_is_text_in_json() {
    let spend = spend("0.10");
    let json = serde_json::to_string(&spend).unwrap();
    assert!(
        json.contains(r#""month":"2026-11","spent":"0.10""#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<Spend>(&json).unwrap(), spend);
    assert!(serde_json::from_str::<Spend>(&json.replace("\"0.10\"", "0.1")).is_err());
}

#[test]
fn absurd_sums_do_not_overflow() {
    let most = Decimal::MAX.to_string();
    let tiny = "0.0000000000000000000000000001";
    let standing = |per_month: &str, spent: &str| {
        budget(per_month).standing(Some(&spend(spent)), Timestamp::from_unix_ms(u64::MAX))
    };
    for (per_month, spent) in [(tiny, &*most), (&*most, tiny), (&*most, &*most)] {
        assert!(standing(per_month, spent).percent >= Decimal::ZERO);
    }
    let there = budget(tiny).standing(Some(&spend(&most)), now());
    assert_eq!(there.state, BudgetState::Exhausted);
}

proptest! {
    /// The state and the percentage tell the same.
    #[test]
    fn the_percentage_fits_the_state(cents in 1u64..10_000_000, spent in 0u64..20_000_000) {
        let hundredth = |cents: u64| Decimal::from(cents) / Decimal::ONE_HUNDRED;
        let budget = Budget { per_month: hundredth(cents), on_exhausted: OnExhausted::Refuse };
        let spend = Spend { spent: hundredth(spent), ..spend("0") };
        let standing = budget.standing(Some(&spend), now());
        let by_percent = match standing.percent {
            percent if percent >= Decimal::from(100) => BudgetState::Exhausted,
            percent if percent >= Decimal::from(80) => BudgetState::Warned,
            _ => BudgetState::Fine,
        };
        prop_assert_eq!(standing.state, by_percent);
    }

    #[test]
    fn every_moment_before_the_year_9999_is_in_its_month(ms in 0u64..253_370_764_800_000) {
        let at = Timestamp::from_unix_ms(ms);
        let month = Month::of(at);
        prop_assert!(month.start() <= at && at < month.next().start());
        prop_assert_eq!(month.to_string(), &at.day()[..7]);
        prop_assert_eq!(month.to_string().parse(), Ok(month));
    }
}
