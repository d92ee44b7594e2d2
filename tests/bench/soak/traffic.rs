//! The clients: calls by a clock or as fast as they are answered, and what came of each.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memchr::memmem;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::backend::{IDLE, is_cut, name, tokens};
use super::lock;

/// Most calls in flight. What comes beyond waits, which counts as latency. So many are in flight when it
/// is measured what the machine carries, so that the process has had their connections and their memory
/// once before it is watched.
const IN_FLIGHT: usize = 256;

/// The longest that a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wrong things that are told; further ones are counted.
const TOLD: usize = 20;

/// The header with the id of a call's event.
const ID: &str = "x-spillway-request-id";

/// Sorts of calls, of ten: five chats, three streams, two embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Chat,
    Stream,
    Embedding,
}

const MIX: [Sort; 10] = [
    Sort::Chat,
    Sort::Stream,
    Sort::Chat,
    Sort::Embedding,
    Sort::Chat,
    Sort::Stream,
    Sort::Chat,
    Sort::Embedding,
    Sort::Stream,
    Sort::Chat,
];

/// Apps of chats and streams. Azurite looks through an app's whole day for each row that it takes in.
const PORTALS: [&str; 4] = ["portal-1", "portal-2", "portal-3", "portal-4"];

/// The app of embeddings, and that of batch messages.
const SEARCH: &str = "search";
pub(super) const NIGHTLY: &str = "nightly";

/// All apps, the one of batch messages last.
pub(super) const APPS: [&str; 6] = [
    PORTALS[0], PORTALS[1], PORTALS[2], PORTALS[3], SEARCH, NIGHTLY,
];

/// What a client got with a 200.
#[derive(Clone, Debug)]
pub(super) struct Got {
    /// Its event's id.
    pub(super) id: String,
    pub(super) app: &'static str,
    /// A stream that its backend broke off.
    pub(super) is_cut: bool,
    /// Input and output tokens.
    pub(super) tokens: (u64, u64),
}

/// What should not have been seen: the first, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    pub(super) told: Vec<String>,
    pub(super) count: usize,
}

impl Wrong {
    pub(super) fn add(&mut self, what: String) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }
}

/// What clients saw in the end.
pub(super) struct Seen {
    pub(super) got: Vec<Got>,
    pub(super) wrong: Wrong,
    /// The first number that no call has.
    pub(super) next: u64,
}

impl Seen {
    /// Takes in what others saw.
    pub(super) fn join(&mut self, other: Self) {
        self.got.extend(other.got);
        self.wrong.count += other.wrong.count;
        self.wrong.told.extend(other.wrong.told);
    }
}

/// All clients, and what they saw.
pub(super) struct Clients {
    http: reqwest::Client,
    gateway: SocketAddr,
    next: AtomicU64,
    in_flight: AtomicUsize,
    got: Mutex<Vec<Got>>,
    wrong: Mutex<Wrong>,
    /// Latencies since they were last taken, ms.
    pub(super) latencies: Mutex<Vec<f64>>,
}

