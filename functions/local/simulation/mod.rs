//! Simulated Azure OpenAI resources: the wire format, limits and pace of real ones, made-up answers.
//!
//! A resource is one axum app, classic URLs (`/openai/deployments/{deployment}/...`) and v1 URLs
//! (`/openai/v1/...`) alike. Its deployments admit calls as PTU (a leaky bucket) or PAYG (token
//! and request windows) deployments do, and refuse them with the same headers. What it never does
//! is fail by accident: faults belong to tests.
//!
//! Three phrases in a prompt steer it: [`CONTENT_FILTER_PHRASE`], [`TOKENS_PHRASE`], and any word
//! of a tool's name, which makes it call that tool.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use http::{HeaderMap, HeaderValue, header};
use tokio::net::TcpListener;

mod answer;
mod audio;
mod chat;
mod chat_stream;
mod completions;
mod embeddings;
mod errors;
mod files;
mod images;
mod input;
mod limits;
mod models;
mod multipart;
mod pace;
mod payg;
mod realtime;
mod resource;
mod responses;
mod responses_stream;
mod route;
mod schema;
mod shelf;
mod tokens;
mod work;

#[cfg(test)]
mod tests;

pub use answer::TOKENS_PHRASE;
pub use tokens::CONTENT_FILTER_PHRASE;
pub use work::Metered;

use errors::WireError;
use resource::Resource;
use route::{Operation, Route};

/// The largest request body taken, in bytes: the largest file that Azure OpenAI takes for audio is
/// 25 MB, and images may be as large.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// One simulated Azure OpenAI resource.
#[derive(Clone, Debug)]
pub struct SimulatedBackend {
    /// The resource's name, as in `https://{name}.openai.azure.com`.
    pub name: String,
    /// The region, answered in `x-ms-region`.
    pub region: String,
    /// The key that calls must bring, as `api-key` or as a bearer token; `None` admits everyone.
    pub key: Option<String>,
    /// The deployments on the resource.
    pub deployments: Vec<SimulatedDeployment>,
    /// How long answers take.
    pub latency: Latency,
}

/// One deployment of a model on a [`SimulatedBackend`].
#[derive(Clone, Debug)]
pub struct SimulatedDeployment {
    /// The deployment's name: in the URL, or `model` in a v1 body.
    pub name: String,
    /// The model it is said to run, for example `gpt-4o`: chooses PTU rates and vector lengths.
    pub model: String,
    /// How much it admits.
    pub limit: Limit,
}

/// How much a simulated deployment admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Provisioned throughput: the leaky bucket of [`crate::gateway::ptu`].
    Ptu {
        /// Provisioned throughput units.
        ptus: u32,
    },
    /// Pay-as-you-go: rates a minute, the request rate also checked every 10 s.
    Payg {
        /// Tokens a minute, counted when a call arrives as prompt + `max_tokens`.
        tokens_per_minute: u64,
        /// Requests a minute; refused ones count too.
        requests_per_minute: u64,
    },
}

/// How long answers take. All zero by default: no waiting at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Milliseconds from the request to the first token, and to any answer without tokens.
    pub first_token_ms: u64,
    /// Milliseconds for each generated token.
    pub per_token_ms: u64,
}

impl Latency {
    /// About the pace of a small hosted model. A choice, not a measurement.
    pub const SMALL_MODEL: Self = Self {
        first_token_ms: 150,
        per_token_ms: 10,
    };
}

/// The resource as an axum app, to be served on a listener of its own. Needs a tokio runtime
/// with time enabled around it.
pub fn router(backend: SimulatedBackend) -> Router {
    metered(backend).0
}

/// As [`router`], and what Azure Monitor would see of it.
pub fn metered(backend: SimulatedBackend) -> (Router, Metered) {
    let resource = Arc::new(Resource::new(backend));
    let metered = Metered(Arc::clone(&resource));
    (Router::new().fallback(handle).with_state(resource), metered)
}

/// Serves `router` on `listener` until the task is dropped. Small writes go out at once, as streams
/// need.
///
/// # Errors
/// None today: accept errors are retried by axum. The type leaves room for it.
pub async fn serve(listener: TcpListener, router: Router) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a simulated backend's connection keeps Nagle's algorithm");
        }
    });
    axum::serve(listener, router).await
}

async fn handle(State(resource): State<Arc<Resource>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match answer(&resource, &head, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    add_common_headers(&resource, response.headers_mut());
    response
}

async fn answer(
    resource: &Arc<Resource>,
    head: &http::request::Parts,
    body: Body,
) -> Result<Response, WireError> {
    resource.authorize(&head.headers)?;
    let route = Route::parse(&head.method, &head.uri)?;
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| WireError::too_large())?;
    let content_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let content_type = content_type.unwrap_or_default();

    use Operation as Op;
    match &route.operation {
        Op::Chat => chat::create(resource, &route, &body).await,
        Op::Completions => completions::create(resource, &route, &body).await,
        Op::Embeddings => embeddings::create(resource, &route, &body).await,
        Op::ImageGeneration => images::generate(resource, &route, &body).await,
        Op::ImageEdit => images::edit(resource, &route, content_type, &body).await,
        Op::Transcription | Op::Translation => {
            audio::transcribe(resource, &route, content_type, &body).await
        }
        Op::Speech => audio::speak(resource, &route, &body).await,
        Op::Realtime => realtime::open(resource, &route, head),
        Op::CreateResponse => responses::create(resource, &route, &body).await,
        Op::GetResponse(id) => responses::get(resource, id),
        Op::DeleteResponse(id) => responses::delete(resource, id),
        Op::CancelResponse(id) => responses::cancel(resource, id),
        Op::UploadFile => files::upload(resource, content_type, &body),
        Op::ListFiles => Ok(files::list(resource)),
        Op::GetFile(id) => files::get(resource, id),
        Op::GetFileContent(id) => files::content(resource, id),
        Op::DeleteFile(id) => files::delete(resource, id),
        Op::ListModels => Ok(models::list(resource)),
        Op::GetModel(id) => models::get(resource, id),
    }
}

/// The headers of every answer, as recorded from real ones (azure-facts, section 1).
fn add_common_headers(resource: &Resource, headers: &mut HeaderMap) {
    for name in ["apim-request-id", "x-request-id"] {
        if let Ok(value) = HeaderValue::try_from(resource::uuid()) {
            headers.insert(name, value);
        }
    }
    headers.insert("x-ms-region", resource.region.clone());
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
}

/// A 200 with a JSON body.
fn json(value: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, value.to_string()).into_response()
}
