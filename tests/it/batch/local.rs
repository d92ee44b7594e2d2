//! `spillway local` with its queue, as a process of its own that can be killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::gateway::{OPEN, app, backend, header};
use crate::limits::spent;
use crate::process::{PATIENCE, free_port};
use crate::scripted::{Act, Scripted, answer, full, good};
use crate::served::command;

/// A running gateway and its queue.
struct Local {
    child: Child,
    address: SocketAddr,
    queue: SocketAddr,
    client: Client,
}

/// A reply, read.
struct Reply {
    line: Value,
    broker: Value,
    properties: reqwest::header::HeaderMap,
}

/// Where everything is, and how often a message is delivered.
fn batch(folder: &Path, more: &str) -> String {
    let (data, port) = (folder.join("data"), free_port());
    format!(
        "[storage]\ntables = \"embedded:{0}\"\nblobs = \"embedded:{0}\"\n[batch]\nnamespace = \"http://127.0.0.1:{port}\"\nqueue = \"batch\"\nreply_queues = [\"results\", \"other\"]\n{more}\n",
        data.display()
    )
}

impl Local {
    fn start(folder: &Path, config: &str) -> Self {
        let file = folder.join("spillway.toml");
        std::fs::write(&file, config).unwrap();
        let arguments = ["local", "--port", "0", "--config", file.to_str().unwrap()];
        let mut child = command(&arguments, &[])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (found, addresses) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                for start in ["console: http://", "batch: POST http://"] {
                    if let Some(rest) = line.strip_prefix(start) {
                        let address = rest.split('/').next().unwrap().parse().unwrap();
                        // The test may have ended.
                        let _ = found.send(address);
                    }
                }
            }
        });
        let next = || addresses.recv_timeout(PATIENCE).unwrap();
        Self {
            address: next(),
            queue: next(),
            child,
            client: Client::new(),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn queued(&self, queue: &str) -> RequestBuilder {
        self.client
            .post(format!("http://{}/{queue}/messages", self.queue))
    }

    /// Sends a message whose properties are `broker` and `own`.
    async fn send(&self, broker: &Value, own: &[(&str, &str)], body: impl Into<reqwest::Body>) {
        let mut request = self
            .queued("batch")
            .header("BrokerProperties", broker.to_string());
        for (name, value) in own {
            request = request.header(*name, *value);
        }
        let sent = request.body(body).send().await.unwrap();
        assert_eq!(sent.status(), 201);
    }

    async fn take(&self, queue: &str, seconds: u64) -> Option<Reply> {
        let url = format!(
            "http://{}/{queue}/messages/head?timeout={seconds}",
            self.queue
        );
        let taken = self.client.delete(url).send().await.unwrap();
        if taken.status() == 204 {
            return None;
        }
        assert_eq!(taken.status(), 200);
        let properties = taken.headers().clone();
        let broker = properties["brokerproperties"].to_str().unwrap();
        Some(Reply {
            broker: serde_json::from_str(broker).unwrap(),
            line: taken.json().await.unwrap_or(Value::Null),
            properties,
        })
    }

    async fn reply(&self) -> Reply {
        self.take("results", 20).await.unwrap()
    }

    /// Messages and dead letters of a queue.
    async fn lengths(&self, queue: &str) -> (u64, u64) {
        let all = self
            .client
            .get(format!("http://{}/", self.queue))
            .send()
            .await
            .unwrap();
        let all: Value = all.json().await.unwrap();
        let queues = all["queues"].as_array().unwrap();
        let one = queues.iter().find(|one| one["name"] == queue).unwrap();
        (
            one["messages"].as_u64().unwrap(),
            one["dead_letters"].as_u64().unwrap(),
        )
    }

    async fn is_empty(&self) {
        for _ in 0..100 {
            if self.lengths("batch").await.0 == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the queue is not empty: {:?}", self.lengths("batch").await);
    }

    fn call(&self, key: &str) -> RequestBuilder {
        let url = format!("http://{}/low/v1/chat/completions", self.address);
        let call = self.client.post(url).header("api-key", key);
        call.json(&request())
    }

    /// A call that may be answered later.
    async fn later(&self, key: &str) -> Response {
        let call = self.call(key).header("prefer", "respond-async");
        call.send().await.unwrap()
    }

    async fn at(&self, method: reqwest::Method, path: &str, key: &str) -> Response {
        let url = format!("http://{}{path}", self.address);
        let asked = self.client.request(method, url).header("api-key", key);
        asked.send().await.unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]})
}

