//! `GET /spillway/chargeback`: the bill, what spilling cost, and the calls, for administrators; an app
//! gets its own.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::Console;
use crate::billing::export::{Export, RowFormat};
use crate::billing::render::{self, About, Format};
use crate::billing::{Billing, BillingError, Period, Span, price_check};
use crate::gateway::bill::By;
use crate::gateway::identity::Refusal;
use crate::gateway::time::Timestamp;
use crate::host::problem::problem;
use crate::relay::refused;
use crate::store::{StoreError, prices};

/// Most calls of an answer that says where the next one goes on: it is held in memory.
const MAX_LIMIT: usize = 10_000;

/// The header that says where the next answer goes on.
const CONTINUATION: &str = "x-spillway-continuation";

/// What can be asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    month: Option<String>,
    from: Option<String>,
    to: Option<String>,
    app: Option<String>,
    /// Words with commas between them.
    by: Option<String>,
    format: Option<String>,
    /// The calls instead.
    rows: bool,
    /// What spilling cost instead.
    spill: bool,
    /// What the last look at Azure's list prices proposed instead.
    price_proposals: bool,
    /// Only with `rows`: at most so many, and a header that says where the next ones begin.
    limit: Option<usize>,
    /// Only with `rows`: what that header said.
    continuation: Option<String>,
}

pub(super) async fn answer(
    State(console): State<Console>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let now = console.relay.clock.now();
    // Who may ask comes before what is asked.
    let only = match allowed(&console, &headers, now).await {
        Ok(only) => only,
        Err(why) => return refused(why),
    };
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(rejection) => return asked_wrongly(&rejection.body_text()),
    };
    let app = match (only, asked.app.as_deref()) {
        (Some(own), Some(app)) if app != &*own => return refused(Refusal::NotAdmin),
        (Some(own), _) => Some(own),
        (None, app) => app.map(Arc::from),
    };
    let Some(billing) = &console.billing else {
        return problem(
            StatusCode::NOT_FOUND,
            "nothing_kept",
            "the configuration has no storage.tables: nothing is kept of calls",
        );
    };
    match made(billing, &asked, app, now).await {
        Ok(response) => response,
        Err(BillingError::Asked(why)) => asked_wrongly(&why),
        Err(BillingError::Bill(error)) => asked_wrongly(&error.to_string()),
        Err(BillingError::Store(error)) => unreadable(&error),
    }
}

