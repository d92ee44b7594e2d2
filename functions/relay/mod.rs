//! The HTTP function that apps call as if it were Azure OpenAI.
//!
//! A call's way: the door ([`crate::door`]) says who calls and `caller` how urgent it is, the
//! route and the body say which model, `transform` changes it as the app's rules have it, `cache` gives
//! an answer again where one is kept, `admission` says whether the app's limits and budget allow it, `pace`
//! has a low-priority call wait for its slot, `call` tries deployments as the plan says until one answers
//! (`attempt` is one of these tries), and those of another model where `fallback` has one, `body` passes the
//! answer on and reads its usage, `record` makes the usage event of it and settles the limits, `prompts` keeps
//! the text of calls whose app wants that.
//!
//! `later` takes in calls that need no answer now; [`inside`] is the way in for calls of other functions.
//! [`realtime`] keeps sessions over WebSocket. [`marks`] tells other instances which deployments are full, and hears it from them.

mod admission;
mod affinity;
mod attempt;
mod body;
mod cache;
mod call;
mod caller;
mod client_body;
mod credential;
mod error;
mod fallback;
mod headers;
pub mod inside;
pub mod keeper;
mod later;
pub mod marks;
mod models;
mod pace;
pub mod prompts;
mod reading;
pub mod realtime;
mod record;
pub mod settings;
mod start;
mod transform;
mod upstream;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::upgrade::OnUpgrade;

use self::affinity::Affinity;
use self::cache::Cache;
use self::call::{Call, CallEnd};
use self::error::RelayError;
use self::headers::set;
use self::keeper::{Inbox, Owners};
use self::prompts::Prompts;
use self::reading::Reading;
use self::realtime::Sessions;
use self::record::CallRecord;
use self::settings::Settings;
pub use self::upstream::{Upstream, no_tls, tls_settings};
use crate::async_calls::AsyncCalls;
use crate::current::Current;
use crate::door::Door;
use crate::gateway::app::App;
use crate::gateway::estimate;
use crate::gateway::event::Outcome;
use crate::gateway::id::new_id;
use crate::gateway::identity::{Identity, Refusal};
use crate::gateway::metrics::Metrics;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::{Operation, Route};
use crate::gateway::trace::TraceParent;
use crate::host::bodies::Room;
use crate::host::clock::Clock;
use crate::outbox::recorder::{Calls, Recorder};
use crate::pacing::Slots;
use crate::quota::Quotas;
use crate::store::Store;
use crate::store::blobs::Blobs;

/// What all workers share: one generation of what the configuration says, and the state that all
/// generations have in common. A call reads once which one is [`Current`] and ends under that one.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The configuration, looked up.
    pub settings: Arc<Settings>,
    /// The clock.
    pub clock: Clock,
    /// Who may call.
    pub door: Arc<Door>,
    /// What apps may still use.
    pub quotas: Arc<Quotas>,
    /// What has been counted of calls.
    pub metrics: Arc<Metrics>,
    /// The slots of low-priority calls.
    pub slots: Arc<Slots>,
    affinity: Arc<Affinity>,
    recorder: Recorder,
    /// Empty where no app's prompts are logged.
    prompts: Arc<OnceLock<Prompts>>,
    /// Empty where no app's answers are kept.
    cache: Arc<Cache>,
    /// Where calls go that need no answer now, where there is a queue.
    async_calls: Arc<OnceLock<Arc<AsyncCalls>>>,
    /// What the bodies of calls take of the memory.
    room: Arc<Room>,
    /// Realtime sessions, where the gateway can be reached by WebSocket.
    sessions: Arc<OnceLock<Arc<Sessions>>>,
}

impl Relay {
    /// A relay that asks `store`, where there is one, for what it does not remember itself, and
    /// the other ends of its queues.
    pub fn new(
        settings: Settings,
        door: Door,
        quotas: Arc<Quotas>,
        slots: Arc<Slots>,
        clock: Clock,
        store: Option<Arc<dyn Store>>,
    ) -> (Self, Inbox) {
        let (recorder, events) = Recorder::new(settings.gateway.event_queue, settings.is_durable);
        let metrics = Arc::new(Metrics::new(Arc::clone(&settings.names)));
        let recorder = recorder.counting(metrics.shard());
        let (affinity, owners) = Affinity::new(store);
        let owners = Owners(owners);
        let cache = Arc::new(Cache::new(&settings.cache));
        let room = Arc::new(Room::new(settings.gateway.max_bodies()));
        let relay = Self {
            settings: Arc::new(settings),
            clock,
            door: Arc::new(door),
            quotas,
            metrics,
            slots,
            affinity: Arc::new(affinity),
            recorder,
            prompts: Arc::default(),
            cache,
            async_calls: Arc::default(),
            room,
            sessions: Arc::default(),
        };
        let inbox = Inbox { events, owners };
        (relay, inbox)
    }

    /// The next generation. The state goes on, and counts by the names of these settings.
    #[must_use]
    pub fn after(&self, settings: Settings, door: Door, quotas: Quotas) -> Self {
        self.metrics.adopt(Arc::clone(&settings.names));
        Self {
            settings: Arc::new(settings),
            door: Arc::new(door),
            quotas: Arc::new(quotas),
            ..self.clone()
        }
    }

    /// From now on calls are taken in that need no answer now. Only the first time counts.
    pub fn take_async_calls(&self, calls: Arc<AsyncCalls>) {
        // The second of two would be of the same configuration.
        let _ = self.async_calls.set(calls);
    }

