//! Puts the functions together to one process.

pub mod batch;
mod batches;
pub mod ending;
mod from_host;
mod keeping;
pub mod live;
mod names;
mod opening;
mod requests;
pub mod swap;
mod telemetry;
mod thread;
mod utilization;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_http::timeout::RequestBodyTimeoutLayer;

use self::from_host::{from_the_host, ready};
pub use self::keeping::{Keeping, keep};
use self::opening::surroundings;
pub use self::opening::{open_blobs, open_store};
use self::swap::Swap;
use self::thread::Thread;
use crate::alert::{self, Alerts};
use crate::azure::own_token::{OwnToken, OwnTokens};
use crate::batches::{self as batch_api, Batches, Kept};
use crate::billing::{price_check, reconcile};
use crate::chargeback::{self, Consumer};
use crate::config::{Auth, Config, Scheme};
use crate::console::{self, Console};
use crate::current::Current;
use crate::door::{Door, may_be_reached};
use crate::gateway::event::UsageEvent;
use crate::gateway::price::Prices;
use crate::host::clock::Clock;
use crate::host::server::{Server, Settings as ServerSettings};
use crate::outbox::recorder::Calls;
use crate::pacing::{Gauge, Slots};
use crate::quota::Quotas;
use crate::relay::keeper::Inbox;
use crate::relay::marks;
use crate::relay::prompts::Prompts;
use crate::relay::realtime::Sessions;
use crate::relay::settings::Settings;
use crate::relay::{self, Relay};
use crate::store::Store;
use crate::store::blobs::Blobs;
use crate::store::ledger::{Ledger, Observer};
use crate::store::requests as requests_table;

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    relay: Current<Relay>,
    swap: Swap,
    tls: rustls::ClientConfig,
    server: ServerSettings,
    auth: Auth,
    tokens: Vec<Arc<OwnToken>>,
    triggers: Router,
    slots: Arc<Slots>,
    /// What was started before serving; it ends with the gateway.
    background: JoinSet<()>,
    batches: Option<Arc<Batches>>,
    /// Where proposals of Azure's prices are kept, where they are looked at.
    prices: Option<Arc<dyn Store>>,
    /// Where instances tell each other of full deployments, where they do.
    marks: Option<Arc<dyn Store>>,
    /// What sends traces and metrics, where they are sent.
    telemetry: Option<Thread>,
}

/// A gateway that serves; it ends with this.
#[derive(Debug)]
pub struct Serving {
    server: Server,
    /// What goes on beside the calls.
    beside: [JoinSet<()>; 2],
    telemetry: Option<Thread>,
}

/// Largest invocation of a trigger, bytes: a Service Bus message of 100 MB in base64, and what the
/// broker says of it.
const MAX_INVOCATION: usize = 140 * 1024 * 1024;

/// Where a gateway runs: it says whose identity it has where the environment names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On Azure, or as if: a managed identity.
    Azure,
    /// On a developer's machine: whoever is logged in to the Azure CLI.
    Local,
}

impl Gateway {
    /// The gateway of a configuration, and the other ends of its queues (see [`keep`]).
    ///
    /// # Errors
    /// When a key can't stand in a header, or the system has no certificate roots although a
    /// backend, or Entra, needs them.
    pub fn new(config: &Config, store: Option<Arc<dyn Store>>) -> io::Result<(Self, Inbox)> {
        Self::at(Place::Azure, config, store)
    }

