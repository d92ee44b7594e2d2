//! `spillway serve`, and how a gateway starts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use spillway::azure::service_bus::Counts;
use spillway::chargeback::Consumer;
use spillway::config::Config;
use spillway::host::log::log_to_stdout;
use spillway::host::server::bind;
use spillway::live::Written;
use spillway::serve::batch::Trigger;
use spillway::serve::ending::{Asked, Starter, serve_until_asked};
use spillway::serve::live;
use spillway::serve::{Gateway, Keeping, Place, keep, may_listen, may_run, open_blobs, open_store};
use spillway::telemetry::Telemetry;

use super::args::ServeArgs;
use super::{Packaged, env, run};

/// The port that the Functions host names for its handler.
const PORT_VARIABLE: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

pub(crate) fn serve(args: &ServeArgs) -> io::Result<()> {
    log_to_stdout("info");
    let Packaged {
        config,
        written,
        file,
    } = Packaged::read(args.config.as_deref())?;
    let port = match (args.port, env(PORT_VARIABLE)) {
        (Some(port), _) => port,
        // Not 0, which would be a port that the host does not know.
        (None, Some(text)) => text.parse().map(NonZeroU16::get).map_err(|_| {
            io::Error::other(format!(
                "{PORT_VARIABLE} must be a port, from 1 to 65535, is {text:?}"
            ))
        })?,
        (None, None) => 8080,
    };
    let host = args.host.unwrap_or(Ipv4Addr::LOCALHOST);
    may_run(&config.auth, &env)?;
    may_listen(&config.auth, host.into())?;
    run(async move {
        let asked = Asked::listen()?;
        let listener = bind(SocketAddr::from((host, port))).await?;
        // The Functions host alone marks what comes from outside.
        let trigger = match env(PORT_VARIABLE) {
            Some(_) => Trigger::Invoked,
            None => Trigger::Absent,
        };
        let may_serve = |config: &Config| {
            may_run(&config.auth, &env)?;
            may_listen(&config.auth, host.into())
        };
        let from = Start {
            place: Place::Azure,
            config,
            watched: Some((written, file)),
            counts: None,
            trigger,
        };
        let (mut gateway, keeping) = start(from, may_serve).await?;
        if trigger == Trigger::Absent {
            gateway = gateway.with_realtime();
        }
        tracing::info!(address = %listener.local_addr()?, "listening");
        let starter = env(PORT_VARIABLE).map_or(Starter::Other, |_| Starter::Host);
        serve_until_asked(gateway, listener, keeping, starter, asked).await
    })
}

/// What a gateway starts from.
pub(crate) struct Start {
    pub(crate) place: Place,
    pub(crate) config: Config,
    /// The text of `config`, and its file, where another may come in its place.
    pub(crate) watched: Option<(Written, Option<PathBuf>)>,
    /// Counts the batch queue's messages where that is not Service Bus.
    pub(crate) counts: Option<Arc<dyn Counts>>,
    pub(crate) trigger: Trigger,
}

/// A gateway with its store, and a thread that brings it what calls leave behind. What is watched may
/// have another configuration in the place of its own, if that `may_serve`.
pub(crate) async fn start(
    from: Start,
    may_serve: impl Fn(&Config) -> io::Result<()>,
) -> io::Result<(Gateway, Keeping)> {
    let Start {
        place,
        mut config,
        watched,
        counts,
        trigger,
    } = from;
    let blobs = open_blobs(place, &config.storage)?;
    let watcher =
        watched.and_then(|(written, file)| live::watcher(&config, written, file, blobs.as_ref()));
    let watcher = match watcher {
        Some(mut watcher) => {
            let may_serve = |config: &Config| may_serve(config).map_err(|why| why.to_string());
            if let Some(begun) = watcher.begin(may_serve).await {
                let batch = match place {
                    Place::Local => config.batch,
                    Place::Azure => begun.batch,
                };
                let storage = config.storage;
                config = Config {
                    batch,
                    storage,
                    ..begun
                };
            }
            Some(watcher)
        }
        None => None,
    };
    let config = &config;
    let store = open_store(place, &config.storage)?;
    if store.is_none() {
        tracing::warn!(
            "no storage.tables: usage events are only logged, owners of stored objects are only in memory"
        );
    }
    let (mut gateway, inbox) = Gateway::at(place, config, store.clone())?;
    let ledger = store.clone().map(|store| gateway.ledger(store));
    let ledger = ledger.map(Arc::new);
    // A `traceparent` that comes through the Functions host is the host's.
    let follows_client = place == Place::Local || trigger == Trigger::Absent;
    let telemetry = config.telemetry.as_ref();
    let telemetry = telemetry.map(|settings| Telemetry::new(settings, follows_client));
    let telemetry = telemetry.transpose().map_err(io::Error::other)?;
    let traces = telemetry.as_ref().and_then(Telemetry::queue);
    let keeping = keep(place, config, inbox, traces, store.clone(), ledger.clone())?;
    gateway = gateway.charging_by(keeping.prices().clone());
    if let Some(telemetry) = telemetry {
        gateway = gateway.with_telemetry(telemetry)?;
    }
    if let Some(blobs) = &blobs {
        gateway = gateway.with_blobs(config, blobs, store.as_ref());
    }
    if let Some(store) = &store {
        gateway = gateway.with_names(place, config, store)?;
    }
    if let (Some(batch), Some(store)) = (&config.batch, &store) {
        gateway = gateway.with_batch(place, batch, store, blobs.as_ref(), counts, trigger)?;
    }
    if let Some(store) = &store {
        gateway = gateway.with_reconciliation(place, config, store)?;
    }
    if let (Some(store), Trigger::Invoked) = (&store, trigger) {
        gateway = gateway.with_utilization(place, config, store)?;
    }
    if let (Trigger::Invoked, Some(ledger)) = (trigger, ledger) {
        gateway = gateway.with_consumer(Consumer::new(config, ledger));
    }
    if let Some(watcher) = watcher {
        gateway = gateway.watching(watcher);
    }
    Ok((gateway, keeping))
}
