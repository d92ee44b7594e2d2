//! What calls cost that another tier than the standard one processed.

use super::*;

/// An own price of a tier's calls, for a million prompt tokens.
fn own(tier: ServiceTier, backend: Option<&str>, input: &str) -> OwnPrice {
    OwnPrice {
        backend: backend.map(Arc::from),
        tier,
        tokens: Some(TokenPrices {
            input: price(input),
            ..TokenPrices::default()
        }),
        ..OwnPrice::default()
    }
}

fn million(tier: ServiceTier) -> UsageEvent {
    UsageEvent {
        service_tier: tier,
        ..call("payg", Kind::Payg, tokens(1_000_000, 0, 0))
    }
}

fn charged(own: Vec<OwnPrice>, tier: ServiceTier) -> (Option<Decimal>, bool) {
    let prices = Prices::new([deployment("payg", Kind::Payg)], own, "USD");
    let charge = prices.charge(&million(tier));
    (charge.cost, charge.is_unpriced)
}

#[test]
fn a_priority_call_costs_the_price_of_priority_and_no_other_call_does() {
    let priority = || vec![own(ServiceTier::Priority, None, "4.25")];
    let dear = (Some(dec("4.25")), false);
    assert_eq!(charged(priority(), ServiceTier::Priority), dear);
    let listed = (Some(dec("2.5")), false);
    assert_eq!(charged(priority(), ServiceTier::Standard), listed);
}

#[test]
fn a_price_of_the_tier_wins_over_a_narrower_one_of_the_standard_tier() {
    let prices = vec![
        own(ServiceTier::Standard, Some("sweden"), "2"),
        own(ServiceTier::Priority, None, "4.25"),
    ];
    let dear = (Some(dec("4.25")), false);
    assert_eq!(charged(prices, ServiceTier::Priority), dear);
}

#[test]
fn a_tier_without_a_price_is_charged_as_standard_and_flagged() {
    for tier in [ServiceTier::Priority, ServiceTier::Flex] {
        let flagged = (Some(dec("2.5")), true);
        assert_eq!(charged(Vec::new(), tier), flagged);
        let own = vec![own(ServiceTier::Standard, None, "2")];
        assert_eq!(charged(own, tier), (Some(dec("2")), true));
    }
}

#[test]
fn a_tiers_price_is_in_force_from_its_day() {
    let later = OwnPrice {
        from: list::day("2026-12-01").unwrap(),
        ..own(ServiceTier::Priority, None, "4.25")
    };
    let flagged = (Some(dec("2.5")), true);
    assert_eq!(charged(vec![later], ServiceTier::Priority), flagged);
}

#[test]
fn a_call_from_elsewhere_has_its_tiers_price_too() {
    let prices = Prices::new([], vec![own(ServiceTier::Priority, None, "4.25")], "USD");
    let mut event = million(ServiceTier::Priority);
    (event.backend, event.deployment) = ("".into(), "".into());
    assert_eq!(prices.charge(&event).cost, Some(dec("4.25")));
}

#[test]
fn what_a_call_was_spared_is_priced_by_the_tier_of_the_answer() {
    let prices = Prices::new(
        [deployment("payg", Kind::Payg)],
        vec![own(ServiceTier::Priority, None, "4.25")],
        "USD",
    );
    let saving = Saving {
        tokens: tokens(1_000_000, 0, 0),
        backend: "sweden".into(),
        deployment: "payg".into(),
        kind: Some(Kind::Payg),
    };
    let hit = UsageEvent {
        tokens: Tokens::default(),
        usage: UsageSource::None,
        saving: Some(Box::new(saving)),
        ..million(ServiceTier::Priority)
    };
    let charge = prices.charge(&hit);
    assert_eq!(charge.saved, dec("4.25"));
    assert!(!charge.is_unpriced, "it used nothing");
}

#[test]
fn a_ptus_call_has_a_weight_whatever_its_tier() {
    let prices = of_list([deployment("ptu", Kind::Ptu)]);
    let event = UsageEvent {
        service_tier: ServiceTier::Priority,
        ..call("ptu", Kind::Ptu, tokens(1000, 0, 0))
    };
    let charge = prices.charge(&event);
    assert_eq!((charge.weighted, charge.is_unpriced), (1000, false));
}
