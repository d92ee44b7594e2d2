//! What an app may use in a minute and spend in a month, and what its callers are told of it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use spillway::gateway::event::UsageSource;
use spillway::gateway::priority::Priority;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::{
    Answer, Change, Fields, Key, Page, Range, Row, Store, StoreError, Table, Write,
};
use tokio::sync::Semaphore;

use crate::gateway::{Running, app, backend, header, start, start_with};
use crate::scripted::{Act, Scripted, answer, good, stream};

const TOKENS_LEFT: &str = "x-ratelimit-remaining-tokens";
const REQUESTS_LEFT: &str = "x-ratelimit-remaining-requests";

/// A chat call of the app.
fn call(gateway: &Running, app: &str, body: &Value) -> RequestBuilder {
    let call = gateway.post("/v1/chat/completions").json(body);
    call.header("api-key", format!("{app}-key"))
}

fn chat(model: &str, max_tokens: u64) -> Value {
    json!({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "Hello"}]})
}

/// The answer to a chat call of the app for gpt-4o.
async fn send(gateway: &Running, app: &str) -> Response {
    let call = call(gateway, app, &chat("gpt-4o", 100));
    call.send().await.unwrap()
}

fn number(answer: &Response, name: &str) -> u64 {
    header(answer, name).parse().unwrap()
}

