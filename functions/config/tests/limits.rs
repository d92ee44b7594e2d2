//! Apps' limits and budgets.

use crate::gateway::budget::OnExhausted;

use super::*;

/// The good file with these lines at its end, in the section of its last app.
fn with(lines: &str) -> String {
    let (before, storage) = GOOD.split_once("\n[storage]").unwrap();
    format!("{before}{lines}\n[storage]{storage}")
}

/// Mistakes without the file's name.
fn found(lines: &str) -> Vec<String> {
    let all = mistakes(&with(lines)).into_iter();
    all.map(|m| m.strip_prefix("spillway.toml:").unwrap().to_owned())
        .collect()
}

#[test]
fn an_app_has_limits_for_all_it_does_and_by_model_and_a_budget() {
    let text = with(
        "tokens_per_minute = 100_000\ncalls_in_flight = 5\nbudget_per_month = \"2500.00\"\non_exhausted = \"low-priority\"\n[[app.limit]]\nmodel = \"gpt-4o\"\nrequests_per_minute = 60\n[chargeback]\ncurrency = \"EUR\"\n",
    );
    let config = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let app = &config.apps[0];
    let whole = app.allowance();
    assert_eq!(
        (
            whole.tokens_per_minute,
            whole.requests_per_minute,
            whole.in_flight
        ),
        (Some(100_000), None, Some(5))
    );
    assert_eq!(app.limits[0].model, "gpt-4o");
    assert_eq!(app.limits[0].allowance().requests_per_minute, Some(60));
    let budget = app.budget().unwrap();
    assert_eq!(budget.per_month.to_string(), "2500.00");
    assert_eq!(budget.on_exhausted, OnExhausted::LowPriority);
    assert_eq!(config.chargeback.currency, "EUR");
    let plain = parse(GOOD).unwrap();
    assert!(plain.apps[0].allowance().is_unlimited() && plain.apps[0].budget().is_none());
    assert_eq!(plain.chargeback.currency, "USD");
}

#[test]
fn each_mistake_of_limits_and_budgets_has_its_place() {
    let cases = [
        (
            "tokens_per_minute = 0",
            "36:21: app[0].tokens_per_minute: must be from 1 to 1000000000000, is 0",
        ),
        (
            "requests_per_minute = \"60\"",
            "36:23: app[0].requests_per_minute: must be a whole number, is a string",
        ),
        (
            "budget_per_month = \"-1\"",
            "36:20: app[0].budget_per_month: must be a decimal number such as \"2500.00\", not negative",
        ),
        (
            "budget_per_month = 2500.5",
            "36:20: app[0].budget_per_month: must be a string, is a number with a fraction",
        ),
        (
            "on_exhausted = \"refuse\"",
            "36:16: app[0].on_exhausted: needs `budget_per_month` beside it: it says what happens when that is spent",
        ),
        (
            "budget_per_month = \"1\"\non_exhausted = \"low\"",
            "37:16: app[0].on_exhausted: `low` is no value of this key; did you mean `low-priority`?",
        ),
        (
            "[[app.limit]]\nmodel = \"gpt-4\"\ncalls_in_flight = 1",
            "37:9: app[0].limit[0].model: `gpt-4` is no model of a deployment; did you mean `gpt-4o`?",
        ),
        (
            "[[app.limit]]\nmodel = \"gpt-4o\"",
            "36:1: app[0].limit[0]: limits nothing: it needs one of tokens_per_minute, requests_per_minute, calls_in_flight",
        ),
        (
            "[[app.limit]]\nmodel = \"gpt-4o\"\ncalls_in_flight = 1\n[[app.limit]]\nmodel = \"gpt-4o\"\ncalls_in_flight = 2",
            "40:9: app[0].limit[1].model: the limit of line 37 is for the same model",
        ),
        (
            "[chargeback]\ncurrency = \"Euro\"",
            "37:12: chargeback.currency: must be three capital letters such as EUR",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(found(lines), [expected], "{lines}");
    }
    let other = with("[[app.limit]]\nmodel = \"mini\"\ncalls_in_flight = 1").replace(
        "weight = 3",
        "weight = 3\n[[backend.deployment]]\nname = \"mini\"\nkind = \"payg\"",
    );
    let all = mistakes(&other);
    assert_eq!(
        all,
        ["spillway.toml:40:9: app[0].limit[0].model: is none of the models that the app may use"]
    );
}

#[test]
fn marks_are_shared_only_where_there_is_a_place_for_them() {
    assert!(!parse(GOOD).unwrap().gateway.share_marks);
    let shared = GOOD.replace("[gateway]", "[gateway]\nshare_marks = true");
    assert!(parse(&shared).unwrap().gateway.share_marks);
    let (without, _) = shared.split_once("\n[storage]").unwrap();
    let found = mistakes(without);
    let wanted = "spillway.toml:3:15: gateway.share_marks: needs `tables` in [storage]: instances tell each other there which deployments are full";
    assert_eq!(found, [wanted]);
}
