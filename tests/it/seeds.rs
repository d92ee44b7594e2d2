//! The scenes that people build with API Management policies and Front Door, without those.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::gateway::{OPEN, Running, backend, header, start};
use crate::scripted::{Act, Scripted, answer, good};
use crate::simulated::{Limit, ROOMY, simulated};

fn counts(backends: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for backend in backends {
        *counts.entry(backend.as_str()).or_default() += 1;
    }
    counts
}

fn model(settings: &str) -> String {
    format!("[[model]]\nname = \"gpt-4o\"\n{settings}\n")
}

/// A deployment that breaks once, at its first call.
fn breaks_once() -> Vec<Act> {
    vec![answer("500 Oops", "", "{}"), good()]
}

#[tokio::test]
async fn random_over_two_resources() {
    let (a, b) = (simulated(ROOMY, 0).await, simulated(ROOMY, 0).await);
    let config = OPEN.to_owned()
        + &backend("a", a, "payg", "")
        + &backend("b", b, "payg", "")
        + &model("strategy = \"random\"");
    let backends = start(&config).await.backends(100).await;
    let counts = counts(&backends);
    // Fewer than 20 of 100 fair draws: once in 10^9 runs.
    assert!(counts["a"] >= 20 && counts["b"] >= 20, "{counts:?}");
    assert!(backends.windows(2).any(|w| w[0] == w[1]), "it is no turn");
}

#[tokio::test]
async fn weights_of_three_to_one() {
    let (a, b) = (simulated(ROOMY, 0).await, simulated(ROOMY, 0).await);
    let config =
        OPEN.to_owned() + &backend("a", a, "payg", "weight = 3\n") + &backend("b", b, "payg", "");
    let backends = start(&config).await.backends(40).await;
    assert_eq!(counts(&backends), HashMap::from([("a", 30), ("b", 10)]));
    for four in backends.chunks(4) {
        assert_eq!(counts(four)["b"], 1, "spread evenly: {backends:?}");
    }
}

