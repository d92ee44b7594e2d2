//! What an app's requests are changed by, seen from the backend.

use serde_json::{Value, json};

use crate::gateway::{Running, app, backend, header, start};
use crate::scripted::{Scripted, good};

async fn with(rules: &str) -> (Running, Scripted) {
    let scripted = Scripted::start(vec![good()]).await;
    let config = format!(
        "{}{}{}",
        backend("a", scripted.address, "payg", ""),
        app("ruled", rules),
        app("free", "")
    );
    (start(&config).await, scripted)
}

async fn post(gateway: &Running, app: &str, path: &str, body: &str) -> (u16, Value) {
    let call = gateway.post(path).header("api-key", format!("{app}-key"));
    let call = call
        .header("x-other", "x")
        .header("content-type", "application/json");
    let answer = call.body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn body_of(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

const RULES: &str = r#"
[[app.transform]]
parameter = "max_tokens"
at_most = 100
[[app.transform]]
parameter = "n"
refuse = true
[[app.transform]]
parameter = "user"
set = "portal"
[[app.transform]]
system_prompt = "Be brief."
[[app.transform]]
header = "x-team"
set = "portal"
[[app.transform]]
header = "x-other"
remove = true
"#;

const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

#[tokio::test]
async fn a_backend_gets_what_the_apps_rules_say_and_all_else_as_it_came() {
    let (gateway, a) = with(RULES).await;
    let body =
        r#"{ "max_tokens": 500, "messages": [{"role":"user","content":"\u0048i"}], "x": 1.50 }"#;
    let (status, _) = post(&gateway, "ruled", CHAT, body).await;
    assert_eq!(status, 200);
    let request = a.last_request();
    assert_eq!(
        body_of(&request),
        r#"{"user":"portal", "max_tokens": 100, "messages": [{"role":"system","content":"Be brief."},{"role":"user","content":"\u0048i"}], "x": 1.50 }"#
    );
    let head = request.to_lowercase();
    assert!(
        head.contains("x-team: portal\r\n") && !head.contains("x-other"),
        "{head}"
    );
}

#[tokio::test]
async fn a_stream_is_changed_too_and_its_usage_still_asked_for() {
    let (gateway, a) = with(RULES).await;
    let body = r#"{"stream":true,"messages":[],"model":"gpt-4o"}"#;
    let (status, _) = post(&gateway, "ruled", "/v1/chat/completions", body).await;
    assert_eq!(status, 200);
    let request = a.last_request();
    let sent: Value = serde_json::from_str(body_of(&request)).unwrap();
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    assert_eq!(sent["max_completion_tokens"], 100);
    assert_eq!(sent["messages"][0]["role"], "system");
}

#[tokio::test]
async fn what_the_app_may_not_use_is_refused_before_any_backend_is_called() {
    let (gateway, a) = with(RULES).await;
    let body = r#"{"n":3,"messages":[]}"#;
    let (status, answer) = post(&gateway, "ruled", CHAT, body).await;
    assert_eq!((status, a.calls()), (400, 0));
    assert_eq!(answer["error"]["code"], "parameter_not_allowed");
    assert_eq!(answer["error"]["param"], "n");
    assert_eq!(gateway.event().await.status, 400);
    let call = gateway.post(CHAT).header("api-key", "ruled-key");
    let call = call.header("content-type", "text/plain").body("{\"n\":3}");
    let answer = call.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), a.calls()), (400, 0));
    assert!(!header(&answer, "x-spillway-request-id").is_empty());
}

#[tokio::test]
async fn another_apps_requests_stay_as_they_are() {
    let (gateway, a) = with(RULES).await;
    let body = r#"{ "n" : 3, "max_tokens": 500 }"#;
    let (status, _) = post(&gateway, "free", CHAT, body).await;
    assert_eq!(status, 200);
    let request = a.last_request();
    assert_eq!(body_of(&request), body);
    assert!(request.to_lowercase().contains("x-other: x\r\n"));
}

#[tokio::test]
async fn limits_count_what_is_sent() {
    let rules =
        "tokens_per_minute = 10000\n[[app.transform]]\nparameter = \"max_tokens\"\nat_most = 10\n";
    let (gateway, a) = with(rules).await;
    let body = r#"{"max_tokens":9000,"messages":[]}"#;
    for _ in 0..5 {
        assert_eq!(post(&gateway, "ruled", CHAT, body).await.0, 200);
    }
    assert_eq!(a.calls(), 5);
}