impl Clients {
    pub(super) fn new(gateway: SocketAddr, next: u64) -> io::Result<Arc<Self>> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            // The gateway closes idle ones after 30 s, perhaps while a call is on its way.
            .pool_idle_timeout(IDLE);
        Ok(Arc::new(Self {
            http: http.build().map_err(io::Error::other)?,
            gateway,
            next: AtomicU64::new(next),
            in_flight: AtomicUsize::new(0),
            got: Mutex::default(),
            wrong: Mutex::default(),
            latencies: Mutex::default(),
        }))
    }

    /// What they saw. Called when no call is under way; nothing is left of their connections.
    pub(super) fn seen(self: Arc<Self>) -> Seen {
        Seen {
            got: std::mem::take(&mut lock(&self.got)),
            wrong: std::mem::take(&mut lock(&self.wrong)),
            next: self.next.load(Relaxed),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Calls as fast as answers come; the calls.
    pub(super) async fn closed_loop(self: &Arc<Self>, lasting: Duration) -> u64 {
        let end = Instant::now() + lasting;
        let before = self.next.load(Relaxed);
        let mut clients = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let all = Arc::clone(self);
            clients.spawn(async move {
                while Instant::now() < end {
                    all.call(Instant::now()).await;
                }
            });
        }
        clients.join_all().await;
        self.next.load(Relaxed) - before
    }

    /// So many calls a second, each when it is due, until `end`; then waits for the last answers.
    pub(super) async fn open_loop(self: Arc<Self>, rate: f64, end: Instant) {
        let begin = Instant::now();
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sent = 0.0;
        loop {
            let due = begin + Duration::from_secs_f64(sent / rate);
            if due >= end {
                break;
            }
            sleep_until(due).await;
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let all = Arc::clone(&self);
            tokio::spawn(async move {
                all.call(due).await;
                drop(place);
            });
            sent += 1.0;
        }
        let all = u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX);
        // As above. Each call ends by itself, in a minute at the most.
        let _ = places.acquire_many(all).await;
    }

    async fn call(&self, due: Instant) {
        let number = self.next.fetch_add(1, Relaxed);
        let place = usize::try_from(number).unwrap_or(0) % MIX.len();
        let sort = MIX.get(place).copied().unwrap_or(Sort::Chat);
        self.in_flight.fetch_add(1, Relaxed);
        let called = self.ask(number, sort).await;
        self.in_flight.fetch_sub(1, Relaxed);
        match called {
            Ok(got) => {
                lock(&self.latencies).push(due.elapsed().as_secs_f64() * 1e3);
                lock(&self.got).push(got);
            }
            Err(why) => lock(&self.wrong).add(format!("{sort:?} {number}: {why}")),
        }
    }

    /// A call; `Err` where the client sees what it should not.
    async fn ask(&self, number: u64, sort: Sort) -> Result<Got, String> {
        let is_embedding = sort == Sort::Embedding;
        let portal = usize::try_from(number / 10).unwrap_or(0) % PORTALS.len();
        let app = match PORTALS.get(portal) {
            Some(portal) if !is_embedding => portal,
            _ => SEARCH,
        };
        let path = match sort {
            Sort::Embedding => "/v1/embeddings",
            Sort::Chat => "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            Sort::Stream => "/v1/chat/completions",
        };
        let request = self
            .http
            .post(format!("http://{}{path}", self.gateway))
            .header("api-key", app)
            .header("content-type", "application/json")
            .body(body(app, number, sort));
        let answer = request.send().await.map_err(|why| format!("{why:?}"))?;
        let status = answer.status().as_u16();
        let id = answer.headers().get(ID).and_then(|id| id.to_str().ok());
        let id = id.unwrap_or_default().to_owned();
        let bytes = answer.bytes().await;
        let bytes = bytes.map_err(|why| format!("{status} {id} broke off: {why:?}"))?;
        let text = String::from_utf8_lossy(&bytes);
        if status != 200 || id.is_empty() {
            return Err(format!("{status} {id}: {text}"));
        }
        if memmem::find(&bytes, name(app, number).as_bytes()).is_none() {
            return Err(format!("{id} is another call's answer: {text}"));
        }
        let tokens = tokens(number, is_embedding);
        let is_cut = sort == Sort::Stream && is_cut(&bytes);
        let is_whole = match sort {
            Sort::Stream => is_cut || text.contains("data: [DONE]"),
            Sort::Chat | Sort::Embedding => serde_json::from_str::<Value>(&text)
                .is_ok_and(|body| body.pointer("/usage/prompt_tokens") == Some(&tokens.0.into())),
        };
        if !is_whole {
            return Err(format!("{id} is no whole answer: {text}"));
        }
        Ok(Got {
            id,
            app,
            is_cut,
            tokens,
        })
    }
}

fn body(app: &str, number: u64, sort: Sort) -> String {
    let name = name(app, number);
    let text = "The customer has a pump of the 7400 series that was delivered in March. ".repeat(5);
    match sort {
        Sort::Embedding => {
            format!(r#"{{"model":"text-embedding-3-small","user":"{name}","input":"{text}"}}"#)
        }
        Sort::Chat | Sort::Stream => {
            let stream = if sort == Sort::Stream {
                r#","stream":true"#
            } else {
                ""
            };
            format!(
                r#"{{"model":"gpt-4o","user":"{name}","messages":[{{"role":"user","content":"{text}"}}]{stream}}}"#
            )
        }
    }
}
