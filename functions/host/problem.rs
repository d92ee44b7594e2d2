//! Errors to clients, in OpenAI's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

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
