//! What backends and clients do wrong.

use std::sync::Arc;
use std::time::Duration;

use spillway::gateway::event::{Outcome, UsageSource};
use tokio::sync::Semaphore;

use crate::gateway::{OPEN, backend, header, start};
use crate::raw::Raw;
use crate::scripted::{Act, Scripted, answer, full, good, over, stream};

const CHUNK: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"12345678\"}}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

async fn falls_over_to_b(fault: Act, more: &str, error: &str) {
    let (gateway, _a, _b) = over(vec![fault], more).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            header(&answer, "x-spillway-backend").as_str()
        ),
        (200, "b")
    );
    let event = gateway.event().await;
    assert_eq!(event.attempts[0].error.as_deref(), Some(error));
    let health: serde_json::Value = gateway
        .get("/spillway/health")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["deployments"][0]["marked"]["reason"], "failed");
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let b = Scripted::start(vec![good()]).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config =
        OPEN.to_owned() + &backend("a", nobody, "ptu", "") + &backend("b", b.address, "payg", "");
    let gateway = start(&config).await;
    assert_eq!(gateway.backends(2).await, ["b", "b"]);
    assert_eq!(
        gateway.event().await.attempts[0].error.as_deref(),
        Some("connect")
    );
}

#[tokio::test]
async fn a_reset_before_the_headers_is_tried_elsewhere() {
    falls_over_to_b(Act::SayAndReset(Vec::new()), "", "reset").await;
}

#[tokio::test]
async fn a_reset_before_the_first_byte_is_tried_elsewhere() {
    let head = stream(&[], false).concat();
    falls_over_to_b(Act::SayAndReset(head), "", "reset").await;
}

#[tokio::test]
async fn a_hung_backend_is_tried_elsewhere_after_its_time() {
    falls_over_to_b(
        Act::Hang,
        "[gateway]\nfirst_byte_timeout_ms = 200\n",
        "first_byte_timeout",
    )
    .await;
}

#[tokio::test]
async fn a_call_with_little_time_left_says_nothing_of_the_deployment() {
    let config = "[gateway]\ndeadline_ms = 1000\n";
    let (gateway, a, _b) = over(vec![Act::Hang, good(), Act::Hang], config).await;
    let body = "{\"model\":\"gpt-4o\",\"messages\":[]}";
    let mut client = Raw::connect(gateway.address).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.write(body.as_bytes()).await;
    assert_eq!(client.answer().await.status, 504);
    let next = gateway.chat().send().await.unwrap();
    assert_eq!(header(&next, "x-spillway-backend"), "a", "it is not marked");
    let hung = gateway.chat().send().await.unwrap();
    assert_eq!(hung.status(), 504, "with all of its time");
    let next = gateway.chat().send().await.unwrap();
    assert_eq!(header(&next, "x-spillway-backend"), "b", "it is marked");
    assert_eq!(a.calls(), 3);
}

#[tokio::test]
async fn the_limit_of_a_call_without_a_model_is_its_own() {
    let a = Scripted::start(vec![full(60_000), good()]).await;
    let gateway = start(&format!("{OPEN}{}", backend("a", a.address, "payg", ""))).await;
    let files = || gateway.get("/v1/files").send();
    let limited = files().await.unwrap();
    assert_eq!(limited.status(), 429);
    assert_ne!(
        header(&limited, "retry-after-ms"),
        "",
        "as the backend says"
    );
    let before = std::time::Instant::now();
    assert_eq!(
        files().await.unwrap().status(),
        200,
        "others are not kept away"
    );
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "nor made to wait"
    );
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn a_stored_object_that_is_changed_is_not_billed_again() {
    let (gateway, _a, _b) = over(vec![good()], "").await;
    let stored = gateway.post("/v1/chat/completions/chatcmpl-1");
    let stored = stored.json(&serde_json::json!({"metadata": {"a": "b"}}));
    assert_eq!(stored.send().await.unwrap().status(), 200);
    let event = gateway.event().await;
    assert_eq!((event.tokens.total(), event.usage), (0, UsageSource::None));
}

#[tokio::test]
async fn what_is_no_http_is_tried_elsewhere() {
    falls_over_to_b(
        Act::Say(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        "",
        "protocol",
    )
    .await;
}

#[tokio::test]
async fn a_stream_cut_in_the_middle_ends_with_an_error_event_and_is_billed() {
    let cut = stream(&[CHUNK, CHUNK], false).concat();
    let (gateway, _a, _b) = over(vec![Act::SayAndReset(cut)], "").await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    assert!(text.starts_with(&CHUNK.repeat(2)), "{text}");
    assert!(text.contains("\"code\":\"stream_cut\""), "{text}");
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.usage, event.tokens.output),
        (Outcome::Cut, UsageSource::Estimated, 4)
    );
}

