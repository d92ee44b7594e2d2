//! Reads Azure OpenAI resources and their deployments from Azure Resource Manager.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;
use serde::de::DeserializeOwned;

use super::own_token::OwnToken;
use super::{Unread, describe, http_client, whole};
use crate::config::{Endpoint, ResourceId};
use crate::gateway::discover::{Account, Deployment, Page};
use crate::host::clock::Clock;

/// The version of the API (learn: rest/api/aiservices/accountmanagement).
const API_VERSION: &str = "2024-10-01";

/// Longest wait for the first token: the Azure CLI takes a second or two.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most pages of one list, and most bytes of a page.
const MAX_PAGES: usize = 100;
const MAX_PAGE: usize = 8 << 20;

/// Why a resource can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceError {
    /// There is no token.
    NoToken,
    /// The identity may not read the resource.
    Forbidden(String),
    /// There is no such resource.
    NotFound(String),
    /// The service could not be reached, or said what can't be read.
    Unreadable(String),
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str(
                "there is no token for Azure Resource Manager: log in with the Azure CLI (az login), or run where there is a managed identity",
            ),
            Self::Forbidden(id) => write!(
                f,
                "{id} may not be read: the identity needs the role Reader, or Cognitive Services Usages Reader, on it"
            ),
            Self::NotFound(id) => write!(f, "{id} does not exist"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ResourceError {}

/// Azure Resource Manager.
#[derive(Debug)]
pub struct ResourceManager {
    endpoint: Endpoint,
    token: Option<Arc<OwnToken>>,
    client: reqwest::Client,
}

impl ResourceManager {
    /// The one at `endpoint`, which is shown `token` where there is one.
    ///
    /// # Errors
    /// When the system has no usable certificate roots.
    pub fn new(endpoint: Endpoint, token: Option<Arc<OwnToken>>) -> Result<Self, String> {
        Ok(Self {
            endpoint,
            token,
            client: http_client()?,
        })
    }

    /// A resource with its deployments.
    ///
    /// # Errors
    /// Why it can't be read.
    pub async fn account(&self, id: &ResourceId) -> Result<Account, ResourceError> {
        let id = &id.text;
        let url = format!("{}{id}?api-version={API_VERSION}", self.endpoint);
        let mut account: Account = self.get(&url, id).await?;
        let mut next = Some(format!(
            "{}{id}/deployments?api-version={API_VERSION}",
            self.endpoint
        ));
        let mut pages = 0;
        while let Some(url) = next {
            pages += 1;
            if pages > MAX_PAGES {
                let why = format!("{id} has more than {MAX_PAGES} pages of deployments");
                return Err(ResourceError::Unreadable(why));
            }
            let page: Page<Deployment> = self.get(&url, id).await?;
            account.deployments.extend(page.value);
            next = page.next.filter(|link| !link.is_empty());
        }
        Ok(account)
    }

    async fn get<T: DeserializeOwned>(&self, url: &str, id: &str) -> Result<T, ResourceError> {
        // A next page elsewhere would be shown the token.
        let is_there = url
            .strip_prefix(&self.endpoint.to_string())
            .is_some_and(|path| path.starts_with('/'));
        if !is_there {
            let why = format!("{id}: the next page is said to be at another host");
            return Err(ResourceError::Unreadable(why));
        }
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            let header = token.header(Clock::new().now(), PATIENCE).await;
            request = request.header(AUTHORIZATION, header.map_err(|_| ResourceError::NoToken)?);
        }
        let odd = |error: &dyn std::error::Error| {
            ResourceError::Unreadable(format!("{id} can't be read: {}", describe(error)))
        };
        let answer = request.send().await.map_err(|error| odd(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(ResourceError::Forbidden(id.to_owned()));
            }
            StatusCode::NOT_FOUND => return Err(ResourceError::NotFound(id.to_owned())),
            status => {
                let why = format!("{id} can't be read: Azure Resource Manager answers {status}");
                return Err(ResourceError::Unreadable(why));
            }
        }
        let body = whole(answer, MAX_PAGE).await.map_err(|why| match why {
            Unread::Broken(error) => odd(&error),
            Unread::TooLarge => {
                ResourceError::Unreadable(format!("{id}: a page is larger than {MAX_PAGE} bytes"))
            }
        })?;
        serde_json::from_slice(&body).map_err(|error| odd(&error))
    }
}
