use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::event::Kind;
use super::super::price::RegionClass;
use super::*;
use crate::config::Config;

fn account(name: &str, deployments: &Value) -> Account {
    let id = format!(
        "/subscriptions/0-1/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/{name}"
    );
    let mut account: Account = serde_json::from_value(json!({
        "id": id, "name": name, "location": "swedencentral",
        "properties": {"endpoint": format!("https://{name}.openai.azure.com/")},
    }))
    .unwrap();
    let page: Page<Deployment> = serde_json::from_value(json!({"value": deployments})).unwrap();
    account.deployments = page.value;
    account
}

fn deployment(name: &str, sku: &str, capacity: u32, model: &str, version: &str) -> Value {
    json!({
        "name": name, "sku": {"name": sku, "capacity": capacity},
        "properties": {
            "model": {"format": "OpenAI", "name": model, "version": version},
            "provisioningState": "Succeeded",
        },
        "systemData": {"createdAt": "2026-03-04T05:06:07Z"},
    })
}

fn read(text: &str) -> Config {
    Config::parse(text, "proposal", &|_| None).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

#[test]
fn provisioned_deployments_come_first_and_say_what_they_cost() {
    let list = json!([
        deployment(
            "gpt-4o-ptu",
            "DataZoneProvisionedManaged",
            100,
            "gpt-4o",
            "2024-11-20"
        ),
        deployment("gpt-4o", "GlobalStandard", 450, "gpt-4o", "2024-11-20"),
        deployment(
            "text-embedding-3-large",
            "Standard",
            120,
            "text-embedding-3-large",
            "1"
        ),
    ]);
    let config = read(&propose(&[account("contoso-swe", &list)]));
    let backend = &config.backends[0];
    assert_eq!(
        (&*backend.name, backend.region.as_deref()),
        ("contoso-swe", Some("swedencentral"))
    );
    assert!(
        backend
            .resource_id
            .as_deref()
            .unwrap()
            .ends_with("/contoso-swe")
    );
    let [ptu, payg, embeddings] = &backend.deployments[..] else {
        panic!("{:?}", backend.deployments);
    };
    assert_eq!(
        (ptu.model(), ptu.kind, ptu.ptus),
        ("gpt-4o", Kind::Ptu, Some(100))
    );
    assert_eq!(ptu.base_model.as_deref(), Some("gpt-4o-2024-11-20"));
    assert_eq!(ptu.region_class, RegionClass::DataZone);
    assert!(ptu.since.is_some() && ptu.tier() < payg.tier());
    assert_eq!(
        (payg.kind, payg.ptus, payg.region_class),
        (Kind::Payg, None, RegionClass::Global)
    );
    assert_eq!(
        (embeddings.base_model.as_deref(), embeddings.weight),
        (None, 1)
    );
    assert_eq!(embeddings.region_class, RegionClass::Regional);
}

#[test]
fn what_is_left_out_is_said_with_its_reason() {
    let mut other = deployment("llama", "GlobalStandard", 1, "llama", "1");
    other["properties"]["model"]["format"] = "Meta".into();
    let mut failed = deployment("failed", "GlobalStandard", 1, "gpt-4o", "1");
    failed["properties"]["provisioningState"] = "Failed".into();
    let list = json!([
        deployment("night", "GlobalBatch", 50, "gpt-4o", "2024-11-20"),
        other,
        failed,
        deployment("gpt-4o", "Standard", 1, "gpt-4o", "2024-11-20"),
    ]);
    let text = propose(&[account("a", &list), account("empty", &json!([]))]);
    for note in [
        "# night is left out: the deployment type \"GlobalBatch\"",
        "# llama is left out: its model is of the format \"Meta\"",
        "# failed is left out: its state is \"Failed\"",
        "# empty is left out: it has no deployments",
    ] {
        assert!(text.contains(note), "{text}");
    }
    assert_eq!(read(&text).backends[0].deployments.len(), 1);
}

#[test]
fn weights_go_by_capacity_where_that_differs() {
    let list = |capacity| {
        json!([deployment(
            "gpt-4o",
            "GlobalStandard",
            capacity,
            "gpt-4o",
            "1"
        )])
    };
    let weights = |capacities: &[u32]| -> Vec<u32> {
        let accounts: Vec<Account> = capacities
            .iter()
            .enumerate()
            .map(|(i, capacity)| account(&format!("a{i}"), &list(*capacity)))
            .collect();
        let config = read(&propose(&accounts));
        config
            .backends
            .iter()
            .map(|backend| backend.deployments[0].weight)
            .collect()
    };
    assert_eq!(weights(&[450, 150]), [3, 1]);
    assert_eq!(weights(&[450, 450]), [1, 1]);
    assert_eq!(weights(&[100_003, 1]), [1000, 1]);
}

#[test]
fn resources_of_the_same_name_get_names_of_their_own() {
    let list = json!([deployment("m", "Standard", 1, "m", "1")]);
    let config = read(&propose(&[account("a", &list), account("a", &list)]));
    let names: Vec<&str> = config
        .backends
        .iter()
        .map(|backend| &*backend.name)
        .collect();
    assert_eq!(names, ["a", "a-2"]);
}

#[test]
fn of_several_endpoints_the_one_of_the_api_is_taken() {
    let one: Account = serde_json::from_value(json!({
        "id": "x", "name": "x",
        "properties": {
            "endpoint": "https://x.cognitiveservices.azure.com/",
            "endpoints": {"OpenAI Language Model Instance API": "https://x.openai.azure.com/"},
        },
    }))
    .unwrap();
    assert_eq!(one.endpoint(), "https://x.openai.azure.com/");
}

proptest! {
    #[test]
    fn whatever_comes_in_the_proposal_can_be_read(
        names in prop::collection::vec(("\\PC{1,12}|[a-z]{1,3}", "\\PC{1,12}|[a-z]{1,3}", "\\PC{0,12}|20[0-9]{2}-0[1-9]-1[0-9]"), 1..6),
        skus in prop::collection::vec(prop::sample::select(vec![
            "Standard", "GlobalStandard", "ProvisionedManaged", "GlobalProvisionedManaged", "GlobalBatch", "\"\n[x]",
        ]), 6),
        capacities in prop::collection::vec(any::<u32>(), 6),
        location in "\\PC{0,8}",
    ) {
        // Azure has each name once; so has a proposal.
        let mut seen = std::collections::HashSet::new();
        let list: Vec<Value> = names.iter().zip(skus).zip(capacities)
            .filter(|(((name, ..), _), _)| seen.insert(name.clone()))
            .map(|(((name, model, version), sku), capacity)| deployment(name, sku, capacity, model, version))
            .collect();
        let mut account = account("a", &Value::from(list));
        account.location = location;
        let text = propose(&[account]);
        if let Err(mistakes) = Config::parse(&text, "proposal", &|_| None) {
            let only = mistakes.list.iter().all(|one| one.message.contains("there is no deployment"));
            prop_assert!(only, "{text}\n{mistakes}");
        }
    }
}