/// The only app whose bill the caller may see; `None`: all of them.
async fn allowed(
    console: &Console,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Option<Arc<str>>, Refusal> {
    let relay = &console.relay;
    if console.is_signed_in(headers, now).await {
        return Ok(None);
    }
    match relay.door.admin(headers, now).await {
        Ok(_) => Ok(None),
        Err(Refusal::NotAdmin) => {
            let identity = relay.door.identify(headers, now).await?;
            Ok(Some(Arc::clone(&identity.app.name)))
        }
        Err(why) => Err(why),
    }
}

async fn made(
    billing: &Billing,
    asked: &Asked,
    app: Option<Arc<str>>,
    now: Timestamp,
) -> Result<Response, BillingError> {
    let span = Span {
        month: asked.month.as_deref(),
        from: asked.from.as_deref(),
        to: asked.to.as_deref(),
    };
    let period = Period::read(span, now).map_err(BillingError::Asked)?;
    let format = match asked.format.as_deref() {
        None | Some("json") => Format::Json,
        Some("csv") => Format::Csv,
        Some(other) => {
            let why = format!("`{other}` is no format; it can be json or csv");
            return Err(BillingError::Asked(why));
        }
    };
    if asked.rows {
        return calls(billing, asked, format, period, app.as_deref()).await;
    }
    if asked.limit.is_some() || asked.continuation.is_some() {
        let why = "`limit` and `continuation` are for `rows=true`";
        return Err(BillingError::Asked(why.into()));
    }
    let names = billing.names().await;
    let about = About {
        period,
        currency: &billing.currency,
        names: &names,
    };
    let name = format!("spillway-{}-{}", period.from(), period.to());
    if asked.price_proposals {
        let latest = prices::latest(billing.store.as_ref()).await?;
        let text = price_check::to_json(latest.as_ref()).to_string();
        return Ok(document(Format::Json, "spillway-price-proposals", text));
    }
    if asked.spill {
        if app.is_some() {
            let why = "what spilling cost is told for all apps together, to administrators";
            return Err(BillingError::Asked(why.into()));
        }
        let lines = billing.spilled(period).await?;
        let text = render::spills(&lines, about, format);
        return Ok(document(format, &name, text));
    }
    let by = by(asked.by.as_deref().unwrap_or(By::App.as_str()))?;
    let reconciled = billing.reconciled(period, app.as_deref()).await?;
    let bill = billing.bill(period, by, app, now).await?;
    let text = match format {
        Format::Csv => render::to_csv(&bill, about)?,
        Format::Json | Format::Table => {
            render::to_json(&bill, about, reconciled.as_deref())?.to_string()
        }
    };
    Ok(document(format, &name, text))
}

fn by(words: &str) -> Result<Vec<By>, BillingError> {
    let words = words.split(',').filter(|word| !word.is_empty());
    let by: Result<Vec<By>, String> = words.map(str::parse).collect();
    by.map_err(BillingError::Asked)
}

/// All calls, streamed: what breaks off in the middle breaks the connection, so that it is not
/// taken for the whole. Or, with a limit, some of them and where the next ones begin.
async fn calls(
    billing: &Billing,
    asked: &Asked,
    format: Format,
    period: Period,
    app: Option<&str>,
) -> Result<Response, BillingError> {
    let limit = asked.limit.unwrap_or(usize::MAX);
    if limit == 0 || asked.limit.is_some_and(|limit| limit > MAX_LIMIT) {
        let why = format!("`limit` must be from 1 to {MAX_LIMIT}; without it all calls come");
        return Err(BillingError::Asked(why));
    }
    let row_format = match format {
        Format::Csv => RowFormat::Csv,
        Format::Json | Format::Table => RowFormat::Json,
    };
    let store = Arc::clone(&billing.store);
    let continuation = asked.continuation.as_deref();
    let export = Export::new(store, row_format, period, app, continuation, limit);
    let mut export = export.await?;
    let name = format!("spillway-calls-{}-{}", period.from(), period.to());
    if asked.limit.is_none() {
        let pieces = stream::try_unfold(export, next_piece);
        return Ok(document(format, &name, Body::from_stream(pieces)));
    }
    let mut text = String::new();
    while let Some(piece) = export.next().await? {
        text.push_str(&piece);
    }
    let next = export.continuation();
    let next = next.and_then(|next| HeaderValue::from_str(&next).ok());
    let mut response = document(format, &name, text);
    if let Some(next) = next {
        response.headers_mut().insert(CONTINUATION, next);
    }
    Ok(response)
}

async fn next_piece(mut export: Export) -> Result<Option<(String, Export)>, BillingError> {
    let piece = export.next().await?;
    Ok(piece.map(|piece| (piece, export)))
}

/// `name` is without its ending, and of letters, digits and `-`.
fn document(format: Format, name: &str, body: impl Into<Body>) -> Response {
    let (content_type, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Json | Format::Table => ("application/json", "json"),
    };
    let file = format!("attachment; filename=\"{name}.{ending}\"");
    let headers = [
        (CONTENT_TYPE, content_type.to_owned()),
        (CONTENT_DISPOSITION, file),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, body.into()).into_response()
}

fn asked_wrongly(why: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "invalid_query", why)
}

fn unreadable(error: &StoreError) -> Response {
    tracing::error!(%error, "the bill can't be made: the store can't be read");
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "what is kept of calls can't be read now; try again",
    )
}