/// The code and message of an error.
async fn error(answer: Response) -> (String, String) {
    let body: Value = answer.json().await.unwrap();
    let text = |key: &str| body["error"][key].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// A chat answer that reports so many tokens.
fn using(tokens: u64) -> Act {
    let body = json!({"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}});
    answer("200 OK", "", &body.to_string())
}

#[tokio::test]
async fn answers_carry_the_apps_own_limits_in_place_of_the_backends() {
    let full = answer(
        "200 OK",
        "x-ratelimit-limit-tokens: 450000\r\nx-ratelimit-remaining-tokens: 449999\r\nx-ratelimit-remaining-requests: 7\r\n",
        "{}",
    );
    let a = Scripted::start(vec![full]).await;
    let config = backend("a", a.address, "payg", "")
        + &app("portal", "tokens_per_minute = 1000")
        + &app("free", "");
    let gateway = start(&config).await;
    let told = send(&gateway, "portal").await;
    assert_eq!(told.status(), 200);
    assert_eq!(number(&told, "x-ratelimit-limit-tokens"), 1000);
    assert!((800..900).contains(&number(&told, TOKENS_LEFT)));
    assert!((1..=61).contains(&number(&told, "x-ratelimit-reset-tokens")));
    assert_eq!(header(&told, REQUESTS_LEFT), "", "requests are not limited");
    let told = send(&gateway, "free").await;
    assert_eq!(header(&told, TOKENS_LEFT), "449999");
    assert_eq!(header(&told, REQUESTS_LEFT), "7");
}

#[tokio::test]
async fn a_call_that_used_less_than_its_estimate_gets_the_rest_back() {
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "tokens_per_minute = 1000");
    let gateway = start(&config).await;
    let mut left = Vec::new();
    for _ in 0..3 {
        let body = chat("gpt-4o", 600);
        let answer = call(&gateway, "portal", &body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        left.push(number(&answer, TOKENS_LEFT));
        answer.bytes().await.unwrap();
        assert_eq!(gateway.event().await.tokens.total(), 7);
    }
    assert!(left[0] < 400, "the estimate counts at first: {left:?}");
    // The bucket leaks meanwhile, the window does not.
    assert_eq!((left[0] - left[1], left[1] - left[2]), (7, 7), "{left:?}");
}

#[tokio::test]
async fn usage_beyond_the_estimate_is_a_debt_that_later_calls_wait_for() {
    let a = Scripted::start(vec![using(5000)]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "tokens_per_minute = 1000");
    let gateway = start(&config).await;
    let first = send(&gateway, "portal").await;
    assert_eq!(first.status(), 200);
    first.bytes().await.unwrap();
    gateway.event().await;
    let second = send(&gateway, "portal").await;
    assert_eq!(second.status(), 429);
    let wait = number(&second, "retry-after-ms");
    assert!((230_000..=240_000).contains(&wait), "{wait}");
    assert_eq!(number(&second, "retry-after"), wait.div_ceil(1000));
    assert_eq!(header(&second, TOKENS_LEFT), "0");
    let (code, message) = error(second).await;
    assert_eq!(code, "token_limit_exceeded");
    assert!(
        message.starts_with("The app `portal` has reached its limit of 1000 tokens a minute; try"),
        "{message}"
    );
    let event = gateway.event().await;
    assert_eq!((event.status, event.attempts.len()), (429, 0));
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn a_call_that_no_backend_took_gives_its_tokens_back_and_stays_a_request() {
    let broken = answer("400 Bad Request", "", r#"{"error":{"code":"x"}}"#);
    let a = Scripted::start(vec![broken, good()]).await;
    let limits = "tokens_per_minute = 1000\nrequests_per_minute = 10";
    let config = backend("a", a.address, "payg", "") + &app("portal", limits);
    let gateway = start(&config).await;
    let mut left = Vec::new();
    for status in [400, 200] {
        let answer = send(&gateway, "portal").await;
        assert_eq!(answer.status(), status);
        left.push((number(&answer, TOKENS_LEFT), number(&answer, REQUESTS_LEFT)));
        answer.bytes().await.unwrap();
        gateway.event().await;
    }
    assert_eq!(left[0].0, left[1].0, "{left:?}");
    assert_eq!((left[0].1, left[1].1), (9, 8));
}

#[tokio::test]
async fn an_app_has_limits_by_model_beside_its_own() {
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "")
        + "[[backend.deployment]]\nname = \"mini\"\nkind = \"payg\"\n"
        + &app(
            "portal",
            "requests_per_minute = 3\n[[app.limit]]\nmodel = \"gpt-4o\"\nrequests_per_minute = 1",
        );
    let gateway = start(&config).await;
    let ask = async |model: &str| {
        let call = call(&gateway, "portal", &chat(model, 10));
        call.send().await.unwrap()
    };
    let first = ask("gpt-4o").await;
    assert_eq!(first.status(), 200);
    assert_eq!(header(&first, REQUESTS_LEFT), "0", "the tighter one");
    let (code, message) = error(ask("gpt-4o").await).await;
    assert_eq!(code, "request_limit_exceeded");
    assert!(
        message.contains("limit of 1 requests a minute with the model `gpt-4o`"),
        "{message}"
    );
    for left in ["1", "0"] {
        let answer = ask("mini").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, REQUESTS_LEFT), left);
    }
    let (_, message) = error(ask("mini").await).await;
    assert!(
        message.contains("limit of 3 requests a minute;"),
        "{message}"
    );
}

#[tokio::test]
async fn one_app_in_a_flood_does_not_throttle_another() {
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "")
        + &app("flood", "requests_per_minute = 5")
        + &app("portal", "requests_per_minute = 50");
    let gateway = start(&config).await;
    let mut admitted = 0;
    for _ in 0..50 {
        admitted += u32::from(send(&gateway, "flood").await.status() == 200);
        assert_eq!(send(&gateway, "portal").await.status(), 200);
    }
    assert_eq!(admitted, 5);
}

/// Waits until a call of the app is admitted again; its answer.
async fn admitted(gateway: &Running) -> Response {
    for _ in 0..200 {
        let answer = send(gateway, "portal").await;
        if answer.status() != 429 {
            return answer;
        }
        assert_eq!(header(&answer, "retry-after-ms"), "1000");
        assert_eq!(error(answer).await.0, "in_flight_limit_exceeded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place was not given back within 4 s");
}

#[tokio::test]
async fn a_call_in_flight_keeps_its_place_until_it_ends() {
    let gate = Arc::new(Semaphore::new(1));
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let slow = Act::Gated(stream(&[event, event], true), Arc::clone(&gate));
    let a = Scripted::start(vec![slow, good()]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "calls_in_flight = 1");
    let gateway = start(&config).await;
    gate.add_permits(1);
    let first = send(&gateway, "portal").await;
    assert_eq!(first.status(), 200, "it streams");
    let second = send(&gateway, "portal").await;
    assert_eq!(second.status(), 429);
    assert_eq!(error(second).await.0, "in_flight_limit_exceeded");
    gate.add_permits(10);
    first.bytes().await.unwrap();
    assert_eq!(admitted(&gateway).await.status(), 200);
}

#[tokio::test]
async fn the_place_is_given_back_whichever_way_a_call_ends() {
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let acts = [
        (
            "refused by the backend",
            answer("400 Bad Request", "", "{}"),
            true,
        ),
        (
            "streamed",
            Act::Drip(stream(&[event], true), Duration::ZERO),
            true,
        ),
        (
            "cut in a stream",
            Act::SayAndReset(stream(&[event], false).concat()),
            true,
        ),
        (
            "cut in a document",
            Act::SayAndReset(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
                    .to_vec(),
            ),
            true,
        ),
        ("left by its client before the first byte", Act::Hang, false),
        (
            "left by its client in the stream",
            Act::Gated(stream(&[event, event], true), Arc::new(Semaphore::new(2))),
            false,
        ),
    ];
    for (what, act, waits) in acts {
        let a = Scripted::start(vec![act, good()]).await;
        let config = backend("a", a.address, "payg", "") + &app("portal", "calls_in_flight = 1");
        let gateway = start(&config).await;
        let call = call(&gateway, "portal", &chat("gpt-4o", 10));
        if waits {
            let _ = call.send().await.unwrap().bytes().await;
        } else {
            let answer = call.timeout(Duration::from_millis(200)).send().await;
            if let Ok(answer) = answer {
                let _ = answer.bytes().await;
            }
        }
        assert_eq!(admitted(&gateway).await.status(), 200, "{what}");
    }
}

#[tokio::test]
async fn the_place_is_given_back_when_no_deployment_answers() {
    let failing = answer("503 Service Unavailable", "", "{}");
    let a = Scripted::start(vec![failing.clone(), failing, good()]).await;
    let config = String::from("[gateway]\nmax_attempts = 1\n")
        + &backend("a", a.address, "payg", "")
        + &app("portal", "calls_in_flight = 1");
    let gateway = start(&config).await;
    for status in [503, 503, 200] {
        assert_eq!(send(&gateway, "portal").await.status(), status);
        gateway.event().await;
    }
}

#[tokio::test]
async fn two_instances_share_a_limit_and_each_gets_what_the_other_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "requests_per_minute = 60");
    let one = start_with(&config, Arc::clone(&store)).await;
    let other = start_with(&config, Arc::clone(&store)).await;
    // Until each has read the other's row: they hold what the limit is, and no more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut admitted = 0;
    for _ in 0..70 {
        for gateway in [&one, &other] {
            admitted += u32::from(send(gateway, "portal").await.status() == 200);
        }
    }
    assert!((40..=66).contains(&admitted), "{admitted} of 60");
    let page = store.read(Table::Instances, &Range::all()).await.unwrap();
    assert_eq!(page.rows.len(), 2);
}

