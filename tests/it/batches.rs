//! OpenAI's Batch API, from outside: files and batches of the gateway's own, and what is not its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::routing::post;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use spillway::gateway::event::UsageSource;
use spillway::gateway::time::Timestamp;
use spillway::store::Store;
use spillway::store::batches::{Active, activate};
use spillway::store::embedded::Embedded;

use crate::azurite::Azurite;
use crate::gateway::{app, backend, header, start, start_with};
use crate::process::{BINARY, Process, free_port};
use crate::scripted::{Act, Scripted, answer};

/// A backend that counts what it is asked by the content of the last message, which also says what it
/// answers: `bad...` is refused.
#[derive(Clone, Default)]
struct Counting {
    calls: Arc<Mutex<HashMap<String, usize>>>,
    /// Calls that run, and the most that have run at once.
    running: Arc<Mutex<(usize, usize)>>,
    pause: Duration,
}

impl Counting {
    async fn start(pause: Duration) -> (Self, SocketAddr) {
        let this = Self {
            pause,
            ..Self::default()
        };
        let own = this.clone();
        let chat = move |Json(body): Json<Value>| {
            let own = own.clone();
            async move {
                let content = body["messages"][0]["content"].as_str().unwrap().to_owned();
                let name = content.split(' ').next().unwrap().to_owned();
                *own.calls.lock().unwrap().entry(name.clone()).or_default() += 1;
                {
                    let mut running = own.running.lock().unwrap();
                    running.0 += 1;
                    running.1 = running.1.max(running.0);
                }
                tokio::time::sleep(own.pause).await;
                own.running.lock().unwrap().0 -= 1;
                if name.starts_with("bad") {
                    let error = json!({"error": {"code": "invalid", "message": "no"}});
                    return (StatusCode::BAD_REQUEST, Json(error));
                }
                let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
                let message = json!({"role": "assistant", "content": name});
                let answer = json!({"id": "c", "object": "chat.completion", "usage": usage,
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
                (StatusCode::OK, Json(answer))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route("/openai/v1/chat/completions", post(chat.clone()))
            .route("/openai/deployments/{name}/chat/completions", post(chat));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                tokio::spawn(serving);
            }
        });
        (this, address)
    }

    fn calls(&self) -> HashMap<String, usize> {
        self.calls.lock().unwrap().clone()
    }

    fn total(&self) -> usize {
        self.calls().values().sum()
    }
}

/// An app's client.
struct App {
    client: Client,
    base: String,
    key: &'static str,
}

impl App {
    fn new(address: SocketAddr, key: &'static str) -> Self {
        Self {
            client: Client::new(),
            base: format!("http://{address}/v1"),
            key,
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let call = self.client.get(format!("{}/{path}", self.base));
        call.header("api-key", self.key)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let call = self.client.post(format!("{}/{path}", self.base));
        call.header("api-key", self.key)
    }

    async fn json(&self, call: RequestBuilder) -> (u16, Value) {
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        let has_id = answer.headers().contains_key("x-spillway-request-id");
        assert!(has_id, "{:?}", answer.headers());
        (status, answer.json().await.unwrap())
    }

    async fn ok(&self, call: RequestBuilder) -> Value {
        let (status, value) = self.json(call).await;
        assert_eq!(status, 200, "{value}");
        value
    }

    async fn upload(&self, content: impl Into<Vec<u8>>) -> Value {
        let file = Part::bytes(content.into()).file_name("in.jsonl");
        let form = Form::new().part("file", file).text("purpose", "batch");
        self.ok(self.post("files").multipart(form)).await
    }

    async fn create(&self, file: &Value) -> Value {
        let body = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions",
            "completion_window": "24h", "metadata": {"job": "nightly"}});
        self.ok(self.post("batches").json(&body)).await
    }

    async fn batch(&self, id: &Value) -> Value {
        self.ok(self.get(&format!("batches/{}", id.as_str().unwrap())))
            .await
    }

