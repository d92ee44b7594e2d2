//! The function that takes messages from a Service Bus queue, has them answered when there is room,
//! and sends the replies. docs/batch.md is for those who send the messages.
//!
//! A message's way: [`received`] takes it out of the host's invocation, [`worker`] reads it, `job` has
//! it wait for its place and calls, `ledger` keeps who works on it and its answer, `outbox` sends the
//! reply. Every message is answered once, whatever is killed or down meanwhile: only one delivery
//! has a message at a time, its answer is kept before it is sent, and a reply that is sent twice has
//! the same id, by which the broker drops the second.

mod again;
mod job;
pub mod ledger;
mod outbox;
pub mod received;
pub mod settings;
pub mod worker;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;

use self::worker::{End, Worker};
use crate::host::invocation::{Invocation, done, failed};

/// The function's name at the host.
const NAME: &str = "batch";

/// The function's route: the host's invocations.
pub fn router(worker: Arc<Worker>) -> Router {
    Router::new()
        .route("/batch", post(handle))
        .with_state(worker)
}

async fn handle(State(worker): State<Arc<Worker>>, headers: HeaderMap, body: Bytes) -> Response {
    let invocation = Invocation::read(&headers, &body);
    let received = match invocation.and_then(|invocation| received::read(&invocation)) {
        Ok(received) => received,
        Err(error) => return failed(NAME, &error),
    };
    // The message is in there, and this is held for minutes.
    drop(body);
    match worker.handle(&received).await {
        End::Done => done(),
        End::Failed(why) => failed(NAME, &why),
    }
}
