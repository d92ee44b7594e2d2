//! The realtime API: sessions over WebSocket, between an app and the deployment that takes it.
//!
//! A session begins as a call like any other: the door, the limits, a plan of deployments, of which the
//! next one is asked where one refuses to switch protocols with a 429 or breaks. Then `session` hands
//! the bytes on as they are, in both directions, and reads the backend's events as they pass.

mod session;
mod way;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;

use self::session::Session;
use super::answer::{begin, named, refuse};
use super::call::{Answered, Call, Patience};
use super::error::RelayError;
use super::headers::{set, to_client};
use super::reading::Reading;
use super::record::CallRecord;
use super::{Relay, Worker, admission, pace};
use crate::gateway::event::Outcome;
use crate::gateway::identity::Identity;
use crate::gateway::realtime::{key, model, without_key};
use crate::gateway::room::Room;
use crate::gateway::route::{Operation, Route};

const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");

/// The protocol of the API, which a browser wants to hear if it has offered it.
const REALTIME: &str = "realtime";

/// The sessions of a process.
#[derive(Debug)]
pub struct Sessions {
    open: Room,
    ending: watch::Sender<bool>,
}

impl Sessions {
    /// No session yet, and `most` at once.
    pub fn new(most: usize) -> Self {
        Self {
            open: Room::new(most),
            ending: watch::Sender::new(false),
        }
    }

    /// Sessions that are open now.
    pub fn open(&self) -> usize {
        self.open.used()
    }

    /// Has all sessions end, each after the response that is under way in it.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    fn enter(self: &Arc<Self>) -> Option<Place> {
        self.open.take(1).then(|| Place(Arc::clone(self)))
    }
}

/// A session's place among the others, until it is dropped.
#[derive(Debug)]
struct Place(Arc<Sessions>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.give_back(1);
    }
}

/// The headers by which a call shows who it is from. A realtime session may show its key in the URL or
/// among the protocols that it offers, because a browser can set no header.
pub(super) fn shown<'a>(headers: &'a HeaderMap, route: &Route<'_>) -> Cow<'a, HeaderMap> {
    if route.operation != Operation::Realtime {
        return Cow::Borrowed(headers);
    }
    let has_header = ["api-key", "authorization", "ocp-apim-subscription-key"]
        .iter()
        .any(|name| headers.contains_key(*name));
    if has_header {
        return Cow::Borrowed(headers);
    }
    let Some(key) = key(route.query, offered(headers)) else {
        return Cow::Borrowed(headers);
    };
    let mut shown = headers.clone();
    set(&mut shown, "api-key", &*key);
    Cow::Owned(shown)
}

fn offered(headers: &HeaderMap) -> &str {
    let protocols = headers.get(PROTOCOL).and_then(|value| value.to_str().ok());
    protocols.unwrap_or_default()
}

/// Makes of a session's headers those that ask a backend to switch protocols. Compression is not
/// agreed on: events have to be read.
pub(super) fn ask_to_switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.remove(EXTENSIONS);
    let protocols = without_key(offered(headers));
    headers.remove(PROTOCOL);
    if !protocols.is_empty() {
        set(headers, "sec-websocket-protocol", &protocols);
    }
}

/// Answers a call that opens a session; `client` is the connection, once the protocol is switched.
pub(super) async fn answer(
    worker: &Worker,
    relay: &Arc<Relay>,
    headers: &HeaderMap,
    client: Option<OnUpgrade>,
    route: Route<'_>,
    caller: Identity,
    id: &str,
) -> Response {
    let (mut record, begun) = begin(worker, relay, headers, &route, &caller, id);
    record.can_use = true;
    let app = &caller.app;
    let opened = begun.and_then(|()| {
        let sessions = relay.sessions.get().ok_or(RelayError::NoRealtime)?;
        let client = client.filter(|_| is_upgrade(headers));
        let client = client.ok_or(RelayError::UpgradeRequired)?;
        let name = route.model.clone().or_else(|| model(route.query));
        let model = named(&relay.settings, app, &name.ok_or(RelayError::NoModel)?)?;
        let place = sessions.enter().ok_or(RelayError::SessionsFull)?;
        Ok((place, client, model))
    });
    let (place, client, model) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(error, record),
    };
    record.event.model = Arc::clone(model.name());
    let call = Call {
        relay,
        upstream: &worker.upstream,
        method: Method::GET,
        headers,
        reading: Reading::none(),
        model,
        pinned: None,
        homes: Vec::new(),
        only: None,
        is_paced: false,
        patience: Patience::of_client(&relay.settings.gateway),
        body: Bytes::new(),
        route,
        caller,
        started: Instant::now(),
    };
    let tells_budget = relay.settings.gateway.answer_headers;
    let (standing, verdict) = admission::admit(&call, &mut record);
    let verdict = match verdict {
        Ok(()) => pace::take_slot(&call, &mut record).await,
        refused => refused,
    };
    let answered = match verdict {
        Ok(()) => call.answer(&mut record, false).await,
        Err(error) => Err(error),
    };
    let mut response = match answered {
        Err(error) => refuse(error, record),
        Ok(answered) if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            open(worker, &call, answered, record, client, place)
        }
        Ok(answered) => call.pass_on(answered, record),
    };
    admission::tell(&standing, response.headers_mut(), tells_budget);
    response
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    asked.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
}

/// Starts the session, and tells the client that it is open.
fn open(
    worker: &Worker,
    call: &Call<'_>,
    mut answered: Answered,
    mut record: CallRecord,
    client: OnUpgrade,
    place: Place,
) -> Response {
    let backend = hyper::upgrade::on(&mut answered.response);
    let spec = &answered.deployment.spec;
    record.served_by(spec);
    record.event.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    record.event.streamed = true;
    record.event.first_byte_ms = record.now().ms_since(record.event.time);
    let mut headers = to_client(std::mem::take(answered.response.headers_mut()), false);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let has_offered = offered(call.headers)
        .split(',')
        .any(|p| p.trim() == REALTIME);
    if has_offered && !headers.contains_key(PROTOCOL) {
        headers.insert(PROTOCOL, HeaderValue::from_static(REALTIME));
    }
    call.say_who_answered(&mut headers, spec, spec.kind, record.event.attempts.len());
    let ending = place.0.ending.subscribe();
    let relay = worker.relay.clone();
    tokio::spawn(async move {
        let _place = place;
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                Session::new(relay, record)
                    .run(client, backend, ending)
                    .await;
            }
            Err(error) => {
                tracing::warn!(
                    request_id = record.event.id,
                    trace_id = record.event.trace_digits(),
                    %error,
                    "a realtime session could not begin"
                );
                record.finish(Outcome::Cut, None, 0);
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}
