//! The console's figures as JSON. [`super::openapi`] describes them.

use std::borrow::Cow;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::{Console, calls, history, idle, money, now, plan};
use crate::billing::BillingError;
use crate::host::problem::problem;

/// A query, as far as it can be read.
type Asked<W> = Result<Query<W>, QueryRejection>;

/// What a query asks for, or what is wrong with it.
fn asked<W>(
    wish: Asked<W>,
    mistake: impl Fn(&W) -> Option<&'static str>,
) -> Result<W, Cow<'static, str>> {
    let Query(wish) = wish.map_err(|why| why.body_text())?;
    match mistake(&wish) {
        Some(mistake) => Err(mistake.into()),
        None => Ok(wish),
    }
}

/// What is happening.
pub(super) async fn now(State(console): State<Console>) -> Json<now::Now> {
    Json(now::look(&console).await)
}

/// The past.
pub(super) async fn history(
    State(console): State<Console>,
    wish: Asked<history::Wish>,
) -> Response {
    match asked(wish, history::Wish::mistake) {
        Ok(wish) => answer(history::read(&console, &wish).await),
        Err(why) => wrong(&why),
    }
}

/// Calls.
pub(super) async fn calls(State(console): State<Console>, wish: Asked<calls::Wish>) -> Response {
    match asked(wish, calls::Wish::mistake) {
        Ok(wish) => answer(calls::find(&console, &wish).await),
        Err(why) => wrong(&why),
    }
}

/// What a month costs.
pub(super) async fn money(State(console): State<Console>, wish: Asked<money::Wish>) -> Response {
    let wish = match asked(wish, |_| None) {
        Ok(wish) => wish,
        Err(why) => return wrong(&why),
    };
    match money::read(&console, &wish).await {
        Err(BillingError::Asked(why)) => wrong(&why),
        found => answer(found),
    }
}

/// When PTUs are idle.
pub(super) async fn idle(State(console): State<Console>) -> Response {
    answer(idle::idle(&console).await)
}

/// What another number of PTUs would have come to.
pub(super) async fn what_if(State(console): State<Console>, wish: Asked<plan::Wish>) -> Response {
    match asked(wish, plan::Wish::mistake) {
        Ok(wish) => answer(plan::what_if(&console, &wish).await),
        Err(why) => wrong(&why),
    }
}

fn answer<T: Serialize, E: std::fmt::Display>(found: Result<T, E>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => {
            tracing::error!(%error, "the console can't read the store");
            let message = "What is kept can't be read at the moment; try again.";
            problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                message,
            )
        }
    }
}

fn wrong(message: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "invalid_query", message)
}