fn line(custom_id: &str) -> String {
    let line = json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request()});
    line.to_string()
}

fn broken() -> Act {
    answer("500 Internal Server Error", "", "{}")
}

#[tokio::test]
async fn a_message_is_answered_where_it_asks_and_in_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config =
        batch(folder.path(), "") + &app("nightly", "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let broker = json!({"MessageId": "m-1", "CorrelationId": "k", "ReplyTo": "other", "ReplyToSessionId": "s"});
    local
        .send(&broker, &[("app", "\"nightly\"")], line("c-1"))
        .await;
    let reply = local.take("other", 20).await.unwrap();
    assert_eq!(reply.line["custom_id"], "c-1");
    assert_eq!(reply.line["response"]["status_code"], 200);
    assert_eq!(reply.line["response"]["body"]["usage"]["total_tokens"], 7);
    assert!(reply.line["error"].is_null());
    assert_eq!(reply.broker["CorrelationId"], "k");
    assert_eq!(reply.broker["SessionId"], "s");
    assert_eq!(reply.properties["request-id"], "\"m-1\"");
    assert_eq!(reply.properties["content-type"], "application/json");
    local.is_empty().await;
    // The same again is a duplicate, for the queue; under another id it is another request.
    local
        .send(&broker, &[("app", "\"nightly\"")], line("c-1"))
        .await;
    assert!(local.take("other", 0).await.is_none());
    let second = json!({"MessageId": "m-2"});
    local
        .send(&second, &[("app", "\"nightly\"")], line("c-1"))
        .await;
    local.reply().await;
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn the_console_counts_the_queue_and_says_how_long_messages_waited() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config = batch(folder.path(), "") + OPEN + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let queue = async || -> Value {
        let url = format!("http://{}/spillway/api/now", local.address);
        let now: Value = local
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        now["queue"].clone()
    };
    let empty = queue().await;
    assert_eq!(empty["queue"], "batch");
    assert_eq!(
        (&empty["waiting"], &empty["scheduled"]),
        (&json!(0), &json!(0))
    );
    for name in ["oldest_s", "waited_s", "unknown"] {
        assert_eq!(empty[name], Value::Null, "{name}");
    }
    let later = "Fri, 31 Dec 2100 23:59:59 GMT";
    let broker = json!({"MessageId": "later", "ScheduledEnqueueTimeUtc": later});
    let app = [("app", "\"nightly\"")];
    local.send(&broker, &app, line("c")).await;
    local
        .send(&json!({"MessageId": "now"}), &app, line("c"))
        .await;
    local.reply().await;
    // Counts are good for ten seconds.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let one = queue().await;
    assert_eq!((&one["waiting"], &one["scheduled"]), (&json!(0), &json!(1)));
    assert!(one["waited_s"].as_f64().is_some_and(|s| s < 5.0), "{one}");
    assert!(one["delivered_ago_s"].as_f64().is_some(), "{one}");
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said_and_nothing_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config =
        batch(folder.path(), "") + &app("nightly", "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let own = ("app", "\"nightly\"");
    let streams = line("c").replace("\"model\"", "\"stream\":true,\"model\"");
    let cases = [
        (
            "no JSON",
            vec![own],
            "plain text".to_owned(),
            "invalid_body",
        ),
        ("nothing", vec![own], String::new(), "invalid_body"),
        (
            "no UTF-8",
            vec![own],
            "{\"a\":\"\u{fffd}\"".to_owned(),
            "invalid_body",
        ),
        (
            "10 MB",
            vec![own],
            format!("{{\"x\":\"{}\"}}", "y".repeat(10 << 20)),
            "body_too_large",
        ),
        (
            "an unknown app",
            vec![("app", "\"nobody\"")],
            line("c"),
            "unknown_app",
        ),
        ("no app", vec![], line("c"), "app_missing"),
        (
            "a deadline in the past",
            vec![own, ("deadline", "\"2020-01-01T00:00:00Z\"")],
            line("c"),
            "batch_expired",
        ),
        (
            "a deadline that is none",
            vec![own, ("deadline", "\"tomorrow\"")],
            line("c"),
            "invalid_property",
        ),
        (
            "a priority that is none",
            vec![own, ("priority", "5")],
            line("c"),
            "invalid_property",
        ),
        ("a stream", vec![own], streams, "stream_not_possible"),
        (
            "files",
            vec![own],
            line("c").replace("chat/completions", "files"),
            "invalid_url",
        ),
        (
            "GET",
            vec![own],
            line("c").replace("POST", "GET"),
            "invalid_method",
        ),
    ];
    for (i, (what, own, body, code)) in cases.into_iter().enumerate() {
        local
            .send(&json!({"MessageId": format!("m-{i}")}), &own, body)
            .await;
        let reply = local.reply().await;
        assert_eq!(reply.line["error"]["code"], code, "{what}: {}", reply.line);
        assert!(reply.line["response"].is_null());
        assert_eq!(reply.broker["CorrelationId"], format!("m-{i}"));
        let message = reply.line["error"]["message"].as_str().unwrap();
        assert!(
            message.len() > 20 && message.ends_with('.'),
            "{what}: {message}"
        );
    }
    let broker = json!({"MessageId": "evil", "ReplyTo": "evil"});
    local.send(&broker, &[own], line("c")).await;
    let reply = local.reply().await;
    assert_eq!(reply.line["error"]["code"], "reply_address_not_allowed");
    assert_eq!(reply.line["custom_id"], "c");
    let model = line("c").replace("gpt-4o", "gpt-5");
    local
        .send(&json!({"MessageId": "model"}), &[own], model)
        .await;
    let reply = local.reply().await;
    assert_eq!(reply.line["response"]["status_code"], 404);
    assert_eq!(
        reply.line["response"]["body"]["error"]["code"],
        "model_not_found"
    );
    local.is_empty().await;
    assert_eq!(local.lengths("batch").await, (0, 0), "no dead letters");
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn a_backend_s_own_400_is_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = answer(
        "400 Bad Request",
        "",
        r#"{"error":{"code":"content_filter","message":"no"}}"#,
    );
    let a = Scripted::start(vec![refusal]).await;
    let config = OPEN.to_owned() + &batch(folder.path(), "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    local.send(&json!({}), &[], line("c")).await;
    let reply = local.reply().await;
    assert_eq!(reply.line["response"]["status_code"], 400);
    assert_eq!(
        reply.line["response"]["body"]["error"]["code"],
        "content_filter"
    );
    local.is_empty().await;
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn a_message_that_finds_all_full_is_put_off_with_all_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![full(1), good()]).await;
    let more = "hold_ms = 0\ndefer_ms = 1000";
    let config = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 0\n{}{}",
        batch(folder.path(), more),
        backend("a", a.address, "payg", "")
    );
    let local = Local::start(folder.path(), &config);
    let broker = json!({"MessageId": "m", "CorrelationId": "k", "ReplyTo": "other", "ReplyToSessionId": "s"});
    local
        .send(
            &broker,
            &[("app", "\"nightly\""), ("team", "\"alpha\"")],
            line("c"),
        )
        .await;
    let reply = local.take("other", 20).await.unwrap();
    assert_eq!(reply.line["response"]["status_code"], 200);
    assert_eq!(
        (&reply.broker["CorrelationId"], &reply.broker["SessionId"]),
        (&json!("k"), &json!("s"))
    );
    assert_eq!(reply.properties["request-id"], "\"m\"");
    local.is_empty().await;
    assert_eq!(a.calls(), 2);
}