#[tokio::test]
async fn an_instance_alone_has_the_whole_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "requests_per_minute = 60");
    let gateway = start_with(&config, store).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..60 {
        assert_eq!(send(&gateway, "portal").await.status(), 200);
    }
    assert_eq!(send(&gateway, "portal").await.status(), 429);
}

/// A store that does not answer: nothing can be read or written.
#[derive(Debug)]
struct Down;

fn down<'a, T>() -> Answer<'a, T> {
    Box::pin(async { Err(StoreError::Unavailable("it is down".into())) })
}

impl Store for Down {
    fn get<'a>(&'a self, _: Table, _: &'a Key) -> Answer<'a, Option<Row>> {
        down()
    }

    fn read<'a>(&'a self, _: Table, _: &'a Range) -> Answer<'a, Page> {
        down()
    }

    fn write<'a>(&'a self, _: Table, _: &'a str, _: Vec<Write>) -> Answer<'a, ()> {
        down()
    }
}

#[tokio::test]
async fn without_its_store_an_instance_has_whole_limits_and_calls_go_on() {
    let a = Scripted::start(vec![good()]).await;
    let more = "requests_per_minute = 10\nbudget_per_month = \"1\"";
    let config = backend("a", a.address, "payg", "") + &app("portal", more);
    let gateway = start_with(&config, Arc::new(Down)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..10 {
        let answer = send(&gateway, "portal").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-spillway-budget"), "");
    }
    let (code, _) = error(send(&gateway, "portal").await).await;
    assert_eq!(code, "request_limit_exceeded");
}

/// A store in which the app has spent this much today, in two sums.
pub(crate) async fn spent(folder: &std::path::Path, app: &str, costs: [&str; 2]) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder).unwrap());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = Timestamp::from_unix_ms(u64::try_from(now.as_millis()).unwrap());
    let partition = format!("{app}|{}", now.day());
    let write = |row: &str, cost: &str| Write {
        row: row.to_owned(),
        change: Change::Insert(Fields::new().text("cost", cost)),
    };
    let writes = vec![
        write("call|1", "1000000"),
        write("sum|gpt-4o|payg", costs[0]),
        write("sum|gpt-4o|ptu", costs[1]),
    ];
    let written = store.write(Table::Chargeback, &partition, writes).await;
    written.unwrap();
    store
}

