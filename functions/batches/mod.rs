//! OpenAI's Batch API over spare provisioned throughput: files of requests (`/v1/files`), and batches
//! that work them off (`/v1/batches`). docs/batch-api.md is for those who use it.
//!
//! Its own are the files with purpose `batch`, the batches made of them, and their results; all have
//! ids with prefixes of the gateway's ([`name`]). Everything else on these
//! paths is the relay's, as if this were not here.
//!
//! `files`, `upload` and `api` answer apps, `form` reads what is uploaded; `runner` finds batches that
//! have not ended and takes them on, `run` works one off: `lines` reads its input, `call` has a line
//! answered, `results` writes down what came of it.

mod api;
mod call;
mod error;
mod files;
mod form;
mod lines;
mod results;
mod run;
mod runner;
mod upload;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::any;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::Notify;

use self::error::ApiError;
use crate::config::BatchApi;
use crate::gateway::app::App;
use crate::gateway::batches::name;
use crate::gateway::id::new_id;
use crate::gateway::limit::{Refused, Reservation};
use crate::gateway::room::Room;
use crate::gateway::time::Timestamp;
use crate::store::Store;
use crate::store::blobs::{Blob, Blobs, Container, encode_part};
use crate::way::{Later, Way};

/// Says what time it is.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who calls, and may: the gateway's door, and the limits of apps.
pub trait Callers: fmt::Debug + Send + Sync {
    /// The app that a call's headers show; `None` where they show none.
    fn identify<'a>(&'a self, headers: &'a HeaderMap) -> Later<'a, Option<Arc<App>>>;

    /// Admits a request of the app's that uses no tokens itself. Its place in the app's limits, where
    /// there are any, is given up when it is dropped.
    ///
    /// # Errors
    /// When one of the limits is reached.
    fn admit(&self, app: &App) -> Result<Option<Reservation>, Refused>;
}

/// The batch API, shared by all workers.
pub struct Batches {
    settings: BatchApi,
    passed: Passed,
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    way: Arc<dyn Way>,
    callers: Arc<dyn Callers>,
    now: Now,
    /// Tells the runner of a new batch.
    wake: Notify,
    /// Who takes batches on.
    instance: String,
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Says how long something may take now: that can change in a running process.
pub type Within = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What forms may have that are read whole, as they may be the relay's.
#[derive(Clone)]
pub struct Passed {
    /// Most bytes of one: the largest body that the relay takes.
    pub max: usize,
    /// How long it may take to come.
    pub within: Within,
    /// The room for all bodies.
    pub room: Arc<Room>,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed")
            .field("max", &self.max)
            .field("within", &(self.within)())
            .field("room", &self.room)
            .finish()
    }
}

/// Where the batch API's own things are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What is known of files and batches.
    pub store: Arc<dyn Store>,
    /// The files.
    pub blobs: Arc<dyn Blobs>,
}

impl Batches {
    /// The batch API with these ways to the world.
    pub fn new(
        settings: BatchApi,
        passed: Passed,
        kept: Kept,
        way: Arc<dyn Way>,
        callers: Arc<dyn Callers>,
        now: Now,
    ) -> Self {
        Self {
            settings,
            passed,
            store: kept.store,
            blobs: kept.blobs,
            way,
            callers,
            now,
            wake: Notify::new(),
            instance: format!("{:032x}", fastrand::u128(..)),
        }
    }

