//! What clients do wrong with their bodies, or do oddly.

use std::time::Duration;

use crate::gateway::{OPEN, Running, backend, start};
use crate::raw::{Raw, chunked};
use crate::scripted::{Scripted, good};

const MIB: usize = 1 << 20;
const BODY: &str = "{\"model\":\"gpt-4o\",\"messages\":[]}";

/// A gateway that takes bodies of 1 MiB, and its backend.
async fn small(more: &str) -> (Running, Scripted) {
    let a = Scripted::start(vec![good()]).await;
    let config = format!(
        "{OPEN}[gateway]\nmax_body_mb = 1\n{more}{}",
        backend("a", a.address, "payg", "")
    );
    (start(&config).await, a)
}

fn head(more: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n\r\n")
        .into_bytes()
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_by_its_stated_length() {
    let (gateway, a) = small("").await;
    let mut client = Raw::connect(gateway.address).await;
    client.write(&head("content-length: 5000000")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413, "before a byte of the body was sent");
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("1 MiB")
    );
    assert_eq!(gateway.event().await.status, 413);
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_when_it_has_no_stated_length() {
    let (gateway, a) = small("").await;
    let mut client = Raw::connect(gateway.address).await;
    client.write(&head("transfer-encoding: chunked")).await;
    client
        .write(&chunked(&vec![b' '; MIB + 1], 64 * 1024))
        .await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(gateway.event().await.status, 413);
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_413_too() {
    let (gateway, _a) = small("").await;
    let body = vec![b' '; 20 * MIB];
    let heads = [
        (
            head(&format!("content-length: {}", body.len())),
            body.clone(),
        ),
        (head("transfer-encoding: chunked"), chunked(&body, MIB)),
    ];
    let mut client = Raw::connect(gateway.address).await;
    for (head, body) in heads {
        client.write(&head).await;
        client.write(&body).await;
        assert_eq!(client.answer().await.status, 413);
    }
    client
        .write(&head(&format!("content-length: {}", BODY.len())))
        .await;
    client.write(BODY.as_bytes()).await;
    assert_eq!(client.answer().await.status, 200, "the connection is good");
}

#[tokio::test]
async fn a_call_that_is_refused_by_its_headers_keeps_its_connection() {
    let (gateway, _a) = small("").await;
    let body = vec![b' '; 4 * MIB];
    let length = format!("content-length: {}", body.len());
    let mut client = Raw::connect(gateway.address).await;
    let odd = head(&format!("x-spillway-priority: urgent\r\n{length}"));
    client.write(&odd).await;
    client.write(&body).await;
    assert_eq!(client.answer().await.status, 400);
    let length = format!("content-length: {}", BODY.len());
    client.write(&head(&length)).await;
    client.write(BODY.as_bytes()).await;
    assert_eq!(client.answer().await.status, 200, "the connection is good");
}

#[tokio::test]
async fn a_body_that_never_ends_closes_the_connection() {
    let (gateway, _a) = small("").await;
    let mut client = Raw::connect(gateway.address).await;
    client.write(&head("transfer-encoding: chunked")).await;
    client
        .write_what_is_taken(&chunked(&vec![b' '; 60 * MIB], MIB))
        .await;
    assert_eq!(client.answer().await.status, 413);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let (gateway, a) = small("").await;
    let body = format!("{BODY}{}", " ".repeat(MIB - BODY.len()));
    for stated in [true, false] {
        let mut client = Raw::connect(gateway.address).await;
        if stated {
            client.write(&head(&format!("content-length: {MIB}"))).await;
            client.write(body.as_bytes()).await;
        } else {
            client.write(&head("transfer-encoding: chunked")).await;
            client.write(&chunked(body.as_bytes(), 1000)).await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn a_slow_body_is_waited_for_within_the_deadline() {
    let (gateway, a) = small("deadline_ms = 2000\nwait_budget_ms = 0\n").await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .write(&head(&format!("content-length: {}", BODY.len())))
        .await;
    for byte in BODY.as_bytes() {
        client.write(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.answer().await.status, 200);
    let mut late = Raw::connect(gateway.address).await;
    late.write(&head("content-length: 100")).await;
    late.write(b"{").await;
    let answer = late.answer().await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json()["error"]["code"], "body_late");
    assert!(late.is_closed().await);
    assert_eq!(gateway.events(2).await[1].status, 408);
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_no_backend_and_is_recorded() {
    let (gateway, a) = small("").await;
    for (header, part) in [
        ("content-length: 100", "{\"model\":"),
        ("transfer-encoding: chunked", "5\r\n{\"mod"),
        ("transfer-encoding: chunked", "xyz\r\n"),
    ] {
        let mut client = Raw::connect(gateway.address).await;
        client.write(&head(header)).await;
        client.write(part.as_bytes()).await;
        client.ends().await;
        let event = gateway.event().await;
        assert_eq!((event.status, event.attempts.len()), (400, 0), "{header}");
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let (gateway, _a) = small("").await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .write(&head(&format!(
            "expect: 100-continue\r\ncontent-length: {}",
            BODY.len()
        )))
        .await;
    assert_eq!(client.head().await.0, 100);
    client.write(BODY.as_bytes()).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn bad_json_says_where_it_is_bad() {
    let (gateway, a) = small("").await;
    for (body, place) in [
        ("{\"model\":\"gpt-4o\",\n}", "line 2, column 1"),
        ("{\"model\": gpt-4o}", "line 1, column 11"),
        ("{\n\n  \"model\" \"gpt-4o\"}", "line 3, column 11"),
        ("[]", "line 1, column 1"),
        ("{\"model\":\"gpt-4o\"", "line 1, column 17"),
        ("{\"model\":\"gpt-4o\"} {}", "line 1, column 20"),
        ("{\n\"model\":\n7}", "line 3, column 1"),
    ] {
        let mut client = Raw::connect(gateway.address).await;
        client
            .write(&head(&format!("content-length: {}", body.len())))
            .await;
        client.write(body.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{body}");
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_lowercase();
        assert!(message.starts_with(place), "{body}: {message}");
    }
    assert_eq!(a.calls(), 0);
}