#[tokio::test]
async fn a_message_that_nobody_can_answer_becomes_a_dead_letter_and_its_sender_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![broken()]).await;
    let config = OPEN.to_owned()
        + &batch(folder.path(), "max_deliveries = 2")
        + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    local.send(&json!({"MessageId": "m"}), &[], line("c")).await;
    let reply = local.reply().await;
    assert_eq!(reply.line["error"]["code"], "not_answered");
    local.is_empty().await;
    let dead = local.take("batch/$deadletterqueue", 5).await.unwrap();
    assert_eq!(dead.broker["MessageId"], "m");
    assert_eq!(
        dead.properties["deadletterreason"],
        "\"MaxDeliveryCountExceeded\""
    );
    assert!(local.take("results", 0).await.is_none(), "told once");
}

#[tokio::test]
async fn near_its_deadline_a_message_spills_where_its_app_may_and_else_expires() {
    let folder = tempfile::tempdir().unwrap();
    let ptu = Scripted::start(vec![full(60_000)]).await;
    let payg = Scripted::start(vec![good()]).await;
    let config = format!(
        "[gateway]\nwait_budget_ms = 0\n{}{}{}{}{}",
        batch(folder.path(), "spill_before_ms = 2000"),
        app("rich", ""),
        app("poor", "tiers = [1]"),
        backend("a", ptu.address, "ptu", ""),
        backend("b", payg.address, "payg", "")
    );
    let local = Local::start(folder.path(), &config);
    let soon = |s: u64| {
        let now = spillway::host::clock::Clock::new().now();
        format!("\"{}\"", now.plus_ms(s * 1000).rfc3339())
    };
    for name in ["\"rich\"", "\"poor\""] {
        local
            .send(
                &json!({"CorrelationId": name}),
                &[("app", name), ("deadline", &soon(3))],
                line("c"),
            )
            .await;
    }
    for _ in 0..2 {
        let reply = local.reply().await;
        if reply.broker["CorrelationId"] == "\"rich\"" {
            assert_eq!(reply.line["response"]["status_code"], 200);
        } else {
            assert_eq!(reply.line["error"]["code"], "batch_expired");
        }
    }
    local.is_empty().await;
    assert_eq!(payg.calls(), 1);
}