    /// As [`Self::new`], for a gateway that runs at `place`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(
        place: Place,
        config: &Config,
        store: Option<Arc<dyn Store>>,
    ) -> io::Result<(Self, Inbox)> {
        let mut tokens = OwnTokens::new(surroundings(place));
        let settings = Settings::new(config, &mut tokens).map_err(io::Error::other)?;
        let door = Door::new(config).map_err(io::Error::other)?;
        let needs_tls = |b: &crate::config::Backend| b.endpoint.scheme() == Scheme::Https;
        // Reading the system's roots takes a while, which local work need not wait for.
        let tls = if config.backends.iter().any(needs_tls) || config.live.is_some() {
            relay::tls_settings().map_err(io::Error::other)?
        } else {
            relay::no_tls().map_err(io::Error::other)?
        };
        let gateway = &config.gateway;
        let server = ServerSettings::new(gateway.workers, gateway.max_connections);
        let clock = Clock::new();
        let quotas = Arc::new(Quotas::new(config, store.clone(), clock.now()));
        let gauge = Arc::new(Gauge::new(config, store.clone()));
        let slots = Arc::new(Slots::new(&gauge, store.as_ref(), clock));
        let (relay, inbox) = Relay::new(
            settings,
            door,
            quotas,
            Arc::clone(&slots),
            clock,
            store.clone(),
        );
        let relay = Arc::new(relay);
        let alerts = Alerts::new(config, Arc::clone(&relay), store.clone());
        let alerts = Current::new(alerts);
        let console = Console::new(config, Arc::clone(&relay), store.clone());
        let relay = Current::new(relay);
        let fresh = tokens.all().to_vec();
        let gateway = Self {
            swap: Swap {
                relay: relay.clone(),
                console: Current::new(console),
                alerts: alerts.clone(),
                prices: None,
                consumer: None,
                poller: None,
                reconciler: None,
                tokens: Arc::new(Mutex::new(tokens)),
            },
            relay,
            tls,
            server,
            auth: config.auth.clone(),
            tokens: fresh,
            triggers: alert::router(alerts),
            slots,
            background: JoinSet::new(),
            batches: None,
            telemetry: None,
            marks: store.clone().filter(|_| config.gateway.share_marks),
            prices: store.filter(|_| config.chargeback.check_prices),
        };
        Ok((gateway, inbox))
    }

    /// This gateway, which also takes what the Functions host invokes: `trigger` has one route,
    /// `POST /{FunctionName}`. Only for a process that is reached through that host, or by nobody
    /// else: the host alone marks what comes from outside (see [`from_the_host`]).
    #[must_use]
    pub fn with_trigger(mut self, trigger: Router) -> Self {
        let trigger = trigger
            .layer(DefaultBodyLimit::max(MAX_INVOCATION))
            .route_layer(from_fn(from_the_host));
        self.triggers = self.triggers.merge(trigger);
        self
    }

    /// This gateway, which also takes realtime sessions. Not for one behind the Functions host, which
    /// switches no protocols.
    #[must_use]
    pub fn with_realtime(self) -> Self {
        self.relay.get().take_sessions();
        self
    }

    /// This gateway, with what needs blobs and `config` asks for. Without it nothing does.
    #[must_use]
    pub fn with_blobs(
        mut self,
        config: &Config,
        blobs: &Arc<dyn Blobs>,
        store: Option<&Arc<dyn Store>>,
    ) -> Self {
        if config.apps.iter().any(|app| app.log_prompts) || config.live.is_some() {
            let (prompts, inbox) = Prompts::new(&config.prompts);
            self.relay.get().log_prompts(prompts);
            self.background.spawn(inbox.keep(Arc::clone(blobs)));
        }
        if config.cache.blobs {
            let writing = self.relay.get().share_answers(Arc::clone(blobs));
            self.background.spawn(writing);
        }
        if let (Some(settings), Some(store)) = (&config.batch_api, store) {
            let kept = Kept {
                store: Arc::clone(store),
                blobs: Arc::clone(blobs),
            };
            self = self.with_batch_api(settings, kept);
        }
        self
    }

    /// A ledger in `store`. The tokens that it counts at provisioned deployments say how full they
    /// are.
    pub fn ledger(&self, store: Arc<dyn Store>) -> Ledger {
        let (gauge, clock) = (Arc::clone(self.slots.gauge()), self.relay.get().clock);
        let told = move |event: &UsageEvent| gauge.note([event], clock.now());
        Ledger::new(store).observed_by(Observer::new(told))
    }

    /// The low-priority slots.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// What puts another configuration in the place of the one that it goes by.
    pub fn swap(&self) -> Swap {
        self.swap.clone()
    }

    /// This gateway, whose usage events are charged by `prices` on their way to the store.
    #[must_use]
    pub fn charging_by(mut self, prices: Current<Prices>) -> Self {
        self.swap.prices = Some(prices);
        self
    }

    /// This gateway, with the function that the Event Hub's events come to.
    #[must_use]
    pub fn with_consumer(mut self, consumer: Consumer) -> Self {
        let consumer = Current::new(consumer);
        self.swap.consumer = Some(consumer.clone());
        self.with_trigger(chargeback::router(consumer))
    }

    /// Knows how many calls are under way.
    pub fn calls(&self) -> Calls {
        self.relay.get().calls()
    }

    /// The realtime sessions, where they are taken.
    pub fn sessions(&self) -> Option<Arc<Sessions>> {
        self.relay.get().sessions().cloned()
    }

    /// Serves on `listener` until it fails.
    ///
    /// # Errors
    /// Those of [`Self::start`], and of [`Server::serve`].
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let serving = self.start(listener.local_addr()?.ip())?;
        serving.server.serve(&listener).await
    }

    /// Starts what serves, and what goes on beside it. It is to be reached at `address`.
    ///
    /// # Errors
    /// When the gateway is open and the address is not on loopback (see [`may_listen`]); else those of
    /// [`Server::start`].
    pub fn start(self, address: IpAddr) -> io::Result<Serving> {
        may_listen(&self.auth, address)?;
        let beside = self.keep_fresh();
        let router = || {
            let small = console::router(&self.swap.console).merge(self.triggers.clone());
            Router::new()
                .route("/", get(ready))
                .merge(self.api())
                .merge(small.route_layer(RequestBodyTimeoutLayer::new(SILENCE)))
        };
        let server = Server::start(self.server, router)?;
        Ok(Serving {
            server,
            beside: [beside, self.background],
            telemetry: self.telemetry,
        })
    }

    /// What apps call: the relay, and the batch API where there is one.
    fn api(&self) -> Router {
        let relay = relay::router(&self.relay, &self.tls);
        match &self.batches {
            Some(batches) => batch_api::router(batches, relay.clone())
                .route_layer(RequestBodyTimeoutLayer::new(SILENCE))
                .merge(relay),
            None => relay,
        }
    }

    /// Starts what fetches signing keys and tokens, shares limits, reads what apps have spent and keeps
    /// what the console shows, in the accepting thread's runtime: workers have calls to serve. It ends
    /// with the set.
    fn keep_fresh(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let relay = self.relay.get();
        let clock = relay.clock;
        tasks.spawn(clock.keep());
        if let Some(entra) = relay.door.entra() {
            tasks.spawn(Arc::clone(entra).keep_keys(clock));
        }
        let quotas = || {
            let relay = self.relay.clone();
            move || Arc::clone(&relay.get().quotas)
        };
        tasks.spawn(Quotas::keep_shares(quotas(), clock));
        tasks.spawn(Quotas::keep_spend(quotas(), clock));
        tasks.spawn(self.swap.console.get().keep());
        tasks.spawn(Console::keep_days(self.swap.console.clone()));
        tasks.spawn(Arc::clone(&self.slots).keep());
        tasks.spawn(Arc::clone(self.slots.gauge()).keep(clock));
        for token in &self.tokens {
            tasks.spawn(Arc::clone(token).keep_fresh(clock));
        }
        if let Some(store) = &self.marks {
            tasks.spawn(marks::keep(self.relay.clone(), Arc::clone(store)));
        }
        if let Some(store) = &self.prices {
            tasks.spawn(price_check::keep(Arc::clone(store), clock));
        }
        if let Some(reconciler) = &self.swap.reconciler {
            tasks.spawn(reconcile::keep(reconciler.clone(), clock));
        }
        tasks
    }
}

