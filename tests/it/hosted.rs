//! A packaged app under the double of the Functions host, from a folder whose path has spaces, with
//! the environment that the platform gives it and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::double::{Delivered, Host, Outcome, Queue, Stream, Times};
use crate::gateway::{app, chat_body};
use crate::process::package;
use crate::scripted::{Act, Scripted, answer, good};

/// What the platform sets, beside the app settings (azure-functions-host, EnvironmentSettingNames).
const PLATFORM: [(&str, &str); 7] = [
    ("WEBSITE_SITE_NAME", "func-x"),
    ("WEBSITE_INSTANCE_ID", "0a1b2c"),
    ("WEBSITE_SKU", "FlexConsumption"),
    ("IDENTITY_ENDPOINT", "http://127.0.0.1:9/none"),
    ("IDENTITY_HEADER", "none"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/home"),
];

/// The id of an account, as infra/ gives it.
const ACCOUNT: &str = "/subscriptions/00000000-0000-0000-0000-000000000003/resourceGroups/rg-x/providers/Microsoft.CognitiveServices/accounts/oai-payg-x";

/// The app settings that infra/ makes, as far as they are no endpoints.
const SETTINGS: [(&str, &str); 9] = [
    (
        "FIRST_APP_KEY_HASH",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ),
    ("REGION_NAME", "swedencentral"),
    ("TENANT_ID", "00000000-0000-0000-0000-000000000001"),
    ("SPILLWAY_AUDIENCE", "api://spillway"),
    ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000002"),
    ("BATCH_QUEUE", "batch"),
    ("REPLY_QUEUE", "results"),
    ("CHARGEBACK_EVENT_HUB", "chargeback"),
    ("CHARGEBACK_CONSUMER_GROUP", "spillway"),
];

/// A new app's folder.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::Builder::new()
        .prefix("site wwwroot ")
        .tempdir()
        .unwrap();
    let folder = root.path().join("my app");
    (root, folder)
}

/// The project's own spillway.toml with an app that may call, packaged and started. Its store is a
/// file; Service Bus is at `bus`.
async fn deployed_with(backend: &Scripted, bus: &str) -> (tempfile::TempDir, Host) {
    let config = include_str!("../../spillway.toml").to_owned() + &app("tests", "");
    let (root, folder) = folder();
    package(&folder, &config);
    let backend = format!("http://{}", backend.address);
    let store = format!("embedded:{}", root.path().join("kept").display());
    let settings: Vec<(&str, &str)> = [
        ("OPENAI_PAYG_ENDPOINT", backend.as_str()),
        ("OPENAI_PAYG_ID", ACCOUNT),
        ("TABLES_ENDPOINT", &store),
        ("BLOBS_ENDPOINT", &store),
        ("BATCH_NAMESPACE", bus),
        ("CHARGEBACK_URL", "http://127.0.0.1:9/chargeback"),
    ]
    .into_iter()
    .chain(PLATFORM)
    .chain(SETTINGS)
    .collect();
    let host = Host::start(&folder, &settings, Times::default()).await;
    (root, host)
}

async fn deployed(backend: &Scripted) -> (tempfile::TempDir, Host) {
    deployed_with(backend, "http://127.0.0.1:9").await
}

fn chat(stream: bool) -> Value {
    let mut body = chat_body(stream);
    body["model"] = "gpt-5-mini".into();
    body
}

