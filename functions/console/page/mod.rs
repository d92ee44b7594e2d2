//! The pages: HTML and charts made here, by templates that the compiler checks. They need no script;
//! one of some lines keeps the first page up to date.

mod calls;
mod chart;
mod figures;
mod history;
mod money;
mod now;
mod pacing;
mod plan;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use maud::{DOCTYPE, Markup, html};

pub(super) use self::now::moving;
use super::{Console, SignedIn, off_the_worker};
use crate::billing::BillingError;

/// Where the style sheet is.
pub(super) const STYLE_PATH: &str = "/spillway/console.css";

/// Where the script is.
pub(super) const SCRIPT_PATH: &str = "/spillway/console.js";

const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");

/// Pages may load nothing but the two files above, run no script but that one, and stand in nobody's
/// frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The views, their paths and names.
const VIEWS: [(&str, &str); 5] = [
    ("/spillway/", "Now"),
    ("/spillway/history", "History"),
    ("/spillway/money", "Money"),
    ("/spillway/what-if", "What if"),
    ("/spillway/calls", "Calls"),
];

/// Whether the request came with a session, which can be ended.
type Session = Option<Extension<SignedIn>>;

/// The style sheet.
pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

/// The script.
pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        // Their addresses carry the version.
        (CACHE_CONTROL, "public, max-age=86400"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    (headers, text).into_response()
}

/// An answer that is a page.
pub(super) fn html(page: Markup) -> Response {
    let mut response = Html(page.into_string()).into_response();
    let headers = [
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
    ];
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// What is happening.
pub(super) async fn now(State(console): State<Console>, session: Session) -> Response {
    let now = super::now::look(&console).await;
    rendered(move || view(session, "/spillway/", "Now", &now::page(&now))).await
}

/// The past.
pub(super) async fn history(
    State(console): State<Console>,
    session: Session,
    wish: Result<Query<super::history::Wish>, QueryRejection>,
) -> Response {
    let wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    let models = console.relay.metrics.names().models.clone();
    let has_store = console.store.is_some();
    match super::history::read(&console, &wish).await {
        Ok(past) => {
            rendered(move || {
                let page = history::page(&past, &models, has_store);
                view(session, "/spillway/history", "History", &page)
            })
            .await
        }
        Err(error) => unreadable(session, "/spillway/history", "History", &error),
    }
}

/// Calls.
pub(super) async fn calls(
    State(console): State<Console>,
    session: Session,
    wish: Result<Query<super::calls::Wish>, QueryRejection>,
) -> Response {
    let wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    let names = console.relay.metrics.names();
    let apps = names.apps.clone();
    let found = match wish.mistake() {
        Some(mistake) => Err(mistake),
        None => match super::calls::find(&console, &wish).await {
            Ok(found) => Ok(found),
            Err(error) => return unreadable(session, "/spillway/calls", "Calls", &error),
        },
    };
    rendered(move || {
        let page = calls::page(&wish, found.as_ref().map_err(|mistake| *mistake), &apps);
        view(session, "/spillway/calls", "Calls", &page)
    })
    .await
}

/// What a month costs.
pub(super) async fn money(
    State(console): State<Console>,
    session: Session,
    wish: Result<Query<super::money::Wish>, QueryRejection>,
) -> Response {
    const VIEW: (&str, &str) = ("/spillway/money", "Money");
    let wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    let has_store = console.store.is_some();
    let money = match super::money::read(&console, &wish).await {
        Err(BillingError::Asked(_)) => {
            super::money::read(&console, &super::money::Wish::default()).await
        }
        other => other,
    };
    let money = match money {
        Ok(money) => money,
        Err(error) => return unreadable(session, VIEW.0, VIEW.1, &error),
    };
    match super::idle::idle(&console).await {
        Ok(idle) => {
            rendered(move || {
                let page = money::page(&money, &idle, has_store);
                view(session, VIEW.0, VIEW.1, &page)
            })
            .await
        }
        Err(error) => unreadable(session, VIEW.0, VIEW.1, &error),
    }
}

/// What a month costs, as CSV.
pub(super) async fn money_csv(
    State(console): State<Console>,
    wish: Result<Query<super::money::Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(why) => return (StatusCode::BAD_REQUEST, why.body_text()).into_response(),
    };
    match super::money::read(&console, &wish).await {
        Ok(money) => {
            let name = format!("attachment; filename=\"spillway-{}.csv\"", money.month);
            let headers = [
                (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
                (http::header::CONTENT_DISPOSITION, name),
            ];
            (headers, super::money::to_csv(&money)).into_response()
        }
        Err(BillingError::Asked(why)) => (StatusCode::BAD_REQUEST, why).into_response(),
        Err(error) => {
            tracing::error!(%error, "the console can't make the bill");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

/// What another number of PTUs would have come to.
pub(super) async fn what_if(
    State(console): State<Console>,
    session: Session,
    wish: Result<Query<super::plan::Wish>, QueryRejection>,
) -> Response {
    const VIEW: (&str, &str) = ("/spillway/what-if", "What if");
    let found = match wish {
        Err(_) => Err("PTUs, slots and limits are whole numbers."),
        Ok(Query(wish)) => match wish.mistake() {
            Some(mistake) => Err(mistake),
            None => match super::plan::what_if(&console, &wish).await {
                Ok(found) => Ok(found),
                Err(error) => return unreadable(session, VIEW.0, VIEW.1, &error),
            },
        },
    };
    rendered(move || {
        let page = plan::page(found.as_ref().map_err(|mistake| *mistake));
        view(session, VIEW.0, VIEW.1, &page)
    })
    .await
}

async fn rendered(page: impl FnOnce() -> Markup + Send + 'static) -> Response {
    match off_the_worker(page).await {
        Some(page) => html(page),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn unreadable(
    session: Session,
    path: &str,
    title: &str,
    error: &dyn std::fmt::Display,
) -> Response {
    tracing::error!(%error, "the console can't read the store");
    let page = html! {
        h1 { (title) }
        p.empty { "What is kept can't be read at the moment. The log says why." }
    };
    let mut response = html(view(session, path, title, &page));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// A page of the console.
fn view(session: Session, path: &str, title: &str, content: &Markup) -> Markup {
    document(
        title,
        &html! {
            header {
                a.brand href="/spillway/" { "Spillway" }
                nav aria-label="Views" {
                    @for (view, name) in VIEWS {
                        a href=(view) aria-current=[(view == path).then_some("page")] { (name) }
                    }
                }
                @if session.is_some() {
                    form method="post" action="/spillway/sign-out" {
                        button.quiet { "Sign out" }
                    }
                }
            }
            main { (content) }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - Spillway" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href={ (STYLE_PATH) "?v=" (env!("CARGO_PKG_VERSION")) };
                script defer src={ (SCRIPT_PATH) "?v=" (env!("CARGO_PKG_VERSION")) } {}
            }
            body { (body) }
        }
    }
}

/// The form to sign in. `to` is where it leads, `why` why it is shown again.
pub(super) fn sign_in(to: &str, why: Option<&str>) -> Markup {
    document(
        "Sign in",
        &html! {
            main.sign-in {
                h1 { "Spillway" }
                form method="post" action=(super::sign_in::PATH) {
                    input type="hidden" name="to" value=(to);
                    label for="key" { "Admin key or access token" }
                    input #key type="password" name="key" required autocomplete="current-password"
                        aria-describedby=[why.map(|_| "why")] aria-invalid=[why.map(|_| "true")];
                    @if let Some(why) = why {
                        p #why.error role="alert" { (why) }
                    }
                    button { "Sign in" }
                }
            }
        },
    )
}