    /// A request's place in its app's limits, as [`Callers::admit`] gives it.
    fn admit(&self, app: &App) -> Result<Option<Reservation>, ApiError> {
        let admitted = self.callers.admit(app);
        admitted.map_err(|refused| ApiError::LimitReached {
            app: app.name.to_string(),
            limit: refused.limit,
            retry_after_ms: refused.retry_after_ms,
        })
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Seconds since the Unix epoch, as the API has its times.
    fn now_s(&self) -> u64 {
        self.now().unix_ms() / 1000
    }

    fn new_id(&self, prefix: &str) -> String {
        let id = new_id(self.now(), &mut fastrand::Rng::new());
        format!("{prefix}{id}")
    }
}

/// Where a file lies.
fn blob(app: &str, file: &str) -> Blob {
    let name = format!("{}/{}", encode_part(app), encode_part(file));
    Blob::new(Container::Files, name)
}

/// What answers on the API's paths.
#[derive(Clone)]
struct Desk {
    batches: Arc<Batches>,
    relay: TowerToHyperService<Router>,
}

/// The forms of the API's paths (azure-facts, "URLs and auth").
const PREFIXES: [&str; 3] = ["/v1", "/openai/v1", "/openai"];

/// The routes; what is not the batch API's own goes to `relay`.
pub fn router(batches: &Arc<Batches>, relay: Router) -> Router {
    let desk = Desk {
        batches: Arc::clone(batches),
        relay: TowerToHyperService::new(relay),
    };
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router
            .route(&format!("{prefix}/files"), any(files::collection))
            .route(&format!("{prefix}/files/{{id}}"), any(files::one))
            .route(
                &format!("{prefix}/files/{{id}}/content"),
                any(files::content),
            )
            .route(&format!("{prefix}/batches"), any(api::collection))
            .route(&format!("{prefix}/batches/{{id}}"), any(api::one))
            .route(&format!("{prefix}/batches/{{id}}/cancel"), any(api::cancel));
    }
    router.with_state(desk)
}

impl Desk {
    /// Has the relay answer.
    async fn pass(&self, request: Request) -> Response {
        let answered: Result<Response, Infallible> = self.relay.call(request).await;
        answered.unwrap_or_else(|never| match never {})
    }

    /// The app that calls; `None` where the relay has to say why there is none.
    async fn app(&self, headers: &HeaderMap) -> Option<Arc<App>> {
        self.batches.callers.identify(headers).await
    }

    /// Who asks for one of the gateway's own things; or what the relay answers, where the id
    /// is none of its own or nobody is known to ask.
    async fn own(
        &self,
        prefix: &str,
        id: &str,
        request: Request,
    ) -> Result<(Arc<App>, Request), Response> {
        if name::key(prefix, id).is_none() {
            return Err(self.pass(request).await);
        }
        match self.app(request.headers()).await {
            Some(app) => Ok((app, request)),
            None => Err(self.pass(request).await),
        }
    }

    /// An answer of the gateway's own.
    fn answer(&self, answer: Result<Response, ApiError>) -> Response {
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        let id = new_id(self.batches.now(), &mut fastrand::Rng::new());
        if let Ok(id) = HeaderValue::try_from(id) {
            let name = HeaderName::from_static("x-spillway-request-id");
            response.headers_mut().insert(name, id);
        }
        response
    }
}

fn json_answer(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// What a query says of a list.
#[derive(Debug, Default, serde::Deserialize)]
struct Listed {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
    purpose: Option<String>,
}

impl Listed {
    fn read(query: Option<&str>) -> Result<Self, ApiError> {
        let uri = format!("/?{}", query.unwrap_or_default());
        let odd = || ApiError::invalid("limit", "The query can't be read: `limit` is a number.");
        let uri = uri.parse().map_err(|_| odd())?;
        let query = axum::extract::Query::<Self>::try_from_uri(&uri).map_err(|_| odd())?;
        Ok(query.0)
    }

    /// How many are wanted, of 1 to `most`.
    fn limit(&self, default: usize, most: usize) -> Result<usize, ApiError> {
        let limit = self.limit.unwrap_or(default);
        if (1..=most).contains(&limit) {
            return Ok(limit);
        }
        let message = format!("`limit` must be from 1 to {most}, is {limit}.");
        Err(ApiError::invalid("limit", message))
    }

    /// The row that the list goes on after. Lists are in one order only.
    fn after(&self, prefix: &str) -> Result<Option<String>, ApiError> {
        if self.order.as_deref().is_some_and(|order| order != "desc") {
            let message = "`order` must be `desc`: the newest come first.";
            return Err(ApiError::invalid("order", message));
        }
        let Some(id) = &self.after else {
            return Ok(None);
        };
        match name::key(prefix, id) {
            Some(row) => Ok(Some(row)),
            None => Err(ApiError::invalid(
                "after",
                format!("`{id}` is no id of this list."),
            )),
        }
    }
}

/// A page of a list, in the API's form.
fn page(objects: &[Value], has_more: bool) -> Value {
    let id = |object: Option<&Value>| object.and_then(|object| object.get("id").cloned());
    let (first, last) = (id(objects.first()), id(objects.last()));
    serde_json::json!({
        "object": "list",
        "data": objects,
        "first_id": first,
        "last_id": last,
        "has_more": has_more,
    })
}
