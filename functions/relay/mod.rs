//! The HTTP function that apps call as if it were Azure OpenAI.
//!
//! A call's way, which `answer` has from end to end: the door ([`crate::door`]) says who calls and `caller` how urgent it is, the
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
mod answer;
mod attempt;
mod body;
mod cache;
mod call;
mod caller;
mod client_body;
mod connector;
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
mod pass_on;
pub mod prompts;
mod reading;
pub mod realtime;
mod record;
mod refusal;
pub mod settings;
mod start;
mod transform;
mod upstream;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;

use self::affinity::Affinity;
use self::cache::Cache;
use self::error::RelayError;
use self::headers::set;
use self::keeper::{Inbox, Owners};
use self::prompts::Prompts;
use self::realtime::Sessions;
use self::settings::Settings;
pub use self::upstream::{Upstream, no_tls, tls_settings};
use crate::async_calls::AsyncCalls;
use crate::current::Current;
use crate::door::Door;
use crate::gateway::id::new_id;
use crate::gateway::identity::Refusal;
use crate::gateway::metrics::Metrics;
use crate::gateway::room::Room;
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
    Router::new().fallback(answer::handle).with_state(worker)
}