/// Waits until what was spent has been read: answers then say so.
async fn read_by(gateway: &Running) -> Response {
    for _ in 0..200 {
        let answer = send(gateway, "portal").await;
        if !header(&answer, "x-spillway-budget").is_empty() {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what was spent was not read within 4 s");
}

#[tokio::test]
async fn from_80_percent_of_the_budget_on_answers_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = spent(folder.path(), "portal", ["79.99", "0.01"]).await;
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "")
        + &app("portal", "budget_per_month = \"100.00\"")
        + &app("other", "budget_per_month = \"100.00\"");
    let gateway = start_with(&config, store).await;
    let answer = read_by(&gateway).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-spillway-budget"), "80%");
    let answer = send(&gateway, "other").await;
    assert_eq!(header(&answer, "x-spillway-budget"), "");
}

#[tokio::test]
async fn a_spent_budget_refuses_what_costs_until_the_month_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = spent(folder.path(), "portal", ["99.99", "0.06"]).await;
    let a = Scripted::start(vec![good()]).await;
    let more = "budget_per_month = \"100.00\"\nrequests_per_minute = 5000";
    let config = backend("a", a.address, "payg", "") + &app("portal", more);
    let gateway = start_with(&config, store).await;
    let answer = read_by(&gateway).await;
    assert_eq!(answer.status(), 429);
    assert_eq!(header(&answer, "x-spillway-budget"), "100%");
    assert_eq!(header(&answer, "x-should-retry"), "false");
    let wait = number(&answer, "retry-after-ms");
    assert!(wait <= 31 * 24 * 3600 * 1000, "{wait}");
    assert_eq!(error(answer).await.0, "budget_exceeded");
    let files = gateway.get("/v1/files").header("api-key", "portal-key");
    assert_eq!(files.send().await.unwrap().status(), 200, "costs nothing");
}

