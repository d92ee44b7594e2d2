//! Asks Microsoft Graph for applications' names (learn: graph/api/serviceprincipal-get).
//!
//! The gateway's identity needs the application permission `Application.Read.All` of Graph: the least
//! that lets it read others than itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use super::own_token::OwnToken;
use super::{Unread, describe, http_client, whole};
use crate::config::is_guid;
use crate::host::clock::Clock;

/// The service.
pub const SERVICE: &str = "https://graph.microsoft.com";

/// What the gateway's token for Graph is asked for.
pub const SCOPE: &str = "https://graph.microsoft.com/.default";

/// Longest wait for the gateway's first token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(20);

/// Largest answer that is read, bytes: it is one name.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a name can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphError {
    /// The gateway has no token for Graph.
    NoToken,
    /// Its identity may not read applications.
    Forbidden,
    /// Graph could not be reached, was busy, or answered something else.
    Unreadable(String),
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("the gateway has no token for Microsoft Graph"),
            Self::Forbidden => f.write_str(
                "the gateway's identity may not read applications: grant it the application permission Application.Read.All of Microsoft Graph",
            ),
            Self::Unreadable(why) => write!(f, "Microsoft Graph can't be read: {why}"),
        }
    }
}

impl std::error::Error for GraphError {}

/// Microsoft Graph.
pub struct Graph {
    service: String,
    client: reqwest::Client,
    token: Option<Arc<OwnToken>>,
    clock: Clock,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePrincipal {
    display_name: Option<String>,
}

impl Graph {
    /// The one at `service`, which is [`SERVICE`] outside tests. It is shown `token` where there is one.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn new(service: &str, token: Option<Arc<OwnToken>>) -> Result<Self, String> {
        Ok(Self {
            service: service.to_owned(),
            client: http_client()?,
            token,
            clock: Clock::new(),
        })
    }

    /// The display name of the application with this id; `None` where the tenant has none with it.
    ///
    /// # Errors
    /// [`GraphError`].
    pub async fn display_name(&self, app_id: &str) -> Result<Option<String>, GraphError> {
        // Nothing else is an application's id, or may be put into the address.
        if !is_guid(app_id) {
            return Ok(None);
        }
        let url = format!(
            "{}/v1.0/servicePrincipals(appId='{app_id}')?$select=displayName",
            self.service
        );
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            let header = token.header(self.clock.now(), TOKEN_PATIENCE).await;
            request = request.header(AUTHORIZATION, header.map_err(|_| GraphError::NoToken)?);
        }
        let odd = |error: &dyn std::error::Error| GraphError::Unreadable(describe(error));
        let answer = request.send().await.map_err(|error| odd(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(GraphError::Forbidden),
            status => return Err(GraphError::Unreadable(format!("it answers {status}"))),
        }
        let body = whole(answer, MAX_ANSWER).await.map_err(|why| match why {
            Unread::Broken(error) => odd(&error),
            Unread::TooLarge => {
                GraphError::Unreadable(format!("an answer of more than {MAX_ANSWER} bytes"))
            }
        })?;
        let found: ServicePrincipal = serde_json::from_slice(&body).map_err(|error| odd(&error))?;
        Ok(found.display_name.filter(|name| !name.trim().is_empty()))
    }
}
