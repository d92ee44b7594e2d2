//! What a call may allocate: a budget, held.
//!
//! The relay is called in this thread, without the server before it; the backend is a thread of its own,
//! whose allocations do not count. What is counted is the same in every run, so the budgets are what was
//! counted when they were last set. A change that goes beyond one either can do without, or raises it and
//! says why here. `tests/bench/run --callgrind` lists where a call's instructions go, allocation too.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers too, which clippy.toml does not know as tests"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use spillway::azure::credential::Surroundings;
use spillway::azure::own_token::OwnTokens;
use spillway::config::{Config, KeyHash};
use spillway::current::Current;
use spillway::door::Door;
use spillway::host::clock::Clock;
use spillway::outbox::recorder::Events;
use spillway::pacing::{Gauge, Slots};
use spillway::quota::Quotas;
use spillway::relay::settings::Settings;
use spillway::relay::{self, Relay};

/// Allocations of a call that is not streamed: what the backend's connection needs for a request and an
/// answer (hyper, half of it), the route's and the body's boxes (axum), a usage event with its attempt.
const A_CALL: u64 = 37;

/// Allocations of a chunk of a stream that comes by itself: the buffer that it is read into and the count of
/// who shares that, both hyper's. Of chunks that come together many lie in one buffer.
const A_CHUNK: u64 = 2;

/// Calls that are counted, after as many that are not: lists, pools and buffers have their sizes then.
const CALLS: u64 = 100;

const BODY: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"What should be checked first?"}],"max_tokens":400}"#;
const STREAM_BODY: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"What should be checked first?"}],"stream":true,"stream_options":{"include_usage":true}}"#;

const HEADERS: &str = "apim-request-id: 8f2cae43-7a6e-4f0e-9d0c-7a2f0c7b6a11\r\n\
    x-ms-region: Sweden Central\r\nx-ratelimit-remaining-tokens: 999998\r\n";

/// What a chunk says.
const CHUNK: &str = r#"{"choices":[{"delta":{"content":" check"},"finish_reason":null,"index":0}],"id":"chatcmpl-1","object":"chat.completion.chunk","usage":null}"#;

/// A relay in this thread.
struct Scene {
    service: TowerToHyperService<Router>,
    events: Events,
    /// Chunks that the client has taken of the stream that runs.
    taken: Arc<AtomicUsize>,
}

impl Scene {
    /// In front of a backend whose streams have so many chunks.
    fn new(chunks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&taken);
        thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            serve(connection, chunks, &seen);
        });
        let (relay, events) = relay(address);
        let router = relay::router(&Current::new(relay), &relay::no_tls().unwrap());
        Self {
            service: TowerToHyperService::new(router),
            events,
            taken,
        }
    }

    /// Makes the calls, and takes their answers frame by frame.
    async fn call(&mut self, requests: Vec<Request<Body>>) {
        for request in requests {
            let response = self.service.call(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                drop(frame.unwrap());
                self.taken.fetch_add(1, Ordering::SeqCst);
            }
            drop(body);
            assert!(self.events.try_next().is_some(), "each call makes an event");
        }
    }
}

fn relay(backend: SocketAddr) -> (Relay, Events) {
    let hash = KeyHash::of("app-key");
    let text = format!(
        "[[backend]]\nname = \"payg\"\nendpoint = \"http://{backend}\"\nkey = \"k\"\n\
         [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n\
         [[app]]\nname = \"app\"\nkey_hashes = [\"{hash}\"]\n"
    );
    let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let mut tokens = OwnTokens::new(Surroundings::read(&|_| None, false));
    let clock = Clock::new();
    let gauge = Arc::new(Gauge::new(&config, None));
    let (relay, inbox) = Relay::new(
        Settings::new(&config, &mut tokens).unwrap(),
        Door::new(&config).unwrap(),
        Arc::new(Quotas::new(&config, None, clock.now())),
        Arc::new(Slots::new(&gauge, None, clock)),
        clock,
        None,
    );
    (relay, inbox.events)
}

fn requests(body: &'static str, count: u64) -> Vec<Request<Body>> {
    let request = || {
        Request::post("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .header("api-key", "app-key")
            .header("user-agent", "test")
            .body(Body::from(body))
            .unwrap()
    };
    (0..count).map(|_| request()).collect()
}

/// Answers the calls of a connection: a stream where one is asked for, each of its chunks when the one
/// before has been taken.
fn serve(mut connection: TcpStream, chunks: usize, taken: &AtomicUsize) {
    connection.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = connection.read(&mut part).unwrap_or_default();
        if read == 0 {
            return;
        }
        request.extend(part.iter().take(read));
        if !request.ends_with(b"}") {
            continue;
        }
        if request.ends_with(STREAM_BODY.as_bytes()) {
            stream(&mut connection, chunks, taken);
        } else {
            answer(&mut connection);
        }
        request.clear();
    }
}

fn answer(connection: &mut TcpStream) {
    let body = r#"{"choices":[{"message":{"content":"The suction side."}}],"id":"chatcmpl-1","usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{HEADERS}\r\n{body}",
        body.len()
    );
    connection.write_all(answer.as_bytes()).unwrap();
}

fn stream(connection: &mut TcpStream, chunks: usize, taken: &AtomicUsize) {
    taken.store(0, Ordering::SeqCst);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n{HEADERS}\r\n"
    );
    let event = format!("data: {CHUNK}\n\n");
    let frame = format!("{:x}\r\n{event}\r\n", event.len());
    connection.write_all((head + &frame).as_bytes()).unwrap();
    for sent in 1..chunks {
        while taken.load(Ordering::SeqCst) < sent {
            thread::sleep(Duration::from_micros(20));
        }
        connection.write_all(frame.as_bytes()).unwrap();
    }
    connection
        .write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        .unwrap();
}

/// Allocations of [`CALLS`] such calls, from a backend whose streams have so many chunks.
fn counted(body: &'static str, chunks: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut scene = Scene::new(chunks);
    let warm_up = requests(body, CALLS);
    runtime.block_on(scene.call(warm_up));
    let requests = requests(body, CALLS);
    measure(|| runtime.block_on(scene.call(requests))).count_total
}

/// To the nearest whole one: lists and queues grow now and then, once in many calls.
fn of_each(allocations: u64, count: u64) -> u64 {
    (allocations + count / 2) / count
}

#[test]
fn a_call_allocates_no_more_than_its_budget() {
    let allocations = counted(BODY, 0);
    assert!(
        of_each(allocations, CALLS) <= A_CALL,
        "{allocations} allocations in {CALLS} calls; the budget is {A_CALL} a call"
    );
}

#[test]
fn a_chunk_allocates_no_more_than_its_budget() {
    let (fewer, more) = (counted(STREAM_BODY, 100), counted(STREAM_BODY, 200));
    let allocations = more.saturating_sub(fewer);
    assert!(
        of_each(allocations, CALLS * 100) <= A_CHUNK,
        "{allocations} allocations in {CALLS} x 100 chunks; the budget is {A_CHUNK} a chunk"
    );
}