#[tokio::test]
async fn a_deployed_app_is_called_through_the_host() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let outside = host.listen().await;
    let client = reqwest::Client::new();
    for path in [
        "/v1/chat/completions",
        "/low/v1/chat/completions",
        "/openai/v1/chat/completions",
    ] {
        let call = client
            .post(format!("http://{outside}{path}"))
            .header("api-key", "tests-key")
            .header("x-functions-key", "of-the-host")
            .header("x-ms-invocation-id", "forged");
        let answer = call.json(&chat(false)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    let sent = backend.last_request().to_ascii_lowercase();
    for own in [
        "x-functions-key",
        "x-ms-invocation-id",
        "x-azure-functions",
        "x-forwarded-",
        "tests-key",
    ] {
        assert!(!sent.contains(own), "{own} went on to the backend: {sent}");
    }
    let refused = client.post(format!("http://{outside}/v1/chat/completions"));
    assert_eq!(
        refused.json(&chat(false)).send().await.unwrap().status(),
        401
    );
    let status = client.get(format!("http://{outside}/status-0123456789abcdef"));
    assert_eq!(status.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_comes_through_the_host_chunk_by_chunk() {
    let gate = Arc::new(Semaphore::new(0));
    let event = |text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let parts = [
        head.to_owned() + &event("one"),
        event("two"),
        "data: [DONE]\n\n".into(),
    ];
    let parts = parts.into_iter().map(String::into_bytes).collect();
    let backend = Scripted::start(vec![Act::Gated(parts, Arc::clone(&gate))]).await;
    let (_root, host) = deployed(&backend).await;
    let outside = host.listen().await;
    gate.add_permits(1);
    let call = reqwest::Client::new()
        .post(format!("http://{outside}/v1/chat/completions"))
        .header("api-key", "tests-key");
    let mut answer = call.json(&chat(true)).send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    let first = String::from_utf8_lossy(&first).to_string();
    assert!(first.contains("one") && !first.contains("two"), "{first}");
    gate.add_permits(1);
    let second = answer.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&second).contains("two"));
}

#[tokio::test]
async fn a_realtime_session_is_refused_in_plain_words() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let outside = host.listen().await;
    let asked = reqwest::Client::new()
        .get(format!(
            "http://{outside}/openai/v1/realtime?model=gpt-5-mini"
        ))
        .header("api-key", "tests-key")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 501);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "realtime_not_available");
    assert_eq!(backend.calls(), 0);
}

#[tokio::test]
async fn nobody_outside_reaches_a_trigger() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let outside = host.listen().await;
    let client = reqwest::Client::new();
    for function in host.functions() {
        let forged = client
            .post(format!("http://{outside}/{}", function.name))
            .body("{}");
        let status = forged.send().await.unwrap().status();
        assert!(
            status == 404 || status == 401,
            "{}: {status}",
            function.name
        );
    }
}

#[tokio::test]
async fn a_handler_that_is_killed_is_started_again_twice() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let outside = host.listen().await;
    let client = reqwest::Client::new();
    for started in [2, 3] {
        host.kill();
        wait(|| host.starts() == started && host.address().is_some()).await;
        let call = client
            .post(format!("http://{outside}/v1/chat/completions"))
            .header("api-key", "tests-key");
        assert_eq!(call.json(&chat(false)).send().await.unwrap().status(), 200);
    }
    host.kill();
    wait(|| host.stopped()).await;
    assert_eq!(
        host.starts(),
        3,
        "the third crash within half an hour ends the host"
    );
}

#[tokio::test]
async fn a_batch_message_is_called_and_its_reply_sent() {
    let backend = Scripted::start(vec![good()]).await;
    let bus = Scripted::start(vec![answer("201 Created", "", "")]).await;
    let address = format!("http://{}", bus.address);
    let (_root, host) = deployed_with(&backend, &address).await;
    let queue = Queue {
        host: &host,
        function: "batch",
        max_delivery_count: 2,
    };
    let line = json!({"custom_id": "job-1", "method": "POST", "url": "/v1/chat/completions", "body": chat(false)});
    let properties = json!({"MessageId": "m-1", "ReplyTo": "results", "ApplicationProperties": {"app": "tests"}});
    let delivered = queue
        .deliver(line.to_string().as_bytes(), properties.as_object().unwrap())
        .await;
    assert_eq!(delivered, Delivered::Completed(1));
    assert_eq!((backend.calls(), bus.calls()), (1, 1));
    let reply = bus.last_request();
    assert!(
        reply.starts_with("POST /results/messages") && reply.contains("job-1"),
        "{reply}"
    );
}

#[tokio::test]
async fn an_event_that_can_t_be_read_fails_no_batch() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let stream = Stream {
        host: &host,
        function: "chargeback",
        longest_delay: Duration::from_millis(1),
    };
    let batch = [b"no event".to_vec(), b"{}".to_vec(), b"[1]".to_vec()];
    assert_eq!(stream.deliver(&batch, 2).await, (1, true));
}

#[tokio::test]
async fn the_timer_is_answered() {
    let backend = Scripted::start(vec![good()]).await;
    let (_root, host) = deployed(&backend).await;
    let ticked = host.tick("utilization").await;
    assert!(matches!(ticked, Outcome::Succeeded(_)), "{ticked:?}");
}

