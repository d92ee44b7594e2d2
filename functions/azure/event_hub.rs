//! Sends events to an Event Hub, by its REST endpoint (Microsoft Learn, Event Hubs REST, "Send batch
//! events").

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Serialize;

use super::describe;
use super::own_token::OwnToken;
use crate::config::Hub;
use crate::host::clock::Clock;

/// What the gateway's token for Event Hubs is asked for.
pub const SCOPE: &str = "https://eventhubs.azure.net/.default";

/// Most bytes of the events of one request. A publication may have 256 KB in the basic tier
/// (azure-docs, event-hubs-tier-limits), each event's quotes and the rest included.
pub const MAX_BYTES: usize = 180_000;

/// Most events of one request.
pub const MAX_EVENTS: usize = 500;

/// The media type of a batch. With a parameter such as a charset the service takes it for one event.
const BATCH: &str = "application/vnd.microsoft.servicebus.json";

/// Longest wait for the gateway's first token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);

/// Why events were not sent. Whether the hub has them is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent(String);

impl NotSent {
    /// The hub was not asked: it could not be reached a moment ago.
    pub fn resting() -> Self {
        Self("it could not be reached a moment ago".into())
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotSent {}

/// An Event Hub.
pub struct EventHub {
    client: reqwest::Client,
    url: String,
    token: Arc<OwnToken>,
    clock: Clock,
}

impl fmt::Debug for EventHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHub")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// An event of a batch.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    body: &'a str,
}

impl EventHub {
    /// The hub, with the gateway's own identity.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn new(hub: &Hub, token: Arc<OwnToken>) -> Result<Self, String> {
        Ok(Self {
            client: super::http_client()?,
            url: format!("{hub}/messages?timeout=10&api-version=2014-01"),
            token,
            clock: Clock::new(),
        })
    }

    /// Sends events, each a text: [`MAX_EVENTS`] at most, of [`MAX_BYTES`] together.
    ///
    /// # Errors
    /// When the hub does not say that it has them.
    pub async fn send(&self, events: &[String]) -> Result<(), NotSent> {
        let items: Vec<Item<'_>> = events.iter().map(|body| Item { body }).collect();
        let body = serde_json::to_vec(&items).map_err(|error| NotSent(error.to_string()))?;
        let token = self.token.header(self.clock.now(), TOKEN_PATIENCE).await;
        let token = token.map_err(|_| NotSent("the gateway has no token for Event Hubs".into()))?;
        let request = self
            .client
            .post(&self.url)
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, BATCH)
            .body(body);
        let answer = request.send().await;
        let answer = answer.map_err(|error| NotSent(describe(&error.without_url())))?;
        match answer.status().as_u16() {
            200..300 => Ok(()),
            status @ (401 | 403) => Err(NotSent(format!(
                "the hub says {status} (does the gateway's identity have the role Azure Event Hubs Data Sender?)"
            ))),
            status => Err(NotSent(format!("the hub says {status}"))),
        }
    }
}
