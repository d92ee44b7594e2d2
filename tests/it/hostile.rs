//! Clients that mean harm with their connections and the framing of their requests.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use spillway::host::server::{Server, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::gateway::{OPEN, Running, backend, start};
use crate::process::{Process, free_port, handler, package};
use crate::raw::{Raw, chunked};
use crate::scripted::{Scripted, good};

const BODY: &str = "{\"model\":\"gpt-4o\"}";
const CALL: &str =
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// A gateway and its only backend.
async fn gateway(more: &str) -> (Running, Scripted) {
    let a = Scripted::start(vec![good()]).await;
    let config = format!("{OPEN}{more}{}", backend("a", a.address, "payg", ""));
    (start(&config).await, a)
}

/// What a request gets that is written as it stands, and whether the connection ends behind it.
async fn status_of(gateway: &Running, request: &[u8]) -> u16 {
    let mut client = Raw::connect(gateway.address).await;
    client.write_what_is_taken(request).await;
    client.head().await.0
}

fn whole(headers: &str) -> String {
    let length = BODY.len();
    format!("{CALL}{headers}content-length: {length}\r\n\r\n{BODY}")
}

#[tokio::test]
async fn a_head_that_trickles_is_waited_for_as_long_as_a_head_may_take() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings {
        head_timeout: Duration::from_millis(700),
        ..Settings::new(Some(1), 100)
    };
    let router = || Router::new().route("/", get(|| async { "here" }));
    let server = Server::start(settings, router).unwrap();
    tokio::spawn(async move { server.serve(&listener).await });

    let mut silent = Raw::connect(address).await;
    let mut trickling = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let trickle = async {
        use tokio::io::AsyncWriteExt;
        trickling.write_all(b"GET / HTTP/1.1\r\n").await?;
        loop {
            trickling.write_all(b"x: y\r\n").await?;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let ended: Result<std::io::Result<()>, _> = timeout(Duration::from_secs(10), trickle).await;
    assert!(
        ended.is_ok_and(|written| written.is_err()),
        "it was let go on"
    );
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert!(silent.is_closed().await, "a connection without a byte, too");

    let mut kept = Raw::connect(address).await;
    kept.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(kept.answer().await.body, "here");
    assert!(kept.is_closed().await, "and one that is not used again");
}

/// Says when it is dropped.
struct Gone(mpsc::UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

/// A body of 256 MiB, which says when it is let go of.
fn huge(gone: Gone) -> Body {
    let chunks = (0..4096).map(move |_| {
        let _held = &gone;
        Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]))
    });
    Body::from_stream(futures_util::stream::iter(chunks))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_never_reads_its_answer_loses_it_and_a_slow_one_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings {
        stall_timeout: Duration::from_secs(2),
        ..Settings::new(Some(1), 100)
    };
    let (sender, mut gone) = mpsc::unbounded_channel();
    let router = || {
        let sender = sender.clone();
        Router::new().route("/", get(move || async move { huge(Gone(sender)) }))
    };
    let server = Server::start(settings, router).unwrap();
    tokio::spawn(async move { server.serve(&listener).await });

    let mut slow = Raw::connect(address).await;
    slow.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(slow.head().await.0, 200);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert!(slow.chunk().await.is_some());
        sleep(Duration::from_millis(10)).await;
    }

    let mut deaf = Raw::connect(address).await;
    deaf.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(deaf.head().await.0, 200);
    let lost = timeout(Duration::from_secs(20), gone.recv()).await;
    assert!(lost.is_ok(), "its answer is still held");
}

#[tokio::test]
async fn more_connections_than_are_allowed_wait_and_are_served_when_others_end() {
    let (gateway, _a) = gateway("[gateway]\nmax_connections = 4\n").await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::connect(gateway.address).await;
        client.write(whole("").as_bytes()).await;
        assert_eq!(client.answer().await.status, 200);
        idle.push(client);
    }
    let mut next = Raw::connect(gateway.address).await;
    next.write(whole("").as_bytes()).await;
    let early = timeout(Duration::from_millis(300), next.head()).await;
    assert!(early.is_err(), "it was served beyond the bound");
    idle.pop();
    assert_eq!(next.answer().await.status, 200);
}