    /// The batch once `wanted` holds.
    async fn until(&self, id: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut batch = Value::Null;
        for _ in 0..3600 {
            batch = self.batch(id).await;
            if wanted(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not after 180 s: {batch}");
    }

    async fn ended(&self, id: &Value) -> Value {
        self.until(id, |batch| {
            !matches!(
                batch["status"].as_str().unwrap(),
                "validating" | "in_progress" | "cancelling"
            )
        })
        .await
    }

    /// The results in a file, by their `custom_id`.
    async fn results(&self, file: &Value) -> HashMap<String, Value> {
        let path = format!("files/{}/content", file.as_str().unwrap());
        let text = self.get(&path).send().await.unwrap().text().await.unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let count = lines.len();
        let named = |line: Value| (line["custom_id"].as_str().unwrap().to_owned(), line);
        let results: HashMap<String, Value> = lines.into_iter().map(named).collect();
        assert_eq!(results.len(), count, "each line has one result");
        results
    }
}

fn line(name: &str, padding: &str) -> String {
    let content = format!("{name} {padding}");
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]});
    let line =
        json!({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body});
    format!("{line}\n")
}

fn lines(count: usize) -> String {
    (0..count).map(|n| line(&format!("n{n}"), "")).collect()
}

fn config(folder: &Path, backend: &str, more: &str) -> String {
    let folder = folder.display();
    format!(
        "{more}\n[storage]\ntables = \"embedded:{folder}\"\nblobs = \"embedded:{folder}\"\n[batch_api]\n{}{}{backend}",
        app("nightly", ""),
        app("other", ""),
    )
}

#[tokio::test]
async fn a_batch_is_worked_off_and_its_results_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::ZERO).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let input = format!(
        "{}\n{}{}",
        lines(40),
        line("bad1", ""),
        line("bad2", "").trim_end()
    );
    let file = app.upload(input.clone()).await;
    assert_eq!(file["bytes"], input.len());
    assert_eq!(
        (&file["purpose"], &file["filename"]),
        (&json!("batch"), &json!("in.jsonl"))
    );
    let made = app.create(&file).await;
    assert_eq!(made["status"], "validating");
    let batch = app.ended(&made["id"]).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 42, "completed": 40, "failed": 2})
    );
    assert_eq!(batch["metadata"], json!({"job": "nightly"}));
    let good = app.results(&batch["output_file_id"]).await;
    assert_eq!(good.len(), 40);
    let seven = &good["n7"];
    assert_eq!(seven["response"]["status_code"], 200);
    assert_eq!(
        seven["response"]["body"]["choices"][0]["message"]["content"],
        "n7"
    );
    assert_eq!(seven["error"], Value::Null);
    let bad = app.results(&batch["error_file_id"]).await;
    assert_eq!(bad["bad1"]["response"]["status_code"], 400);
    assert_eq!(bad.len(), 2);
    let calls = counting.calls();
    assert!(
        calls.len() == 42 && calls.values().all(|n| *n == 1),
        "{calls:?}"
    );
    let event = gateway.event().await;
    assert_eq!((&*event.app, event.priority.as_str()), ("nightly", "low"));
    let files = app.ok(app.get("files")).await;
    assert_eq!(files["data"].as_array().unwrap().len(), 3);
    let results = app.ok(app.get("files?purpose=batch_output&limit=1")).await;
    assert_eq!(
        (
            &results["has_more"],
            results["data"].as_array().unwrap().len()
        ),
        (&json!(true), 1)
    );
    let all = app.ok(app.get("batches")).await;
    assert_eq!(all["data"][0]["id"], made["id"]);
    let deleted = app.client.delete(format!(
        "{}/files/{}",
        app.base,
        file["id"].as_str().unwrap()
    ));
    let deleted = app.ok(deleted.header("api-key", app.key)).await;
    assert_eq!(deleted["deleted"], true);
    let (status, _) = app
        .json(app.get(&format!("files/{}", file["id"].as_str().unwrap())))
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_batch_is_worked_off_on_azures_tables_and_blobs() {
    let (tables, blobs) = (Azurite::start(), Azurite::start_blobs());
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::ZERO).await;
    let place = format!("embedded:{}", folder.path().display());
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "")
        .replacen(
            &place,
            &format!("http://{}/devstoreaccount1", tables.address),
            1,
        )
        .replacen(
            &place,
            &format!("http://{}/devstoreaccount1", blobs.address),
            1,
        );
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let made = app
        .create(&app.upload(lines(50) + &line("bad1", "")).await)
        .await;
    let batch = app.ended(&made["id"]).await;
    let counts = json!({"total": 51, "completed": 50, "failed": 1});
    assert_eq!(batch["request_counts"], counts, "{batch}");
    assert_eq!(app.results(&batch["output_file_id"]).await.len(), 50);
    assert_eq!(app.results(&batch["error_file_id"]).await.len(), 1);
    assert_eq!(counting.total(), 51);
}

