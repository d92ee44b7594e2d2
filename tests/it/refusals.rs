//! What one deployment or one resource refuses and another may not.

use serde_json::{Value, json};

use crate::gateway::{OPEN, Running, app, backend, header, start};
use crate::scripted::{Act, Scripted, answer, good, over};

const ENCRYPTED: &str =
    r#"{"error":{"code":"invalid_encrypted_content","message":"It could not be verified."}}"#;
const TOO_LONG: &str = r#"{"error":{"code":"context_length_exceeded","message":"128000 tokens"}}"#;

fn refused(body: &str) -> Act {
    answer("400 Bad Request", "", body)
}

/// A turn after one that was answered with encrypted reasoning.
async fn next_turn(gateway: &Running) -> (u16, String, String) {
    let input = json!([{"type": "reasoning", "encrypted_content": "gAAA"},
        {"role": "user", "content": "And now?"}]);
    let body = json!({"model": "gpt-4o", "store": false, "input": input});
    let answer = gateway.post("/v1/responses").json(&body).send().await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let backend = header(&answer, "x-spillway-backend");
    (status, backend, answer.text().await.unwrap())
}

#[tokio::test]
async fn encrypted_reasoning_goes_on_to_the_resource_that_can_read_it() {
    let (gateway, a, b) = over(vec![refused(ENCRYPTED)], "").await;
    for turn in 1..4 {
        let (status, backend, _) = next_turn(&gateway).await;
        assert_eq!((status, &*backend), (200, "b"));
        assert_eq!((a.calls(), b.calls()), (turn, turn), "it is not marked");
    }
    let event = gateway.event().await;
    let first = &event.attempts[0];
    assert_eq!(
        (first.status, first.error.as_deref(), first.billed),
        (Some(400), Some("refused"), false)
    );
}

#[tokio::test]
async fn what_no_resource_can_read_is_refused_as_the_first_one_says() {
    let a = Scripted::start(vec![refused(ENCRYPTED)]).await;
    let b = Scripted::start(vec![refused(
        r#"{"error":{"message":"The encrypted content could not be verified."}}"#,
    )])
    .await;
    let config = backend("a", a.address, "ptu", "") + &backend("b", b.address, "payg", "");
    let gateway = start(&format!("{OPEN}{config}")).await;
    let (status, backend, body) = next_turn(&gateway).await;
    assert_eq!((status, &*backend, &*body), (400, "a", ENCRYPTED));
    assert_eq!((a.calls(), b.calls()), (1, 1));
    assert_eq!(gateway.event().await.tokens.total(), 0);
}

#[tokio::test]
async fn other_calls_refusals_stay_their_own() {
    let (gateway, _a, b) = over(vec![refused(ENCRYPTED)], "").await;
    assert_eq!(gateway.chat().send().await.unwrap().status(), 400);
    assert_eq!(b.calls(), 0);
}

#[tokio::test]
async fn what_is_too_long_for_a_ptu_goes_to_payg() {
    let (gateway, a, _b) = over(vec![refused(TOO_LONG)], "").await;
    assert_eq!(gateway.backends(2).await, ["b", "b"]);
    assert_eq!(a.calls(), 2, "shorter calls still go there");
}

#[tokio::test]
async fn what_is_too_long_is_refused_where_there_is_no_payg() {
    let a = Scripted::start(vec![refused(TOO_LONG)]).await;
    let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "ptu", ""))).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.text().await.unwrap(), TOO_LONG);
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn an_action_that_the_gateway_lacks_the_role_for_marks_nothing() {
    let denied =
        r#"{"error":{"code":"PermissionDenied","message":"lacks the data action files/write"}}"#;
    let denied = answer("401 Unauthorized", "", denied);
    let a = Scripted::start(vec![denied, good()]).await;
    let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "payg", ""))).await;
    let answer = gateway.get("/v1/files").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.text().await.unwrap().contains("files/write"));
    assert_eq!(gateway.get("/v1/files").send().await.unwrap().status(), 200);
    assert_eq!(a.calls(), 2);
}

/// What the backend was asked last, as JSON.
fn asked(backend: &Scripted) -> Value {
    let request = backend.last_request();
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn usage_is_not_asked_of_those_that_refuse_the_wish() {
    let (gateway, a, _b) = over(vec![good()], "").await;
    let chat = json!({"stream": true, "messages": []});
    let path = |version: &str| {
        format!("/openai/deployments/gpt-4o/chat/completions?api-version={version}")
    };
    for (version, asks) in [("2023-05-15", false), ("2024-10-21", true)] {
        let call = gateway.post(&path(version)).json(&chat);
        assert_eq!(call.send().await.unwrap().status(), 200);
        assert_eq!(asked(&a).get("stream_options").is_some(), asks, "{version}");
    }
    let own_data = json!({"stream": true, "messages": [], "data_sources": []});
    let call = gateway.post(&path("2024-10-21")).json(&own_data);
    assert_eq!(call.send().await.unwrap().status(), 200);
    assert_eq!(asked(&a), own_data);
}

#[tokio::test]
async fn a_model_to_be_tuned_keeps_its_name() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "payg", ""))).await;
    for model in ["gpt-4o-mini-2024-07-18", "gpt-4o"] {
        let job = json!({"model": model, "training_file": "file-1"});
        let answer = gateway.post("/v1/fine_tuning/jobs").json(&job).send().await;
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(asked(&a), job);
    }
}