#[tokio::test]
async fn a_spent_budget_can_lower_the_priority_instead() {
    let folder = tempfile::tempdir().unwrap();
    let store = spent(folder.path(), "portal", ["100", "50"]).await;
    let a = Scripted::start(vec![good()]).await;
    let more = "budget_per_month = \"100\"\non_exhausted = \"low-priority\"";
    let config = backend("a", a.address, "payg", "") + &app("portal", more);
    let gateway = start_with(&config, store).await;
    let answer = read_by(&gateway).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-spillway-budget"), "150%");
    let id = header(&answer, "x-spillway-request-id");
    answer.bytes().await.unwrap();
    let mut event = gateway.event().await;
    while event.id != id {
        event = gateway.event().await;
    }
    assert_eq!(event.priority, Priority::Low);
}

/// What such a response generates is fetched by calls that use nothing.
#[tokio::test]
async fn a_response_in_the_background_needs_leave() {
    let queued = r#"{"id":"resp_1","object":"response","status":"queued","usage":null}"#;
    let a = Scripted::start(vec![answer("200 OK", "", queued)]).await;
    let config = backend("a", a.address, "payg", "")
        + &app("portal", "requests_per_minute = 100")
        + &app("trusted", "allow_background = true");
    let gateway = start(&config).await;
    let ask = async |app: &str, more: &Value| {
        let mut body = json!({"model": "gpt-4o", "input": "Hello"});
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        let call = gateway.post("/v1/responses").json(&body);
        let call = call.header("api-key", format!("{app}-key"));
        call.send().await.unwrap()
    };
    for more in [
        json!({"background": true}),
        json!({"background": true, "stream": true, "store": true}),
    ] {
        let refused = ask("portal", &more).await;
        assert_eq!(refused.status(), 400, "{more}");
        let body: Value = refused.json().await.unwrap();
        let error = &body["error"];
        assert_eq!(error["code"], "background_not_allowed");
        assert_eq!(error["param"], "background");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("can't be counted") && message.contains("`allow_background`"),
            "{message}"
        );
        assert_eq!(gateway.event().await.status, 400);
    }
    assert_eq!(a.calls(), 0);
    for more in [json!({}), json!({"background": false})] {
        let passed = ask("portal", &more).await;
        assert_eq!(passed.status(), 200, "{more}");
        passed.bytes().await.unwrap();
        gateway.event().await;
    }
    let passed = ask("trusted", &json!({"background": true})).await;
    assert_eq!(passed.status(), 200);
    assert_eq!(passed.text().await.unwrap(), queued);
    let event = gateway.event().await;
    assert_eq!(event.tokens.output, 0, "nobody knows yet");
    // The name means nothing to other operations.
    let mut chat = chat("gpt-4o", 10);
    chat["background"] = true.into();
    let chat = call(&gateway, "portal", &chat).send().await.unwrap();
    assert_eq!(chat.status(), 200);
}

#[tokio::test]
async fn reading_a_stored_answer_uses_none_of_its_tokens_again() {
    let body = r#"{"id":"resp_1","object":"response","usage":{"input_tokens":300,"output_tokens":0,"total_tokens":300}}"#;
    let a = Scripted::start(vec![answer("200 OK", "", body)]).await;
    let config = backend("a", a.address, "payg", "") + &app("portal", "tokens_per_minute = 1000");
    let gateway = start(&config).await;
    let made = gateway
        .post("/v1/responses")
        .json(&json!({"model": "gpt-4o", "input": "Hi", "max_output_tokens": 300}))
        .header("api-key", "portal-key");
    made.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(gateway.event().await.tokens.total(), 300);
    for _ in 0..3 {
        let read = gateway.get("/v1/responses/resp_1");
        let read = read.header("api-key", "portal-key").send().await.unwrap();
        assert_eq!(number(&read, TOKENS_LEFT), 700);
        read.bytes().await.unwrap();
        let event = gateway.event().await;
        assert_eq!((event.tokens.total(), event.usage), (0, UsageSource::None));
    }
}
