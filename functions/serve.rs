//! Puts the functions together to one process.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::{Config, Scheme, Storage, Tables};
use crate::console;
use crate::host::clock::Clock;
use crate::host::server::{self, Settings as ServerSettings};
use crate::relay::keeper::{Inbox, keep_events};
use crate::relay::settings::Settings;
use crate::relay::{self, Relay};
use crate::store::Store;
use crate::store::embedded::Embedded;

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    relay: Arc<Relay>,
    tls: rustls::ClientConfig,
    server: ServerSettings,
}

impl Gateway {
    /// The gateway of a configuration, and the other ends of its queues (see [`keep`]).
    ///
    /// # Errors
    /// When a key can't stand in a header, or the system has no certificate roots although a
    /// backend needs them.
    pub fn new(config: &Config, store: Option<Arc<dyn Store>>) -> io::Result<(Self, Inbox)> {
        let settings = Settings::new(config).map_err(io::Error::other)?;
        let needs_tls = |b: &crate::config::Backend| b.endpoint.scheme() == Scheme::Https;
        // Reading the system's roots takes a while, which local work need not wait for.
        let tls = if config.backends.iter().any(needs_tls) {
            relay::tls_settings().map_err(io::Error::other)?
        } else {
            relay::no_tls().map_err(io::Error::other)?
        };
        let gateway = &config.gateway;
        let server = ServerSettings::new(gateway.workers, gateway.max_connections);
        let (relay, inbox) = Relay::new(settings, Clock::new(), store);
        let relay = Arc::new(relay);
        Ok((Self { relay, tls, server }, inbox))
    }

    /// Serves on `listener` until it fails.
    ///
    /// # Errors
    /// See [`server::serve`].
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let router = || {
            Router::new()
                .route("/", get(ready))
                .merge(relay::router(&self.relay, &self.tls))
                .merge(console::router(&self.relay))
                .fallback(relay::no_such_path)
        };
        server::serve(listener, self.server, router).await
    }
}

/// The store that a configuration names; `None` where it names none.
///
/// # Errors
/// When it can't be opened.
pub fn open_store(storage: &Storage) -> io::Result<Option<Arc<dyn Store>>> {
    match &storage.tables {
        Some(Tables::Embedded(folder)) => Ok(Some(Arc::new(Embedded::open(folder)?))),
        None => Ok(None),
    }
}

/// Brings what calls leave behind to the store, in a thread of its own.
///
/// # Errors
/// When the thread can't be started.
pub fn keep(inbox: Inbox, store: Option<Arc<dyn Store>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keeping = async move {
        let store = store.as_deref();
        let owners = async {
            if let Some(store) = store {
                inbox.owners.keep(store).await;
            }
        };
        tokio::join!(keep_events(inbox.events, store), owners);
    };
    let thread = std::thread::Builder::new().name("keeper".into());
    thread.spawn(move || runtime.block_on(keeping)).map(drop)
}

/// The host asks `GET /` every 25 ms until anything answers (functions-host, readiness). The
/// same path through the proxy is an app's mistake.
async fn ready(request: Request) -> axum::response::Response {
    let proxied = "x-azure-functions-invocationid";
    if request.headers().contains_key(proxied) {
        return relay::no_such_path(request).await;
    }
    axum::response::Response::default()
}
