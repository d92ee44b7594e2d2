//! Errors to clients, in OpenAI's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Says when it is worth asking again: to the millisecond, as Azure does, and in whole seconds for those that
/// know these only.
pub fn say_retry_after(headers: &mut HeaderMap, ms: u64) {
    headers.insert(HeaderName::from_static("retry-after-ms"), ms.into());
    headers.insert(RETRY_AFTER, ms.div_ceil(1000).into());
}

/// An error that is no parameter's. Whose it is follows from the status: the server's from 500 on,
/// else the client's.
pub fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() {
        "server_error"
    } else {
        "invalid_request_error"
    };
    let error = json!({"code": code, "message": message, "type": kind, "param": null});
    (status, Json(json!({"error": error}))).into_response()
}