#[tokio::test]
async fn what_is_another_apps_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (_counting, address) = Counting::start(Duration::ZERO).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let gateway = start(&config).await;
    let (own, other) = (
        App::new(gateway.address, "nightly-key"),
        App::new(gateway.address, "other-key"),
    );
    let file = own.upload(lines(1)).await;
    let made = own.create(&file).await;
    let (file, batch) = (file["id"].as_str().unwrap(), made["id"].as_str().unwrap());
    for call in [
        other.get(&format!("files/{file}")),
        other.get(&format!("files/{file}/content")),
        other.get(&format!("batches/{batch}")),
        other.post(&format!("batches/{batch}/cancel")),
        other.post("batches").json(&json!({"input_file_id": file,
            "endpoint": "/v1/chat/completions", "completion_window": "24h"})),
    ] {
        let (status, error) = other.json(call).await;
        assert_eq!(status, 404, "{error}");
        assert_eq!(error["error"]["code"], "not_found");
    }
    for list in ["files", "batches"] {
        let page = other.ok(other.get(list)).await;
        assert_eq!(page["data"], json!([]));
    }
    let nobody = App::new(gateway.address, "no-key");
    let (status, _) = nobody.json(nobody.get("batches")).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn what_is_not_the_batch_apis_goes_to_backends() {
    let folder = tempfile::tempdir().unwrap();
    let file = answer("200 OK", "", r#"{"id":"file-theirs","object":"file"}"#);
    let theirs = Scripted::start(vec![file]).await;
    let config = config(folder.path(), &backend("a", theirs.address, "payg", ""), "");
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let part = Part::bytes(b"canary".to_vec()).file_name("notes.txt");
    let form = Form::new().part("file", part).text("purpose", "assistants");
    let uploaded = app.ok(app.post("files").multipart(form)).await;
    assert_eq!(uploaded["id"], "file-theirs");
    assert!(
        theirs.last_request().contains("canary"),
        "{}",
        theirs.last_request()
    );
    let calls = [
        app.get("files/file-theirs"),
        app.get("files/file-theirs/content"),
        app.get("files?purpose=assistants"),
        app.get("batches/batch_theirs"),
        app.post("batches/batch_theirs/cancel"),
        app.post("batches")
            .json(&json!({"input_file_id": "file-theirs"})),
    ];
    let count = calls.len();
    for call in calls {
        assert_eq!(call.send().await.unwrap().status(), 200);
    }
    assert_eq!(theirs.calls(), 1 + count);
}

#[tokio::test]
async fn an_input_with_mistakes_fails_before_anything_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::ZERO).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let input = format!("{}plain\n{}", line("a", ""), line("a", ""));
    for (input, expected) in [
        (
            input,
            json!([[2, "invalid_body"], [3, "duplicate_custom_id"]]),
        ),
        ("\n\n".to_owned(), json!([[null, "empty_file"]])),
    ] {
        let made = app.create(&app.upload(input).await).await;
        let batch = app.ended(&made["id"]).await;
        assert_eq!(batch["status"], "failed", "{batch}");
        let errors = batch["errors"]["data"].as_array().unwrap().iter();
        let found: Vec<Value> = errors.map(|e| json!([e["line"], e["code"]])).collect();
        assert_eq!(json!(found), expected);
    }
    assert_eq!(counting.total(), 0);
    let file = app.upload(line("a", "")).await;
    for (key, value, code) in [
        ("endpoint", json!("/v1/files"), "invalid_value"),
        ("completion_window", json!("7d"), "invalid_value"),
        ("metadata", json!({"k": "v".repeat(513)}), "invalid_value"),
    ] {
        let mut body = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions",
            "completion_window": "24h"});
        body[key] = value;
        let (status, error) = app.json(app.post("batches").json(&body)).await;
        assert_eq!(
            (status, error["error"]["code"].as_str()),
            (400, Some(code)),
            "{error}"
        );
        assert_eq!(error["error"]["param"], key);
    }
}

