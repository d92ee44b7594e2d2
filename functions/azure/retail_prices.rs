//! Reads Azure's list prices: the Azure Retail Prices API (learn: rest/api/cost-management/retail-prices),
//! which is public and asks for no key.
//!
//! It answers in pages that name the next one. What is named has to be of the same service: the address
//! of a page comes out of an answer, and is where the gateway goes.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use reqwest::Url;
use serde::Deserialize;

use super::{Unread, describe, whole};
use crate::gateway::price::retail::{Item, Retail};
use crate::gateway::time::Timestamp;

/// The service.
pub const SERVICE: &str = "https://prices.azure.com";

/// The prices of Azure OpenAI. Words of filters are case-sensitive in this version (azure-facts).
const QUERY: &str = "/api/retail/prices?api-version=2023-01-01-preview&currencyCode='USD'&$filter=contains(productName,'Azure OpenAI') and priceType eq 'Consumption'";

/// Most pages, of up to 1,000 items each.
const MAX_PAGES: usize = 200;

/// Largest page, bytes. An item has some 700.
const MAX_PAGE: usize = 4 << 20;

/// How often a page is asked for where the service is busy.
const ATTEMPTS: u32 = 4;

/// The pause after the first attempt; doubled after each further one.
const PAUSE: Duration = Duration::from_secs(2);

/// Why prices could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetailError {
    /// The service could not be reached, or was busy.
    Unavailable(String),
    /// It answered something else than prices.
    Unreadable(String),
}

impl fmt::Display for RetailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "Azure's prices can't be had: {why}"),
            Self::Unreadable(why) => write!(f, "Azure's prices can't be read: {why}"),
        }
    }
}

impl std::error::Error for RetailError {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    items: Vec<Item>,
    #[serde(default)]
    next_page_link: Option<String>,
}

/// Reads all prices of Azure OpenAI from `service`, which is [`SERVICE`] outside tests. What is held
/// is one page, and what [`Retail`] keeps.
///
/// # Errors
/// [`RetailError`].
pub async fn read(
    client: &reqwest::Client,
    service: &str,
    now: Timestamp,
) -> Result<Retail, RetailError> {
    let unreadable = |what: &str| RetailError::Unreadable(what.to_owned());
    let start = Url::parse(service).map_err(|_| unreadable("the service's address is none"))?;
    let first = start.join(QUERY).map_err(|_| unreadable("no query"))?;
    let mut retail = Retail::default();
    let mut next = Some(first);
    for _ in 0..MAX_PAGES {
        let Some(url) = next.take() else {
            return Ok(retail);
        };
        let page = page(client, url).await?;
        page.items.iter().for_each(|item| retail.note(item, now));
        if let Some(link) = page.next_page_link.filter(|link| !link.is_empty()) {
            let url = Url::parse(&link).ok();
            let same = url.filter(|url| url.origin() == start.origin());
            next = Some(same.ok_or_else(|| unreadable("the next page is not the service's own"))?);
        }
    }
    match next {
        None => Ok(retail),
        Some(_) => Err(RetailError::Unreadable(format!(
            "more than {MAX_PAGES} pages"
        ))),
    }
}

async fn page(client: &reqwest::Client, url: Url) -> Result<Page, RetailError> {
    let mut pause = PAUSE;
    for attempt in 1.. {
        match asked(client, url.clone()).await {
            Err(RetailError::Unavailable(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    Err(RetailError::Unavailable("never asked".into()))
}

async fn asked(client: &reqwest::Client, url: Url) -> Result<Page, RetailError> {
    let unavailable = |error: reqwest::Error| RetailError::Unavailable(describe(&error));
    let answer = client.get(url).send().await.map_err(unavailable)?;
    let status = answer.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(RetailError::Unavailable(status.to_string()));
    }
    if status != StatusCode::OK {
        return Err(RetailError::Unreadable(status.to_string()));
    }
    let body = whole(answer, MAX_PAGE).await.map_err(|why| match why {
        Unread::Broken(error) => unavailable(error),
        Unread::TooLarge => {
            RetailError::Unreadable(format!("a page of more than {MAX_PAGE} bytes"))
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| RetailError::Unreadable(error.to_string()))
}
