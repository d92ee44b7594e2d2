//! The console's figures as JSON. [`super::openapi`] describes them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::{Console, calls, history, money, now, plan};
use crate::billing::BillingError;

/// What is happening.
pub(super) async fn now(State(console): State<Console>) -> Json<now::Now> {
    Json(now::look(&console).await)
}

/// The past.
pub(super) async fn history(
    State(console): State<Console>,
    wish: Result<Query<history::Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(why) => return wrong(&why.body_text()),
    };
    match wish.mistake() {
        Some(mistake) => wrong(mistake),
        None => answer(history::read(&console, &wish).await),
    }
}

/// Calls.
pub(super) async fn calls(
    State(console): State<Console>,
    wish: Result<Query<calls::Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(why) => return wrong(&why.body_text()),
    };
    match wish.mistake() {
        Some(mistake) => wrong(mistake),
        None => answer(calls::find(&console, &wish).await),
    }
}

/// What a month costs.
pub(super) async fn money(
    State(console): State<Console>,
    wish: Result<Query<money::Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(why) => return wrong(&why.body_text()),
    };
    match money::read(&console, &wish).await {
        Err(BillingError::Asked(why)) => wrong(&why),
        found => answer(found),
    }
}

/// When PTUs are idle.
pub(super) async fn idle(State(console): State<Console>) -> Response {
    answer(plan::idle(&console).await)
}

/// What another number of PTUs would have come to.
pub(super) async fn what_if(
    State(console): State<Console>,
    wish: Result<Query<plan::Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(why) => return wrong(&why.body_text()),
    };
    match wish.mistake() {
        Some(mistake) => wrong(mistake),
        None => answer(plan::what_if(&console, &wish).await),
    }
}

fn answer<T: Serialize, E: std::fmt::Display>(found: Result<T, E>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => {
            tracing::error!(%error, "the console can't read the store");
            let message = "What is kept can't be read at the moment; try again.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            refuse(status, "store_unavailable", "server_error", message)
        }
    }
}

fn wrong(message: &str) -> Response {
    let status = StatusCode::BAD_REQUEST;
    refuse(status, "invalid_query", "invalid_request_error", message)
}

fn refuse(status: StatusCode, code: &str, kind: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message, "type": kind, "param": null}});
    (status, Json(body)).into_response()
}
