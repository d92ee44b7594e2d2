//! The resource behind the URLs: its key, its deployments, what it remembers, its clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::errors::WireError;
use super::files::StoredFile;
use super::limits::{Deployment, Ticket};
use super::responses::StoredResponse;
use super::route::Route;
use super::shelf::Shelf;
use super::tokens::Prompt;
use super::{Latency, SimulatedBackend};
use crate::gateway::time::Timestamp;

/// What one resource remembers of each sort; the oldest goes when it is more.
const MAX_KEPT: usize = 512;
/// Responses remembered, in bytes of their JSON.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// Files kept, in bytes.
const MAX_FILE_BYTES: usize = 128 * 1024 * 1024;

/// A resource at work.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) region: HeaderValue,
    pub(super) latency: Latency,
    pub(super) clock: Clock,
    key: Option<String>,
    deployments: Vec<Arc<Deployment>>,
    responses: Mutex<Shelf<StoredResponse>>,
    files: Mutex<Shelf<StoredFile>>,
}

impl Resource {
    pub(super) fn new(backend: SimulatedBackend) -> Self {
        let clock = Clock::start();
        let region = HeaderValue::try_from(&backend.region);
        tracing::debug!(
            name = backend.name,
            region = backend.region,
            "simulated backend"
        );
        let deployments = backend.deployments.into_iter();
        Self {
            region: region.unwrap_or_else(|_| HeaderValue::from_static("simulated")),
            latency: backend.latency,
            clock,
            key: backend.key,
            deployments: deployments
                .map(|d| Arc::new(Deployment::new(d, clock)))
                .collect(),
            responses: Mutex::new(Shelf::new(MAX_KEPT, MAX_RESPONSE_BYTES)),
            files: Mutex::new(Shelf::new(MAX_KEPT, MAX_FILE_BYTES)),
        }
    }

    /// Checks the key, in either of the two headers that Azure OpenAI takes it in.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), WireError> {
        let Some(key) = &self.key else { return Ok(()) };
        let api_key = headers.get("api-key").and_then(|v| v.to_str().ok());
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok());
        let bearer = bearer.and_then(|v| v.strip_prefix("Bearer "));
        if api_key.or(bearer) == Some(key) {
            Ok(())
        } else {
            Err(WireError::unauthorized())
        }
    }

    /// The deployment that a call is for: the URL's, else the body's `model`.
    pub(super) fn deployment(
        &self,
        route: &Route,
        model: Option<&str>,
    ) -> Result<&Arc<Deployment>, WireError> {
        let name =
            route.deployment.as_deref().or(model).ok_or_else(|| {
                WireError::invalid("model", "Missing required parameter: 'model'.")
            })?;
        let found = self.deployments.iter().find(|d| d.name == name);
        found.ok_or_else(WireError::deployment_not_found)
    }

    pub(super) fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }

    pub(super) fn responses(&self) -> MutexGuard<'_, Shelf<StoredResponse>> {
        self.responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Shelf<StoredFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The door of every inference call: the limits, then the content filter. The filter comes second
    /// because a filtered prompt is billed.
    pub(super) fn admit(
        &self,
        deployment: &Arc<Deployment>,
        route: &Route,
        prompt: &Prompt,
        max_output: Option<u64>,
    ) -> Result<Ticket, WireError> {
        let refused = |refusal| WireError::too_many(&refusal, route);
        let ticket = deployment.admit(prompt, max_output).map_err(refused)?;
        if prompt.filtered {
            Err(WireError::content_filter())
        } else {
            Ok(ticket)
        }
    }

    /// Waits as long as the model would before the first token, and `tokens` more.
    pub(super) async fn think(&self, tokens: u64) {
        let Latency {
            first_token_ms,
            per_token_ms,
        } = self.latency;
        let ms = first_token_ms.saturating_add(per_token_ms.saturating_mul(tokens));
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

/// The time of day, which follows tokio's clock after the start: it never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    start_unix_ms: u64,
}

impl Clock {
    fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let start_unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or_default();
        Self {
            start: Instant::now(),
            start_unix_ms,
        }
    }

    pub(super) fn now(self) -> Timestamp {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_ms(self.start_unix_ms).plus_ms(ms)
    }

    /// Now in whole seconds since the epoch, as `created` wants it.
    pub(super) fn unix_s(self) -> u64 {
        self.now().unix_ms() / 1000
    }
}

/// A random id with `prefix` before it, such as `chatcmpl-0123...`.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", fastrand::u128(..))
}

/// A random UUID, for request ids.
pub(super) fn uuid() -> String {
    let id = format!("{:032x}", fastrand::u128(..));
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}