#[tokio::test]
async fn messages_and_replies_outlast_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let pause = Act::Drip(vec![Vec::new()], Duration::from_secs(600));
    let slow = Scripted::start(vec![pause]).await;
    let configure =
        |address| OPEN.to_owned() + &batch(folder.path(), "") + &backend("a", address, "payg", "");
    let local = Local::start(folder.path(), &configure(slow.address));
    for i in 0..5 {
        local
            .send(
                &json!({"MessageId": format!("m-{i}")}),
                &[],
                line(&format!("c-{i}")),
            )
            .await;
    }
    crate::served::wait_for(|| (slow.calls() == 5).then_some(())).await;
    local.kill();

    let a = Scripted::start(vec![good()]).await;
    let local = Local::start(folder.path(), &configure(a.address));
    // Those who had them are gone; nobody knows before their claims run out.
    assert_eq!(local.lengths("batch").await, (5, 0));
    local
        .send(&json!({"MessageId": "m-5"}), &[], line("c-5"))
        .await;
    let first = local.reply().await;
    assert_eq!(first.line["custom_id"], "c-5");
    local
        .send(&json!({"MessageId": "m-5"}), &[], line("c-5"))
        .await;
    local.kill();

    let local = Local::start(folder.path(), &configure(a.address));
    let mut names = Vec::new();
    for _ in 0..5 {
        let reply = local.take("results", 60).await.unwrap();
        names.push(reply.line["custom_id"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["c-0", "c-1", "c-2", "c-3", "c-4"]);
    assert_eq!(a.calls(), 6, "each once, a duplicate of before not");
}

#[tokio::test]
async fn an_asynchronous_call_is_fetched_by_its_app_only_and_outlasts_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config = batch(folder.path(), "")
        + &app("nightly", "priority = \"low\"")
        + &app("other", "")
        + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let accepted = local
        .call("nightly-key")
        .header("prefer", "respond-async")
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), 202);
    assert_eq!(accepted.headers()["preference-applied"], "respond-async");
    let path = accepted.headers()["location"].to_str().unwrap().to_owned();
    assert!(path.starts_with("/spillway/requests/"));
    let body: Value = accepted.json().await.unwrap();
    assert_eq!(body["status"], "queued");
    let get = reqwest::Method::GET;
    let answered = async |local: &Local| {
        for _ in 0..200 {
            let answer = local.at(get.clone(), &path, "nightly-key").await;
            if answer.status() != 202 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is never answered")
    };
    let answer = answered(&local).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hi");
    assert_eq!(
        local.at(get.clone(), &path, "other-key").await.status(),
        404
    );
    assert_eq!(local.at(get.clone(), &path, "wrong").await.status(), 401);
    assert_eq!(
        local
            .at(get.clone(), "/spillway/requests/none", "other-key")
            .await
            .status(),
        404
    );
    let late = local
        .at(reqwest::Method::DELETE, &path, "nightly-key")
        .await;
    assert_eq!(late.status(), 409);
    local.kill();
    let local = Local::start(folder.path(), &config);
    assert_eq!(answered(&local).await.status(), 200);
    assert_eq!(a.calls(), 1);
    // Urgent calls, streams and what no batch can ask for are answered at once.
    let urgent = local
        .client
        .post(format!("http://{}/v1/chat/completions", local.address));
    let urgent = urgent
        .header("api-key", "other-key")
        .header("prefer", "respond-async");
    assert_eq!(urgent.json(&request()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_asynchronous_call_that_has_not_started_can_be_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![full(1000)]).await;
    let config = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 0\n{}{}",
        batch(folder.path(), ""),
        backend("a", a.address, "payg", "")
    );
    let local = Local::start(folder.path(), &config);
    let accepted = local
        .call("any")
        .header("prefer", "wait=600, respond-async")
        .send()
        .await
        .unwrap();
    let path = accepted.headers()["location"].to_str().unwrap().to_owned();
    crate::served::wait_for(|| (a.calls() >= 1).then_some(())).await;
    // It rests between its attempts most of the time.
    let mut status = 409;
    for _ in 0..100 {
        status = local
            .at(reqwest::Method::DELETE, &path, "any")
            .await
            .status()
            .as_u16();
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200);
    assert_eq!(
        local
            .at(reqwest::Method::DELETE, &path, "any")
            .await
            .status(),
        200,
        "again, the same"
    );
    let gone = local.at(reqwest::Method::GET, &path, "any").await;
    assert_eq!(gone.status(), 410);
    local.is_empty().await;
    let calls = a.calls();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(a.calls(), calls, "nothing is called any more");
}

