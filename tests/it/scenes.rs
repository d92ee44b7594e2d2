//! The scenes that the gateway is for: balance, retry, spill over, come back.

use std::collections::HashMap;
use std::time::Duration;

use spillway::gateway::event::{Kind, UsageSource};

use crate::gateway::{OPEN, backend, header, start};
use crate::scripted::{Scripted, answer, full, good};
use crate::simulated::{Limit, simulated};

fn counts(backends: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for backend in backends {
        *counts.entry(backend.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn round_robin_over_two() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = OPEN.to_owned()
        + &backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "");
    let gateway = start(&config).await;
    let backends = gateway.backends(10).await;
    assert_eq!(counts(&backends), HashMap::from([("a", 5), ("b", 5)]));
    assert!(backends.windows(2).all(|w| w[0] != w[1]), "{backends:?}");
}

#[tokio::test]
async fn three_with_one_broken_and_no_client_sees_an_error() {
    let broken = Scripted::start(vec![answer("500 Oops", "", "{}")]).await;
    let (b, c) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = OPEN.to_owned()
        + &backend("a", broken.address, "payg", "")
        + &backend("b", b.address, "payg", "")
        + &backend("c", c.address, "payg", "");
    let gateway = start(&config).await;
    let backends = gateway.backends(20).await;
    assert!(!backends.contains(&"a".to_owned()));
    assert_eq!(broken.calls(), 1, "the mark keeps calls away from it");
    let events = gateway.events(20).await;
    let retried: Vec<_> = events
        .iter()
        .filter(|event| event.attempts.len() == 2)
        .collect();
    assert_eq!(retried.len(), 1);
    assert_eq!(retried[0].attempts[0].status, Some(500));
    assert!(!retried[0].attempts[0].billed && retried[0].attempts[1].billed);
}

#[tokio::test]
async fn a_full_ptu_spills_over_and_gets_its_calls_back_when_it_drains() {
    // 15 PTUs drain 37,500 input tokens a minute; a call with 400 output tokens counts as 1,600.
    let address = simulated(Limit::Ptu { ptus: 15 }, 0).await;
    let payg = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned()
        + &backend("ptu", address, "ptu", "")
        + &backend("payg", payg.address, "payg", "");
    let gateway = start(&config).await;
    let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "simulate-tokens:400"}]});
    let mut kinds = Vec::new();
    for _ in 0..60 {
        let answer = gateway
            .post("/v1/chat/completions")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        kinds.push(header(&answer, "x-spillway-kind"));
    }
    assert_eq!(kinds[0], "ptu");
    assert!(
        kinds.contains(&"payg".to_owned()),
        "it never filled up: {kinds:?}"
    );
    let events = gateway.events(60).await;
    assert!(
        events
            .iter()
            .all(|e| e.spilled == (e.kind == Some(Kind::Payg)))
    );
    for _ in 0..100 {
        if gateway.backends(1).await == ["ptu"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the PTU deployment never got its calls back");
}

#[tokio::test]
async fn all_full_is_a_429_with_the_smallest_retry_after() {
    let (a, b) = (
        Scripted::start(vec![full(60_000)]).await,
        Scripted::start(vec![full(20_000)]).await,
    );
    let config = OPEN.to_owned()
        + &backend("a", a.address, "ptu", "")
        + &backend("b", b.address, "payg", "");
    let gateway = start(&config).await;
    let first = gateway.chat().send().await.unwrap();
    assert_eq!(first.status(), 429);
    assert_eq!(header(&first, "retry-after"), "20");
    assert!(!header(&first, "x-spillway-request-id").is_empty());
    let second = gateway.chat().send().await.unwrap();
    assert_eq!(second.status(), 429);
    let ms: u64 = header(&second, "retry-after-ms").parse().unwrap();
    assert!((15_000..=20_000).contains(&ms));
    assert_eq!(
        (a.calls(), b.calls()),
        (1, 1),
        "a full deployment is left alone"
    );
}

#[tokio::test]
async fn a_short_wait_beats_a_429() {
    let a = Scripted::start(vec![full(100), good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-spillway-attempts"), "2");
}

#[tokio::test]
async fn a_model_may_wait_for_its_ptu_instead_of_paying() {
    let ptu = Scripted::start(vec![full(100), good()]).await;
    let payg = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned()
        + &backend("ptu", ptu.address, "ptu", "")
        + &backend("payg", payg.address, "payg", "")
        + "[[model]]\nname = \"gpt-4o\"\nspill_after_ms = 500\n";
    let gateway = start(&config).await;
    assert_eq!(gateway.backends(1).await, ["ptu"]);
    assert_eq!(payg.calls(), 0);
}

#[tokio::test]
async fn the_own_region_is_preferred_while_it_serves() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good(), full(60_000)]).await,
    );
    let config = OPEN.to_owned()
        + "[gateway]\nregion = \"region-of-b\"\n"
        + &backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "")
        + "[[model]]\nname = \"gpt-4o\"\nprefer_region = true\n";
    let gateway = start(&config).await;
    assert_eq!(gateway.backends(3).await, ["b", "a", "a"]);
}