#[tokio::test]
async fn a_form_that_comes_to_no_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_counting, address) = Counting::start(Duration::ZERO).await;
    let more = "[gateway]\nmax_body_mb = 1\n";
    let config = config(folder.path(), &backend("a", address, "ptu", ""), more);
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\nx-line: ";
    for start in ["", head] {
        let mut body = start.as_bytes().to_vec();
        body.resize((1 << 20) + 1000, b'x');
        let call = app.post("files").body(body);
        let call = call.header("content-type", "multipart/form-data; boundary=b");
        let (status, error) = app.json(call).await;
        assert_eq!(status, 400, "{error}");
        assert_eq!(error["error"]["code"], "invalid_body");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("within 64 KiB"), "{message}");
    }
}

#[tokio::test]
async fn uploads_and_new_batches_count_as_requests_of_their_app() {
    let folder = tempfile::tempdir().unwrap();
    let (_counting, address) = Counting::start(Duration::ZERO).await;
    let mut config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    for name in ["nightly", "other"] {
        let limited = app(name, "requests_per_minute = 1");
        config = config.replace(&app(name, ""), &limited);
    }
    let gateway = start(&config).await;
    let (uploads, batches) = (
        App::new(gateway.address, "nightly-key"),
        App::new(gateway.address, "other-key"),
    );
    let file = uploads.upload(lines(1)).await;
    let (status, error) = batches.json(batches.post("batches").json(&json!({}))).await;
    assert_eq!(status, 400, "{error}");
    for (app, path) in [
        (&uploads, "files"),
        (&uploads, "batches"),
        (&batches, "files"),
        (&batches, "batches"),
    ] {
        let call = match path {
            "files" => {
                let part = Part::bytes(lines(1).into_bytes()).file_name("in.jsonl");
                let form = Form::new().part("file", part).text("purpose", "batch");
                app.post(path).multipart(form)
            }
            _ => app.post(path).json(&json!({"input_file_id": file["id"]})),
        };
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 429, "{path}");
        let wait: u64 = header(&answer, "retry-after-ms").parse().unwrap();
        assert!(wait > 0);
        let wait = wait.div_ceil(1000).to_string();
        assert_eq!(header(&answer, "retry-after"), wait);
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "request_limit_exceeded");
        assert_eq!(error["error"]["type"], "rate_limit_error");
    }
    let page = uploads.ok(uploads.get("files")).await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1, "it may look");
}

#[tokio::test]
async fn an_app_has_a_hundred_batches_that_have_not_ended_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let (_counting, address) = Counting::start(Duration::ZERO).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    for number in 0..100 {
        // Others work on them, until 2096.
        let active = Active {
            app: "nightly".into(),
            id: format!("batch_spw{number}"),
            since: Timestamp::from_unix_ms(4_000_000_000_000),
            holder: "others".into(),
            until: Timestamp::from_unix_ms(4_000_000_000_000),
        };
        activate(store.as_ref(), &active).await.unwrap();
    }
    let gateway = start_with(&config, store).await;
    let app = App::new(gateway.address, "nightly-key");
    let file = app.upload(lines(1)).await;
    let body = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions",
        "completion_window": "24h"});
    let answer = app.post("batches").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(header(&answer, "x-should-retry"), "false");
    let error: Value = answer.json().await.unwrap();
    assert_eq!(error["error"]["code"], "too_many_batches");
    let other = App::new(gateway.address, "other-key");
    let made = other.create(&other.upload(lines(1)).await).await;
    assert_eq!(other.ended(&made["id"]).await["status"], "completed");
}

/// A chat answer with so many MiB of text, and its usage behind that.
fn long(mib: usize) -> Act {
    let message = json!({"role": "assistant", "content": "y".repeat(mib << 20)});
    let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
    let usage = r#"{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}"#;
    let head = r#""id":"c","object":"chat.completion""#;
    let body = format!(r#"{{{head},"choices":{choices},"usage":{usage}}}"#);
    answer("200 OK", "", &body)
}

#[tokio::test]
async fn an_answer_may_be_larger_than_a_request_and_too_large_for_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![long(2), long(5)]).await;
    let more = "[gateway]\nmax_body_mb = 1\n";
    let config = config(folder.path(), &backend("a", a.address, "ptu", ""), more);
    let gateway = start(&config.replace("[batch_api]", "[batch_api]\nconcurrency = 1")).await;
    let app = App::new(gateway.address, "nightly-key");
    let made = app.create(&app.upload(lines(2)).await).await;
    let batch = app.ended(&made["id"]).await;
    let counts = json!({"total": 2, "completed": 1, "failed": 1});
    assert_eq!(batch["request_counts"], counts, "{batch}");
    let good = app.results(&batch["output_file_id"]).await;
    let content = &good["n0"]["response"]["body"]["choices"][0]["message"]["content"];
    assert_eq!(content.as_str().unwrap().len(), 2 << 20);
    let bad = app.results(&batch["error_file_id"]).await;
    assert_eq!(bad["n1"]["error"]["code"], "answer_too_large");
    assert_eq!(a.calls(), 2, "neither is called again");
    for event in gateway.events(2).await {
        assert_eq!(
            (event.usage, event.tokens.total()),
            (UsageSource::Reported, 7)
        );
    }
}

