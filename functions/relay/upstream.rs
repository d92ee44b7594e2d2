//! Connections to the backends: pooled and kept alive, one pool a worker thread.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response as HttpResponse};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_platform_verifier::BuilderVerifierExt;

use super::connector::{Connector, MadeAt};
use crate::gateway::classify::NoAnswer;
use crate::host::bodies::discard;

/// An idle connection is closed after so long: before a load balancer's usual 60 s and more.
const IDLE: Duration = Duration::from_secs(50);

/// Idle connections kept for each backend and worker.
const MAX_IDLE: usize = 512;

/// How long what is sent to a backend may be unconfirmed. Without it a connection of the pool whose path has
/// gone holds a call for `first_byte_timeout_ms`.
#[cfg(target_os = "linux")]
const UNCONFIRMED: Duration = Duration::from_secs(20);

/// Most of an answer that nobody wants that is read so that its connection can be used again.
const MAX_DRAIN: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// A request's body: slices of the client's, with edits between them.
pub(super) struct RequestBody {
    parts: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl RequestBody {
    /// The body that is `parts` in order.
    pub(super) fn new(parts: Vec<Bytes>) -> Self {
        let left = parts.iter().map(length).sum();
        Self {
            parts: parts.into_iter(),
            left,
        }
    }

    /// Bytes that are still to be sent.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }
}

fn length(part: &Bytes) -> u64 {
    u64::try_from(part.len()).unwrap_or(u64::MAX)
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let part = self.parts.next();
        self.left -= part.as_ref().map_or(0, length);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A pool of connections.
#[derive(Clone)]
pub struct Upstream {
    client: Client<Connector, RequestBody>,
}

/// The TLS settings that all pools share: the system's roots, private CAs included.
///
/// # Errors
/// When the system has no usable roots.
pub fn tls_settings() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(config)
}

/// TLS settings that trust nobody, for a gateway whose backends are all on this machine.
///
/// # Errors
/// When the cryptography has no usable TLS version.
pub fn no_tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

impl Upstream {
    /// A pool whose connections have to be made within `connect_timeout`, TLS included.
    pub fn new(tls: rustls::ClientConfig, connect_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // Of a host with several addresses each has its part of the time, so that a dead one leaves some for
        // the next.
        http.set_connect_timeout(Some(connect_timeout));
        // A path that has gone dark: what is sent is confirmed by nobody.
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(UNCONFIRMED));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connector = Connector::new(connector, connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client }
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<HttpResponse<Incoming>, Unsent> {
        let asks_to_switch = request.headers().contains_key(UPGRADE);
        let since = Instant::now();
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| Unsent::of(&error, since))?;
        // 101 where nobody asked to switch protocols. The other 1xx never come this far.
        if response.status().is_informational() && !asks_to_switch {
            return Err(Unsent {
                why: NoAnswer::Protocol,
                is_stale: false,
            });
        }
        Ok(response)
    }
}

/// How soon a connection of the pool breaks that was being closed as the request was sent.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    pub(super) why: NoAnswer,
    /// Whether the backend was closing the connection, which was idle in the pool, just as the request was
    /// sent. That says nothing of the backend: another connection may do.
    pub(super) is_stale: bool,
}

impl Unsent {
    /// Of a request that was sent at `since`.
    fn of(error: &Error, since: Instant) -> Self {
        let why = reason(error);
        let mut extras = http::Extensions::new();
        if let Some(connection) = error.connect_info() {
            connection.get_extras(&mut extras);
        }
        let was_there = extras.get().is_some_and(|MadeAt(made_at)| *made_at < since);
        Self {
            why,
            is_stale: why == NoAnswer::Reset && was_there && since.elapsed() <= STALE_WITHIN,
        }
    }
}

fn reason(error: &Error) -> NoAnswer {
    let mut source = error.source();
    let mut timed_out = false;
    let mut protocol = false;
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            timed_out |= io.kind() == std::io::ErrorKind::TimedOut;
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            protocol |= http.is_parse();
        }
        source = cause.source();
    }
    match (error.is_connect(), timed_out, protocol) {
        (true, true, _) => NoAnswer::ConnectTimeout,
        (true, false, _) => NoAnswer::Connect,
        (false, _, true) => NoAnswer::Protocol,
        (false, _, false) => NoAnswer::Reset,
    }
}

/// Reads what is left of an answer that nobody wants, so that its connection can be used again.
pub(super) fn drain(body: Incoming) {
    // Whether it worked shows in whether the connection is used again.
    tokio::spawn(discard(body, MAX_DRAIN, DRAIN_TIME));
}
