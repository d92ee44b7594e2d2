//! One call's way through the relay, from its head to its answer.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::upgrade::OnUpgrade;

use super::call::{Call, CallEnd, Patience};
use super::error::RelayError;
use super::headers::set;
use super::reading::Reading;
use super::record::CallRecord;
use super::settings::Settings;
use super::{
    Relay, Worker, admission, cache, caller, client_body, error, later, models, pace, realtime,
    transform,
};
use crate::gateway::app::App;
use crate::gateway::estimate;
use crate::gateway::event::Outcome;
use crate::gateway::id::new_id;
use crate::gateway::identity::Identity;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::{Operation, Route, shows_stored};
use crate::gateway::trace::TraceParent;
use crate::host::bodies::Part;

pub(super) async fn handle(State(worker): State<Arc<Worker>>, request: Request) -> Response {
    let relay = worker.relay.get();
    let now = relay.clock.now();
    let id = new_id(now, &mut fastrand::Rng::new());
    let mut response = answer(&worker, &relay, request, &id).await;
    set(response.headers_mut(), "x-spillway-request-id", id);
    response
}

async fn answer(worker: &Worker, relay: &Arc<Relay>, request: Request, id: &str) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    let Some(route) = Route::parse(path, parts.uri.query().unwrap_or_default()) else {
        client_body::let_go(body);
        return RelayError::NoSuchPath(path.to_owned()).into_response();
    };
    let shown = realtime::shown(&parts.headers, &route);
    let caller = match relay.door.identify(&shown, relay.clock.now()).await {
        Ok(caller) => caller,
        Err(why) => {
            tracing::debug!(request_id = id, ?why, "a caller was turned away");
            client_body::let_go(body);
            return RelayError::Refused(why).into_response();
        }
    };
    if route.operation == Operation::Realtime && parts.method == Method::GET {
        client_body::let_go(body);
        let client = parts.extensions.remove::<OnUpgrade>();
        return realtime::answer(worker, relay, &parts.headers, client, route, caller, id).await;
    }
    let app = Arc::clone(&caller.app);
    if route.operation == Operation::Models && parts.method == Method::GET {
        client_body::let_go(body);
        return models::answer(&relay.settings, &app, &route)
            .unwrap_or_else(RelayError::into_response);
    }
    if let Err(error) = can_be_read(&parts) {
        client_body::let_go(body);
        return error.into_response();
    }
    let (mut record, begun) = begin(worker, relay, &parts.headers, &route, &caller, id);
    if let Err(error) = begun {
        client_body::let_go(body);
        return refuse(error, record);
    }
    let gateway = &relay.settings.gateway;
    let (max_mb, deadline_ms) = (gateway.max_body_mb, gateway.deadline_ms);
    // The call has its part of the room until its answer begins: it may be made again until then.
    let mut part = Part::of(&relay.room);
    let read = client_body::read(&parts.headers, body, max_mb, deadline_ms, &mut part);
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(error, record),
    };
    log_prompt(relay, &app, &route, &bytes, &mut record);
    let mut call = Call {
        relay,
        upstream: &worker.upstream,
        method: parts.method.clone(),
        headers: &parts.headers,
        reading: Reading::none(),
        model: Arc::clone(&relay.settings.any_backend),
        pinned: None,
        homes: Vec::new(),
        only: None,
        is_paced: false,
        patience: Patience::of_client(gateway),
        body: bytes.clone(),
        route,
        caller,
        started,
    };
    if let Err(error) = prepare(&mut call, &bytes, &mut record).await {
        return refuse(error, record);
    }
    if let Some(calls) = relay.async_calls.get()
        && let Some(path) = later::wanted(&call, &record)
    {
        // Boxed: most calls are answered now.
        return Box::pin(later::accept(calls, &path, &call, record)).await;
    }
    admit_and_run(&mut call, record).await
}

/// Takes the call's prompt down, where its app's are.
pub(super) fn log_prompt(
    relay: &Relay,
    app: &App,
    route: &Route<'_>,
    body: &Bytes,
    record: &mut CallRecord,
) {
    if app.log_prompts
        && route.operation.is_billed()
        && let Some(prompts) = relay.prompts.get()
    {
        let capture = prompts.capture(route.operation, body.clone());
        record.prompt = Some(Box::new(capture));
    }
}

