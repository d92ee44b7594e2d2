//! `[[price]]`, and what a deployment's price goes by.

use rust_decimal::Decimal;

use crate::gateway::event::{Kind, Tokens, UsageEvent, UsageSource};
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

use super::*;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

const DEPLOYMENTS: &str = r#"
[auth]
mode = "off"
[[backend]]
name = "sweden"
endpoint = "https://contoso.openai.azure.com"
region = "Sweden Central"
key = "${PTU_KEY}"
[[backend.deployment]]
name = "chat"
base_model = "gpt-4o-2024-11-20"
kind = "payg"
region_class = "regional"
[[backend.deployment]]
name = "chat-ptu"
model = "chat"
base_model = "gpt-4o"
kind = "ptu"
ptus = 50
"#;

fn found(lines: &str) -> Vec<String> {
    let all = mistakes(&format!("{DEPLOYMENTS}{lines}")).into_iter();
    all.map(|m| m.strip_prefix("spillway.toml:").unwrap().to_owned())
        .collect()
}

fn cost_of_a_million(lines: &str) -> Option<Decimal> {
    let config = parse(&format!("{DEPLOYMENTS}{lines}")).unwrap_or_else(|e| panic!("{e}"));
    let call = UsageEvent {
        time: NOW,
        model: "chat".into(),
        backend: "sweden".into(),
        deployment: "chat".into(),
        kind: Some(Kind::Payg),
        tokens: Tokens {
            input: 1_000_000,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    };
    config.prices().charge(&call).cost
}

#[test]
fn a_deployments_price_is_that_of_its_base_model_class_and_region() {
    assert_eq!(cost_of_a_million(""), Some("3.025".parse().unwrap()));
}

#[test]
fn an_own_price_wins_from_its_day() {
    let own =
        "[[price]]\nmodel = \"chat\"\nfrom = \"2026-11-01\"\ninput = \"2.10\"\noutput = \"8\"\n";
    assert_eq!(cost_of_a_million(own), Some("2.1".parse().unwrap()));
    let later = own.replace("2026-11-01", "2026-12-01");
    assert_eq!(cost_of_a_million(&later), Some("3.025".parse().unwrap()));
}

#[test]
fn a_price_may_be_for_one_service_tier_and_say_what_cached_audio_costs() {
    let own = "[[price]]\nservice_tier = \"priority\"\ninput = \"5\"\noutput = \"20\"\n\
               audio_input = \"40\"\ncached_audio_input = \"2.50\"\ncached_image_input = \"0.50\"\n";
    assert_eq!(
        cost_of_a_million(own),
        Some("3.025".parse().unwrap()),
        "its call was a standard one"
    );
    let config = parse(&format!("{DEPLOYMENTS}{own}")).unwrap_or_else(|e| panic!("{e}"));
    let call = UsageEvent {
        time: NOW,
        model: "chat".into(),
        service_tier: ServiceTier::Priority,
        tokens: Tokens {
            input: 1_000_000,
            audio_input: 1_000_000,
            cached: 900_000,
            cached_audio: 900_000,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    };
    let charge = config.prices().charge(&call);
    assert_eq!(charge.cost, Some("6.25".parse().unwrap()));
    let odd = found("[[price]]\nservice_tier = \"fast\"\ninput = \"1\"\noutput = \"1\"\n").concat();
    assert!(odd.contains("service_tier"), "{odd}");
    let hour = found("[[price]]\nservice_tier = \"priority\"\nptu_hour = \"1\"\n").concat();
    assert!(hour.contains("a PTU's hour has none"), "{hour}");
}

#[test]
fn a_ptus_hour_has_the_lists_price_or_an_own_one() {
    let per_hour = |lines: &str| {
        let config = parse(&format!("{DEPLOYMENTS}{lines}")).unwrap_or_else(|e| panic!("{e}"));
        let ptu = config.prices().ptu("sweden", "chat-ptu", NOW).unwrap();
        ptu.per_hour.unwrap().to_string()
    };
    assert_eq!(per_hour(""), "50");
    assert_eq!(per_hour("[[price]]\nptu_hour = \"0.31\"\n"), "15.5");
}

#[test]
fn a_price_that_is_none_is_a_mistake() {
    let [number] = &found("[[price]]\ninput = \"cheap\"\noutput = \"1\"\n")[..] else {
        panic!("one mistake");
    };
    assert!(
        number.contains("price[0].input: must be a decimal number"),
        "{number}"
    );
    let half = found("[[price]]\ninput = \"1\"\n").concat();
    assert!(half.contains("needs `output`"), "{half}");
    let none = found("[[price]]\nmodel = \"chat\"\n").concat();
    assert!(none.contains("says no price"), "{none}");
    let day = found("[[price]]\nptu_hour = \"1\"\nfrom = \"November\"\n").concat();
    assert!(day.contains("must be a day such as"), "{day}");
    let model = found("[[price]]\nmodel = \"chit\"\ninput = \"1\"\noutput = \"1\"\n").concat();
    assert!(
        model.contains("`chit` is no model or base_model"),
        "{model}"
    );
    let backend = found("[[price]]\nbackend = \"norway\"\nptu_hour = \"1\"\n").concat();
    assert!(backend.contains("`norway` is no backend"), "{backend}");
}

#[test]
fn reconciliation_needs_a_resource_and_a_store() {
    let on = "[chargeback]\nreconcile = true\n";
    let [store, resource] = &found(on)[..] else {
        panic!("two mistakes: {:?}", found(on));
    };
    assert!(
        store.contains("chargeback.reconcile: needs `tables`"),
        "{store}"
    );
    assert!(resource.contains("with `resource_id`"), "{resource}");
    let id = "resource_id = \"/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a\"";
    let storage = "[storage]\ntables = \"embedded:x\"\n";
    let whole = DEPLOYMENTS.replace("key = ", &format!("{id}\nkey = "));
    let shared = whole.replace("ptus = 50", "ptus = 50\nshared = true");
    let config = parse(&format!("{shared}{on}{storage}")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (config.chargeback.reconcile, config.chargeback.drift_percent),
        (true, 2)
    );
    let deployments = &config.backends[0].deployments;
    assert_eq!(
        (deployments[0].shared, deployments[1].shared),
        (false, true)
    );
    assert!(
        !parse(DEPLOYMENTS).unwrap().chargeback.reconcile,
        "off by default"
    );
}

#[test]
fn what_a_ptu_cost_goes_by_the_size_that_it_had_then() {
    let was = "ptus = 100\nsince = \"2026-11-01\"\ndeleted = \"2026-12-03\"\n\
               before = [{ until = \"2026-11-15\", ptus = 50 }, { until = \"2026-11-10\", ptus = 20 }]";
    let text = DEPLOYMENTS.replace("ptus = 50", was);
    let config = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let [chat] = &*config.backends[0].deployments else {
        panic!("one that was deleted is not called");
    };
    assert_eq!(chat.name, "chat");
    let prices = config.prices();
    let [of] = &*prices.ptus() else {
        panic!("but it is charged for");
    };
    for (day, ptus) in [
        ("2026-11-09", 20),
        ("2026-11-10", 50),
        ("2026-11-14", 50),
        ("2026-11-15", 100),
        ("2026-12-02", 100),
    ] {
        let Day(at) = day.parse().unwrap();
        let price = prices.ptu("sweden", "chat-ptu", at).unwrap();
        assert_eq!((price.ptus, of.is_there(at)), (ptus, true), "{day}");
    }
    let Day(deleted) = "2026-12-03".parse().unwrap();
    assert!(!of.is_there(deleted));
}

#[test]
fn sizes_of_the_past_have_days_of_their_own() {
    let same = found(
        "before = [{ until = \"2026-11-15\", ptus = 5 }, { until = \"2026-11-15\", ptus = 6 }]\n",
    );
    assert!(
        same.concat().contains("before[1].until: another"),
        "{same:?}"
    );
    let odd = found("deleted = \"yesterday\"\n").concat();
    assert!(odd.contains("deleted: must be a day such as"), "{odd}");
    let payg = DEPLOYMENTS.replace(
        "kind = \"payg\"",
        "kind = \"payg\"\ndeleted = \"2026-11-15\"",
    );
    let payg = mistakes(&payg).concat();
    assert!(payg.contains("deployment[0].deleted: only"), "{payg}");
}

#[test]
fn a_model_whose_deployments_were_all_deleted_has_prices_and_nothing_else() {
    let gone = "[[backend.deployment]]\nname = \"old\"\nkind = \"ptu\"\ndeleted = \"2026-11-20\"\n";
    let price = "[[price]]\nmodel = \"old\"\nptu_hour = \"1\"\n";
    let text = format!("{DEPLOYMENTS}{gone}{price}");
    parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let named = mistakes(&format!("{text}[[model]]\nname = \"old\"\n")).concat();
    assert!(named.contains("model[0].name: all deployments"), "{named}");
}

#[test]
fn deployments_that_were_deleted_make_no_gateway() {
    let day = "kind = \"ptu\"\ndeleted = \"2026-11-20\"";
    let text = DEPLOYMENTS
        .replace("kind = \"payg\"", day)
        .replace("kind = \"ptu\"\nptus", &format!("{day}\nptus"));
    let [none] = &mistakes(&text)[..] else {
        panic!("{:?}", mistakes(&text));
    };
    assert!(none.contains("there is no deployment"), "{none}");
}