async fn wait(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// The double itself, under a handler that does what a handler must not.

/// An app of the handler with bad manners, with a function of each name.
async fn rude(functions: &[(&str, Value)]) -> (tempfile::TempDir, Host) {
    let (root, folder) = folder();
    std::fs::create_dir(&folder).unwrap();
    let handler = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/double/handler/spillway");
    std::fs::copy(handler, folder.join("spillway")).unwrap();
    std::fs::write(folder.join("host.json"), include_str!("../../host.json")).unwrap();
    for (name, function) in functions {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(
            folder.join(name).join("function.json"),
            function.to_string(),
        )
        .unwrap();
    }
    let times = Times {
        function_timeout: Duration::from_secs(1),
        ..Times::default()
    };
    let path = std::env::var("PATH").unwrap();
    let home = std::env::var("HOME").unwrap();
    let host = Host::start(&folder, &[("PATH", &path), ("HOME", &home)], times).await;
    (root, host)
}

fn timer() -> Value {
    json!({"bindings": [{"type": "timerTrigger", "direction": "in", "name": "timer"}]})
}

fn queue() -> Value {
    json!({"bindings": [{"type": "serviceBusTrigger", "name": "message", "dataType": "binary"}]})
}

fn hub(retry: &Value) -> Value {
    let binding = json!({"type": "eventHubTrigger", "name": "events", "dataType": "binary", "cardinality": "many"});
    json!({"bindings": [binding], "retry": retry})
}

#[tokio::test]
async fn an_answer_without_a_body_hangs_until_the_handler_is_killed() {
    let (_root, host) = rude(&[("empty", timer()), ("null", timer()), ("good", timer())]).await;
    for (function, starts) in [("empty", 2), ("null", 3)] {
        assert_eq!(host.tick(function).await, Outcome::TimedOut);
        assert_eq!(host.starts(), starts);
    }
    assert!(matches!(host.tick("good").await, Outcome::Succeeded(_)));
    assert!(!host.stopped(), "a time-out is no crash");
}

#[tokio::test]
async fn an_answer_that_is_no_json_or_no_success_is_a_failure() {
    let (_root, host) = rude(&[("text", timer()), ("fails", timer())]).await;
    for function in ["text", "fails"] {
        assert!(
            matches!(host.tick(function).await, Outcome::Failed(_)),
            "{function}"
        );
    }
}

#[tokio::test]
async fn a_handler_that_ends_with_0_is_never_started_again() {
    let (_root, host) = rude(&[("quits", timer())]).await;
    assert!(matches!(host.tick("quits").await, Outcome::Failed(_)));
    wait(|| host.address().is_none()).await;
    assert!(matches!(host.tick("quits").await, Outcome::Failed(_)));
    assert_eq!((host.starts(), host.stopped()), (1, false));
}

#[tokio::test]
async fn a_handler_that_crashes_three_times_takes_the_host_with_it() {
    let (_root, host) = rude(&[("crashes", timer())]).await;
    let begun = Instant::now();
    while !host.stopped() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        let outcome = host.tick("crashes").await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.starts(), 3);
}

#[tokio::test]
async fn a_message_that_fails_comes_again_until_it_is_dead_lettered() {
    let (_root, host) = rude(&[("third_queue", queue()), ("fails", queue())]).await;
    let deliver = |function| {
        let queue = Queue {
            host: &host,
            function,
            max_delivery_count: 4,
        };
        async move { queue.deliver(b"x", &Map::new()).await }
    };
    assert_eq!(deliver("third_queue").await, Delivered::Completed(3));
    assert_eq!(deliver("fails").await, Delivered::DeadLettered(4));
}

#[tokio::test]
async fn events_that_fail_come_again_only_by_the_policy_and_the_checkpoint_moves_on() {
    let again = json!({"strategy": "fixedDelay", "maxRetryCount": 5, "delayInterval": "00:00:10"});
    let (_root, host) = rude(&[("third_hub", hub(&again)), ("fails", hub(&Value::Null))]).await;
    let longest_delay = Duration::from_millis(1);
    let deliver = |function| {
        let stream = Stream {
            host: &host,
            function,
            longest_delay,
        };
        async move { stream.deliver(&[b"{}".to_vec()], 9).await }
    };
    assert_eq!(deliver("third_hub").await, (3, true));
    assert_eq!(deliver("fails").await, (1, false));
}