    /// From now on realtime sessions are taken in. Only the first time counts.
    pub fn take_sessions(&self) {
        let most = self.settings.gateway.max_realtime_sessions;
        // The second of two would be of the same configuration.
        let _ = self.sessions.set(Arc::new(Sessions::new(most)));
    }

    /// The realtime sessions, where they are taken in.
    pub fn sessions(&self) -> Option<&Arc<Sessions>> {
        self.sessions.get()
    }

    /// What the bodies of calls may take of the memory, and do.
    pub const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Knows how many calls are under way.
    pub fn calls(&self) -> Calls {
        self.recorder.calls()
    }

    /// Usage events that could not be kept, so far.
    pub fn dropped_events(&self) -> u64 {
        self.recorder.dropped()
    }

    /// Calls whose prompt was to be kept and is not, so far.
    pub fn dropped_prompts(&self) -> u64 {
        self.prompts.get().map_or(0, Prompts::dropped)
    }

    /// Has answers that are kept lie in `blobs` too, so that other instances have them: what writes them,
    /// which has to be run.
    pub fn share_answers(&self, blobs: Arc<dyn Blobs>) -> impl Future<Output = ()> + Send + use<> {
        self.cache.put_behind(blobs)
    }

    /// Has the prompts kept of apps that want it, from the first call of this on.
    pub fn log_prompts(&self, prompts: Prompts) {
        // Where they are kept already, they stay.
        let _ = self.prompts.set(prompts);
    }
}

/// The answer to a path that is no function's: 404, in OpenAI's shape.
pub async fn no_such_path(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    client_body::let_go(body);
    unrecorded(RelayError::NoSuchPath(parts.uri.path().to_owned()))
}

/// The answer to a caller who was turned away, in OpenAI's shape.
pub fn refused(why: Refusal) -> Response {
    unrecorded(RelayError::Refused(why))
}

fn unrecorded(error: RelayError) -> Response {
    let id = new_id(Clock::new().now(), &mut fastrand::Rng::new());
    let mut response = error.into_response();
    set(response.headers_mut(), "x-spillway-request-id", id);
    response
}

#[derive(Clone)]
struct Worker {
    relay: Current<Relay>,
    upstream: Upstream,
    /// Counts this worker's calls.
    recorder: Recorder,
}

impl Worker {
    /// A worker with connections of its own, whose calls are counted apart from the others'.
    fn new(current: &Current<Relay>, tls: &rustls::ClientConfig) -> Self {
        let relay = current.get();
        let timeout = Duration::from_millis(relay.settings.gateway.connect_timeout_ms);
        Self {
            relay: current.clone(),
            upstream: Upstream::new(tls.clone(), timeout),
            recorder: relay.recorder.counting(relay.metrics.shard()),
        }
    }
}

/// The relay, for one worker with connections of its own. It takes whatever no other route does, and
/// says of what is no path of its own that there is none: a route with a part that varies would have
/// axum copy that part for each call.
pub fn router(relay: &Current<Relay>, tls: &rustls::ClientConfig) -> Router {
    let worker = Arc::new(Worker::new(relay, tls));
    Router::new().fallback(handle).with_state(worker)
}

async fn handle(State(worker): State<Arc<Worker>>, request: Request) -> Response {
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
    let mut part = relay.room.part();
    let read = client_body::read(&parts.headers, body, max_mb, deadline_ms, &mut part);
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(error, record),
    };
    if app.log_prompts
        && route.operation.is_billed()
        && let Some(prompts) = relay.prompts.get()
    {
        let capture = prompts.capture(route.operation, bytes.clone());
        record.prompt = Some(Box::new(capture));
    }
    let mut call = Call {
        relay,
        upstream: &worker.upstream,
        method: parts.method.clone(),
        headers: &parts.headers,
        reading: Reading::none(),
        model: Arc::clone(&relay.settings.any_backend),
        pinned: None,
        only: None,
        is_paced: false,
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
        return later::accept(calls, &path, &call, record).await;
    }
    admit_and_run(&mut call, record).await
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
fn begin(
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
async fn admit_and_run(call: &mut Call<'_>, mut record: CallRecord) -> Response {
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
async fn prepare<'a>(
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
    let settings = &call.relay.settings;
    let model = match &call.route.model {
        Some(model) => Some(model.clone()),
        None => call.reading.model()?,
    };
    record.can_use = call.method == Method::POST;
    record.prompt_tokens = estimate::input_tokens(call.reading.prompt());
    let in_body = call.reading.stored_ids().map(str::to_owned);
    let in_path = call.route.stored_id().map(str::to_owned);
    let stored: Vec<String> = in_path.into_iter().chain(in_body).collect();
    for id in &stored {
        let owner = owning_backend(call, id, record).await?;
        call.pinned = call.pinned.take().or(owner);
    }
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
        None => Arc::clone(&settings.any_backend),
    };
    Ok(())
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

fn named(settings: &Settings, app: &App, name: &str) -> Result<Arc<ModelPool>, RelayError> {
    let pool = settings.pool.model(name);
    let pool = pool.ok_or_else(|| RelayError::NoSuchModel(name.to_owned()))?;
    if !app.may_ask_for(name) {
        return Err(RelayError::ModelNotAllowed {
            app: app.name.to_string(),
            model: name.to_owned(),
        });
    }
    Ok(Arc::clone(pool))
}

/// Answers with the gateway's own error and records the call.
fn refuse(error: RelayError, mut record: CallRecord) -> Response {
    record.event.status = error.status().as_u16();
    record.finish(Outcome::Failed, None, 0);
    error.into_response()
}
