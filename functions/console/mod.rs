//! What operators and finance look at: the console's pages, the same figures as JSON, and metrics.
//! Only administrators get to them; the status path, which says nothing, is everybody's.

mod api;
mod calls;
mod capacity;
mod chargeback;
mod configuration;
mod days;
mod families;
mod history;
mod idle;
mod live;
mod money;
mod monitored;
mod now;
mod openapi;
mod pacing;
mod page;
mod plan;
mod prometheus;
mod queue;
mod reconciliation;
mod session;
mod sign_in;
mod watch;

use std::sync::Arc;

use axum::extract::{FromRef, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::capacity::Capacities;
use self::money::Accounts;
use self::queue::Queue;
pub use self::queue::QueueAges;
use self::reconciliation::Newest;
use self::session::Sessions;
use self::watch::Watch;
use crate::azure::service_bus::Counts;
use crate::billing::Billing;
use crate::config::Config;
use crate::current::Current;
use crate::gateway::deployment::Deployment;
use crate::gateway::metrics::family::Family;
use crate::gateway::time::Timestamp;
use crate::live::standing::Standing;
use crate::relay::{Relay, refused};
use crate::store::Store;
use crate::telemetry::Dropped;

/// The address that Azure Front Door and Application Gateway ask.
pub const STATUS_PATH: &str = "/status-0123456789abcdef";

/// The console, for one generation of the configuration.
#[derive(Clone, Debug)]
pub struct Console {
    relay: Arc<Relay>,
    store: Option<Arc<dyn Store>>,
    watch: Arc<Watch>,
    sessions: Arc<Sessions>,
    accounts: Arc<Accounts>,
    capacities: Arc<Capacities>,
    past: Arc<plan::Kept>,
    /// Between which utilizations low-priority calls are paced, percent.
    limits: Option<(u32, u32)>,
    /// Room for pages that follow live.
    followers: Arc<Semaphore>,
    /// The newest of what Azure Monitor counts; `None` where it is not asked.
    newest: Option<Arc<Newest>>,
    /// What bills are made from; `None` where nothing is kept of calls.
    billing: Option<Billing>,
    /// The batch queue, where there is one.
    queue: Option<Arc<Queue>>,
    /// How the configuration stands, where it is watched.
    configuration: Option<Arc<Standing>>,
    /// Spans that could not be sent, where they are sent.
    dropped_spans: Option<Arc<Dropped>>,
}

impl Console {
    /// A console for this relay, whose past is in `store`, and who pays what for it.
    pub fn new(config: &Config, relay: Arc<Relay>, store: Option<Arc<dyn Store>>) -> Self {
        let accounts = Accounts::new(config);
        Self {
            capacities: Arc::new(Capacities::new(accounts.prices())),
            accounts: Arc::new(accounts),
            limits: capacity::limits(config),
            past: Arc::default(),
            watch: Arc::new(Watch::new(&relay.metrics, relay.clock.now())),
            sessions: Arc::new(Sessions::new(store.clone())),
            followers: Arc::new(Semaphore::new(live::MAX_FOLLOWERS)),
            newest: config.chargeback.reconcile.then(Arc::default),
            billing: store.clone().map(|store| Billing::new(config, store)),
            queue: None,
            configuration: None,
            dropped_spans: None,
            relay,
            store,
        }
    }

    /// This console, which shows the batch queue of this name. `age` says how long messages waited
    /// that this process was handed, where it is.
    #[must_use]
    pub fn with_queue(self, name: &str, counts: Arc<dyn Counts>, age: Option<QueueAges>) -> Self {
        Self {
            queue: Some(Arc::new(Queue::new(name, counts, age))),
            ..self
        }
    }

    /// This console, which shows how the configuration stands.
    #[must_use]
    pub fn showing(&self, configuration: Arc<Standing>) -> Self {
        Self {
            configuration: Some(configuration),
            ..self.clone()
        }
    }

    /// This console, which shows how many spans could not be sent.
    #[must_use]
    pub fn counting(&self, dropped_spans: Option<Arc<Dropped>>) -> Self {
        Self {
            dropped_spans,
            ..self.clone()
        }
    }

    /// When this process began to count.
    pub fn started(&self) -> Timestamp {
        self.watch.started()
    }

    /// All metrics, as they are now.
    pub async fn families(&self) -> Vec<Family> {
        let now = now::look(self).await;
        let newest = match (&self.newest, &self.store) {
            (Some(newest), Some(store)) => {
                let now = self.relay.clock.now();
                newest.get(store.as_ref(), now).await
            }
            _ => Arc::default(),
        };
        families::of(self, &now, &newest)
    }

    /// The console of the next generation, which is `relay`.
    #[must_use]
    pub fn after(&self, config: &Config, relay: Arc<Relay>) -> Self {
        let accounts = Accounts::new(config);
        let store = self.store.clone();
        Self {
            capacities: Arc::new(Capacities::new(accounts.prices())),
            accounts: Arc::new(accounts),
            limits: capacity::limits(config),
            billing: store.map(|store| Billing::new(config, store)),
            relay,
            ..self.clone()
        }
    }

    /// Whether a request comes with an administrator's session, and with nothing else to judge it by.
    async fn is_signed_in(&self, headers: &HeaderMap, now: Timestamp) -> bool {
        let session = sign_in::brought(headers).filter(|_| !shows_key(headers));
        match session {
            Some(session) => self.sessions.holds(session, &self.relay.door, now).await,
            None => false,
        }
    }

    /// Looks at what is counted and keeps it, for ever.
    pub async fn keep(self: Arc<Self>) {
        let (watch, store) = (Arc::clone(&self.watch), self.store.clone());
        let (metrics, clock) = (Arc::clone(&self.relay.metrics), self.relay.clock);
        let queue = self.queue.clone();
        // The generation itself may be gone long before.
        drop(self);
        let store = store.as_deref();
        let queue = async {
            if let (Some(queue), Some(store)) = (&queue, store) {
                queue.keep(store).await;
            }
        };
        tokio::join!(watch.keep(&metrics, store, clock), queue);
    }

    /// Sums days up that are over, for ever, as the current generation has it.
    pub async fn keep_days(current: Current<Self>) {
        let (every, first) = days::KEEP;
        tokio::time::sleep(first).await;
        loop {
            let console = current.get();
            if let Some(store) = &console.store {
                let now = console.relay.clock.now();
                console.accounts.days.keep(store.as_ref(), now).await;
            }
            drop(console);
            tokio::time::sleep(every).await;
        }
    }
}

impl FromRef<Current<Self>> for Console {
    fn from_ref(current: &Current<Self>) -> Self {
        Self::clone(&current.get())
    }
}

/// The console's routes.
pub fn router(console: &Current<Console>) -> Router {
    Router::new()
        .route("/spillway/", get(page::now))
        .route("/spillway/history", get(page::history))
        .route("/spillway/money", get(page::money))
        .route("/spillway/money.csv", get(page::money_csv))
        .route("/spillway/what-if", get(page::what_if))
        .route("/spillway/calls", get(page::calls))
        .route("/spillway/live", get(live::follow))
        .route("/spillway/health", get(health))
        .route("/spillway/metrics", get(metrics))
        .route("/spillway/api/openapi.json", get(openapi::show))
        .route("/spillway/api/now", get(api::now))
        .route("/spillway/api/history", get(api::history))
        .route("/spillway/api/calls", get(api::calls))
        .route("/spillway/api/money", get(api::money))
        .route("/spillway/api/idle", get(api::idle))
        .route("/spillway/api/what-if", get(api::what_if))
        .route_layer(from_fn_with_state(console.clone(), admins_only))
        .route(sign_in::PATH, sign_in::route())
        .route("/spillway/sign-out", post(sign_in::out))
        .route(page::STYLE_PATH, get(page::style))
        .route(page::SCRIPT_PATH, get(page::script))
        .route("/spillway/chargeback", get(chargeback::answer))
        .route(STATUS_PATH, get(async || "ok"))
        .with_state(console.clone())
}

/// Says that a request came with a session.
#[derive(Clone, Copy, Debug)]
struct SignedIn;

/// Lets administrators through. A person with a browser is sent to sign in.
async fn admins_only(State(console): State<Console>, mut request: Request, next: Next) -> Response {
    let relay = &console.relay;
    let now = relay.clock.now();
    let headers = request.headers();
    if console.is_signed_in(headers, now).await {
        request.extensions_mut().insert(SignedIn);
        return kept_nowhere(next.run(request).await);
    }
    match relay.door.admin(headers, now).await {
        Ok(_) => kept_nowhere(next.run(request).await),
        Err(_) if is_person(&request) => {
            let path = request.uri().path_and_query();
            sign_in::redirect(path.map_or("", |path| path.as_str()))
        }
        Err(why) => refused(why),
    }
}

/// Has no cache on the way keep what only administrators may see.
fn kept_nowhere(mut response: Response) -> Response {
    let keep_not = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, keep_not);
    response
}

