//! The identity endpoint of the Functions platform in its documented form (App Service,
//! "REST endpoint reference"), on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::tenant::now;

/// The secret that the platform gives the process for its requests.
pub(crate) const HEADER: &str = "canary-identity-header";

/// What the endpoint does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// A token that lives for so many seconds.
    Token(u64),
    /// The same, after a while.
    Slow(Duration, u64),
    /// This status.
    Status(u16),
}

/// The endpoint.
#[derive(Clone)]
pub(crate) struct IdentityEndpoint {
    address: SocketAddr,
    script: Arc<Vec<Reply>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl IdentityEndpoint {
    /// Plays `script` by the number of the request; the last reply goes on for ever. Tokens are
    /// `canary-token-1` and so on.
    pub(crate) async fn start(script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(script.to_vec()),
            requests: Arc::default(),
        };
        let router = Router::new()
            .route("/msi/token", get(reply))
            .with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        endpoint
    }

    /// What `IDENTITY_ENDPOINT` says.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/msi/token", self.address)
    }

    /// The queries of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn reply(
    State(endpoint): State<IdentityEndpoint>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let query = query.unwrap_or_default();
    let number = {
        let mut requests = endpoint.requests.lock().unwrap();
        requests.push(query.clone());
        requests.len()
    };
    if headers.get("x-identity-header").is_none_or(|h| h != HEADER) {
        return (StatusCode::UNAUTHORIZED, Json(json!({})));
    }
    let reply = endpoint.script.get(number - 1).or(endpoint.script.last());
    let lifetime = match *reply.unwrap() {
        Reply::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap();
            let error = json!({"statusCode": status.as_u16(), "message": "as the test wants it"});
            return (status, Json(error));
        }
        Reply::Slow(pause, lifetime) => {
            tokio::time::sleep(pause).await;
            lifetime
        }
        Reply::Token(lifetime) => lifetime,
    };
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let resource = pairs.find(|(name, _)| *name == "resource").unwrap().1;
    let answer = json!({
        "access_token": format!("canary-token-{number}"),
        // A string, as the platform has it.
        "expires_on": (now() + lifetime).to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": "00000000-0000-0000-0000-0000000000ff",
    });
    (StatusCode::OK, Json(answer))
}
