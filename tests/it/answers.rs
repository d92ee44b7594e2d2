//! Answers of backends that are odd, wrong, slow or huge.

use std::time::Duration;

use serde_json::json;
use spillway::gateway::event::{Outcome, UsageSource};

use crate::gateway::{OPEN, backend, header, start};
use crate::process::{Process, free_port, handler, package};
use crate::raw::Raw;
use crate::scripted::{Act, Scripted, answer, good, over};

fn bytes_of(act: Act) -> Vec<u8> {
    match act {
        Act::Say(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn informational_answers_are_passed_over() {
    let mut said =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
    said.extend(bytes_of(good()));
    let (gateway, a, _b) = over(vec![Act::Say(said)], "").await;
    for _ in 0..2 {
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-spillway-backend"), "a");
        assert_eq!(header(&answer, "link"), "");
        assert!(answer.text().await.unwrap().contains("chatcmpl-1"));
    }
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn a_switch_of_protocols_is_tried_elsewhere() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let (gateway, _a, _b) = over(vec![Act::Say(switch.to_vec())], "").await;
    assert_eq!(gateway.backends(1).await, ["b"]);
    let event = gateway.event().await;
    assert_eq!(event.attempts[0].error.as_deref(), Some("protocol"));
}

#[tokio::test]
async fn an_answer_without_a_body_passes() {
    let (gateway, a, _b) = over(
        vec![Act::Say(
            b"HTTP/1.1 204 No Content\r\nx-ms-region: x\r\n\r\n".to_vec(),
        )],
        "",
    )
    .await;
    for _ in 0..2 {
        let answer = gateway.stream().send().await.unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(header(&answer, "x-ms-region"), "x");
        assert_eq!(answer.bytes().await.unwrap(), "");
        assert_eq!(gateway.event().await.outcome, Outcome::Completed);
    }
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn a_redirect_goes_to_the_client_and_is_not_followed() {
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let other = Scripted::start(vec![good()]).await;
        let location = format!("http://{}/elsewhere", other.address);
        let redirect = answer(
            status,
            &format!("location: {location}\r\n"),
            "{\"moved\":true}",
        );
        let (gateway, _a, b) = over(vec![redirect], "").await;
        let mut client = Raw::connect(gateway.address).await;
        let call = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"model\":\"gpt-4o\"}";
        client.write(call.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status.to_string(), status[..3]);
        assert!(
            answer.head.contains(&format!("location: {location}\r\n")),
            "{}",
            answer.head
        );
        assert_eq!(answer.body, "{\"moved\":true}");
        assert_eq!((other.calls(), b.calls()), (0, 0));
    }
}

/// What stands behind an answer's stated length would be the next call's answer.
#[tokio::test]
async fn a_body_longer_than_it_says_is_cut_there_and_reaches_no_other_call() {
    let mut said = bytes_of(answer("200 OK", "", "{\"first\":1}"));
    said.extend(bytes_of(answer("200 OK", "", "{\"smuggled\":1}")));
    let (gateway, a, b) = over(vec![Act::Say(said), good()], "").await;
    let first = gateway.chat().send().await.unwrap();
    assert_eq!(first.text().await.unwrap(), "{\"first\":1}");
    for _ in 0..5 {
        let next = gateway.chat().send().await.unwrap();
        assert_eq!(next.status(), 200);
        assert!(next.text().await.unwrap().contains("chatcmpl-1"));
    }
    assert_eq!((a.calls(), b.calls()), (6, 0));
}

#[tokio::test]
async fn a_connection_that_the_backend_has_closed_is_not_used_again() {
    let act = Act::SayAndReset(bytes_of(good()));
    let (gateway, a, b) = over(vec![act], "").await;
    for _ in 0..5 {
        assert_eq!(gateway.backends(1).await, ["a"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!((a.calls(), b.calls()), (5, 0));
}

#[tokio::test]
async fn a_connection_that_is_closed_as_a_call_is_sent_is_made_anew() {
    let closes = Act::SayAndReset(Vec::new());
    let (gateway, a, _b) = over(vec![good(), closes, good()], "").await;
    assert_eq!(
        gateway.backends(3).await,
        ["a", "a", "a"],
        "it is not marked"
    );
    assert_eq!(a.calls(), 4);
    for _ in 0..3 {
        assert_eq!(gateway.event().await.attempts.len(), 1);
    }
}

#[tokio::test]
async fn what_makes_something_is_not_sent_again_to_a_backend_that_may_have_made_it() {
    let closes = Act::SayAndReset(Vec::new());
    let script = vec![good(), closes.clone(), good(), closes, good()];
    let a = Scripted::start(script).await;
    let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "payg", ""))).await;
    let chat = async || gateway.chat().send().await.unwrap().status();
    let path = "/v1/conversations";
    assert_eq!(chat().await, 200);
    let made = gateway.post(path).json(&json!({})).send().await.unwrap();
    assert_eq!((made.status().as_u16(), a.calls()), (503, 2));
    assert_eq!(chat().await, 200, "it is not marked");
    let read = gateway.get(&format!("{path}/conv_1")).send().await.unwrap();
    assert_eq!((read.status().as_u16(), a.calls()), (200, 5));
}

#[tokio::test]
async fn what_a_backend_may_have_made_is_not_made_at_another() {
    let closes = Act::SayAndReset(Vec::new());
    let (gateway, a, b) = over(vec![good(), closes, good()], "").await;
    assert_eq!(gateway.backends(1).await, ["a"]);
    let path = "/v1/conversations";
    let made = gateway.post(path).json(&json!({})).send().await.unwrap();
    assert_eq!(made.status(), 503);
    assert_eq!((a.calls(), b.calls()), (2, 0));
}

#[tokio::test]
async fn a_backend_that_closes_every_connection_is_tried_elsewhere() {
    let closes = Act::SayAndReset(Vec::new());
    let (gateway, a, _b) = over(vec![good(), closes], "").await;
    assert_eq!(gateway.backends(3).await, ["a", "b", "b"]);
    assert_eq!(a.calls(), 3, "once more on a connection of its own");
}

#[tokio::test]
async fn too_many_headers_are_no_answer() {
    let headers: String = (0..200).map(|i| format!("x-{i}: y\r\n")).collect();
    let (gateway, _a, _b) = over(vec![answer("200 OK", &headers, "{}")], "").await;
    assert_eq!(gateway.backends(1).await, ["b"]);
    let event = gateway.event().await;
    assert_eq!(event.attempts[0].error.as_deref(), Some("protocol"));
}

/// `{"id":"x","usage":{"prompt_tokens":5,...}}`, compressed.
const ZIPPED_JSON: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x4c\x51\xb2\x52\xaa\x50\xd2\x51\x2a\x2d\x4e\x4c\x4f\x55\xb2\xaa\x56\x2a\x28\xca\xcf\x2d\x28\x89\x2f\xc9\xcf\x4e\xcd\x2b\x56\xb2\x32\xd5\x51\x4a\x06\x0a\xe4\xa4\x96\x64\xe6\xe7\xc1\x45\x8d\x74\x94\x4a\xf2\x4b\x12\x73\xe0\x02\xe6\xb5\xb5\x00\x33\xed\xd6\x90\x4d\x00\x00\x00";
/// `data: {"error":{"code":"429"}}` and a blank line, compressed.
const ZIPPED_EVENT: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\x49\x2c\x49\xb4\x52\xa8\x56\x4a\x2d\x2a\xca\x2f\x52\xb2\xaa\x56\x4a\xce\x4f\x49\x55\xb2\x52\x32\x31\xb2\x54\xaa\xad\xe5\xe2\x02\x00\xf6\xd0\x29\xa6\x20\x00\x00\x00";

#[tokio::test]
async fn compressed_answers_go_through_untouched_though_none_were_asked_for() {
    for (kind, body) in [
        ("application/json", ZIPPED_JSON),
        ("text/event-stream", ZIPPED_EVENT),
    ] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let act = Act::Say([head.as_bytes(), body].concat());
        let (gateway, a, b) = over(vec![act], "").await;
        let call = gateway.chat().header("accept-encoding", "gzip");
        let answer = call.send().await.unwrap();
        assert_eq!(header(&answer, "content-encoding"), "gzip");
        assert_eq!(answer.bytes().await.unwrap(), body);
        assert_eq!(b.calls(), 0, "what can't be read is no error");
        let request = a.last_request().to_lowercase();
        assert!(request.contains("accept-encoding: identity"), "{request}");
        let event = gateway.event().await;
        assert_eq!(event.usage, UsageSource::Estimated);
    }
}

fn bytes_one_by_one(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.iter().map(|byte| vec![*byte]).collect()
}

#[tokio::test]
async fn a_slow_but_steady_answer_goes_through() {
    let said = bytes_of(good());
    let body = said.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut parts = vec![said[..body].to_vec()];
    parts.extend(bytes_one_by_one(&said[body..]));
    let act = Act::Drip(parts, Duration::from_millis(10));
    let more = "[gateway]\nfirst_byte_timeout_ms = 500\nidle_timeout_ms = 1000\n";
    let (gateway, _a, b) = over(vec![act], more).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), said[body..]);
    assert_eq!(b.calls(), 0);
    assert_eq!(gateway.event().await.usage, UsageSource::Reported);
}