/// Whether the call is one that a backend may be sent. TRACE asks for the request back, the gateway's key
/// in it. A compressed body is unpacked by nobody here, and could not be read for its model.
fn can_be_read(parts: &http::request::Parts) -> Result<(), RelayError> {
    let mut methods = error::METHODS.split(", ");
    if !methods.any(|method| method == parts.method.as_str()) {
        return Err(RelayError::MethodNotAllowed(parts.method.clone()));
    }
    let mut codings = parts.headers.get_all(CONTENT_ENCODING).iter();
    match codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Some(coding) => Err(RelayError::Encoded(
            String::from_utf8_lossy(coding.as_bytes()).into_owned(),
        )),
        None => Ok(()),
    }
}

/// The record of a call, as far as its head says what it is, and whether it may go on.
pub(super) fn begin(
    worker: &Worker,
    relay: &Relay,
    headers: &HeaderMap,
    route: &Route<'_>,
    caller: &Identity,
    id: &str,
) -> (CallRecord, Result<(), RelayError>) {
    let recorder = worker.recorder.clone();
    let mut record = CallRecord::new(relay.clock, recorder, id.to_owned(), route.path);
    record.called_by(caller);
    record.operation = route.operation;
    let trace = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    if let Some(trace) = trace.and_then(TraceParent::parse) {
        trace.trace_id.clone_into(&mut record.event.trace_id);
        record.event.parent = Some(trace.parent);
    }
    let priority = caller::priority(&caller.app, headers, route);
    let begun = priority.map(|priority| record.event.priority = priority);
    (record, begun)
}

/// Tries deployments, where the app's limits and budget allow that; the answer says how it stands.
pub(super) async fn admit_and_run(call: &mut Call<'_>, mut record: CallRecord) -> Response {
    let body = match transform::changed(call) {
        Ok(None) => return run(call, record).await,
        Ok(Some(body)) => body,
        Err(error) => return refuse(error, record),
    };
    match transform::with(call, &body, &mut record) {
        // Boxed: most calls stay as they are.
        Ok(mut changed) => Box::pin(run(&mut changed, record)).await,
        Err(error) => refuse(error, record),
    }
}

/// As [`admit_and_run`], a call that is as its app's rules have it.
async fn run(call: &mut Call<'_>, mut record: CallRecord) -> Response {
    if let Some(rules) = call.caller.app.cache {
        // Boxed: most calls are of apps that keep nothing.
        match Box::pin(cache::ask(call, rules, record)).await {
            cache::Answer::There(response) => return response,
            cache::Answer::GoesOn(back) => record = back,
        }
    }
    let tells_budget = call.relay.settings.gateway.answer_headers;
    let (standing, verdict) = admission::admit(call, &mut record);
    let verdict = match verdict {
        Ok(()) => pace::take_slot(call, &mut record).await,
        refused => refused,
    };
    let mut response = match verdict {
        Err(error) => refuse(error, record),
        Ok(()) => match call.run(record).await {
            (CallEnd::Answer(response), _) => response,
            (CallEnd::Error(error), Some(record)) => refuse(error, record),
            (CallEnd::Error(error), None) => error.into_response(),
        },
    };
    admission::tell(&standing, response.headers_mut(), tells_budget);
    response
}

/// Reads the body and finds the model and the owner of what the call names.
pub(super) async fn prepare<'a>(
    call: &mut Call<'a>,
    bytes: &'a Bytes,
    record: &mut CallRecord,
) -> Result<(), RelayError> {
    if !bytes.is_empty() || call.route.operation.is_billed() && call.method == Method::POST {
        let kind = call
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        call.reading = Reading::new(&call.route, kind.unwrap_or_default(), bytes)?;
    }
    can_be_counted(call)?;
    let settings = &call.relay.settings;
    let model = match &call.route.model {
        Some(model) => Some(model.clone()),
        // One to be tuned is no deployment.
        None if call.route.is_of_base_models() => {
            may_be_tuned(call)?;
            None
        }
        None => call.reading.model()?,
    };
    record.can_use = call.method == Method::POST && !shows_stored(call.route.path);
    record.prompt_tokens = estimate::input_tokens(call.reading.prompt());
    let in_body = call.reading.stored_ids().map(str::to_owned);
    let in_path = call.route.stored_ids().map(str::to_owned);
    let stored: Vec<String> = in_path.chain(in_body).collect();
    call.pinned = owning_backend_of(call, &stored, record).await?;
    call.model = match &model {
        Some(name) => {
            let pool = named(settings, &call.caller.app, name)?;
            record.event.model = Arc::clone(pool.name());
            pool
        }
        None if call.route.operation.is_billed()
            && call.method == Method::POST
            && stored.is_empty() =>
        {
            return Err(RelayError::NoModel);
        }
        None => {
            if call.pinned.is_none() {
                call.homes = settings.homes(&call.caller.app);
            }
            Arc::clone(&settings.any_backend)
        }
    };
    Ok(())
}

