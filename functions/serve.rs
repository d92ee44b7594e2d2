//! Puts the functions together to one process.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::{Config, Scheme};
use crate::console;
use crate::host::clock::Clock;
use crate::host::server::{self, Settings as ServerSettings};
use crate::relay::recorder::{Events, Recorder, log_events};
use crate::relay::settings::Settings;
use crate::relay::{self, Relay};

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    relay: Arc<Relay>,
    tls: rustls::ClientConfig,
    server: ServerSettings,
}

impl Gateway {
    /// The gateway of a configuration, and the other end of its usage events' queue.
    ///
    /// # Errors
    /// When a key can't stand in a header, or the system has no certificate roots although a
    /// backend needs them.
    pub fn new(config: &Config) -> io::Result<(Self, Events)> {
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
        let (recorder, events) = Recorder::new(gateway.event_queue);
        let relay = Arc::new(Relay::new(settings, Clock::new(), recorder));
        Ok((Self { relay, tls, server }, events))
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

/// Writes usage events in a thread of their own.
///
/// # Errors
/// When the thread can't be started.
pub fn write_events(events: Events) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("events".into());
    thread.spawn(move || log_events(&events)).map(drop)
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