#[tokio::test]
async fn usage_is_asked_for_and_kept_from_a_client_that_did_not_ask() {
    let parts = stream(&[CHUNK, USAGE, DONE], true);
    let (gateway, a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(5))], "").await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    assert_eq!(text, format!("{CHUNK}{DONE}"));
    assert!(
        a.last_request()
            .contains("\"stream_options\":{\"include_usage\":true}")
    );
    let event = gateway.event().await;
    assert_eq!(
        (event.tokens.input, event.tokens.output, event.usage),
        (9, 4, UsageSource::Reported)
    );
    let mut body = crate::gateway::chat_body(true);
    body["stream_options"] = serde_json::json!({"include_usage": true});
    let asked = gateway
        .post("/v1/chat/completions")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(asked.text().await.unwrap(), format!("{CHUNK}{USAGE}{DONE}"));
}

#[tokio::test]
async fn a_stream_that_never_ends_is_cut_off() {
    let parts = stream(&[CHUNK; 100], true);
    let more = "[gateway]\nmax_answer_ms = 1000\n";
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(50))], more).await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    let (chunks, end) = text.split_at(text.rfind("data:").unwrap());
    assert!(chunks.starts_with(CHUNK) && chunks.len() < 100 * CHUNK.len());
    assert!(end.contains("\"code\":\"stream_cut\""), "{end}");
    assert_eq!(gateway.event().await.outcome, Outcome::Cut);
}

#[tokio::test]
async fn a_silent_stream_is_cut_off_by_then_too() {
    let parts = vec![stream(&[CHUNK], false).concat(), Vec::new()];
    let more = "[gateway]\nmax_answer_ms = 1000\n";
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_secs(60))], more).await;
    let text = gateway.stream().send().await.unwrap().text().await;
    assert!(text.unwrap().contains("\"code\":\"stream_cut\""));
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connection_that_is_not_made() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let b = Scripted::start(vec![good()]).await;
    let deaf = backend("a", address, "ptu", "").replace("http://", "https://");
    let deaf = deaf.replace("region =", "key = \"k\"\nregion =");
    let times = "[gateway]\nconnect_timeout_ms = 300\n";
    let payg = backend("b", b.address, "payg", "");
    let gateway = start(&format!("{OPEN}{times}{deaf}{payg}")).await;
    assert_eq!(gateway.backends(1).await, ["b"]);
    let event = gateway.event().await;
    assert_eq!(event.attempts[0].error.as_deref(), Some("connect_timeout"));
    drop(listener);
}

#[tokio::test]
async fn chunks_arrive_as_they_come() {
    let gate = Arc::new(Semaphore::new(2));
    let parts = stream(&[CHUNK, CHUNK, DONE], true);
    let (gateway, _a, _b) = over(vec![Act::Gated(parts, Arc::clone(&gate))], "").await;
    let mut answer = gateway.stream().send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert_eq!(first, CHUNK, "it came before the second was written");
    gate.add_permits(3);
    assert_eq!(answer.text().await.unwrap(), [CHUNK, DONE].concat());
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive() {
    let parts = stream(&[CHUNK, DONE], true);
    let more = "[gateway]\nheartbeat_ms = 50\n";
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(200))], more).await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    assert!(text.contains(": keep-alive\n\n"), "{text}");
    assert_eq!(
        text.replace(": keep-alive\n\n", ""),
        format!("{CHUNK}{DONE}")
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_billed_for_what_came() {
    let parts = stream(&[CHUNK, CHUNK, DONE], true);
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(400))], "").await;
    let mut answer = gateway.stream().send().await.unwrap();
    answer.chunk().await.unwrap();
    drop(answer);
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.usage),
        (Outcome::ClientGone, UsageSource::Estimated)
    );
    assert!(event.tokens.output >= 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_recorded_too() {
    let (gateway, a, _b) = over(vec![Act::Hang], "").await;
    let patience = Duration::from_millis(200);
    assert!(gateway.chat().timeout(patience).send().await.is_err());
    assert_eq!(a.calls(), 1);
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.status, event.usage, &*event.backend),
        (Outcome::ClientGone, 499, UsageSource::Estimated, "a")
    );
}

#[tokio::test]
async fn a_body_shorter_than_it_says_breaks_off() {
    let short =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}"
            .to_vec();
    let (gateway, _a, _b) = over(vec![Act::SayAndReset(short)], "").await;
    let answer = gateway.chat().send().await.unwrap();
    assert!(
        answer.bytes().await.is_err(),
        "half an answer must not pass for a whole one"
    );
    assert_eq!(gateway.event().await.outcome, Outcome::Cut);
}