/// Whether the app may ask for the model that it wants to tune, which no limit, budget or bill has.
fn may_be_tuned(call: &Call<'_>) -> Result<(), RelayError> {
    let app = &call.caller.app;
    match call.reading.model()? {
        Some(model) if !app.may_tune(&model) => Err(not_allowed(app, &model)),
        _ => Ok(()),
    }
}

/// Whether the call's answer will say what it used. A response that is made in the background is queued when
/// the call ends, and is read by a GET, which costs nothing.
fn can_be_counted(call: &Call<'_>) -> Result<(), RelayError> {
    let app = &call.caller.app;
    let is_background = call.route.operation == Operation::Responses && call.reading.background();
    if is_background && !app.allow_background {
        let app = app.name.to_string();
        return Err(RelayError::BackgroundNotAllowed { app });
    }
    Ok(())
}

/// How many owners are asked for at a time: what is not in memory is a read of the store.
const OWNERS_AT_A_TIME: usize = 16;

/// The backend that owns the first of these that has a known owner.
async fn owning_backend_of(
    call: &Call<'_>,
    ids: &[String],
    record: &CallRecord,
) -> Result<Option<Arc<str>>, RelayError> {
    match ids {
        [] => return Ok(None),
        [id] => return owning_backend(call, id, record).await,
        _ => {}
    }
    let owners = ids.iter().map(|id| owning_backend(call, id, record));
    // Made before they are a stream's: rustc can't tell their lifetimes otherwise. Boxed: most calls name one.
    let owners: Vec<_> = owners.collect();
    let mut owners = Box::pin(stream::iter(owners).buffered(OWNERS_AT_A_TIME));
    let mut first = None;
    while let Some(owner) = owners.next().await {
        first = first.or(owner?);
    }
    Ok(first)
}

/// The backend that owns what the call names, where that is known. A store that can't say is an
/// error: a guess would ask a backend that does not have it, or show one app another's.
async fn owning_backend(
    call: &Call<'_>,
    id: &str,
    record: &CallRecord,
) -> Result<Option<Arc<str>>, RelayError> {
    let owner = call.relay.affinity.owner(id, record.now()).await;
    let owner = owner.map_err(|error| {
        tracing::error!(
            request_id = record.event.id,
            trace_id = record.event.trace_digits(),
            %error,
            "the owner of a stored object can't be read"
        );
        RelayError::StoreUnavailable
    })?;
    match owner {
        Some(owner) if owner.app != call.caller.app.name => {
            Err(RelayError::NoSuchObject(id.to_owned()))
        }
        owner => Ok(owner.map(|owner| owner.backend)),
    }
}

pub(super) fn named(
    settings: &Settings,
    app: &App,
    name: &str,
) -> Result<Arc<ModelPool>, RelayError> {
    let pool = settings.pool.model(name);
    let pool = pool.ok_or_else(|| RelayError::NoSuchModel(name.to_owned()))?;
    if !app.may_ask_for(name) {
        return Err(not_allowed(app, name));
    }
    Ok(Arc::clone(pool))
}

fn not_allowed(app: &App, model: &str) -> RelayError {
    RelayError::ModelNotAllowed {
        app: app.name.to_string(),
        model: model.to_owned(),
    }
}

/// Answers with the gateway's own error and records the call.
pub(super) fn refuse(error: RelayError, mut record: CallRecord) -> Response {
    record.event.status = error.status().as_u16();
    record.finish(Outcome::Failed, None, 0);
    error.into_response()
}
