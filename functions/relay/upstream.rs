//! Connections to the backends: pooled and kept alive, one pool a worker thread.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response as HttpResponse};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_platform_verifier::BuilderVerifierExt;

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
    client: Client<HttpsConnector<HttpConnector>, RequestBody>,
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
    /// A pool whose connections have to be made within `connect_timeout`.
    pub fn new(tls: rustls::ClientConfig, connect_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        // A path that has gone dark: what is sent is confirmed by nobody.
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(UNCONFIRMED));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client }
    }

    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<HttpResponse<Incoming>, NoAnswer> {
        let asks_to_switch = request.headers().contains_key(UPGRADE);
        let response = self.client.request(request).await.map_err(|e| reason(&e))?;
        // 101 where nobody asked to switch protocols. The other 1xx never come this far.
        if response.status().is_informational() && !asks_to_switch {
            return Err(NoAnswer::Protocol);
        }
        Ok(response)
    }
}

fn reason(error: &hyper_util::client::legacy::Error) -> NoAnswer {
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

/// The start of an answer's body, up to `limit` bytes, and the whole body where that was all.
pub(super) async fn small_body(body: &mut Incoming, limit: usize) -> Option<Bytes> {
    let collected = Limited::new(body, limit).collect().await.ok()?;
    Some(collected.to_bytes())
}
