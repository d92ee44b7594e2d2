//! `GET` and `DELETE /spillway/requests/{id}`: how a call stands that is answered later, its answer,
//! and calling it off. Only the app that made it gets to it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::async_calls::{AsyncCalls, AsyncError, Cancelling, Standing};
use crate::current::Current;
use crate::host::problem::problem;
use crate::relay::{Relay, refused};
use crate::store::requests::Kept;

/// When a client may look again, seconds.
const LOOK_AGAIN_S: u64 = 5;

#[derive(Clone)]
struct Desk {
    relay: Current<Relay>,
    calls: Arc<AsyncCalls>,
}

/// The routes.
pub(super) fn router(relay: &Current<Relay>, calls: &Arc<AsyncCalls>) -> Router {
    let desk = Desk {
        relay: relay.clone(),
        calls: Arc::clone(calls),
    };
    Router::new()
        .route("/spillway/requests/{id}", get(look).delete(cancel))
        .with_state(desk)
}

impl Desk {
    /// The app that asks.
    async fn app(&self, headers: &HeaderMap) -> Result<Arc<str>, Response> {
        let relay = self.relay.get();
        let caller = relay.door.identify(headers, relay.clock.now()).await;
        caller
            .map(|caller| Arc::clone(&caller.app.name))
            .map_err(refused)
    }
}

async fn look(State(desk): State<Desk>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let app = match desk.app(&headers).await {
        Ok(app) => app,
        Err(refusal) => return refusal,
    };
    match desk.calls.look(&app, &id).await {
        Ok(None) => no_such(&id),
        Ok(Some(Standing::Pending(state))) => {
            let mut response = standing(StatusCode::ACCEPTED, &id, state);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_S));
            response
        }
        Ok(Some(Standing::Cancelled)) => problem(
            StatusCode::GONE,
            "cancelled",
            &format!("`{id}` was called off."),
        ),
        Ok(Some(Standing::Answered(kept))) => answer(&desk.calls, &app, &id, &kept).await,
        Err(why) => unavailable(&why),
    }
}

async fn cancel(State(desk): State<Desk>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let app = match desk.app(&headers).await {
        Ok(app) => app,
        Err(refusal) => return refusal,
    };
    match desk.calls.cancel(&app, &id).await {
        Ok(Cancelling::Done) => standing(StatusCode::OK, &id, "cancelled"),
        Ok(Cancelling::NoSuch) => no_such(&id),
        Ok(Cancelling::TooLate) => {
            let message = format!("`{id}` has started already: it can't be called off.");
            problem(StatusCode::CONFLICT, "already_started", &message)
        }
        Err(why) => unavailable(&why),
    }
}

/// The answer as the call itself would have had it.
async fn answer(calls: &AsyncCalls, app: &str, id: &str, kept: &Kept) -> Response {
    let body = match calls.body(app, id, kept).await {
        Ok(body) => body,
        Err(why) => return unavailable(&why),
    };
    if !kept.code.is_empty() {
        let message = String::from_utf8_lossy(&body);
        return problem(error_status(&kept.code), &kept.code, &message);
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&kept.request_id) {
        headers.insert("x-spillway-request-id", id);
    }
    response
}

fn error_status(code: &str) -> StatusCode {
    match code {
        "batch_expired" => StatusCode::GATEWAY_TIMEOUT,
        "not_answered" => StatusCode::SERVICE_UNAVAILABLE,
        "unknown_app" => StatusCode::FORBIDDEN,
        "body_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "answer_too_large" => StatusCode::BAD_GATEWAY,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn standing(status: StatusCode, id: &str, state: &str) -> Response {
    let body = json!({"id": id, "object": "spillway.request", "status": state});
    (status, Json(body)).into_response()
}

fn no_such(id: &str) -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "not_found",
        &format!("`{id}` was not found."),
    )
}

fn unavailable(why: &AsyncError) -> Response {
    tracing::error!(%why, "a call's answer can't be looked up");
    let message = "Where answers are kept can't be read at the moment; try again.";
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        message,
    )
}
