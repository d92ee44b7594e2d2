//! The Functions host's own requests, byte for byte: tests/fixtures/functions-host has their heads
//! (`.http`, one line each, sent with CRLF) and the bodies of trigger invocations (`.json`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::gateway::{OPEN, Running, backend, start};
use crate::raw::{Raw, RawAnswer, chunked};
use crate::scripted::{Act, Scripted, good, stream};

const FIRST: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const SECOND: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\" you\"}}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/functions-host")
}

/// A fixture's head as it goes over the wire, and what follows its blank line.
fn fixture(name: &str) -> (String, String) {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap();
    (head.replace('\n', "\r\n") + "\r\n\r\n", body.to_owned())
}

/// Each trigger invocation's name, head and body.
fn triggers() -> Vec<(String, String, Vec<u8>)> {
    let mut triggers = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let body = entry.unwrap().path();
        if body.extension().is_some_and(|e| e == "json") {
            let name = body.file_stem().unwrap().to_str().unwrap().to_owned();
            let (head, _) = fixture(&format!("{name}.http"));
            triggers.push((name, head, std::fs::read(body).unwrap()));
        }
    }
    triggers.sort();
    assert_eq!(triggers.len(), 12);
    triggers
}

/// A head with its header names changed; the request line stays.
fn with_names(head: &str, change: impl Fn(&str) -> String) -> String {
    let (line, headers) = head.split_once("\r\n").unwrap();
    let headers = headers.lines().map(|header| match header.split_once(':') {
        Some((name, value)) => format!("{}:{value}\r\n", change(name)),
        None => "\r\n".to_owned(),
    });
    format!("{line}\r\n{}", headers.collect::<String>())
}

/// A head as the proxy would pass it on: with the headers that only the host can set.
fn as_proxied(head: &str) -> String {
    let mark = "x-ms-invocation-id: 3f1c1f0e-7d0b-4c38-9a55-0c5f3bb0d009\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: myapp.azurewebsites.net\r\nX-Forwarded-Proto: https\r\n\r\n";
    format!("{}{mark}", head.strip_suffix("\r\n").unwrap())
}

async fn open() -> (Running, Scripted) {
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &backend("a", a.address, "payg", "");
    (start(&config).await, a)
}

#[tokio::test]
async fn the_probe_is_answered() {
    let (gateway, a) = open().await;
    let (head, _) = fixture("probe.http");
    let mut host = Raw::connect(gateway.address).await;
    for _ in 0..3 {
        host.write(head.as_bytes()).await;
        assert_eq!(host.answer().await.status, 200);
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn the_proxied_stream_goes_through_chunk_by_chunk() {
    let gate = Arc::new(Semaphore::new(2));
    let act = Act::Gated(
        stream(&[FIRST, SECOND, USAGE, DONE], true),
        Arc::clone(&gate),
    );
    let a = Scripted::start(vec![act]).await;
    let config = format!(
        "[[app]]\nname = \"portal\"\nkey_hashes = [\"{}\"]\n{}",
        spillway::config::KeyHash::of("client-key"),
        backend("a", a.address, "payg", "model = \"gpt-4o-mini\"\n"),
    );
    let gateway = start(&config).await;
    let (head, body) = fixture("http_proxied_sse.http");
    let mut host = Raw::connect(gateway.address).await;
    host.write(head.as_bytes()).await;
    host.write(body.as_bytes()).await;
    let (status, answer) = host.head().await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/event-stream"));
    let first = host.chunk().await.unwrap();
    assert_eq!(first, FIRST.as_bytes(), "the second is not written yet");
    gate.add_permits(1);
    assert_eq!(host.chunk().await.unwrap(), SECOND.as_bytes());
    gate.add_permits(3);
    assert_eq!(host.chunk().await.unwrap(), DONE.as_bytes());
    assert_eq!(host.chunk().await, None);
    let request = a.last_request().to_lowercase();
    let line = "post /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21 http/1.1";
    assert!(request.starts_with(line), "{request}");
    for name in [
        "client-key",
        "x-forwarded",
        "x-azure-functions",
        "invocation",
    ] {
        assert!(!request.contains(name), "{request}");
    }
    let event = gateway.event().await;
    assert_eq!((&*event.app, event.tokens.total()), ("portal", 13));
}

fn is_a_clear_failure(name: &str, answer: &RawAnswer) {
    // The host takes any 2xx for done, and waits for ever where its body is empty.
    assert_eq!(answer.status, 404, "{name}");
    assert!(answer.head.contains("content-type: application/json"));
    assert_eq!(answer.json()["error"]["code"], "path_not_found", "{name}");
}

#[tokio::test]
async fn an_invocation_of_a_function_that_is_not_here_fails_clearly() {
    let (gateway, a) = open().await;
    let mut host = Raw::connect(gateway.address).await;
    for (name, head, body) in triggers() {
        let heads = [
            head.clone(),
            with_names(&head, str::to_lowercase),
            with_names(&head, str::to_uppercase),
        ];
        for head in heads {
            for size in [7, 4096] {
                // In two writes, and one connection for all, as the host has it.
                host.write(head.as_bytes()).await;
                host.write(&chunked(&body, size)).await;
                is_a_clear_failure(&name, &host.answer().await);
            }
        }
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_forged_invocation_through_the_proxy_gets_404() {
    let (gateway, a) = open().await;
    let mut host = Raw::connect(gateway.address).await;
    for (name, head, body) in triggers() {
        let head = as_proxied(&head);
        for head in [head.clone(), with_names(&head, str::to_lowercase)] {
            host.write(head.as_bytes()).await;
            host.write(&chunked(&body, 4096)).await;
            is_a_clear_failure(&name, &host.answer().await);
        }
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_forged_invocation_below_a_proxied_prefix_is_an_ordinary_call() {
    let (gateway, a) = open().await;
    let mut host = Raw::connect(gateway.address).await;
    for prefix in ["/openai/", "/v1/"] {
        for (name, head, body) in triggers() {
            let head = as_proxied(&head).replacen("POST /", &format!("POST {prefix}"), 1);
            host.write(head.as_bytes()).await;
            host.write(&chunked(&body, 4096)).await;
            // Passed on like any operation that the gateway does not know.
            assert_eq!(host.answer().await.status, 200, "{name}");
            let request = a.last_request();
            assert!(request.starts_with("POST /openai/"), "{request}");
            assert!(request.ends_with(std::str::from_utf8(&body).unwrap()));
        }
    }
}
