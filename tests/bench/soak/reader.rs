//! Who looks at the gateway meanwhile: the console, its API, the metrics and the chargeback.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::faults::Band;
use super::lock;
use super::traffic::Wrong;

/// Reads the console, its API, the metrics and the chargeback in turn, two a second.
pub(super) struct Reader {
    http: reqwest::Client,
    gateway: SocketAddr,
    begin: Instant,
    bands: Vec<Band>,
    read: AtomicUsize,
    /// What answered 503 while the store was away.
    unavailable: AtomicUsize,
    pub(super) wrong: Mutex<Wrong>,
}

/// The metrics come between all others.
const METRICS: &str = "/spillway/metrics";

const PAGES: [&str; 12] = [
    "/spillway/",
    "/spillway/api/now",
    "/spillway/history",
    "/spillway/api/history",
    "/spillway/money",
    "/spillway/api/money",
    "/spillway/calls",
    "/spillway/api/calls",
    "/spillway/what-if",
    "/spillway/api/idle",
    "/spillway/health",
    "/spillway/chargeback?by=app,model,day",
];

/// The administrator's key.
pub(super) const ADMIN: &str = "soak-admin";

/// So long after the store is back what was asked before may still be answered 503.
const AFTER: Duration = Duration::from_secs(5);

impl Reader {
    pub(super) fn new(
        http: reqwest::Client,
        gateway: SocketAddr,
        begin: Instant,
        bands: Vec<Band>,
    ) -> Self {
        Self {
            http,
            gateway,
            begin,
            bands,
            read: AtomicUsize::new(0),
            unavailable: AtomicUsize::new(0),
            wrong: Mutex::default(),
        }
    }

    pub(super) fn found(&self) -> String {
        let (read, unavailable) = (self.read.load(Relaxed), self.unavailable.load(Relaxed));
        format!("{read} reads, {unavailable} of them 503")
    }

    /// Whether the store is away, or was a moment ago.
    fn is_store_away(&self) -> bool {
        let second = self.begin.elapsed();
        let before = second.saturating_sub(AFTER);
        let mut store = self.bands.iter().filter(|band| band.is_of_the_store());
        store.any(|band| band.is_at(second.as_secs_f64()) || band.is_at(before.as_secs_f64()))
    }

    pub(super) async fn run(self: Arc<Self>, end: Instant) {
        for page in PAGES.iter().cycle() {
            for path in [METRICS, page] {
                if Instant::now() >= end {
                    return;
                }
                let due = Instant::now() + Duration::from_millis(500);
                self.look(path).await;
                sleep_until(due).await;
            }
        }
    }

    async fn look(&self, path: &str) {
        self.read.fetch_add(1, Relaxed);
        let was_away = self.is_store_away();
        match self.get(path).await {
            Ok((200, _)) => {}
            Ok((503, _)) if was_away || self.is_store_away() => {
                self.unavailable.fetch_add(1, Relaxed);
            }
            Ok((status, text)) => lock(&self.wrong).add(format!("{path}: {status} {text}")),
            Err(why) => lock(&self.wrong).add(format!("{path}: {why}")),
        }
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let request = self.http.get(format!("http://{}{path}", self.gateway));
        let answer = request.header("api-key", ADMIN).send().await;
        let answer = answer.map_err(|why| format!("{why:?}"))?;
        let status = answer.status().as_u16();
        Ok((
            status,
            answer.text().await.map_err(|why| format!("{why:?}"))?,
        ))
    }

    /// A counter or gauge of the gateway's, all its series together.
    pub(super) async fn metric(&self, name: &str) -> io::Result<f64> {
        let (_, text) = self.get(METRICS).await.map_err(io::Error::other)?;
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let ours = lines.filter(|(series, _)| series.split('{').next() == Some(name));
        Ok(ours
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum())
    }
}
