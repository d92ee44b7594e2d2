//! Calls that need no answer now: `Prefer: respond-async` (RFC 7240, section 4.1).

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::json;

use super::admission;
use super::answer::refuse;
use super::call::Call;
use super::error::RelayError;
use super::headers::set;
use super::record::CallRecord;
use crate::async_calls::{AsyncCall, AsyncCalls, AsyncError};
use crate::gateway::batch::line;
use crate::gateway::batch::order::prefer_wait_s;
use crate::gateway::batch::reply::fetch_path;
use crate::gateway::priority::Priority;
use crate::gateway::request::segments;

/// When a client may look for its answer, seconds.
const LOOK_AGAIN_S: u64 = 5;

/// The path by which a call goes into the queue; `None` where it is to be answered now. A preference
/// that can't be met is passed over, as RFC 7240 says.
pub(super) fn wanted(call: &Call<'_>, record: &CallRecord) -> Option<String> {
    let asks = record.event.priority == Priority::Low
        && call.method == Method::POST
        && prefers_async(call.headers)
        && !call.reading.stream();
    if !asks {
        return None;
    }
    line::path(&format!("/v1/{}", call.route.path))
}

fn prefers_async(headers: &HeaderMap) -> bool {
    preferences(headers).any(|one| one.eq_ignore_ascii_case("respond-async"))
}

fn preferences(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("prefer").iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split([',', ';'])).map(str::trim)
}

/// Takes the call in, where the app's limits and budget allow that: 202, and where its answer will be.
/// Else one app could fill the queue that all share, with what is refused when its turn comes.
pub(super) async fn accept(
    calls: &AsyncCalls,
    path: &str,
    call: &Call<'_>,
    mut record: CallRecord,
) -> Response {
    let tells_budget = call.relay.settings.gateway.answer_headers;
    let (standing, verdict) = admission::admit_for_later(call, &mut record);
    let mut response = match verdict {
        Ok(()) => put_in(calls, path, call, record).await,
        Err(error) => refuse(error, record),
    };
    admission::tell(&standing, response.headers_mut(), tells_budget);
    response
}

/// Puts an admitted call into the queue.
async fn put_in(calls: &AsyncCalls, path: &str, call: &Call<'_>, record: CallRecord) -> Response {
    let id = record.event.id.clone();
    let asked = AsyncCall {
        id: &id,
        app: &call.caller.app.name,
        path,
        body: body(call),
        wait_s: preferences(call.headers).find_map(prefer_wait_s),
    };
    match calls.accept(&asked).await {
        Ok(()) => {
            // What it uses is noted when it is called. Its place in the limits is given up until then.
            record.forget();
            accepted(&id)
        }
        Err(AsyncError::TooLarge(max)) => {
            let max_mb = u32::try_from(max.div_ceil(1 << 20)).unwrap_or(u32::MAX);
            refuse(RelayError::TooLarge { max_mb }, record)
        }
        Err(AsyncError::Unavailable(why)) => {
            tracing::error!(
                request_id = record.event.id,
                trace_id = record.event.trace_digits(),
                why,
                "an asynchronous call can't be taken in"
            );
            refuse(RelayError::StoreUnavailable, record)
        }
    }
}

/// The body as the v1 form has it: with its model.
fn body(call: &Call<'_>) -> Bytes {
    let model = call.model.name();
    let parts = segments(&call.body, &call.reading.edits(Some(model), true));
    match parts.as_slice() {
        [whole] => whole.clone(),
        parts => parts.concat().into(),
    }
}

fn accepted(id: &str) -> Response {
    let body = json!({"id": id, "object": "spillway.request", "status": "queued"});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_S));
    set(headers, LOCATION.as_str(), fetch_path(id));
    set(headers, "preference-applied", "respond-async");
    response
}