#[tokio::test]
async fn malformed_events_go_through_untouched() {
    let odd = "data: {\"id\":\r\ndata: ]]}\r\n\r\n:\n\ndata\n\nevent: x\ndata: \u{0}\n\n";
    let parts = stream(&[odd], true);
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(1))], "").await;
    assert_eq!(
        gateway.stream().send().await.unwrap().text().await.unwrap(),
        odd
    );
}

#[tokio::test]
async fn the_gateways_own_misconfiguration_is_not_the_clients() {
    for (status, body) in [
        ("401 Unauthorized", "{}"),
        ("403 Forbidden", "{}"),
        (
            "404 Not Found",
            r#"{"error":{"code":"DeploymentNotFound","message":"x"}}"#,
        ),
    ] {
        let (gateway, _a, _b) = over(vec![answer(status, "", body)], "").await;
        assert_eq!(gateway.backends(1).await, ["b"], "{status}");
    }
}

#[tokio::test]
async fn the_clients_mistakes_go_back_untouched() {
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "422 Unprocessable",
        "413 Too Large",
    ] {
        let body = r#"{"error":{"code":"content_filter","message":"m"}}"#;
        let (gateway, _a, b) = over(vec![answer(status, "x-ms-region: x\r\n", body)], "").await;
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!(answer.status().as_str(), &status[..3]);
        assert_eq!(header(&answer, "x-ms-region"), "x");
        assert_eq!(answer.text().await.unwrap(), body);
        assert_eq!(b.calls(), 0);
    }
}

#[tokio::test]
async fn an_error_that_is_too_long_to_be_looked_at_goes_back_whole() {
    let long = "x".repeat(200_000);
    let (gateway, _a, b) = over(vec![answer("404 Not Found", "", &long)], "").await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let text = answer.text().await.unwrap();
    assert!(text == long, "{} bytes of 200,000", text.len());
    assert_eq!(b.calls(), 0);
}

#[tokio::test]
async fn an_error_that_breaks_off_is_tried_elsewhere() {
    let short = b"HTTP/1.1 404 Not Found\r\ncontent-length: 100\r\n\r\n{".to_vec();
    falls_over_to_b(Act::SayAndReset(short), "", "reset").await;
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_where() {
    let a = Scripted::start(vec![good()]).await;
    let config =
        OPEN.to_owned() + "[gateway]\nmax_body_mb = 1\n" + &backend("a", a.address, "payg", "");
    let gateway = start(&config).await;
    let send = |body: String| {
        gateway
            .post("/v1/chat/completions")
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let cases = [
        ("{\"model\":\"gpt-4o\",\n}", 400, "line 2, column 1"),
        ("{\"model\":7}", 400, "`model` must be a string"),
        ("{\"messages\":[]}", 400, "no `model`"),
        ("", 400, "empty"),
        ("{\"model\":\"gpt-5\"}", 404, "`gpt-5` does not exist"),
    ];
    for (body, status, text) in cases {
        let answer = send(body.to_owned()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{body}");
        let error: serde_json::Value = answer.json().await.unwrap();
        let message = error["error"]["message"].as_str().unwrap().to_lowercase();
        assert!(message.contains(&text.to_lowercase()), "{message}");
        assert_eq!(gateway.event().await.status, status);
    }
    let large = format!("{{\"model\":\"{}\"}}", "x".repeat(2 << 20));
    let answer = send(large).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn headers_of_hops_and_infrastructure_stay_where_they_belong() {
    let a = Scripted::start(vec![answer(
        "200 OK",
        "set-cookie: a=b\r\nserver: x\r\nx-ratelimit-remaining-tokens: 9\r\napim-request-id: q\r\n",
        "{}",
    )])
    .await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let call = gateway
        .chat()
        .header("cookie", "c")
        .header("x-functions-key", "f")
        .header("x-forwarded-for", "1");
    let answer = call.send().await.unwrap();
    assert_eq!(header(&answer, "x-ratelimit-remaining-tokens"), "9");
    assert_eq!(header(&answer, "apim-request-id"), "q");
    assert_eq!(
        (header(&answer, "set-cookie"), header(&answer, "server")),
        (String::new(), String::new())
    );
    let request = a.last_request().to_lowercase();
    for name in ["cookie:", "x-functions-key:", "x-forwarded-for:"] {
        assert!(!request.contains(name), "{request}");
    }
    assert!(
        request.contains(&format!("host: {}", a.address)),
        "{request}"
    );
}
