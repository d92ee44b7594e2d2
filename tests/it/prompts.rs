//! Prompts are kept of the apps that want it, and of no others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::gateway::{Running, app, backend, chat_body, start};
use crate::scripted::{Act, Scripted, answer, good, stream};

/// A gateway with an app whose prompts are logged, and one whose are not.
async fn gateway(script: Vec<Act>, folder: &Path, more: &str) -> (Running, Scripted) {
    let scripted = Scripted::start(script).await;
    let config = format!(
        "[storage]\nblobs = \"embedded:{}\"\n{more}{}{}{}",
        folder.display(),
        app("logged", "log_prompts = true"),
        app("other", ""),
        backend("a", scripted.address, "payg", ""),
    );
    (start(&config).await, scripted)
}

fn chat(gateway: &Running, key: &str) -> RequestBuilder {
    gateway.chat().header("api-key", key)
}

/// All files below a folder that are blobs.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .extension()
            .is_some_and(|e| e.to_string_lossy().ends_with(",blob"))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What was kept of a call.
async fn kept(folder: &Path, prompt_log: &str) -> Value {
    let file = folder.join(format!("blobs/{prompt_log},blob"));
    for _ in 0..500 {
        if let Ok(text) = std::fs::read(&file) {
            return serde_json::from_slice(&text).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} is not there after 5 s", file.display());
}

#[tokio::test]
async fn nothing_is_kept_of_an_app_that_did_not_ask_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _a) = gateway(vec![good()], folder.path(), "").await;
    for key in ["other-key", "logged-key"] {
        assert_eq!(chat(&gateway, key).send().await.unwrap().status(), 200);
    }
    let (other, logged) = (gateway.event().await, gateway.event().await);
    assert_eq!(other.prompt_log, "");
    let document = kept(folder.path(), &logged.prompt_log).await;
    assert_eq!(document["id"], logged.id);
    assert_eq!(files(folder.path()).len(), 1, "{:?}", files(folder.path()));
}

#[tokio::test]
async fn a_call_is_kept_whole_however_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let long = "0123456789".repeat(20_000);
    let said = json!({"id": "c", "choices": [{"index": 0, "message": {"content": long}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    let said = answer("200 OK", "", &said.to_string());
    let (gateway, _a) = gateway(vec![said], folder.path(), "").await;
    let request = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": long}]});
    let call = chat(&gateway, "logged-key").json(&request);
    call.send().await.unwrap().text().await.unwrap();
    let event = gateway.event().await;
    let day = event.time.day();
    assert_eq!(
        event.prompt_log,
        format!("prompts/logged/{day}/{}.json", event.id)
    );
    let document = kept(folder.path(), &event.prompt_log).await;
    assert_eq!(document["request"], request);
    let said = &document["answer"]["choices"][0]["message"]["content"];
    assert!(
        said == &json!(long),
        "{:.300}",
        document["answer"].to_string()
    );
    assert_eq!(document["request_bytes"], request.to_string().len());
    assert_eq!(document["request_cut"], false);
    assert_eq!(document["answer_cut"], false);
    assert_eq!(
        (&document["status"], &document["app"]),
        (&json!(200), &json!("logged"))
    );
}

const HELLO: [&str; 3] = [
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\ndata: [DONE]\n\n",
];

#[tokio::test]
async fn a_stream_is_kept_as_the_message_it_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let script = Act::Drip(stream(&HELLO, true), Duration::from_millis(5));
    let (gateway, _a) = gateway(vec![script], folder.path(), "").await;
    let call = gateway.stream().header("api-key", "logged-key");
    call.send().await.unwrap().text().await.unwrap();
    let event = gateway.event().await;
    let document = kept(folder.path(), &event.prompt_log).await;
    let choice = &document["answer"]["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": "Hello"})
    );
    assert_eq!(document["answer"]["usage"]["total_tokens"], 7);
    assert_eq!(document["request"], chat_body(true));
    assert_eq!(document["outcome"], "completed");
}

#[tokio::test]
async fn what_a_client_that_left_had_got_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(2));
    let script = Act::Gated(stream(&HELLO, true), Arc::clone(&gate));
    let (gateway, _a) = gateway(vec![script], folder.path(), "").await;
    let call = gateway.stream().header("api-key", "logged-key");
    let mut answer = call.send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data:"));
    drop(answer);
    gate.add_permits(1);
    let event = gateway.event().await;
    let document = kept(folder.path(), &event.prompt_log).await;
    assert_eq!(document["outcome"], "client_gone");
    let said = document["answer"]["choices"][0]["message"]["content"].as_str();
    assert!(said.unwrap().starts_with("Hel"), "{document}");
}

#[tokio::test]
async fn a_call_that_no_backend_answered_is_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let failing = answer("500 Oh", "", "{}");
    let (gateway, _a) = gateway(
        vec![failing],
        folder.path(),
        "[gateway]\nwait_budget_ms = 0\n",
    )
    .await;
    let answer = chat(&gateway, "logged-key").send().await.unwrap();
    assert!(!answer.status().is_success());
    let event = gateway.event().await;
    let document = kept(folder.path(), &event.prompt_log).await;
    assert_eq!(document["answer"], Value::Null);
    assert_eq!(document["outcome"], "failed");
    assert_eq!(document["request"], chat_body(false));
}

#[tokio::test]
async fn what_is_to_be_redacted_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let leak = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"4111 1111\"}}]}\n\n";
    let rest = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" 1111 1111\"}}]}\n\n";
    let script = Act::Drip(stream(&[leak, rest], true), Duration::ZERO);
    let redact = "[prompts]\nredact = ['\\b(\\d{4} ?){4}\\b', '(?i)password: \\S+']\n";
    let (gateway, _a) = gateway(vec![script], folder.path(), redact).await;
    let content = "my card is 4111111111111111, Password: hunter2";
    let request = json!({"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": content}]});
    let call = chat(&gateway, "logged-key").json(&request);
    let text = call.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("4111"), "the app gets what was said: {text}");
    let event = gateway.event().await;
    let document = kept(folder.path(), &event.prompt_log).await;
    assert_eq!(
        document["request"]["messages"][0]["content"],
        "my card is [redacted], [redacted]"
    );
    assert_eq!(
        document["answer"]["choices"][0]["message"]["content"],
        "[redacted]"
    );
    assert_eq!(document["redacted"], 3);
}

#[tokio::test]
async fn a_store_of_blobs_that_fails_holds_up_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _a) = gateway(vec![good()], folder.path(), "").await;
    let place = folder.path().join("blobs/prompts");
    std::fs::remove_dir(&place).unwrap();
    std::fs::write(&place, "in the way").unwrap();
    for _ in 0..20 {
        assert_eq!(
            chat(&gateway, "logged-key").send().await.unwrap().status(),
            200
        );
    }
}