/// As many as the machine's limit of open files allows, 10,000 at most.
#[tokio::test]
async fn idle_connections_cost_little_and_hold_nobody_up() {
    let count = 10_000.min(open_files().saturating_sub(1_000));
    eprintln!("{count} idle connections");
    let a = Scripted::start(vec![good()]).await;
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    let config = format!(
        "{OPEN}[gateway]\nmax_connections = {}\n{}",
        count + 8,
        backend("a", a.address, "payg", "")
    );
    package(&app, &config);
    let port = free_port();
    let gateway = Process::start(handler(&app, &port.to_string()), port);
    let call = async || {
        let mut client = Raw::connect(gateway.address).await;
        client.write(whole("").as_bytes()).await;
        client.answer().await.status
    };
    assert_eq!(call().await, 200);
    let before = gateway.peak_mib();
    let mut idle = Vec::new();
    for i in 0..count {
        let mut client = Raw::connect(gateway.address).await;
        // Every other one has begun to say something.
        if i % 2 == 0 {
            client
                .write(b"POST /v1/chat/completions HTTP/1.1\r\nx: ")
                .await;
        }
        idle.push(client);
        if i % 1_000 == 0 {
            assert_eq!(call().await, 200, "beside {i}");
        }
    }
    assert_eq!(call().await, 200);
    let each_kib = (gateway.peak_mib() - before) * 1024 / count.max(1);
    eprintln!("{each_kib} KiB each");
    // 8 KiB are read into, some two are the connection's state.
    assert!(each_kib <= 20, "{each_kib} KiB each");
}

/// How many files this process may have open (proc(5)), and those that it starts.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().nth(3));
    soft.unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test]
async fn heads_beyond_their_bounds_are_431_and_odd_ones_400() {
    let (gateway, a) = gateway("").await;
    let many = "x: y\r\n".repeat(200);
    let long_name = format!("{}: y\r\n", "x".repeat(70_000));
    for (headers, status) in [
        (many.as_str(), 431),
        (long_name.as_str(), 431),
        ("x : y\r\n", 400),
        (": y\r\n", 400),
        ("x\r\n", 400),
        ("x: a\0b\r\n", 400),
        ("x: a\rb: c\r\n", 400),
        // obs-fold (RFC 9112, section 5.2)
        ("x: y\r\n z: w\r\n", 400),
        (" x: y\r\n", 400),
    ] {
        let got = status_of(&gateway, whole(headers).as_bytes()).await;
        assert_eq!(got, status, "{}", &headers[..headers.len().min(40)]);
    }
    assert_eq!(a.calls(), 0);
    let long = format!("GET /v1/{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    assert!([414, 431].contains(&status_of(&gateway, long.as_bytes()).await));
}

/// Whoever stands between could see another end of the request than the gateway does.
#[tokio::test]
async fn a_body_whose_length_is_said_in_two_ways_is_refused_or_read_one_way_only() {
    let (gateway, a) = gateway("").await;
    let length = BODY.len();
    let chunks = String::from_utf8(chunked(BODY.as_bytes(), 5)).unwrap();
    let refused = [
        format!("content-length: {length}\r\ncontent-length: 4\r\n\r\n{BODY}"),
        format!("content-length: {length}, 4\r\n\r\n{BODY}"),
        format!("content-length: +{length}\r\n\r\n{BODY}"),
        format!("content-length: -1\r\n\r\n{BODY}"),
        format!("content-length: 0x12\r\n\r\n{BODY}"),
        format!("content-length: 99999999999999999999999\r\n\r\n{BODY}"),
        format!("content-length:\r\n\r\n{BODY}"),
        format!("transfer-encoding : chunked\r\n\r\n{chunks}"),
        format!("transfer-encoding: xchunked\r\n\r\n{chunks}"),
        format!("transfer-encoding: chunked, identity\r\n\r\n{chunks}"),
        format!("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{chunks}"),
        format!("transfer-encoding: identity\r\ncontent-length: {length}\r\n\r\n{BODY}"),
        format!("transfer-encoding: \u{b}chunked\r\n\r\n{chunks}"),
        format!("transfer-encoding:\r\n chunked\r\n\r\n{chunks}"),
    ];
    for rest in refused {
        let status = status_of(&gateway, format!("{CALL}{rest}").as_bytes()).await;
        assert_eq!(status, 400, "{rest}");
    }
    assert_eq!(a.calls(), 0);
    // What follows the chunks is not a part of the body, whatever Content-Length says.
    let smuggled = "GET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let both = format!(
        "{CALL}content-length: {}\r\ntransfer-encoding: Chunked\r\n\r\n{chunks}",
        chunks.len() + smuggled.len()
    );
    for request in [
        both,
        format!("{CALL}transfer-encoding: \tCHUNKED \r\n\r\n{chunks}"),
        format!("{CALL}content-length: {length}\r\ncontent-length: {length}\r\n\r\n{BODY}"),
    ] {
        let mut client = Raw::connect(gateway.address).await;
        client.write(request.as_bytes()).await;
        assert_eq!(client.answer().await.status, 200, "{request}");
        let passed = a.last_request().to_lowercase();
        assert!(
            passed.contains(&format!("\r\ncontent-length: {length}\r\n")),
            "{passed}"
        );
        assert!(
            !passed.contains("transfer-encoding") && passed.ends_with(BODY),
            "{passed}"
        );
    }
}

