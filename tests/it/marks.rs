//! Instances that tell each other which deployments are full, over Azurite. The backend counts its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use spillway::store::Store;

use crate::azurite::{Azurite, emulator};
use crate::gateway::{OPEN, Running, backend, start_with};
use crate::process::PATIENCE;
use crate::scripted::{Scripted, full, good};

/// What a deployment asks for that is full for as long as the test runs, ms.
const LONG: u64 = 200_000;

fn config(ptu: &Scripted, payg: &Scripted, gateway: &str) -> String {
    format!(
        "{OPEN}[gateway]\n{gateway}\n[storage]\ntables = \"http://127.0.0.1:9/devstoreaccount1\"\n{}{}",
        backend("ptu", ptu.address, "ptu", "tier = 1"),
        backend("payg", payg.address, "payg", "tier = 2")
    )
}

/// Three instances over one store, each with connections of its own to it.
async fn fleet(azurite: &Azurite, config: &str) -> Vec<Running> {
    let mut fleet = Vec::new();
    for _ in 0..3 {
        let store: Arc<dyn Store> = Arc::new(emulator(azurite.address));
        fleet.push(start_with(config, store).await);
    }
    fleet
}

/// Why the PTU deployment is marked at an instance; empty where it is not.
async fn mark(instance: &Running) -> String {
    let health = instance.get("/spillway/health").send().await.unwrap();
    let health: Value = health.json().await.unwrap();
    let all = health["deployments"].as_array().unwrap();
    let ptu = all.iter().find(|one| one["backend"] == "ptu").unwrap();
    ptu["marked"]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn hears(instance: &Running) {
    let begun = Instant::now();
    while mark(instance).await != "throttled" {
        assert!(begun.elapsed() < PATIENCE, "it did not hear of the mark");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_instances_429_is_enough_for_all() {
    let azurite = Azurite::start();
    let (ptu, payg) = (
        Scripted::start(vec![full(LONG)]).await,
        Scripted::start(vec![good()]).await,
    );
    let fleet = fleet(&azurite, &config(&ptu, &payg, "share_marks = true")).await;
    assert_eq!(fleet[0].backends(1).await, ["payg"]);
    for instance in &fleet {
        hears(instance).await;
        assert_eq!(instance.backends(10).await, ["payg"; 10]);
        for event in instance.events(10).await {
            assert!(event.spilled, "a full PTU was passed over: {event:?}");
        }
    }
    assert_eq!((ptu.calls(), payg.calls()), (1, 31));
}

#[tokio::test]
async fn instances_that_do_not_share_each_find_out_by_themselves() {
    let azurite = Azurite::start();
    let (ptu, payg) = (
        Scripted::start(vec![full(LONG)]).await,
        Scripted::start(vec![good()]).await,
    );
    for instance in fleet(&azurite, &config(&ptu, &payg, "")).await {
        assert_eq!(instance.backends(10).await, ["payg"; 10]);
    }
    assert_eq!((ptu.calls(), payg.calls()), (3, 30));
}

#[tokio::test]
async fn what_is_broken_for_one_instance_is_tried_by_the_others() {
    let azurite = Azurite::start();
    let broken = crate::scripted::answer("503 Service Unavailable", "retry-after: 200\r\n", "{}");
    let (ptu, payg) = (
        Scripted::start(vec![broken, full(LONG)]).await,
        Scripted::start(vec![good()]).await,
    );
    let fleet = fleet(&azurite, &config(&ptu, &payg, "share_marks = true")).await;
    assert_eq!(fleet[0].backends(1).await, ["payg"]);
    assert_eq!(mark(&fleet[0]).await, "failed");
    assert_eq!(fleet[1].backends(1).await, ["payg"]);
    assert_eq!(ptu.calls(), 2, "the second one tried it");
    // It has read the second one's row by then, and would have read the first one's.
    hears(&fleet[2]).await;
}

#[tokio::test]
async fn without_the_store_everything_goes_on_as_if_nothing_were_shared() {
    let (ptu, payg) = (
        Scripted::start(vec![full(LONG)]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = config(&ptu, &payg, "share_marks = true");
    let mut fleet = Vec::new();
    for _ in 0..2 {
        // Nobody listens there.
        let store: Arc<dyn Store> = Arc::new(emulator("127.0.0.1:9".parse().unwrap()));
        fleet.push(start_with(&config, store).await);
    }
    for instance in &fleet {
        assert_eq!(instance.backends(5).await, ["payg"; 5]);
    }
    assert_eq!((ptu.calls(), payg.calls()), (2, 10));
}
