//! HTTP functions: calls from outside, passed on to the handler (DefaultHttpProxyService, YARP).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::Host;

/// The host's version, as the fixtures have it.
pub(super) const VERSION: &str = "4.1052.200.26360";

/// The name that the app has outside.
const OUTSIDE: &str = "contoso.azurewebsites.net";

/// Largest body of a call (Kestrel's limit in the host).
const MAX_BODY: usize = 104_857_600;

/// Connecting is tried so often (RetryProxyHandler); nothing else is.
const CONNECTS: u32 = 10;

/// Headers of one connection, which end at the proxy.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

static INVOCATIONS: AtomicU64 = AtomicU64::new(1);

/// An invocation's id.
pub(super) fn invocation_id() -> String {
    format!(
        "3f1c1f0e-7d0b-4c38-9a55-{:012x}",
        INVOCATIONS.fetch_add(1, Relaxed)
    )
}

impl Host {
    /// Listens for calls from outside.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(outside).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    /// Whether an HTTP function has this path.
    fn has_route(&self, path: &str) -> bool {
        let prefix = self.0.host_json["extensions"]["http"]["routePrefix"]
            .as_str()
            .unwrap_or("api");
        let path = path.trim_start_matches('/');
        let Some(path) = path.strip_prefix(prefix) else {
            return false;
        };
        let routes = self.0.functions.iter().filter_map(super::Function::route);
        routes
            .into_iter()
            .any(|route| match route.split_once("{*") {
                Some((start, _)) => path.starts_with(start) || format!("{path}/") == start,
                None => path == route,
            })
    }
}

async fn outside(State(host): State<Host>, request: Request) -> Response {
    if !host.has_route(request.uri().path()) {
        return plain(StatusCode::NOT_FOUND);
    }
    let limit = host.0.times.function_timeout;
    match timeout(limit, pass(&host, request)).await {
        Ok(response) => response,
        Err(_) => {
            host.restart().await;
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn pass(host: &Host, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    // The trigger's binding reads a body with a length before the invocation; one without flows.
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    stamp(&mut headers);
    let Some(address) = host.address() else {
        return plain(StatusCode::BAD_GATEWAY);
    };
    let target = parts.uri.path_and_query().unwrap();
    let call = host
        .0
        .client
        .request(parts.method, format!("http://{address}{target}"))
        .headers(headers);
    let answer = if has_length {
        let Ok(bytes) = to_bytes(body, MAX_BODY).await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE);
        };
        connect(call, host.0.times.activity_timeout, bytes).await
    } else {
        let stream = reqwest::Body::wrap_stream(body.into_data_stream());
        let sent = timeout(host.0.times.activity_timeout, call.body(stream).send()).await;
        sent.ok().and_then(Result::ok)
    };
    let Some(answer) = answer else {
        return plain(StatusCode::BAD_GATEWAY);
    };
    stream_back(answer, host.0.times.activity_timeout)
}

/// Connecting, and nothing else, is tried again.
async fn connect(
    call: reqwest::RequestBuilder,
    patience: Duration,
    body: axum::body::Bytes,
) -> Option<reqwest::Response> {
    for attempt in 0..CONNECTS {
        let again = call.try_clone()?.body(body.clone());
        match timeout(patience, again.send()).await.ok()? {
            Ok(answer) => return Some(answer),
            Err(error) if error.is_connect() => {
                tokio::time::sleep(Duration::from_millis(50 + u64::from(attempt) * 20)).await;
            }
            Err(_) => return None,
        }
    }
    None
}

/// What the host says of a call, over whatever the caller says.
fn stamp(headers: &mut HeaderMap) {
    let id = invocation_id();
    let own = [
        ("x-azure-functions-hostversion", VERSION),
        ("x-azure-functions-invocationid", &id),
        ("x-ms-invocation-id", &id),
        ("x-forwarded-for", "10.0.0.4"),
        ("x-forwarded-host", OUTSIDE),
        ("x-forwarded-proto", "https"),
    ];
    for (name, value) in own {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    // It becomes the handler's own address; the one outside is in X-Forwarded-Host.
    headers.remove(header::HOST);
}

/// The answer as it comes, chunk by chunk, until it is silent for too long.
fn stream_back(answer: reqwest::Response, patience: Duration) -> Response {
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    let chunks = answer.bytes_stream();
    let chunks = futures_util::stream::unfold(Box::pin(chunks), move |mut chunks| async move {
        let next = match timeout(patience, chunks.next()).await {
            Ok(next) => next?.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::other("silent for too long")),
        };
        Some((next, chunks))
    });
    response.body(Body::from_stream(chunks)).unwrap()
}

fn plain(status: StatusCode) -> Response {
    Response::builder()
        .status(status)
        .body(Body::empty())
        .unwrap()
}
