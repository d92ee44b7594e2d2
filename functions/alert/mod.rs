//! The function that Azure Monitor's action groups call when a provisioned deployment is nearly full.
//!
//! An alert is a row of its own in table `utilization` until it is over, or for [`LASTS_MS`] where
//! nobody says so. One that comes twice, or after its end, changes nothing. Only administrators may
//! send one, as `/spillway/` is only theirs: an alert can stop all low-priority work.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tower_http::timeout::TimeoutLayer;

use crate::config::Config;
use crate::current::Current;
use crate::gateway::event::Kind;
use crate::gateway::pacing::alert::{AlertError, AlertNotice, Condition, read};
use crate::gateway::pacing::window::DeploymentId;
use crate::relay::{Relay, refused};
use crate::store::utilization::{self, Alert, Recorded};
use crate::store::{Store, StoreError};

/// How long an alert counts where nobody says that it is over, ms. Azure says so when the metric was
/// below the threshold for three checks.
const LASTS_MS: u64 = 30 * 60_000;

/// Largest alert, bytes: the schema has no limit of its own; samples have some 2 KB.
const MAX_BODY: usize = 256 * 1024;

/// Longest time for an alert to come and be noted.
const PATIENCE: Duration = Duration::from_secs(60);

/// What takes alerts.
#[derive(Debug)]
pub struct Alerts {
    relay: Arc<Relay>,
    store: Option<Arc<dyn Store>>,
    deployments: Vec<Target>,
}

/// A provisioned deployment, as alerts name it.
#[derive(Debug)]
struct Target {
    resource_id: String,
    id: DeploymentId,
}

/// Why an alert was not taken.
#[derive(Debug)]
enum Failure {
    Alert(AlertError),
    Store(StoreError),
    NoStore,
}

impl Alerts {
    /// What takes alerts of the next configuration's deployments, whose relay is `relay`.
    #[must_use]
    pub fn after(&self, config: &Config, relay: Arc<Relay>) -> Self {
        Self::new(config, relay, self.store.clone())
    }

    /// What takes alerts of a configuration's deployments.
    pub fn new(config: &Config, relay: Arc<Relay>, store: Option<Arc<dyn Store>>) -> Self {
        let mut deployments = Vec::new();
        for backend in &config.backends {
            let Some(resource_id) = &backend.resource_id else {
                continue;
            };
            let ptu = backend.deployments.iter().filter(|d| d.kind == Kind::Ptu);
            deployments.extend(ptu.map(|deployment| Target {
                resource_id: resource_id.clone(),
                id: DeploymentId {
                    backend: backend.name.as_str().into(),
                    deployment: deployment.name.as_str().into(),
                },
            }));
        }
        Self {
            relay,
            store,
            deployments,
        }
    }

    /// Writes what an alert says of each deployment that it is about; how many there were.
    async fn take(&self, body: &[u8]) -> Result<usize, Failure> {
        let notice = read(body).map_err(Failure::Alert)?;
        let store = self.store.as_deref().ok_or(Failure::NoStore)?;
        let now = self.relay.clock.now();
        let mut taken = 0;
        for target in self.deployments.iter().filter(|t| t.is_meant_by(&notice)) {
            let is_over = notice.condition == Condition::Resolved;
            let alert = Alert {
                id: notice.id.clone(),
                utilization: notice.utilization,
                fired: notice.fired,
                expires: if is_over { now } else { now.plus_ms(LASTS_MS) },
                is_over,
            };
            let recorded = utilization::record_alert(store, &target.id, &alert).await;
            let recorded = recorded.map_err(Failure::Store)?;
            let (backend, deployment) = (&*target.id.backend, &*target.id.deployment);
            let percent = notice.utilization;
            match recorded {
                Recorded::New => {
                    tracing::info!(backend, deployment, %percent, is_over, "an alert was taken")
                }
                Recorded::Known => {
                    tracing::debug!(backend, deployment, is_over, "an alert came again")
                }
            }
            taken += 1;
        }
        if taken == 0 {
            tracing::warn!(
                resources = ?notice.resources, deployment = notice.deployment,
                "an alert is about no provisioned deployment of the configuration; check resource_id"
            );
        }
        Ok(taken)
    }
}

impl Target {
    fn is_meant_by(&self, notice: &AlertNotice) -> bool {
        // Azure writes ids in small letters here.
        let same = |id: &String| id.eq_ignore_ascii_case(&self.resource_id);
        let named = notice.deployment.as_deref();
        notice.resources.iter().any(same) && named.is_none_or(|name| name == &*self.id.deployment)
    }
}

/// The function's route.
pub fn router(alerts: Current<Alerts>) -> Router {
    Router::new()
        .route("/alerts", post(handle))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            PATIENCE,
        ))
        .route_layer(from_fn_with_state(alerts.clone(), admins_only))
        .with_state(alerts)
}

async fn admins_only(State(alerts): State<Arc<Alerts>>, request: Request, next: Next) -> Response {
    let now = alerts.relay.clock.now();
    match alerts.relay.door.admin(request.headers(), now).await {
        Ok(_) => next.run(request).await,
        Err(why) => refused(why),
    }
}

async fn handle(State(alerts): State<Arc<Alerts>>, body: Bytes) -> Response {
    let failure = match alerts.take(&body).await {
        Ok(deployments) => return Json(json!({"deployments": deployments})).into_response(),
        Err(failure) => failure,
    };
    // Azure tries again after a 5xx and gives up after a 4xx.
    let (status, code, message) = match failure {
        Failure::Alert(error @ AlertError::Unreadable(_)) => {
            (StatusCode::BAD_REQUEST, "invalid_alert", error.to_string())
        }
        Failure::Alert(error @ AlertError::Other(_)) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "other_alert",
            error.to_string(),
        ),
        Failure::Store(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            error.to_string(),
        ),
        Failure::NoStore => {
            let why = "alerts need [storage] tables in the configuration";
            (StatusCode::SERVICE_UNAVAILABLE, "no_store", why.to_owned())
        }
    };
    tracing::warn!(code, message, "an alert was not taken");
    let body = json!({"error": {"code": code, "message": message}});
    (status, Json(body)).into_response()
}