#[tokio::test]
async fn chunks_that_are_none_reach_no_backend() {
    let (gateway, a) = gateway("").await;
    let extension = format!("1;{}\r\n{{\r\n", "x".repeat(100_000));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(50_000));
    for chunks in [
        "g\r\n{\r\n0\r\n\r\n",
        "\r\n{\r\n0\r\n\r\n",
        "-1\r\n{\r\n0\r\n\r\n",
        "0x1\r\n{\r\n0\r\n\r\n",
        "1 1\r\n{\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "1\n{\n0\n\n",
        extension.as_str(),
        trailers.as_str(),
    ] {
        let request = format!("{CALL}transfer-encoding: chunked\r\n\r\n{chunks}");
        let status = status_of(&gateway, request.as_bytes()).await;
        assert_eq!(status, 400, "{}", &chunks[..chunks.len().min(40)]);
    }
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn methods_that_are_no_calls_are_405_and_a_tunnel_is_none() {
    let (gateway, a) = gateway("").await;
    for method in ["TRACE", "TRACK", "PROPFIND", "get"] {
        let mut client = Raw::connect(gateway.address).await;
        let request = format!("{method} /v1/files HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write(request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(
            answer.head.contains("\r\nallow: get, head, post,"),
            "{}",
            answer.head
        );
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    }
    for target in ["169.254.169.254:80", "/v1/files"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        let status = status_of(&gateway, request.as_bytes()).await;
        assert!([400, 404, 405].contains(&status), "{target}: {status}");
    }
    assert_eq!(a.calls(), 0);
}

/// The backend is the configuration's, whatever host a request names.
#[tokio::test]
async fn no_host_that_a_client_names_is_called() {
    let (gateway, a) = gateway("").await;
    let elsewhere = Scripted::start(vec![good()]).await;
    let host = elsewhere.address;
    let length = BODY.len();
    for head in [
        format!("POST http://{host}/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"),
        format!("POST http://a@{host}/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"),
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nhost: {host}\r\n"),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: {host}\r\nforwarded: host={host}\r\nx-original-url: http://{host}/\r\nx-rewrite-url: http://{host}/\r\n"
        ),
        "POST /v1/chat/completions HTTP/1.0\r\n".to_owned(),
    ] {
        let before = a.calls();
        let request = format!(
            "{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{BODY}"
        );
        assert_eq!(status_of(&gateway, request.as_bytes()).await, 200, "{head}");
        assert_eq!((a.calls(), elsewhere.calls()), (before + 1, 0));
        let passed = a.last_request().to_lowercase();
        assert!(!passed.contains(&host.to_string()), "{passed}");
        assert!(
            passed.contains(&format!("\r\nhost: {}\r\n", a.address)),
            "{passed}"
        );
    }
}
