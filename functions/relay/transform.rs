//! An app's rules, kept to: its call is changed before it is admitted, so that limits, slots and
//! backends see what is sent.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::call::Call;
use super::error::RelayError;
use super::reading::Reading;
use super::record::CallRecord;
use crate::gateway::estimate;
use crate::gateway::request::{BodyError, segments};
use crate::gateway::transform::TransformError;

/// The call's body as its app's rules have it; `None` where it stays as it is.
pub(super) fn changed(call: &Call<'_>) -> Result<Option<Bytes>, RelayError> {
    let Some(transform) = &call.caller.app.transform else {
        return Ok(None);
    };
    let (model, operation) = (call.model.name(), call.route.operation);
    if call.method != Method::POST || !transform.changes_body(model, operation) {
        return Ok(None);
    }
    if call.reading.is_opaque() {
        // The backend could take it for JSON all the same.
        let message = "the body must be JSON, with `content-type: application/json`";
        return Err(RelayError::Body(BodyError::whole(message)));
    }
    if !call.reading.is_json() {
        return Ok(None);
    }
    let edits = transform.edits(&call.body, model, operation);
    let edits = edits.map_err(|error| match error {
        TransformError::Body(error) => RelayError::Body(error),
        refused => RelayError::NotByRule(refused),
    })?;
    let body = || segments(&call.body, &edits).concat().into();
    Ok((!edits.is_empty()).then(body))
}

/// The call with a changed body.
pub(super) fn with<'a>(
    call: &'a Call<'a>,
    body: &'a Bytes,
    record: &mut CallRecord,
) -> Result<Call<'a>, RelayError> {
    let kind = call.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok());
    let reading = Reading::new(&call.route, kind.unwrap_or_default(), body)?;
    record.prompt_tokens = estimate::input_tokens(reading.prompt());
    Ok(Call {
        relay: call.relay,
        upstream: call.upstream,
        route: call.route.clone(),
        method: call.method.clone(),
        headers: call.headers,
        body: body.clone(),
        reading,
        caller: call.caller.clone(),
        model: Arc::clone(&call.model),
        pinned: call.pinned.clone(),
        homes: call.homes.clone(),
        only: call.only,
        is_paced: call.is_paced,
        patience: call.patience,
        started: call.started,
    })
}

/// Changes a request's headers as the app's rules have it.
pub(super) fn headers(call: &Call<'_>, headers: &mut HeaderMap) {
    let Some(transform) = &call.caller.app.transform else {
        return;
    };
    for (name, value) in transform.headers(call.model.name()) {
        let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) else {
            continue;
        };
        match value.map(|value| HeaderValue::from_str(value.as_str())) {
            Some(Ok(value)) => drop(headers.insert(name, value)),
            _ => drop(headers.remove(name)),
        }
    }
}