/// Whether a request shows a key or token: then it is judged by that.
fn shows_key(headers: &HeaderMap) -> bool {
    let keys = ["api-key", "ocp-apim-subscription-key"];
    keys.iter().any(|name| headers.contains_key(*name)) || headers.contains_key(AUTHORIZATION)
}

fn is_person(request: &Request) -> bool {
    let accept = request.headers().get(ACCEPT);
    let wants_html = accept
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    request.method() == Method::GET && wants_html && !shows_key(request.headers())
}

async fn metrics(
    State(console): State<Console>,
) -> ([(http::HeaderName, &'static str); 1], String) {
    let families = console.families().await;
    let text = off_the_worker(move || prometheus::text(&families)).await;
    let kind = prometheus::CONTENT_TYPE;
    ([(CONTENT_TYPE, kind)], text.unwrap_or_default())
}

/// Works in a thread where it holds no call up. `None` where the work ended by a panic.
async fn off_the_worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::error!(%error, "a page could not be made"))
        .ok()
}

async fn health(State(console): State<Console>) -> Json<Value> {
    let relay = &console.relay;
    let now = relay.clock.now();
    let deployments = relay.settings.pool.deployments().iter();
    let deployments: Vec<Value> = deployments.map(|d| describe(d, now)).collect();
    Json(json!({
        "ready": true,
        "version": env!("CARGO_PKG_VERSION"),
        "dropped_events": relay.dropped_events(),
        "dropped_prompts": relay.dropped_prompts(),
        "deployments": deployments,
    }))
}

fn describe(deployment: &Deployment, now: Timestamp) -> Value {
    let mark = deployment.mark(now);
    json!({
        "backend": deployment.spec.backend,
        "deployment": deployment.spec.name,
        "kind": deployment.spec.kind,
        "tier": deployment.spec.tier,
        "in_flight": deployment.in_flight(),
        "first_byte_ms": deployment.latency_us().map(|us| us / 1000),
        "marked": mark.map(|mark| json!({
            "reason": mark.reason.as_str(),
            "until": mark.until.rfc3339(),
        })),
    })
}