/// The code of a refusal.
async fn refusal(answer: Response) -> String {
    assert_eq!(answer.status(), 429);
    let body: Value = answer.json().await.unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_asynchronous_call_is_taken_in_within_its_apps_limits_only() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![full(1000)]).await;
    let config = String::from("[gateway]\nwait_budget_ms = 0\n")
        + &batch(folder.path(), "")
        + &app("nightly", "requests_per_minute = 1")
        + &app("single", "calls_in_flight = 1")
        + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let accepted = local.later("nightly-key").await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(header(&accepted, "x-ratelimit-remaining-requests"), "0");
    let refused = local.later("nightly-key").await;
    let wait: u64 = header(&refused, "retry-after-ms").parse().unwrap();
    assert!(wait > 0);
    assert_eq!(refusal(refused).await, "request_limit_exceeded");
    // Nothing is held for what waits: the place is another's as soon as it rests between its attempts.
    for _ in 0..3 {
        let mut answer = local.later("single-key").await;
        for _ in 0..500 {
            if answer.status() == 202 {
                break;
            }
            assert_eq!(refusal(answer).await, "in_flight_limit_exceeded");
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = local.later("single-key").await;
        }
        assert_eq!(answer.status(), 202);
    }
}

#[tokio::test]
async fn an_asynchronous_call_of_an_app_with_a_spent_budget_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // The process needs the file for itself.
    drop(spent(&data, "nightly", ["99.99", "0.06"]).await);
    let a = Scripted::start(vec![good()]).await;
    let config = batch(folder.path(), "")
        + &app("nightly", "budget_per_month = \"100.00\"")
        + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let mut answer = local.later("nightly-key").await;
    // What was spent is read in the first moments.
    for _ in 0..200 {
        if answer.status() != 202 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = local.later("nightly-key").await;
    }
    assert_eq!(header(&answer, "x-spillway-budget"), "100%");
    assert_eq!(header(&answer, "x-should-retry"), "false");
    assert_eq!(refusal(answer).await, "budget_exceeded");
}

#[tokio::test]
async fn nobody_outside_poses_as_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &batch(folder.path(), "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let fixture = include_str!("../../fixtures/functions-host/servicebus_single_json_binary.json");
    let post = || {
        local
            .client
            .post(format!("http://{}/batch", local.address))
            .body(fixture)
    };
    assert_eq!(post().send().await.unwrap().status(), 404);
    let forged = post()
        .header("x-azure-functions-invocationid", "1")
        .header("x-ms-invocation-id", "1");
    assert_eq!(forged.send().await.unwrap().status(), 404);
    let own = post().header("x-azure-functions-invocationid", "1");
    let done = own.send().await.unwrap();
    assert_eq!(done.status(), 200);
    let done: Value = done.json().await.unwrap();
    assert_eq!(done["Outputs"], json!({}));
    let reply = local.reply().await;
    // The fixture's message expired long ago.
    assert_eq!(reply.line["error"]["code"], "batch_expired");
    let odd = local
        .client
        .post(format!("http://{}/batch", local.address))
        .body("{}");
    let odd = odd
        .header("x-azure-functions-invocationid", "1")
        .send()
        .await
        .unwrap();
    assert_eq!(odd.status(), 500);
}

