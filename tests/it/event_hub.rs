//! A double of Event Hubs: its REST endpoint takes events in the documented form, and its events
//! can be read back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use spillway::gateway::event::UsageEvent;
use tokio::net::TcpListener;

/// A hub.
#[derive(Clone)]
pub(crate) struct EventHub {
    pub(crate) address: SocketAddr,
    events: Arc<Mutex<Vec<UsageEvent>>>,
    requests: Arc<Mutex<Vec<usize>>>,
    is_down: Arc<AtomicBool>,
}

impl EventHub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Self {
            address: listener.local_addr().unwrap(),
            events: Arc::default(),
            requests: Arc::default(),
            is_down: Arc::default(),
        };
        let router = Router::new()
            .route("/usage/messages", post(take))
            .with_state(hub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hub
    }

    /// The configuration's key.
    pub(crate) fn key(&self) -> String {
        format!("event_hub = \"http://{}/usage\"\n", self.address)
    }

    /// Whether it refuses.
    pub(crate) fn be_down(&self, is_down: bool) {
        self.is_down.store(is_down, SeqCst);
    }

    /// The ids of all events so far.
    pub(crate) fn ids(&self) -> HashSet<String> {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| event.id.clone()).collect()
    }

    /// The number of events of each request so far.
    pub(crate) fn requests(&self) -> Vec<usize> {
        self.requests.lock().unwrap().clone()
    }
}

async fn take(
    State(hub): State<EventHub>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    };
    if !header("authorization").starts_with("Bearer canary-token-") {
        return StatusCode::UNAUTHORIZED;
    }
    if hub.is_down.load(SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    // With a parameter the service would take the batch for one event.
    let is_batch = header("content-type") == "application/vnd.microsoft.servicebus.json";
    let has_version = query.is_some_and(|query| query.contains("api-version=2014-01"));
    if !is_batch || !has_version || body.len() > 256 * 1024 {
        return StatusCode::BAD_REQUEST;
    }
    let items: Vec<Value> = serde_json::from_slice(&body).unwrap();
    // A body is a text, not an object.
    let bodies = items.iter().map(|item| item["Body"].as_str().unwrap());
    let events: Vec<UsageEvent> = bodies
        .map(|body| serde_json::from_str(body).unwrap())
        .collect();
    hub.requests.lock().unwrap().push(events.len());
    hub.events.lock().unwrap().extend(events);
    StatusCode::CREATED
}
