//! What the libraries take by themselves: axum, hyper and its client on Spillway's own threads, which pass
//! each call on unread. What is dearer in Spillway is Spillway's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use spillway::host::server::{Server, Settings};
use tokio::net::TcpListener;

/// Most connections at once: more than any part opens.
const CONNECTIONS: usize = 16_384;

#[derive(Clone)]
struct Passing {
    client: Client<HttpConnector, Body>,
    backend: Authority,
}

/// Serves until the process is ended.
pub(crate) fn serve(port: u16, backend: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let backend = Authority::try_from(backend.to_string()).map_err(io::Error::other)?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let server = Server::start(Settings::new(None, CONNECTIONS), || router(&backend))?;
        server.serve(&listener).await
    })
}

/// One worker's, with connections of its own.
fn router(backend: &Authority) -> Router {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector);
    let backend = backend.clone();
    Router::new()
        .fallback(pass_on)
        .with_state(Passing { client, backend })
}

async fn pass_on(State(passing): State<Passing>, mut request: Request) -> Response {
    let mut place = request.uri().clone().into_parts();
    place.scheme = Some(Scheme::HTTP);
    place.authority = Some(passing.backend);
    let Ok(uri) = Uri::from_parts(place) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.remove(http::header::HOST);
    headers.insert("api-key", HeaderValue::from_static("sk-backend"));
    match passing.client.request(request).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
