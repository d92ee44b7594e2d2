//! Azure Monitor's metrics over REST: of one resource, and of many of a region at once.
//!
//! One resource is asked for at Azure Resource Manager (learn: rest/api/monitor/metrics/list), many at
//! the region's own endpoint (learn: "Migrate from the metrics API to the getBatch API"), whose form
//! differs in more than its method; each has a scope of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::json;

use super::own_token::OwnToken;
use super::{Unread, describe, whole};
use crate::config::ResourceId;
use crate::gateway::monitor::DEPLOYMENT;
use crate::gateway::pacing::monitor::{METRIC, Part, Series, read_batch, read_one};
use crate::gateway::reconcile::{GENERATED, MeteredDay, PROMPT, REQUESTS, STATUS};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;

/// The scope of tokens for metrics of one resource.
pub const SCOPE: &str = "https://management.azure.com/.default";

/// The scope of tokens for metrics of many.
pub const BATCH_SCOPE: &str = "https://metrics.monitor.azure.com/.default";

/// Most resources that one call asks for.
pub const MAX_BATCH: usize = 50;

/// Where metrics of one resource are.
const MANAGEMENT: &str = "https://management.azure.com";

const VERSION: &str = "2023-10-01";

/// Longest wait for the first token.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most of an answer that is read, bytes: 50 resources with 50 deployments of 30 minutes.
const MAX_ANSWER: usize = 16 << 20;

/// Most series of a day's metric that are asked for: one a deployment, and of calls one a status, too.
const MAX_SERIES: usize = 500;

/// How long to stay away where a 429 does not say, ms.
const THROTTLED_MS: u64 = 60_000;

/// Why there are no metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorError {
    /// Too many calls.
    Throttled {
        /// When to ask again, ms.
        retry_after_ms: u64,
    },
    /// The gateway's identity may not read them, or there is no token for it.
    Forbidden(String),
    /// There is no such resource.
    NotFound(String),
    /// Monitor could not be reached or failed.
    Unavailable(String),
    /// Its answer is not of the form that it should have.
    Unreadable(String),
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throttled { retry_after_ms } => {
                write!(f, "throttled for {} s", retry_after_ms.div_ceil(1000))
            }
            Self::Forbidden(why) => write!(
                f,
                "forbidden ({why}): give the gateway's identity the role Monitoring Reader on the resource, for many resources on the subscription; it may take half an hour to be seen"
            ),
            Self::NotFound(why) => write!(
                f,
                "not found ({why}): check the backend's resource_id in the configuration"
            ),
            Self::Unavailable(why) => write!(f, "unavailable ({why})"),
            Self::Unreadable(why) => write!(f, "unreadable answer ({why})"),
        }
    }
}

impl std::error::Error for MonitorError {}

/// The gateway's own tokens for Monitor.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For [`SCOPE`].
    pub one: Arc<OwnToken>,
    /// For [`BATCH_SCOPE`].
    pub batch: Arc<OwnToken>,
}

/// Azure Monitor.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Where it listens instead of Azure: on this machine, without tokens.
    instead: Option<String>,
    tokens: Option<Tokens>,
    client: reqwest::Client,
    clock: Clock,
}