#[tokio::test]
async fn an_answer_that_no_message_can_hold_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let text = "y".repeat(400_000);
    let a = Scripted::start(vec![answer("200 OK", "", &format!("{{\"x\":\"{text}\"}}"))]).await;
    let config = batch(folder.path(), "")
        + &app("nightly", "")
        + &app("other", "")
        + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    local
        .send(
            &json!({"MessageId": "a/b c?"}),
            &[("app", "\"nightly\"")],
            line("c"),
        )
        .await;
    let reply = local.reply().await;
    assert_eq!(reply.properties["claim-check"], "true");
    assert_eq!(reply.line["response"]["status_code"], 200);
    assert!(reply.line["response"]["body"].is_null());
    let check = &reply.line["claim_check"];
    assert_eq!(check["bytes"], 400_008);
    let url = check["url"].as_str().unwrap();
    let get = reqwest::Method::GET;
    let whole: Value = local
        .at(get.clone(), url, "nightly-key")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(whole["x"], text);
    assert_eq!(local.at(get, url, "other-key").await.status(), 404);
}

#[tokio::test]
async fn an_answer_may_be_larger_than_a_request_and_is_asked_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "y".repeat(3 << 20);
    let a = Scripted::start(vec![answer("200 OK", "", &format!("{{\"x\":\"{text}\"}}"))]).await;
    let config = format!(
        "[gateway]\nmax_body_mb = 1\n{}{}{}",
        batch(folder.path(), ""),
        app("nightly", ""),
        backend("a", a.address, "payg", "")
    );
    let local = Local::start(folder.path(), &config);
    let of_nightly = [("app", "\"nightly\"")];
    local
        .send(&json!({"MessageId": "m"}), &of_nightly, line("c"))
        .await;
    let reply = local.reply().await;
    assert_eq!(reply.line["response"]["status_code"], 200, "{}", reply.line);
    let url = reply.line["claim_check"]["url"].as_str().unwrap();
    let whole = local.at(reqwest::Method::GET, url, "nightly-key").await;
    assert_eq!(whole.status(), 200, "{url}");
    let whole: Value = whole.json().await.unwrap();
    assert!(whole["x"] == *text, "{:?}", whole.get("error"));
    local.is_empty().await;
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn a_message_with_too_long_a_name_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &batch(folder.path(), "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    // More than a field of a row takes.
    let name = "n".repeat(40_000);
    local
        .send(&json!({"MessageId": "m"}), &[], line(&name))
        .await;
    let reply = local.reply().await;
    assert_eq!(reply.line["error"]["code"], "custom_id_too_long");
    assert_eq!(reply.line["custom_id"], name[..512]);
    local.is_empty().await;
    assert_eq!((a.calls(), local.lengths("batch").await.1), (0, 0));
}

#[tokio::test]
async fn an_asynchronous_call_may_be_larger_than_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &batch(folder.path(), "") + &backend("a", a.address, "payg", "");
    let local = Local::start(folder.path(), &config);
    let url = format!(
        "http://{}/low/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        local.address
    );
    let text = "z".repeat(500_000);
    let call = json!({"messages": [{"role": "user", "content": text}]});
    let call = local
        .client
        .post(url)
        .header("prefer", "respond-async")
        .json(&call);
    let accepted = call.send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    let path = accepted.headers()["location"].to_str().unwrap().to_owned();
    let mut status = 202;
    for _ in 0..200 {
        if status != 202 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = local
            .at(reqwest::Method::GET, &path, "any")
            .await
            .status()
            .as_u16();
    }
    assert_eq!(status, 200);
    let request = a.last_request();
    assert!(request.contains(&text) && request.contains("\"model\":\"gpt-4o\""));
    // It is deleted behind the answer, which is there first.
    let kept = || {
        let names = walk(&folder.path().join("data"));
        names.into_iter().filter(|name| name.contains("request"))
    };
    for _ in 0..200 {
        if kept().next().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(kept().count(), 0, "the request is deleted");
}

fn walk(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(walk(&path));
        }
        names.push(path.display().to_string());
    }
    names
}
