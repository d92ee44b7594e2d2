//! What operators look at: health, and a page of it. Only administrators get to them; the status
//! path, which says nothing, is everybody's.

mod chargeback;
mod page;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::billing::Billing;
use crate::gateway::deployment::Deployment;
use crate::gateway::time::Timestamp;
use crate::relay::{Relay, refused};

/// The address that Azure Front Door and Application Gateway ask.
pub const STATUS_PATH: &str = "/status-0123456789abcdef";

/// The console's routes.
pub fn router(relay: &Arc<Relay>, billing: Option<&Billing>) -> Router {
    Router::new()
        .route("/spillway/", get(page::show))
        .route("/spillway/health", get(health))
        .route_layer(from_fn_with_state(Arc::clone(relay), admins_only))
        .route(STATUS_PATH, get(async || "ok"))
        .with_state(Arc::clone(relay))
        .merge(chargeback::router(relay, billing))
}

async fn admins_only(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let now = relay.clock.now();
    match relay.door.admin(request.headers(), now).await {
        Ok(()) => next.run(request).await,
        Err(why) => refused(why),
    }
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