impl Monitor {
    /// Azure's.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn azure(tokens: Tokens) -> Result<Self, String> {
        Ok(Self {
            instead: None,
            tokens: Some(tokens),
            client: super::http_client()?,
            clock: Clock::new(),
        })
    }

    /// One on this machine, at a URL without a path.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn on_this_machine(url: &str) -> Result<Self, String> {
        Ok(Self {
            instead: Some(url.to_owned()),
            tokens: None,
            client: super::http_client()?,
            clock: Clock::new(),
        })
    }

    /// The minutes of a resource's deployments.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn one(
        &self,
        resource: &ResourceId,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Series>, MonitorError> {
        let (from, until) = (moment(from), moment(until));
        let query = format!(
            "metricnames={METRIC}&timespan={from}%2F{until}&interval=PT1M&aggregation=average%2Cmaximum&top=100&$filter={DEPLOYMENT}%20eq%20%27*%27"
        );
        let body = self.ask_one(resource, &query).await?;
        read_one(&body).map_err(MonitorError::Unreadable)
    }

    /// What a resource's deployments came to on the UTC day that begins at `start`.
    ///
    /// # Errors
    /// Why that can't be had.
    pub async fn day(
        &self,
        resource: &ResourceId,
        start: Timestamp,
    ) -> Result<MeteredDay, MonitorError> {
        let (from, until) = (moment(start), moment(start.plus_ms(DAY_MS)));
        let mut day = MeteredDay::new(start);
        // A filter takes what all its metrics are split by: tokens have no status.
        let by_status = format!("%20and%20{STATUS}%20eq%20%27*%27");
        for (metrics, and) in [
            (format!("{PROMPT}%2C{GENERATED}"), ""),
            (REQUESTS.to_owned(), &*by_status),
        ] {
            let query = format!(
                "metricnames={metrics}&timespan={from}%2F{until}&interval=PT1H&aggregation=total&top={MAX_SERIES}&$filter={DEPLOYMENT}%20eq%20%27*%27{and}"
            );
            let body = self.ask_one(resource, &query).await?;
            day.add(&body, MAX_SERIES)
                .map_err(MonitorError::Unreadable)?;
        }
        Ok(day)
    }

    async fn ask_one(&self, resource: &ResourceId, query: &str) -> Result<Vec<u8>, MonitorError> {
        let base = self.instead.as_deref().unwrap_or(MANAGEMENT);
        let id = &resource.text;
        let url = format!(
            "{base}{id}/providers/Microsoft.Insights/metrics?api-version={VERSION}&metricnamespace=Microsoft.CognitiveServices%2Faccounts&{query}"
        );
        let token = self.tokens.as_ref().map(|tokens| &*tokens.one);
        self.ask(Method::GET, url, token, None).await
    }

    /// The minutes of the deployments of many resources: up to [`MAX_BATCH`], all of one subscription
    /// and region; a part a resource.
    ///
    /// # Errors
    /// Why there are none at all.
    pub async fn many(
        &self,
        region: &str,
        resources: &[&ResourceId],
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Part>, MonitorError> {
        let Some(first) = resources.first() else {
            return Ok(Vec::new());
        };
        let base = match &self.instead {
            Some(base) => base.clone(),
            None => format!("https://{region}.metrics.monitor.azure.com"),
        };
        let (subscription, from, until) = (&first.subscription, moment(from), moment(until));
        // Other names than those of one resource's query, and a body whose key has no capitals.
        let url = format!(
            "{base}/subscriptions/{subscription}/metrics:getBatch?api-version={VERSION}&metricnames={METRIC}&metricnamespace=Microsoft.CognitiveServices%2Faccounts&starttime={from}&endtime={until}&interval=PT1M&aggregation=average%2Cmaximum&top=100&filter={DEPLOYMENT}%20eq%20%27*%27"
        );
        let ids: Vec<&str> = resources.iter().map(|id| id.text.as_str()).collect();
        let body = json!({"resourceids": ids}).to_string();
        let token = self.tokens.as_ref().map(|tokens| &*tokens.batch);
        let body = self.ask(Method::POST, url, token, Some(body)).await?;
        read_batch(&body).map_err(MonitorError::Unreadable)
    }

    async fn ask(
        &self,
        method: Method,
        url: String,
        token: Option<&OwnToken>,
        body: Option<String>,
    ) -> Result<Vec<u8>, MonitorError> {
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            let header = token.header(self.clock.now(), PATIENCE).await;
            let lack = |_| MonitorError::Forbidden(format!("no token for {}", token.scope()));
            request = request.header(AUTHORIZATION, header.map_err(lack)?);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let unavailable = |error: reqwest::Error| MonitorError::Unavailable(describe(&error));
        let response = request.send().await.map_err(unavailable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = whole(response, MAX_ANSWER).await.map_err(|why| match why {
            Unread::Broken(error) => unavailable(error),
            Unread::TooLarge => MonitorError::Unreadable(format!("more than {MAX_ANSWER} bytes")),
        })?;
        if status.is_success() {
            return Ok(bytes);
        }
        Err(error(status, &headers, &bytes))
    }
}

fn error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> MonitorError {
    let why = format!("{}, {}", status.as_u16(), message(body));
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            let seconds = seconds.and_then(|text| text.parse::<u64>().ok());
            let ms = seconds.map_or(THROTTLED_MS, |s| s.saturating_mul(1000));
            MonitorError::Throttled {
                retry_after_ms: ms.min(60 * THROTTLED_MS),
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => MonitorError::Forbidden(why),
        StatusCode::NOT_FOUND => MonitorError::NotFound(why),
        status if status.is_server_error() => MonitorError::Unavailable(why),
        _ => MonitorError::Unreadable(why),
    }
}

/// The message of an error's body, as Resource Manager has it, or its beginning.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| {
        let error = json.get("error").unwrap_or(json);
        let code = error.get("code")?.as_str()?;
        Some(match error.get("message").and_then(|m| m.as_str()) {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        })
    });
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect()
}

/// A moment in a query, to the second.
fn moment(moment: Timestamp) -> String {
    let text: String = moment.rfc3339().chars().take(19).collect();
    format!("{text}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_message_is_one_short_line() {
        let arm = br#"{"error":{"code":"AuthorizationFailed","message":"The client\n'x'"}}"#;
        assert_eq!(message(arm), "AuthorizationFailed: The client'x'");
        assert_eq!(message(br#"{"code":"X"}"#), "X");
        assert_eq!(message(&[b'<'; 1000]).len(), 300);
    }

    #[test]
    fn statuses_say_what_to_do() {
        let of = |status: u16| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, "17".parse().unwrap());
            error(StatusCode::from_u16(status).unwrap(), &headers, b"")
        };
        let throttled = MonitorError::Throttled {
            retry_after_ms: 17_000,
        };
        assert_eq!(of(429), throttled);
        assert!(of(403).to_string().contains("Monitoring Reader"));
        assert!(of(404).to_string().contains("resource_id"));
        assert!(matches!(of(503), MonitorError::Unavailable(_)));
        assert!(matches!(of(400), MonitorError::Unreadable(_)));
    }
}