#[tokio::test]
async fn an_app_is_known_by_its_key_and_kept_to_its_models_and_backends() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let hash = |key: &str| spillway::config::KeyHash::of(key);
    let config = backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "")
        + "[[backend.deployment]]\nname = \"other\"\nkind = \"payg\"\n"
        + &format!(
            "[[app]]\nname = \"portal\"\nkey_hashes = [\"{}\"]\nbackends = [\"b\"]\nmodels = [\"gpt-4o\"]\n",
            hash("k1")
        )
        + &format!(
            "[[app]]\nname = \"batch\"\nkey_hashes = [\"{}\"]\n",
            hash("k2")
        );
    let gateway = start(&config).await;
    for (name, value) in [
        ("api-key", "k1"),
        ("ocp-apim-subscription-key", "k1"),
        ("authorization", "Bearer k1"),
    ] {
        let answer = gateway.chat().header(name, value).send().await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                header(&answer, "x-spillway-backend").as_str()
            ),
            (200, "b")
        );
        assert_eq!(&*gateway.event().await.app, "portal");
        assert!(
            !b.last_request().contains("k1"),
            "the client's key went on to the backend"
        );
    }
    let wrong = gateway.chat().header("api-key", "k3").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(gateway.chat().send().await.unwrap().status(), 401);
    let other = gateway.post("/v1/chat/completions").header("api-key", "k1");
    let other = other
        .json(&serde_json::json!({"model": "other"}))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 403);
    let list = |key: &'static str| gateway.get("/v1/models").header("api-key", key);
    let models: serde_json::Value = list("k1").send().await.unwrap().json().await.unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    let models: serde_json::Value = list("k2").send().await.unwrap().json().await.unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_body_changes_in_its_models_value_only() {
    let a = Scripted::start(vec![good()]).await;
    let more = "model = \"chat\"\n";
    let config = OPEN.to_owned() + &backend("a", a.address, "payg", more);
    let gateway = start(&config).await;
    let send = |body: &'static str| {
        gateway
            .post("/v1/chat/completions")
            .header("content-type", "application/json")
            .body(body)
    };
    let answer = send("{ \"n\" : 1.0,\n\"model\":\"chat\", \"u\":\"\\u00e9\" }")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let request = a.last_request();
    assert!(
        request.starts_with("POST /openai/v1/chat/completions HTTP/1.1"),
        "{request}"
    );
    assert!(
        request.ends_with("{ \"n\" : 1.0,\n\"model\":\"gpt-4o\", \"u\":\"\\u00e9\" }"),
        "{request}"
    );
    let classic = gateway.post("/openai/deployments/chat/chat/completions?api-version=2024-10-21");
    let classic = classic
        .header("content-type", "application/json")
        .body("{\"messages\":[]}");
    assert_eq!(classic.send().await.unwrap().status(), 200);
    let request = a.last_request();
    assert!(
        request.starts_with(
            "POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21 "
        ),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n{\"messages\":[]}"));
}

#[tokio::test]
async fn a_stored_response_is_its_backends_and_its_apps() {
    let made = r#"{"id":"resp_1","object":"response","usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#;
    let (a, b) = (
        Scripted::start(vec![answer("200 OK", "", made)]).await,
        Scripted::start(vec![answer("200 OK", "", made)]).await,
    );
    let hash = |key: &str| spillway::config::KeyHash::of(key);
    let config = backend("a", a.address, "payg", "")
        + &backend("b", b.address, "payg", "")
        + &format!(
            "[[app]]\nname = \"one\"\nkey_hashes = [\"{}\"]\n",
            hash("k1")
        )
        + &format!(
            "[[app]]\nname = \"two\"\nkey_hashes = [\"{}\"]\n",
            hash("k2")
        );
    let gateway = start(&config).await;
    let create = |previous: Option<&str>| {
        let body =
            serde_json::json!({"model": "gpt-4o", "input": "x", "previous_response_id": previous});
        gateway
            .post("/v1/responses")
            .header("api-key", "k1")
            .json(&body)
    };
    let first = create(None).send().await.unwrap();
    let owner = header(&first, "x-spillway-backend");
    first.bytes().await.unwrap();
    for _ in 0..4 {
        let next = create(Some("resp_1")).send().await.unwrap();
        assert_eq!(header(&next, "x-spillway-backend"), owner);
        next.bytes().await.unwrap();
        let read = gateway
            .get("/v1/responses/resp_1")
            .header("api-key", "k1")
            .send()
            .await
            .unwrap();
        assert_eq!(header(&read, "x-spillway-backend"), owner);
    }
    let stranger = gateway
        .get("/v1/responses/resp_1")
        .header("api-key", "k2")
        .send()
        .await
        .unwrap();
    assert_eq!(stranger.status(), 404);
}

#[tokio::test]
async fn usage_is_read_and_the_event_has_all_fields() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "ptu", ""))).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = gateway
        .chat()
        .header("traceparent", trace)
        .send()
        .await
        .unwrap();
    let id = header(&answer, "x-spillway-request-id");
    let event = gateway.event().await;
    assert_eq!(event.id, id);
    assert_eq!(
        (&*event.app, &*event.model, event.operation.as_str()),
        ("anonymous", "gpt-4o", "chat/completions")
    );
    assert_eq!(
        (&*event.backend, event.kind, &*event.region),
        ("a", Some(Kind::Ptu), "region-of-a")
    );
    assert_eq!(
        (event.tokens.input, event.tokens.output, event.usage),
        (5, 2, UsageSource::Reported)
    );
    assert_eq!(
        (event.status, event.streamed, event.spilled),
        (200, false, false)
    );
    assert_eq!(event.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(a.last_request().contains(trace));
}
