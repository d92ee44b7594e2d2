//! The function that asks Azure Monitor every minute how full provisioned deployments are.
//!
//! A run asks for the last ten minutes, writes a row a minute and deployment, says which minute is
//! the newest that counts, learns what estimates are to be multiplied by, and now and then deletes what
//! is old. What it writes depends on what Monitor says only, so that a run may come twice, late, or
//! beside another one. Each deployment's outcome is a line in the log; the host can do nothing about
//! one that failed, so that only a run that could not begin fails its invocation.

pub mod outcome;
pub mod poll;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use serde_json::Value;

use self::poll::Poller;
use crate::current::Current;
use crate::host::invocation::{Invocation, done, failed};

/// The function's name at the host.
const NAME: &str = "utilization";

/// The binding's name in function.json.
const BINDING: &str = "timer";

/// Longest that a run may take: the next one comes in a minute, and the host overlaps none.
const LONGEST: Duration = Duration::from_secs(50);

/// The function's route: the host's invocations.
pub fn router(poller: Current<Poller>) -> Router {
    Router::new()
        .route("/utilization", post(handle))
        .with_state(poller)
}

async fn handle(State(poller): State<Arc<Poller>>, headers: HeaderMap, body: Bytes) -> Response {
    let invocation = Invocation::read(&headers, &body);
    let timer = match invocation.and_then(|invocation| invocation.object(BINDING)) {
        Ok(timer) => timer,
        Err(error) => return failed(NAME, &error),
    };
    if timer.get("IsPastDue").and_then(Value::as_bool) == Some(true) {
        tracing::warn!("the timer is past due: Azure Monitor is asked for the minutes missed too");
    }
    match tokio::time::timeout(LONGEST, poller.poll()).await {
        Ok(reports) => {
            reports.iter().for_each(outcome::Report::log);
            done()
        }
        Err(_) => {
            let seconds = LONGEST.as_secs();
            failed(
                NAME,
                &format!("Azure Monitor and the store took more than {seconds} s"),
            )
        }
    }
}
