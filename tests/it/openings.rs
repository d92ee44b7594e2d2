//! Streams that fail at their start, before the client has got anything of them.

use std::sync::Arc;
use std::time::Duration;

use spillway::gateway::event::{Outcome, UsageSource};
use tokio::sync::Semaphore;

use crate::gateway::{OPEN, backend, header, start};
use crate::scripted::{Act, Scripted, over, stream};

const CHUNK: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"12345678\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"error\":null,\"output\":[]},\"sequence_number\":0}\n\n";
const DELTA: &str = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"abcd\",\"sequence_number\":1}\n\n";
/// What a full PTU deployment says in a streamed response (see `classify::stream_event`).
const THROTTLED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"too_many_requests\",\"code\":\"rate_limit_reached\",\"message\":\"m\",\"param\":null},\"sequence_number\":2}\n\n";
const FAILED: &str = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"id\":\"resp_1\",\"error\":null,\"output\":[]},\"sequence_number\":3}\n\n";

/// A stream's parts with a `retry-after` of seven seconds, as Azure sends with a refusal.
fn refused(chunks: &[&str]) -> Act {
    let mut parts = stream(chunks, true);
    parts[0] = String::from_utf8(parts[0].clone())
        .unwrap()
        .replacen("\r\n", "\r\nretry-after: 7\r\n", 1)
        .into_bytes();
    Act::Drip(parts, Duration::from_millis(5))
}

async fn is_tried_elsewhere(act: Act, error: &str, mark: &str) {
    let (gateway, _a, _b) = over(vec![act], "").await;
    let answer = gateway.stream().send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-spillway-backend"), "b");
    assert_eq!(header(&answer, "x-spillway-attempts"), "2");
    let event = gateway.event().await;
    assert_eq!(event.attempts[0].status, Some(200));
    assert_eq!(event.attempts[0].error.as_deref(), Some(error));
    assert!(!event.attempts[0].billed);
    let health = gateway.get("/spillway/health").send().await.unwrap();
    let health: serde_json::Value = health.json().await.unwrap();
    assert_eq!(health["deployments"][0]["marked"]["reason"], mark);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_first_event_is_tried_elsewhere() {
    for chunks in [vec![], vec![": comment\n\n"], vec![CREATED]] {
        let act = Act::Drip(stream(&chunks, true), Duration::ZERO);
        is_tried_elsewhere(act, "empty_stream", "failed").await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_first_event_is_whole_is_tried_elsewhere() {
    let act = Act::SayAndReset(stream(&[&CHUNK[..20]], false).concat());
    is_tried_elsewhere(act, "reset", "failed").await;
}

#[tokio::test]
async fn a_server_error_as_the_first_event_is_tried_elsewhere() {
    let error = "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n";
    let act = Act::Drip(stream(&[error, DONE], true), Duration::ZERO);
    is_tried_elsewhere(act, "error_event", "failed").await;
}

#[tokio::test]
async fn a_throttle_as_the_first_event_is_tried_elsewhere() {
    let error = "data: {\"error\":{\"code\":\"429\",\"message\":\"m\"}}\n\n";
    is_tried_elsewhere(refused(&[error]), "error_event", "throttled").await;
}

#[tokio::test]
async fn a_ptu_that_refuses_in_a_streamed_response_spills_over() {
    for events in [
        [CREATED, THROTTLED, FAILED],
        [CREATED, FAILED, THROTTLED],
        [": hello\n\n", THROTTLED, FAILED],
    ] {
        is_tried_elsewhere(refused(&events), "error_event", "throttled").await;
    }
    let (gateway, a, _b) = over(vec![refused(&[CREATED, THROTTLED, FAILED])], "").await;
    let answer = gateway.stream().send().await.unwrap();
    assert_eq!(header(&answer, "x-spillway-kind"), "payg");
    assert!(gateway.event().await.spilled);
    gateway.stream().send().await.unwrap();
    assert_eq!(a.calls(), 1, "the mark lasts as long as the 200 asked for");
}

#[tokio::test]
async fn streams_that_are_all_refused_are_a_429_with_the_time_to_come_back() {
    let a = Scripted::start(vec![refused(&[CREATED, THROTTLED, FAILED])]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let answer = gateway.stream().send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(header(&answer, "retry-after"), "7");
    let text = answer.text().await.unwrap();
    assert!(text.contains("a (200, error_event)"), "{text}");
}

#[tokio::test]
async fn an_error_that_may_be_the_clients_goes_to_the_client() {
    let error =
        "data: {\"error\":{\"code\":\"content_filter\",\"message\":\"m\",\"status\":400}}\n\n";
    let (gateway, _a, b) = over(vec![Act::Drip(stream(&[error], true), Duration::ZERO)], "").await;
    let answer = gateway.stream().send().await.unwrap();
    assert_eq!(header(&answer, "x-spillway-backend"), "a");
    assert_eq!(answer.text().await.unwrap(), error);
    assert_eq!(b.calls(), 0);
}

#[tokio::test]
async fn an_error_after_the_answer_has_begun_goes_to_the_client() {
    let error = "data: {\"error\":{\"code\":\"server_error\",\"message\":\"m\"}}\n\n";
    let parts = stream(&[CHUNK, error, DONE], true);
    let (gateway, _a, b) = over(vec![Act::Drip(parts, Duration::from_millis(5))], "").await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    assert_eq!(text, [CHUNK, error, DONE].concat());
    assert_eq!(b.calls(), 0);
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.usage, event.tokens.output),
        (Outcome::Completed, UsageSource::Estimated, 2)
    );
}

#[tokio::test]
async fn an_opening_goes_out_untouched_with_what_follows_it() {
    let parts = stream(&[": hello\n\n", CREATED, DELTA], true);
    let (gateway, _a, _b) = over(vec![Act::Drip(parts, Duration::from_millis(5))], "").await;
    let text = gateway.stream().send().await.unwrap().text().await.unwrap();
    assert_eq!(text, [": hello\n\n", CREATED, DELTA].concat());
}

/// A model that thinks for minutes opens its stream and is silent: the client hears that much.
#[tokio::test]
async fn an_opening_is_not_held_for_long() {
    let gate = Arc::new(Semaphore::new(2));
    let parts = stream(&[CREATED, DELTA], true);
    let (gateway, _a, b) = over(vec![Act::Gated(parts, Arc::clone(&gate))], "").await;
    let mut answer = gateway.stream().send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert_eq!(first, CREATED, "it came before the delta was written");
    gate.add_permits(2);
    assert_eq!(answer.text().await.unwrap(), DELTA);
    assert_eq!(b.calls(), 0);
}