/// A body may name a model whatever the call is about.
#[tokio::test]
async fn a_call_that_generates_nothing_marks_no_deployment_of_the_model_that_it_names() {
    let lacks_role = answer(
        "401 Unauthorized",
        "",
        r#"{"error":{"code":"PermissionDenied","message":"no role"}}"#,
    );
    let refused = answer("401 Unauthorized", "", r#"{"error":{"code":"401"}}"#);
    let own_limit = answer("429 Too Many Requests", "retry-after: 60\r\n", "{}");
    let broken = answer("500 Internal Server Error", "", "{}");
    let gone = Act::SayAndReset(Vec::new());
    for (act, status) in [
        (lacks_role, 401),
        (refused, 503),
        (own_limit, 429),
        (broken, 503),
        (gone, 503),
    ] {
        let a = Scripted::start(vec![act, good()]).await;
        let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "payg", ""))).await;
        let call = gateway.get("/v1/files/file-1");
        let call = call.json(&json!({"model": "gpt-4o"}));
        assert_eq!(call.send().await.unwrap().status(), status);
        let chat = gateway.chat().send().await.unwrap();
        assert_eq!((chat.status().as_u16(), a.calls()), (200, 2));
    }
}

#[tokio::test]
async fn a_body_with_a_byte_order_mark_is_not_passed_on_unread() {
    let (gateway, a, _b) = over(vec![good()], "").await;
    for mark in [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"] {
        let body = [mark, br#"{"file_id":"file-1"}"#].concat();
        let call = gateway.post("/v1/vector_stores/vs_1/files").body(body);
        assert_eq!(call.send().await.unwrap().status(), 400);
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn an_app_that_may_use_some_models_may_tune_no_other() {
    let a = Scripted::start(vec![good()]).await;
    let portal = app("portal", "models = [\"gpt-4o\"]");
    let config = backend("a", a.address, "payg", "") + &portal;
    let gateway = start(&config).await;
    for (model, status) in [("gpt-4.1-2025-04-14", 403), ("gpt-4o-2024-08-06", 200)] {
        let job = json!({"model": model, "training_file": "file-1"});
        let call = gateway.post("/v1/fine_tuning/jobs").json(&job);
        let answer = call.header("api-key", "portal-key").send().await.unwrap();
        assert_eq!(answer.status(), status, "{model}");
    }
    assert_eq!(a.calls(), 1);
}

/// Of eight apps, those whose call without a model goes to the first backend.
async fn at_home(gateway: &Running) -> usize {
    let mut count = 0;
    for n in 0..8 {
        let call = gateway.post("/v1/conversations").json(&json!({}));
        let call = call.header("api-key", format!("app{n}-key"));
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        count += usize::from(header(&answer, "x-spillway-backend") == "a");
    }
    count
}

fn apps() -> String {
    (0..8).map(|n| app(&format!("app{n}"), "")).collect()
}

#[tokio::test]
async fn what_names_no_model_lies_where_most_models_of_the_app_are() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let first = backend("a", a.address, "payg", "");
    let second = backend("b", b.address, "payg", "");
    let embed = second.replace("name = \"gpt-4o\"", "name = \"embed\"");
    let more = "[[backend.deployment]]\nname = \"embed\"\nkind = \"payg\"\n";
    let gateway = start(&format!("{}{first}{more}{embed}", apps())).await;
    assert_eq!(at_home(&gateway).await, 8);
    let gateway = start(&format!("{}{first}{second}", apps())).await;
    let count = at_home(&gateway).await;
    assert!(
        (1..8).contains(&count),
        "alike, they share the apps: {count}"
    );
}

#[tokio::test]
async fn a_backend_whose_deployment_was_deleted_is_still_its_apps_alone() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let own = "ptus = 1\nsince = \"2026-01-01\"\ndeleted = \"2026-02-01\"\napps = [\"app0\"]";
    let config = backend("b", b.address, "payg", "") + &backend("a", a.address, "ptu", own);
    let gateway = start(&format!("{}{config}", apps())).await;
    assert_eq!(at_home(&gateway).await, 0);
}
