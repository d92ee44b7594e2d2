//! How a person signs in with a browser: an admin key or token, shown once in a form, for a session
//! in a cookie that no script can read and no other site can make use of.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use axum::Form;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get};
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue, SET_COOKIE};
use http::{HeaderName, StatusCode};
use serde::Deserialize;
use tower_http::timeout::TimeoutLayer;

use super::{Console, page};
use crate::current::Current;
use crate::door::Admin;

/// Where the form is.
pub(super) const PATH: &str = "/spillway/sign-in";

/// The cookie's name.
const COOKIE_NAME: &str = "spillway-session";

/// Longest form, bytes: a token, which has 16 KiB at most, and a path.
const MAX_FORM: usize = 20 * 1024;

/// Longest time for a form to come and be answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a person goes who came from nowhere.
const START: &str = "/spillway/";

/// Where a person wanted to go.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    to: String,
}

impl Wish {
    /// A path of the console, whatever was asked for: a link to the form must not lead elsewhere.
    fn path(&self) -> &str {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.?&=%+".contains(&b);
        let is_ours = self.to.starts_with(START) && self.to.bytes().all(plain);
        if is_ours { &self.to } else { START }
    }
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Shown {
    key: String,
    #[serde(flatten)]
    wish: Wish,
}

/// Sends a person who has to sign in to the form.
pub(super) fn redirect(to: &str) -> Response {
    let query = form_urlencoded(to);
    Redirect::to(&format!("{PATH}?to={query}")).into_response()
}

/// `text` as a query's value.
pub(super) fn form_urlencoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// The form, and what it sends. Anybody may send something: little, and soon.
pub(super) fn route() -> MethodRouter<Current<Console>> {
    let patience = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PATIENCE);
    get(show)
        .post(take)
        .layer::<_, Infallible>(DefaultBodyLimit::max(MAX_FORM))
        .layer::<_, Infallible>(patience)
}

/// The form.
async fn show(Query(wish): Query<Wish>) -> Response {
    page::html(page::sign_in(wish.path(), None))
}

/// Takes what the form sends.
async fn take(
    State(console): State<Console>,
    headers: HeaderMap,
    Form(shown): Form<Shown>,
) -> Response {
    if is_from_elsewhere(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let now = console.relay.clock.now();
    let admin = match HeaderValue::from_str(&format!("Bearer {}", shown.key.trim())) {
        // The door takes keys and tokens alike there.
        Ok(value) => {
            let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
            console.relay.door.admin(&headers, now).await.ok()
        }
        Err(_) => None,
    };
    let path = shown.wish.path();
    let Some(admin) = admin else {
        tracing::warn!("a sign-in to the console was refused");
        let why = "That is no administrator's key, and no token with the administrators' role.";
        return again(StatusCode::UNAUTHORIZED, path, why);
    };
    if admin == Admin::Anybody {
        return Redirect::to(path).into_response();
    }
    match console.sessions.begin(admin, now).await {
        Ok(session) => {
            tracing::info!("an administrator signed in to the console");
            let cookie = cookie(&session.text, session.seconds, &headers);
            ([(SET_COOKIE, cookie)], Redirect::to(path)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "no session can be signed");
            let why = "The store can't be reached at the moment; try again.";
            again(StatusCode::SERVICE_UNAVAILABLE, path, why)
        }
    }
}

fn again(status: StatusCode, path: &str, why: &str) -> Response {
    let mut response = page::html(page::sign_in(path, Some(why)));
    *response.status_mut() = status;
    response
}

/// Ends the session in this browser.
pub(super) async fn out(headers: HeaderMap) -> Response {
    if is_from_elsewhere(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cookie = cookie("", 0, &headers);
    ([(SET_COOKIE, cookie)], Redirect::to(PATH)).into_response()
}

fn cookie(text: &str, seconds: u64, headers: &HeaderMap) -> String {
    let secure = if is_plain_loopback(headers) {
        ""
    } else {
        "; Secure"
    };
    format!(
        "{COOKIE_NAME}={text}; Path=/spillway; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    )
}

/// The session's text that a request brings.
pub(super) fn brought(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
}

/// Whether the browser says that another site's page sent this (Fetch Metadata).
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = HeaderName::from_static("sec-fetch-site");
    let site = headers.get(site).map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

/// Whether the browser speaks HTTP with this machine: there a cookie can't be asked to stay with TLS.
/// Before anything else stands a proxy that ends TLS and says so.
fn is_plain_loopback(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(&HeaderName::from_static("x-forwarded-proto")).is_some_and(|proto| proto == "https") {
        return false;
    }
    let host = text(&HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_matches(['[', ']']);
    let is_loopback = name
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn signing_in_leads_to_the_console_only() {
        let path = |to: &str| Wish { to: to.into() }.path().to_owned();
        assert_eq!(
            path("/spillway/calls?app=a%20b"),
            "/spillway/calls?app=a%20b"
        );
        for elsewhere in [
            "",
            "https://evil.example/",
            "//evil.example/spillway/",
            "/spillway",
            "/spillway/\\evil",
            "/spillway/\r\nset-cookie: a=b",
        ] {
            assert_eq!(path(elsewhere), START, "{elsewhere}");
        }
    }

    #[test]
    fn the_cookie_stays_with_tls_but_on_this_machine() {
        let is_secure =
            |pairs: &[(&'static str, &str)]| cookie("x", 1, &headers(pairs)).contains("; Secure");
        for host in ["127.0.0.1:7071", "localhost", "[::1]:80"] {
            assert!(!is_secure(&[("host", host)]), "{host}");
            assert!(is_secure(&[("host", host), ("x-forwarded-proto", "https")]));
        }
        assert!(is_secure(&[("host", "contoso.example")]));
        assert!(is_secure(&[]));
    }

    #[test]
    fn a_session_is_found_among_other_cookies() {
        let some = headers(&[("cookie", "a=b; spillway-session=x.y; c")]);
        assert_eq!(brought(&some), Some("x.y"));
        assert_eq!(
            brought(&headers(&[("cookie", "xspillway-session=1")])),
            None
        );
    }

    #[test]
    fn another_sites_form_is_told() {
        assert!(is_from_elsewhere(&headers(&[(
            "sec-fetch-site",
            "cross-site"
        )])));
        assert!(is_from_elsewhere(&headers(&[(
            "sec-fetch-site",
            "same-site"
        )])));
        assert!(!is_from_elsewhere(&headers(&[(
            "sec-fetch-site",
            "same-origin"
        )])));
        assert!(!is_from_elsewhere(&HeaderMap::new()), "no browser");
    }
}
