//! What operators look at: health, and a page of it.

mod page;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::gateway::deployment::Deployment;
use crate::gateway::time::Timestamp;
use crate::relay::Relay;

/// The address that Azure Front Door and Application Gateway ask.
pub const STATUS_PATH: &str = "/status-0123456789abcdef";

/// The console's routes.
pub fn router(relay: &Arc<Relay>) -> Router {
    Router::new()
        .route("/spillway/", get(page::show))
        .route("/spillway/health", get(health))
        .route(STATUS_PATH, get(async || "ok"))
        .with_state(Arc::clone(relay))
}

async fn health(State(relay): State<Arc<Relay>>) -> Json<Value> {
    let now = relay.clock.now();
    let deployments = relay.settings.pool.deployments().iter();
    let deployments: Vec<Value> = deployments.map(|d| describe(d, now)).collect();
    Json(json!({
        "ready": true,
        "version": env!("CARGO_PKG_VERSION"),
        "dropped_events": relay.dropped_events(),
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
