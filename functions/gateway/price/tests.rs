use super::*;
use crate::gateway::event::{Attempt, Saving};

mod exact;
mod tier;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn price(text: &str) -> Price {
    Price::parse(text).unwrap()
}

fn deployment(name: &str, kind: Kind) -> PricedDeployment {
    PricedDeployment {
        backend: "sweden".into(),
        name: name.into(),
        model: "chat".into(),
        base_model: "gpt-4o".into(),
        kind,
        region_class: RegionClass::Global,
        region: "swedencentral".into(),
        ptus: if kind == Kind::Ptu { 100 } else { 0 },
        before: Vec::new(),
        since: Timestamp::default(),
        deleted: None,
    }
}

fn of_list(deployments: impl IntoIterator<Item = PricedDeployment>) -> Prices {
    Prices::new(deployments, Vec::new(), "USD")
}

fn tokens(input: u64, cached: u64, output: u64) -> Tokens {
    Tokens {
        input,
        cached,
        output,
        ..Tokens::default()
    }
}

fn call(deployment: &str, kind: Kind, tokens: Tokens) -> UsageEvent {
    UsageEvent {
        time: NOW,
        model: "chat".into(),
        backend: "sweden".into(),
        deployment: deployment.into(),
        kind: Some(kind),
        tokens,
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

#[test]
fn each_line_of_the_lists_is_a_row() {
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(list::payg().len(), lines(include_str!("payg.csv")) - 1);
    assert_eq!(list::ptu().len(), lines(include_str!("ptu.csv")) - 1);
    for row in list::payg() {
        let cached = row.tokens.cached_input;
        assert!(
            cached.is_none_or(|cached| cached < row.tokens.input),
            "{row:?}"
        );
        assert!(row.from <= NOW, "{row:?}");
    }
}

#[test]
fn no_two_rows_of_the_list_are_for_the_same_calls() {
    let mut seen = std::collections::HashSet::new();
    for row in list::payg() {
        let regions = if row.regions.is_empty() {
            vec!["*"]
        } else {
            row.regions.clone()
        };
        for region in regions {
            let what = (
                row.model,
                row.region_class,
                region,
                row.from,
                row.up_to_input,
            );
            assert!(seen.insert(what), "{what:?}");
        }
    }
}

#[test]
fn a_call_costs_its_tokens_at_the_lists_price() {
    let prices = of_list([deployment("payg", Kind::Payg)]);
    // 2.50 for a million, half of that from the cache, 10.00 for generated ones.
    let charge = prices.charge(&call("payg", Kind::Payg, tokens(1200, 200, 100)));
    assert_eq!(charge.cost, Some(dec("0.00375")));
    assert!(!charge.is_unpriced);
}

#[test]
fn what_a_call_was_spared_is_priced_where_its_answer_was_made() {
    let prices = of_list([deployment("payg", Kind::Payg), deployment("ptu", Kind::Ptu)]);
    let spared = |name: &str, kind| {
        let saving = Saving {
            tokens: tokens(1200, 200, 100),
            backend: "sweden".into(),
            deployment: name.into(),
            kind: Some(kind),
        };
        let hit = UsageEvent {
            time: NOW,
            model: "chat".into(),
            saving: Some(Box::new(saving)),
            ..UsageEvent::default()
        };
        prices.charge(&hit)
    };
    let charge = spared("payg", Kind::Payg);
    assert_eq!(charge.saved, dec("0.00375"));
    assert_eq!(
        (charge.cost, charge.is_unpriced),
        (Some(Decimal::ZERO), false)
    );
    assert_eq!(spared("ptu", Kind::Ptu).saved, Decimal::ZERO);
}

#[test]
fn calls_that_share_an_answer_are_priced_by_its_length() {
    let dear = |up_to, input| Row {
        from: Timestamp::default(),
        up_to,
        tier: ServiceTier::Standard,
        tokens: TokenPrices {
            input: price(input),
            ..TokenPrices::default()
        },
    };
    let rows = [dear(100, "1"), dear(u64::MAX, "2")];
    let mut part = call("payg", Kind::Payg, tokens(60, 0, 0));
    assert_eq!(in_force(&rows, &part, ServiceTier::Standard), Some(rows[0]));
    part.saving = Some(Box::new(Saving {
        tokens: tokens(60, 0, 0),
        ..Saving::default()
    }));
    assert_eq!(in_force(&rows, &part, ServiceTier::Standard), Some(rows[1]));
}

#[test]
fn class_and_region_decide_the_price() {
    let input_of = |class, region: &str| {
        let mut payg = deployment("payg", Kind::Payg);
        (payg.region_class, payg.region) = (class, region.into());
        let million = call("payg", Kind::Payg, tokens(1_000_000, 0, 0));
        of_list([payg]).charge(&million).cost
    };
    assert_eq!(
        input_of(RegionClass::Global, "swedencentral"),
        Some(dec("2.5"))
    );
    assert_eq!(
        input_of(RegionClass::DataZone, "swedencentral"),
        Some(dec("2.75"))
    );
    assert_eq!(
        input_of(RegionClass::Regional, "swedencentral"),
        Some(dec("3.025"))
    );
    assert_eq!(input_of(RegionClass::Regional, "eastus"), Some(dec("2.75")));
    assert_eq!(input_of(RegionClass::Regional, ""), Some(dec("2.75")));
}

#[test]
fn a_version_has_its_own_price_where_the_list_has_one() {
    let input_of = |base: &str| {
        let mut payg = deployment("payg", Kind::Payg);
        payg.base_model = base.into();
        let million = call("payg", Kind::Payg, tokens(1_000_000, 0, 0));
        of_list([payg]).charge(&million).cost
    };
    assert_eq!(input_of("gpt-4o-2024-05-13"), Some(dec("5")));
    assert_eq!(input_of("gpt-4o-2024-11-20"), Some(dec("2.5")));
    assert_eq!(input_of("gpt-4o-audio-preview"), None, "another model");
}

#[test]
fn a_long_prompt_is_charged_at_the_price_of_long_prompts() {
    let mut payg = deployment("payg", Kind::Payg);
    payg.base_model = "gpt-5.4".into();
    let prices = of_list([payg]);
    let cost = |input| {
        prices
            .charge(&call("payg", Kind::Payg, tokens(input, 0, 0)))
            .cost
    };
    assert_eq!(cost(272_000), Some(dec("0.68")));
    assert_eq!(cost(272_001), Some(dec("1.360005")));
}

#[test]
fn an_unknown_model_has_no_price_and_not_zero() {
    let mut event = call("elsewhere", Kind::Payg, tokens(10, 0, 10));
    event.model = "llama".into();
    let charge = of_list([]).charge(&event);
    assert_eq!(charge.cost, None);
    assert!(charge.is_unpriced);
}

#[test]
fn a_call_from_elsewhere_is_pay_as_you_go_of_class_global() {
    let mut event = call("", Kind::Payg, tokens(1_000_000, 0, 0));
    (event.backend, event.kind, event.model) = ("".into(), None, "gpt-4o".into());
    let prices = of_list([deployment("payg", Kind::Payg)]);
    assert_eq!(prices.charge(&event).cost, Some(dec("2.5")));
}

#[test]
fn a_call_before_the_first_price_has_none() {
    let mut event = call("payg", Kind::Payg, tokens(10, 0, 10));
    event.time = list::day("2024-11-30").unwrap();
    let prices = of_list([deployment("payg", Kind::Payg)]);
    assert!(prices.charge(&event).is_unpriced);
}

#[test]
fn a_call_that_used_nothing_costs_nothing() {
    let mut event = call("", Kind::Payg, Tokens::default());
    event.usage = UsageSource::None;
    let charge = of_list([]).charge(&event);
    assert_eq!(
        (charge.cost, charge.is_unpriced),
        (Some(Decimal::ZERO), false)
    );
}

#[test]
fn a_call_at_a_ptu_has_a_weight_and_no_cost_of_its_own() {
    let prices = of_list([deployment("ptu", Kind::Ptu)]);
    let charge = prices.charge(&call("ptu", Kind::Ptu, tokens(1000, 400, 50)));
    // gpt-4o: an output token weighs four; cached ones weigh nothing.
    assert_eq!(charge.weighted, 600 + 4 * 50);
    assert_eq!((charge.cost, charge.is_unpriced), (None, false));
}

#[test]
fn only_the_attempt_that_was_billed_costs() {
    let attempt = |deployment: &str, kind, billed| Attempt {
        backend: "sweden".into(),
        deployment: deployment.into(),
        kind,
        status: Some(429),
        error: None,
        after_ms: 0,
        ms: 1,
        billed,
    };
    let both = || [deployment("ptu", Kind::Ptu), deployment("payg", Kind::Payg)];
    let mut event = call("payg", Kind::Payg, tokens(1_000_000, 0, 0));
    event.attempts = vec![
        attempt("ptu", Kind::Ptu, false),
        attempt("payg", Kind::Payg, true),
    ];
    let charge = of_list(both()).charge(&event);
    assert_eq!((charge.cost, charge.weighted), (Some(dec("2.5")), 0));
    // The client left before the PTU had answered: the event names no deployment that did.
    event.attempts = vec![
        attempt("payg", Kind::Payg, false),
        attempt("ptu", Kind::Ptu, true),
    ];
    (event.deployment, event.kind) = ("".into(), None);
    assert_eq!(of_list(both()).charge(&event).weighted, 1_000_000);
}

#[test]
fn own_prices_win_the_narrowest_first_and_each_from_its_day() {
    let own = |model: Option<&str>, backend: Option<&str>, from: &str, input: &str| OwnPrice {
        model: model.map(Arc::from),
        backend: backend.map(Arc::from),
        from: list::day(from).unwrap(),
        tokens: Some(TokenPrices {
            input: price(input),
            ..TokenPrices::default()
        }),
        ..OwnPrice::default()
    };
    let prices = |own| Prices::new([deployment("payg", Kind::Payg)], own, "USD");
    let million = call("payg", Kind::Payg, tokens(1_000_000, 0, 0));
    let cost = |own: Vec<OwnPrice>| prices(own).charge(&million).cost;
    let by_app_name = own(Some("chat"), None, "2026-01-01", "1");
    let by_model_name = own(Some("gpt-4o"), None, "2026-11-01", "2");
    let later = own(Some("gpt-4o"), None, "2026-12-01", "3");
    let at_backend = own(None, Some("sweden"), "2026-01-01", "4");
    let elsewhere = own(None, Some("norway"), "2026-01-01", "5");
    assert_eq!(cost(vec![by_app_name.clone()]), Some(dec("1")));
    assert_eq!(
        cost(vec![by_app_name.clone(), by_model_name]),
        Some(dec("2")),
        "the later"
    );
    assert_eq!(
        cost(vec![by_app_name.clone(), later]),
        Some(dec("1")),
        "not in force yet"
    );
    assert_eq!(
        cost(vec![at_backend, by_app_name]),
        Some(dec("4")),
        "the narrower"
    );
    assert_eq!(cost(vec![elsewhere]), Some(dec("2.5")), "the list's");
}

#[test]
fn the_list_says_nothing_in_another_currency() {
    let prices = Prices::new([deployment("payg", Kind::Payg)], Vec::new(), "EUR");
    let charge = prices.charge(&call("payg", Kind::Payg, tokens(10, 0, 0)));
    assert!(charge.is_unpriced);
}

#[test]
fn a_ptu_has_its_price_and_capacity_by_the_hour() {
    let mut regional = deployment("regional", Kind::Ptu);
    regional.region_class = RegionClass::Regional;
    let mut unnamed = deployment("unnamed", Kind::Ptu);
    unnamed.ptus = 0;
    let prices = of_list([deployment("ptu", Kind::Ptu), regional, unnamed]);
    let ptu = |name| prices.ptu("sweden", name, NOW).unwrap();
    assert_eq!(ptu("ptu").per_hour, Some(dec("100")));
    // gpt-4o: 2,500 input tokens a minute and PTU.
    assert_eq!(ptu("ptu").capacity, 100 * 2500 * 60);
    assert_eq!(ptu("regional").per_hour, Some(dec("220")));
    assert_eq!(ptu("unnamed").per_hour, None);
    assert_eq!(prices.ptu("sweden", "elsewhere", NOW), None);
}

#[test]
fn an_own_price_of_a_ptu_hour_wins() {
    let reserved = OwnPrice {
        ptu_hour: Some(price("0.35")),
        ..OwnPrice::default()
    };
    let prices = Prices::new([deployment("ptu", Kind::Ptu)], vec![reserved], "EUR");
    let ptu = prices.ptu("sweden", "ptu", NOW).unwrap();
    assert_eq!(ptu.per_hour, Some(dec("35")));
}

#[test]
fn audio_without_a_price_is_not_charged_as_text() {
    let audio = Tokens {
        audio_input: 5,
        ..tokens(10, 0, 0)
    };
    let text_only = TokenPrices {
        input: price("1"),
        ..TokenPrices::default()
    };
    assert_eq!(text_only.cost(&audio), None);
    let with_audio = TokenPrices {
        audio_input: Some(price("40")),
        ..text_only
    };
    assert_eq!(with_audio.cost(&audio), Some(dec("0.000205")));
}

#[test]
fn audio_and_images_from_the_cache_have_their_own_prices() {
    let prices = TokenPrices {
        input: price("4"),
        cached_input: Some(price("0.40")),
        audio_input: Some(price("32")),
        image_input: Some(price("5")),
        cached_audio_input: Some(price("0.40")),
        cached_image_input: Some(price("0.50")),
        ..TokenPrices::default()
    };
    let used = Tokens {
        audio_input: 600_000,
        image_input: 100_000,
        cached_audio: 500_000,
        cached_image: 50_000,
        ..tokens(1_000_000, 650_000, 0)
    };
    // Text 0.8 + 0.04, images 0.25 + 0.025, audio 3.2 + 0.2.
    assert_eq!(prices.cost(&used), Some(dec("4.515")));
    let without = TokenPrices {
        cached_audio_input: None,
        cached_image_input: None,
        ..prices
    };
    assert_eq!(without.cost(&used), Some(dec("20.54")), "as if not cached");
    let whole = TokenPrices {
        image_input: None,
        ..without
    };
    assert_eq!(whole.cost(&used), Some(dec("20.44")), "images as text");
}

#[test]
fn cached_tokens_of_no_sort_cost_as_cached_text_as_far_as_there_is_text() {
    let prices = TokenPrices {
        input: price("4"),
        cached_input: Some(price("0.40")),
        audio_input: Some(price("32")),
        cached_audio_input: Some(price("0.40")),
        ..TokenPrices::default()
    };
    let used = Tokens {
        audio_input: 900_000,
        ..tokens(1_000_000, 600_000, 0)
    };
    assert_eq!(prices.cost(&used), Some(dec("28.84")));
}

#[test]
fn a_price_is_exact_or_refused() {
    assert_eq!(price("2.50").amount(), dec("2.5"));
    assert_eq!(price("0.000001").amount(), dec("0.000001"));
    for text in ["-1", "1000000", "0.0000001", "x", ""] {
        assert_eq!(Price::parse(text), None, "{text}");
    }
}

#[test]
fn the_last_calls_of_a_deployment_that_is_gone_are_charged_as_its_own() {
    let before = of_list([deployment("chat", Kind::Payg), deployment("ptu", Kind::Ptu)]);
    let after = of_list([]).after(&before);
    let one = call("chat", Kind::Payg, tokens(1000, 0, 10));
    assert_eq!(after.charge(&one), before.charge(&one));
    assert!(after.charge(&one).cost.is_some());
    assert!(after.ptus().is_empty(), "it costs nothing any more");
    assert_eq!(after.ptu("sweden", "ptu", NOW), None);
}
