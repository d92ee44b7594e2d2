//! Calls that mean harm by what they name and carry, and answers that do.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::AppendHeaders;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::gateway::{OPEN, Running, app, backend, header, start};
use crate::process::{Process, free_port, handler, package};
use crate::raw::Raw;
use crate::scripted::{Act, Scripted, answer, good, stream};

/// A gateway with the apps `mine` and `yours` and one backend.
async fn two_apps(script: Vec<Act>) -> (Running, Scripted) {
    let a = Scripted::start(script).await;
    let config = backend("a", a.address, "payg", "") + &app("mine", "") + &app("yours", "");
    (start(&config).await, a)
}

/// The status of a request written as it stands, and its answer.
async fn raw(gateway: &Running, app: &str, line: &str, body: &str) -> (u16, String) {
    let mut client = Raw::connect(gateway.address).await;
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\napi-key: {app}-key\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.write(request.as_bytes()).await;
    let answer = client.answer().await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_path_that_a_backend_could_read_as_another_reaches_none() {
    let (gateway, a) = two_apps(vec![good()]).await;
    for path in [
        "/v1/../spillway/health",
        "/v1/%2e%2e/x",
        "/v1/files/..%2f..%2fx",
        "/v1/%66iles/file-1",
        "/v1/files%2Ffile-1",
        "/v1/files\\file-1",
        "/v1/files/file-1%00",
        "/v1//files",
        "//v1/files",
        "/v1/Files/file-1",
        "/v1/deployments/gpt-4o/chat/completions",
        "http://x/v1/../files",
    ] {
        let (status, body) = raw(&gateway, "mine", &format!("GET {path}"), "").await;
        assert_eq!(status, 404, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"]["code"], "path_not_found", "{path}");
    }
    assert_eq!(a.calls(), 0);
}

/// The way to another app's files, responses and threads is closed however they are named.
#[tokio::test]
async fn what_another_app_has_stored_is_not_found() {
    let made = |id: &str| answer("200 OK", "", &format!("{{\"id\":\"{id}\"}}"));
    let things = [
        ("mine", "threads", "thread_1"),
        ("mine", "assistants", "asst_1"),
        ("mine", "files", "file-1"),
        ("mine", "vector_stores", "vs_1"),
        ("yours", "threads", "thread_2"),
        ("yours", "vector_stores", "vs_2"),
    ];
    let script = things.iter().map(|(_, _, id)| made(id));
    let (gateway, a) = two_apps(script.chain([good()]).collect()).await;
    for (app, path, _) in things {
        let (status, _) = raw(&gateway, app, &format!("POST /openai/{path}"), "{}").await;
        assert_eq!(status, 200, "{path}");
    }
    let calls = a.calls();
    for (line, body) in [
        ("GET /openai/threads/thread_1", ""),
        ("GET /openai/threads/thread_1/messages", ""),
        ("DELETE /openai/threads/thread_1", ""),
        // A thread of its own, with an assistant that is not.
        (
            "POST /openai/threads/thread_2/runs",
            "{\"assistant_id\":\"asst_1\"}",
        ),
        (
            "POST /openai/threads/runs",
            "{\"thread_id\":\"thread_2\",\"assistant_id\":\"asst_1\"}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"conversation\":{\"id\":\"thread_1\"}}",
        ),
        // A vector store of its own, with a file that is not.
        (
            "POST /v1/vector_stores/vs_2/files",
            "{\"file_id\":\"file-1\"}",
        ),
        (
            "POST /v1/vector_stores/vs_2/file_batches",
            "{\"file_ids\":[\"file-2\",\"file-1\"]}",
        ),
        ("POST /v1/vector_stores", "{\"file_ids\":[\"file-1\"]}"),
        ("GET /v1/vector_stores/vs_2/files/file-1", ""),
        ("GET /v1/vector_stores/vs_2/files/file-1/content", ""),
        ("DELETE /openai/vector_stores/vs_2/files/file-1", ""),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"vector_store_ids\":[\"vs_1\"]}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"tools\":[{\"vector_store_ids\":[\"vs_1\"]}]}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"input\":[{\"content\":[{\"file_id\":\"file-1\"}]}]}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"input\":[{\"content\":[{\"fil\\u0065_id\":\"file-1\"}]}]}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"input\":[\"\\ud83d\",{\"file_id\":\"file-1\"}]}",
        ),
        (
            "POST /v1/responses",
            "{\"model\":\"gpt-4o\",\"conversation\":{\"id\":\"thread_1\",\"id\":\"thread_1\"}}",
        ),
        (
            "POST /v1/conversations",
            "{\"items\":[{\"content\":[{\"file_id\":\"file-1\"}]}]}",
        ),
        (
            "POST /v1/fine_tuning/jobs",
            "{\"model\":\"gpt-4o\",\"training_file\":\"file-2\",\"validation_file\":\"file-1\"}",
        ),
    ] {
        let (status, answered) = raw(&gateway, "yours", line, body).await;
        assert_eq!(status, 404, "{line}: {answered}");
    }
    let twice = "{\"assistant_id\":\"asst_2\",\"assistant_id\":\"asst_1\"}";
    let (status, _) = raw(&gateway, "yours", "POST /openai/threads/runs", twice).await;
    assert_eq!(status, 400);
    // More than can be looked up are not passed on unseen.
    let many: Vec<String> = (0..513).map(|number| format!("file-x{number}")).collect();
    let many = serde_json::json!({ "file_ids": many }).to_string();
    let (status, answered) = raw(&gateway, "yours", "POST /v1/vector_stores", &many).await;
    assert_eq!(status, 400);
    assert!(
        answered.contains("more than 512 stored things"),
        "{answered}"
    );
    // A type that says something else does not hide a body from the gateway.
    let disguised = gateway
        .post("/openai/threads/runs")
        .header("api-key", "yours-key");
    let disguised = disguised
        .header("content-type", "text/plain")
        .body("{\"assistant_id\":\"asst_1\"}");
    assert_eq!(disguised.send().await.unwrap().status(), 404);
    assert_eq!(a.calls(), calls, "none of these reached a backend");
    let own = "{\"assistant_id\":\"asst_1\"}";
    let (status, _) = raw(&gateway, "mine", "POST /openai/threads/thread_1/runs", own).await;
    assert_eq!(status, 200);
    for (line, body) in [
        (
            "POST /v1/vector_stores/vs_1/files",
            "{\"file_id\":\"file-1\"}",
        ),
        ("GET /v1/vector_stores/vs_1/files/file-1/content", ""),
    ] {
        let (status, answered) = raw(&gateway, "mine", line, body).await;
        assert_eq!(status, 200, "{line}: {answered}");
    }
}

/// A run makes its thread, and an upload that is completed makes a file.
#[tokio::test]
async fn what_is_made_beside_something_else_is_its_apps_too() {
    let made = |body: &str| answer("200 OK", "", body);
    let events = [
        "event: thread.created\ndata: {\"id\":\"thread_2\",\"object\":\"thread\"}\n\n",
        "event: thread.run.created\ndata: {\"id\":\"run_2\",\"thread_id\":\"thread_2\"}\n\n",
        "event: done\ndata: [DONE]\n\n",
    ];
    let (gateway, a) = two_apps(vec![
        made("{\"id\":\"run_1\",\"object\":\"thread.run\",\"thread_id\":\"thread_1\"}"),
        Act::Drip(stream(&events, true), Duration::ZERO),
        made("{\"id\":\"upload_1\",\"object\":\"upload\",\"file\":null}"),
        made("{\"id\":\"upload_1\",\"file\":{\"id\":\"file-1\",\"object\":\"file\"}}"),
        good(),
    ])
    .await;
    for (line, body) in [
        ("POST /openai/threads/runs", "{}"),
        ("POST /openai/threads/runs", "{\"stream\":true}"),
        ("POST /v1/uploads", "{}"),
        ("POST /v1/uploads/upload_1/complete", "{\"part_ids\":[]}"),
    ] {
        let (status, answered) = raw(&gateway, "mine", line, body).await;
        assert_eq!(status, 200, "{line}: {answered}");
    }
    let calls = a.calls();
    let lines = [
        "GET /openai/threads/thread_1/messages",
        "GET /openai/threads/thread_2/messages",
        "POST /v1/uploads/upload_1/complete",
        "GET /v1/files/file-1/content",
        "DELETE /v1/files/file-1",
    ];
    for line in lines {
        let (status, answered) = raw(&gateway, "yours", line, "").await;
        assert_eq!(status, 404, "{line}: {answered}");
    }
    assert_eq!(a.calls(), calls, "none of these reached a backend");
    for line in lines {
        let (status, answered) = raw(&gateway, "mine", line, "").await;
        assert_eq!(status, 200, "{line}: {answered}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_unread() {
    let (gateway, a) = two_apps(vec![good()]).await;
    for coding in ["gzip", "br", "identity, gzip", "x-unheard-of"] {
        let call = gateway.chat().header("api-key", "mine-key");
        let refused = call
            .header("content-encoding", coding)
            .send()
            .await
            .unwrap();
        assert_eq!(refused.status(), 415, "{coding}");
        assert_eq!(header(&refused, "accept-encoding"), "identity");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["error"]["code"], "encoding_not_supported");
    }
    let plain = gateway.chat().header("api-key", "mine-key");
    let plain = plain.header("content-encoding", "identity").send().await;
    assert_eq!(plain.unwrap().status(), 200);
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn a_billed_call_whose_body_can_not_be_read_reaches_no_backend() {
    let (gateway, a) = two_apps(vec![good()]).await;
    let utf16: Vec<u8> = "{\"messages\":[]}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (kind, body) in [
        ("text/plain", utf16.clone()),
        ("application/json; charset=utf-16", utf16),
        ("application/octet-stream", b"\xef\xbb\xbf{}".to_vec()),
        ("application/json", b"\xef\xbb\xbf{}".to_vec()),
        ("application/json", b"[{}]".to_vec()),
    ] {
        let path = "/openai/deployments/gpt-4o/chat/completions";
        let call = gateway.post(path).header("api-key", "mine-key");
        let refused = call.header("content-type", kind).body(body).send().await;
        assert_eq!(refused.unwrap().status(), 400, "{kind}");
    }
    assert_eq!(a.calls(), 0);
}

/// Bodies that are small to send and large to parse: the gateway is a process of its own, so that its
/// memory is all that is measured.
#[tokio::test]
async fn bodies_that_are_bombs_for_parsers_cost_no_more_than_their_bytes() {
    let a = Scripted::start(vec![good()]).await;
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    package(
        &app,
        &(OPEN.to_owned() + &backend("a", a.address, "payg", "")),
    );
    let port = free_port();
    let gateway = Process::start(handler(&app, &port.to_string()), port);
    let client = reqwest::Client::new();
    let post = async |body: Vec<u8>| {
        let url = format!("http://{}/v1/chat/completions", gateway.address);
        let call = client.post(url).header("content-type", "application/json");
        let answer = call.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        status
    };
    let bomb = |value: String| format!("{{\"model\":\"gpt-4o\",\"x\":{value}}}").into_bytes();
    let nested =
        |open: &str, close: &str| bomb(open.repeat(100_000) + "1" + &close.repeat(100_000));
    // 24 MiB of ids that name nothing.
    let no_ids = format!("[{}1]", "{\"file_id\":\"\"},".repeat(1_500_000));
    // 24 MiB, 2.5 million keys at the top, of which none stands twice.
    let keys: String = (0..2_500_000).map(|i| format!("\"{i:x}\":1,")).collect();
    let surrogate = "\"\\ud800\"".to_owned();
    let long_number = "9".repeat(1 << 20);
    assert_eq!(post(bomb("1".into())).await, 200);
    let before = gateway.peak_mib();
    for (name, body) in [
        ("lists", nested("[", "]")),
        ("objects", nested("{\"a\":", "}")),
        ("containers", nested("{\"container\":", "}")),
        ("lists of files", nested("{\"file_ids\":[", "]}")),
        ("no ids", bomb(no_ids)),
        ("one surrogate", bomb(surrogate.clone())),
        ("a number of 1 MiB", bomb(long_number)),
        (
            "keys",
            format!("{{{keys}\"model\":\"gpt-4o\"}}").into_bytes(),
        ),
    ] {
        assert_eq!(
            post(body).await,
            200,
            "{name}: it is the backend's to refuse"
        );
    }
    let model = format!("{{\"model\":{surrogate}}}");
    assert_eq!(post(model.into_bytes()).await, 400);
    assert_eq!(post("[".repeat(1 << 20).into_bytes()).await, 400);
    let deep_model = format!(
        "{{\"model\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(post(deep_model.into_bytes()).await, 400);
    let after = gateway.peak_mib();
    // The largest body has 24 MiB, held once while it comes and once whole.
    assert!(after <= before + 100, "from {before} to {after} MiB");
}

/// A backend that says where things are by the host that it is called by.
async fn relocating(status: StatusCode) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |headers: HeaderMap| async move {
        let host = headers["host"].to_str().unwrap();
        let own = format!("http://{host}/openai/operations/images/1?api-version=1");
        let names = ["location", "operation-location"].map(|name| (name, own.clone()));
        let other = (
            "azure-asyncoperation",
            "https://elsewhere.example/x".to_owned(),
        );
        let [one, two] = names;
        (status, AppendHeaders([one, two, other]), "{}")
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A client that follows such a URL would show the backend its key for the gateway.
#[tokio::test]
async fn a_backends_own_host_is_in_no_answer() {
    for status in [
        StatusCode::CREATED,
        StatusCode::ACCEPTED,
        StatusCode::TEMPORARY_REDIRECT,
    ] {
        let address = relocating(status).await;
        let config = backend("a", address, "payg", "") + &app("mine", "");
        let gateway = start(&config).await;
        let call = gateway
            .chat()
            .header("api-key", "mine-key")
            .build()
            .unwrap();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let got = client.build().unwrap().execute(call).await.unwrap();
        assert_eq!(got.status(), status);
        let path = "/openai/operations/images/1?api-version=1";
        assert_eq!(header(&got, "operation-location"), path);
        assert_eq!(header(&got, "location"), path);
        let other = "https://elsewhere.example/x";
        assert_eq!(header(&got, "azure-asyncoperation"), other);
    }
}

#[tokio::test]
async fn a_backend_speaks_for_itself_only() {
    let forged = "x-spillway-backend: b\r\nx-spillway-request-id: 1\r\nx-spillway-budget: 99%\r\nconnection: x-hop\r\nx-hop: 1\r\nset-cookie: a=b\r\nx-ms-region: \u{e9}\r\n";
    let (gateway, _a) = two_apps(vec![answer("200 OK", forged, "{}")]).await;
    let call = gateway.chat().header("api-key", "mine-key");
    let got = call.send().await.unwrap();
    assert_eq!(header(&got, "x-spillway-backend"), "a");
    assert_ne!(header(&got, "x-spillway-request-id"), "1");
    for name in ["x-spillway-budget", "x-hop", "set-cookie"] {
        assert_eq!(header(&got, name), "", "{name}");
    }
    assert!(got.headers().contains_key("x-ms-region"), "as it came");
}

/// Where its answer ends must be no question: the next one on the connection is another app's.
#[tokio::test]
async fn an_answer_of_two_lengths_is_none() {
    for headers in [
        "content-length: 2\r\ncontent-length: 30\r\n\r\n{}",
        "content-length: 2, 30\r\n\r\n{}",
        "content-length: x\r\n\r\n{}",
        "x : y\r\ncontent-length: 2\r\n\r\n{}",
        "x: a\0b\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let said = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}");
        let (gateway, _a) = two_apps(vec![Act::Say(said.into_bytes())]).await;
        let call = gateway.chat().header("api-key", "mine-key");
        let got = call.send().await.unwrap();
        assert_eq!(got.status(), 503, "{headers}");
        let event = gateway.event().await;
        assert_eq!(
            event.attempts[0].error.as_deref(),
            Some("protocol"),
            "{headers}"
        );
    }
}