#[tokio::test]
async fn headers_that_drip_and_never_end_are_tried_elsewhere_after_their_time() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".to_owned()
        + &"x-more: and more\r\n".repeat(50);
    let act = Act::Drip(bytes_one_by_one(head.as_bytes()), Duration::from_millis(20));
    let more = "[gateway]\nfirst_byte_timeout_ms = 300\n";
    let (gateway, _a, _b) = over(vec![act], more).await;
    assert_eq!(gateway.backends(1).await, ["b"]);
    let event = gateway.event().await;
    let error = event.attempts[0].error.as_deref();
    assert_eq!(error, Some("first_byte_timeout"));
}

#[tokio::test]
async fn an_answer_that_falls_silent_breaks_off() {
    let said = bytes_of(good());
    let half = said[..said.len() / 2].to_vec();
    let act = Act::Drip(vec![half, Vec::new()], Duration::from_secs(600));
    let more = "[gateway]\nidle_timeout_ms = 1000\n";
    let (gateway, _a, _b) = over(vec![act], more).await;
    let answer = gateway.chat().send().await.unwrap();
    assert!(answer.bytes().await.is_err());
    assert_eq!(gateway.event().await.outcome, Outcome::Cut);
}

/// The gateway is a process of its own here, so that its memory is all that is measured.
async fn passes_100_mib_in_little_memory(act: Act) {
    const MIB: usize = 100;
    let a = Scripted::start(vec![good(), act]).await;
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    package(
        &app,
        &(OPEN.to_owned() + &backend("a", a.address, "payg", "")),
    );
    let port = free_port();
    let gateway = Process::start(handler(&app, &port.to_string()), port);
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/chat/completions", gateway.address);
    let call = || client.post(&url).json(&crate::gateway::chat_body(true));
    call().send().await.unwrap().bytes().await.unwrap();
    let before = gateway.peak_mib();
    let mut answer = call().send().await.unwrap();
    let mut read = 0;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        read += chunk.len();
    }
    let after = gateway.peak_mib();
    assert_eq!(read, MIB << 20);
    // The allocator takes memory in steps of megabytes and keeps some for each thread.
    assert!(after <= before + 24, "from {before} to {after} MiB");
}

#[tokio::test]
async fn a_huge_document_passes_in_little_memory() {
    passes_100_mib_in_little_memory(Act::Flood(100)).await;
}

#[tokio::test]
async fn a_huge_stream_passes_in_little_memory() {
    passes_100_mib_in_little_memory(Act::FloodEvents(100)).await;
}

#[tokio::test]
async fn a_huge_event_passes_in_little_memory() {
    passes_100_mib_in_little_memory(Act::FloodOneEvent(100)).await;
}