/// Longest silence of a client within its body, but for calls to the relay, whose bodies have a deadline.
/// (nginx's `client_body_timeout` is 60 s as well.)
const SILENCE: Duration = Duration::from_secs(60);

/// How often requests that have expired are deleted, and how long after the start at first.
const SWEEP: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(300));

async fn sweep_requests(store: Arc<dyn Store>, blobs: Option<Arc<dyn Blobs>>) {
    let (every, first) = SWEEP;
    let clock = Clock::new();
    tokio::time::sleep(first).await;
    loop {
        match requests_table::sweep(&*store, blobs.as_deref(), clock.now()).await {
            Ok(deleted) => tracing::debug!(deleted, "requests that had expired were deleted"),
            Err(error) => tracing::warn!(%error, "requests that have expired can't be deleted"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Whether a gateway with these settings may listen on this address.
///
/// # Errors
/// When nobody has to show who they are and the address can be reached from other machines.
pub fn may_listen(auth: &Auth, address: IpAddr) -> io::Result<()> {
    if address.is_loopback() || may_be_reached(auth) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "auth.mode is \"off\", so that everybody who reaches {address} could use the backends: require keys or tokens, or say it twice with [auth] allow_open = true"
    )))
}

/// Variables that the Functions platform sets (azure-functions-host, `EnvironmentSettingNames`).
const PLATFORM: [&str; 3] = ["WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID", "WEBSITE_SKU"];

/// Whether a gateway with these settings may run where it runs: behind the Functions host on Azure
/// even a listener on loopback is reached from everywhere.
///
/// # Errors
/// When nobody has to show who they are and the environment is Azure's.
pub fn may_run(auth: &Auth, env: &dyn Fn(&str) -> Option<String>) -> io::Result<()> {
    let on_azure = PLATFORM.into_iter().find(|name| env(name).is_some());
    match on_azure {
        Some(name) if !may_be_reached(auth) => Err(io::Error::other(format!(
            "auth.mode is \"off\" and this is Azure ({name} is set), where everybody could use the backends: require keys or tokens, or say it twice with [auth] allow_open = true"
        ))),
        _ => Ok(()),
    }
}