/// The policy of the scene retries whatever is 400 and above; here only what another deployment
/// can do better.
#[tokio::test]
async fn round_robin_with_retry_on_errors() {
    for status in [
        "401 Unauthorized",
        "408 Timeout",
        "429 Too Many",
        "500 Oops",
        "503 Busy",
    ] {
        let (a, b) = (
            Scripted::start(vec![good(), answer(status, "", "{}"), good()]).await,
            Scripted::start(vec![good()]).await,
        );
        let config = OPEN.to_owned()
            + "[gateway]\ndefault_mark_ms = 1\nramp_ms = 0\n"
            + &backend("a", a.address, "payg", "")
            + &backend("b", b.address, "payg", "");
        let gateway = start(&config).await;
        let mut attempts = Vec::new();
        for _ in 0..6 {
            let answer = gateway.chat().send().await.unwrap();
            assert_eq!(answer.status(), 200, "{status}");
            attempts.push(header(&answer, "x-spillway-attempts"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(attempts, ["1", "1", "2", "1", "1", "1"], "{status}");
        assert_eq!(a.calls(), 3, "{status}: it gets its turns back");
    }
}

#[tokio::test]
async fn two_resources_that_are_full_are_a_429_with_the_smallest_retry_after() {
    let tiny = Limit::Payg {
        tokens_per_minute: 1_000_000,
        requests_per_minute: 6,
    };
    let (a, b) = (simulated(tiny, 0).await, simulated(tiny, 0).await);
    let config = OPEN.to_owned()
        + "[gateway]\nwait_budget_ms = 0\n"
        + &backend("a", a, "payg", "")
        + &backend("b", b, "payg", "");
    let gateway = start(&config).await;
    assert_eq!(gateway.backends(2).await, ["a", "b"], "one each in 10 s");
    let full = gateway.chat().send().await.unwrap();
    assert_eq!(full.status(), 429);
    let seconds: u64 = header(&full, "retry-after").parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    let event = gateway.events(3).await.remove(2);
    assert_eq!(event.attempts.len(), 2);
}

/// Front Door gives all origins within its latency sensitivity an equal share.
#[tokio::test]
async fn resources_within_a_range_of_the_fastest_share_the_calls() {
    let (a, b) = (simulated(ROOMY, 1).await, simulated(ROOMY, 1).await);
    let slow = simulated(ROOMY, 400).await;
    let config = OPEN.to_owned()
        + &backend("a", a, "payg", "")
        + &backend("b", b, "payg", "")
        + &backend("slow", slow, "payg", "")
        + &model("strategy = \"lowest-latency\"\nlatency_range_ms = 200");
    let gateway = start(&config).await;
    gateway.backends(6).await;
    let backends = gateway.backends(60).await;
    let counts = counts(&backends);
    assert!(counts["a"] >= 10 && counts["b"] >= 10, "{counts:?}");
    // One in 50 is a measurement, and of those one in three goes there.
    assert!(counts.get("slow").copied().unwrap_or(0) <= 6, "{counts:?}");
}

/// A gateway in a region, over a deployment in Europe and one in Japan.
async fn regional(region: &str, europe: &Scripted, japan: &Scripted) -> Running {
    let config = OPEN.to_owned()
        + &format!("[gateway]\nregion = \"region-of-{region}\"\n")
        + &backend("europe", europe.address, "payg", "")
        + &backend("japan", japan.address, "payg", "")
        + &model("prefer_region = true");
    start(&config).await
}

#[tokio::test]
async fn a_gateway_in_each_region_calls_its_own_resource() {
    let (europe, japan) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    for region in ["europe", "japan"] {
        let gateway = regional(region, &europe, &japan).await;
        assert_eq!(gateway.backends(4).await, [region; 4]);
    }
    let elsewhere = regional("brazil", &europe, &japan).await;
    let backends = elsewhere.backends(4).await;
    assert_eq!(
        counts(&backends),
        HashMap::from([("europe", 2), ("japan", 2)])
    );
}

#[tokio::test]
async fn a_region_whose_resource_is_down_is_served_by_the_other_one() {
    let dead = Act::SayAndReset(Vec::new());
    let (europe, japan) = (
        Scripted::start(vec![good(), good(), dead]).await,
        Scripted::start(vec![good()]).await,
    );
    let gateway = regional("europe", &europe, &japan).await;
    assert_eq!(
        gateway.backends(6).await,
        ["europe", "europe", "japan", "japan", "japan", "japan"]
    );
    // Once more on a connection of its own: the first may have been closed just then.
    assert_eq!(europe.calls(), 4, "its mark keeps the others away");
    let near = regional("japan", &europe, &japan).await;
    assert_eq!(near.backends(2).await, ["japan"; 2]);
}

#[tokio::test]
async fn each_caller_has_resources_of_its_own() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good(), answer("500 Oops", "", "{}")]).await,
    );
    let app = |name: &str, backends: &str| {
        let hash = spillway::config::KeyHash::of(name);
        format!("[[app]]\nname = \"{name}\"\nkey_hashes = [\"{hash}\"]\nbackends = [{backends}]\n")
    };
    let config = backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "")
        + &app("red", "\"a\"")
        + &app("blue", "\"b\"")
        + &app("both", "\"a\", \"b\"");
    let gateway = start(&config).await;
    let call = async |key: &str| {
        let answer = gateway.chat().header("api-key", key).send().await.unwrap();
        (
            answer.status().as_u16(),
            header(&answer, "x-spillway-backend"),
        )
    };
    assert_eq!(call("red").await, (200, "a".into()));
    assert_eq!(call("blue").await, (200, "b".into()));
    assert_eq!(call("blue").await.0, 503, "a is not its to fall back to");
    for _ in 0..4 {
        assert_eq!(call("both").await, (200, "a".into()));
        assert_eq!(call("red").await, (200, "a".into()));
    }
}

#[tokio::test]
async fn a_deployment_that_failed_gets_its_share_back_gradually() {
    let (a, b) = (
        Scripted::start(breaks_once()).await,
        Scripted::start(vec![good()]).await,
    );
    let config = OPEN.to_owned()
        + "[gateway]\ndefault_mark_ms = 50\nramp_ms = 4000\n"
        + &backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "");
    let gateway = start(&config).await;
    let of_a = |backends: &[String]| backends.iter().filter(|b| *b == "a").count();
    assert_eq!(gateway.backends(1).await, ["b"]);
    let failed = Instant::now();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let early = gateway.backends(40).await;
    // Every second call is its turn, and of its turns it takes a tenth at first.
    assert!(of_a(&early) < 14, "{early:?}");
    tokio::time::sleep(Duration::from_millis(4100).saturating_sub(failed.elapsed())).await;
    let late = gateway.backends(40).await;
    assert_eq!(of_a(&late), 20, "{late:?}");
}