#[tokio::test]
async fn a_line_has_more_time_than_a_client_and_is_kept_where_prompts_are() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::from_millis(1500)).await;
    let times = "[gateway]\nfirst_byte_timeout_ms = 200\ndeadline_ms = 1000\n";
    let config = config(folder.path(), &backend("a", address, "ptu", ""), times);
    let logged = app("nightly", "log_prompts = true");
    let gateway = start(&config.replace(&app("nightly", ""), &logged)).await;
    let app = App::new(gateway.address, "nightly-key");
    let file = app.upload(line("slow", "")).await;
    let made = app.create(&file).await;
    let batch = app.ended(&made["id"]).await;
    let counts = json!({"total": 1, "completed": 1, "failed": 0});
    assert_eq!(batch["request_counts"], counts, "{batch}");
    assert_eq!(counting.total(), 1);
    let event = gateway.event().await;
    assert!(
        event.prompt_log.starts_with("prompts/nightly/"),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_long_custom_id_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::ZERO).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let input = line(&"n".repeat(512), "") + &line(&"n".repeat(5 << 20), "");
    // The name stands in the content, too.
    let input = input.replace(&format!("{} ", "n".repeat(5 << 20)), "short ");
    let made = app.create(&app.upload(input).await).await;
    let batch = app.ended(&made["id"]).await;
    assert_eq!(batch["status"], "failed", "{batch}");
    let errors = batch["errors"]["data"].as_array().unwrap();
    let found: Vec<Value> = errors
        .iter()
        .map(|e| json!([e["line"], e["code"]]))
        .collect();
    assert_eq!(found, [json!([2, "custom_id_too_long"])]);
    assert_eq!(counting.total(), 0);
}

#[tokio::test]
async fn a_batch_that_is_called_off_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::from_millis(30)).await;
    let config = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let gateway = start(&config.replace("[batch_api]", "[batch_api]\nconcurrency = 2")).await;
    let app = App::new(gateway.address, "nightly-key");
    let made = app.create(&app.upload(lines(1000)).await).await;
    let some = |batch: &Value| batch["request_counts"]["completed"].as_u64().unwrap() > 0;
    app.until(&made["id"], some).await;
    let cancel = app.post(&format!("batches/{}/cancel", made["id"].as_str().unwrap()));
    assert_eq!(
        app.ok(cancel.try_clone().unwrap()).await["status"],
        "cancelling"
    );
    let batch = app.ended(&made["id"]).await;
    assert_eq!(batch["status"], "cancelled", "{batch}");
    let completed = batch["request_counts"]["completed"].as_u64().unwrap();
    assert!(completed < 1000, "{batch}");
    let good = app.results(&batch["output_file_id"]).await;
    assert_eq!(u64::try_from(good.len()).unwrap(), completed);
    assert_eq!(counting.total(), good.len(), "what had begun was finished");
    let (status, error) = app.json(cancel).await;
    assert_eq!(
        (status, error["error"]["code"].as_str()),
        (409, Some("batch_ended"))
    );
}

#[tokio::test]
async fn lines_run_in_the_slots_of_low_priority_calls_and_in_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::from_millis(20)).await;
    let (beside, payg) = Counting::start(Duration::ZERO).await;
    let backends = backend("a", address, "ptu", "") + &backend("b", payg, "payg", "");
    let config = config(folder.path(), &backends, "[pacing]\nslots = 3\n");
    let gateway = start(&config).await;
    let app = App::new(gateway.address, "nightly-key");
    let made = app.create(&app.upload(lines(60)).await).await;
    let batch = app.ended(&made["id"]).await;
    assert_eq!(batch["request_counts"]["completed"], 60, "{batch}");
    let (_, most) = *counting.running.lock().unwrap();
    assert!((1..=3).contains(&most), "{most} ran at once");
    assert_eq!(
        beside.total(),
        0,
        "pay-as-you-go is for the end of its time"
    );
}

/// Starts `spillway serve` as a process.
fn serve(folder: &Path, config: &str) -> Process {
    let file = folder.join("spillway.toml");
    std::fs::write(&file, config).unwrap();
    let port = free_port();
    let mut command = std::process::Command::new(BINARY);
    command.arg("serve").arg("--config").arg(&file);
    command.arg("--port").arg(port.to_string());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    Process::start(command, port)
}

#[tokio::test]
async fn no_finished_line_is_called_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::from_millis(10)).await;
    let text = config(folder.path(), &backend("a", address, "ptu", ""), "");
    let mut process = serve(folder.path(), &text);
    let mut app = App::new(process.address, "nightly-key");
    let made = app.create(&app.upload(lines(600)).await).await;
    let mut finished: Vec<(String, usize)> = Vec::new();
    for least in [100, 300] {
        let so_many =
            |batch: &Value| batch["request_counts"]["completed"].as_u64().unwrap() > least;
        app.until(&made["id"], so_many).await;
        process.kill();
        let (output, calls) = (results_on_disk(folder.path()), counting.calls());
        finished.extend(output.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let name = line["custom_id"].as_str().unwrap().to_owned();
            let count = calls[&name];
            (name, count)
        }));
        process = serve(folder.path(), &text);
        app = App::new(process.address, "nightly-key");
    }
    let batch = app.ended(&made["id"]).await;
    let all = json!({"total": 600, "completed": 600, "failed": 0});
    assert_eq!(batch["request_counts"], all);
    assert_eq!(app.results(&batch["output_file_id"]).await.len(), 600);
    let calls = counting.calls();
    assert!(finished.len() > 400 && calls.len() == 600);
    for (name, count) in finished {
        assert_eq!(calls[&name], count, "{name} had its result before the kill");
    }
    // What had no result at a kill is called again: what runs at once, and as much that waits to be
    // written down, or is being.
    let again = counting.total() - 600;
    assert!(again <= 2 * (3 * 16 + 1), "{again} calls were made again");
}

/// Lines of 4 KiB: 4,000 of them, or as many as SPILLWAY_BATCH_LINES says; 50,000 are the 200 MB that the
/// API takes at most. What was measured goes to the file that SPILLWAY_BATCH_REPORT names.
#[tokio::test]
async fn a_large_file_runs_in_flat_memory() {
    let count = std::env::var("SPILLWAY_BATCH_LINES").map_or(4000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (counting, address) = Counting::start(Duration::ZERO).await;
    let more = "[gateway]\nmax_body_mb = 1\n";
    let text = config(folder.path(), &backend("a", address, "ptu", ""), more);
    let process = serve(folder.path(), &text);
    let app = App::new(process.address, "nightly-key");
    let before = process.peak_mib();
    let padding = "x".repeat(4096 - 160);
    let input: String = (0..count)
        .map(|n| line(&format!("n{n}"), &padding))
        .collect();
    let bytes = input.len();
    let made = app.create(&app.upload(input).await).await;
    let batch = loop {
        let batch = app.batch(&made["id"]).await;
        if batch["status"] != "validating" && batch["status"] != "in_progress" {
            break batch;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(batch["request_counts"]["completed"], count, "{batch}");
    assert_eq!((counting.total(), counting.calls().len()), (count, count));
    let (peak, mib) = (process.peak_mib(), bytes >> 20);
    let measured =
        format!("{count} lines, {mib} MiB: {before} MiB at the start, {peak} at the most");
    assert!(peak < before + 64, "{measured}");
    if let Ok(file) = std::env::var("SPILLWAY_BATCH_REPORT") {
        std::fs::write(file, measured).unwrap();
    }
}

/// What of the results counts on the disk.
fn results_on_disk(folder: &Path) -> String {
    let files = folder.join("blobs/files/nightly");
    let entries = std::fs::read_dir(files).unwrap().map(|e| e.unwrap().path());
    let mut lengths = entries.filter(|path| path.to_string_lossy().ends_with(",length"));
    let length = lengths.next().unwrap();
    let blob = length.to_string_lossy().replace(",length", ",blob");
    let length: usize = std::fs::read_to_string(length).unwrap().parse().unwrap();
    let bytes = std::fs::read(blob).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}
