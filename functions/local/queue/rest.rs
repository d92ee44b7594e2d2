//! Service Bus's REST form, as far as `spillway local` needs it: sending, one message or a batch, and
//! taking the next message out ("Receive and Delete Message").
//!
//! | request | what it does |
//! | --- | --- |
//! | `POST /{queue}/messages` | sends: properties as headers, `BrokerProperties` as JSON; or a batch as JSON |
//! | `DELETE /{queue}/messages/head?timeout=S` | takes the next message out, waiting for one; 204: none came |
//! | `DELETE /{queue}/$deadletterqueue/messages/head` | the same of the queue's dead letters |
//! | `GET /` | how many messages there are |

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Queues;
use crate::gateway::batch::message::{Message, Outgoing, Received};
use crate::gateway::time::Timestamp;

/// Largest request, bytes: a Premium message of 100 MB.
const MAX_REQUEST: usize = 100 << 20;

/// Longest wait for a message, seconds; the service's own is 60.
const MAX_WAIT_S: u64 = 60;

/// Headers that are no properties of a message.
const NO_PROPERTIES: [&str; 12] = [
    "accept",
    "accept-encoding",
    "authorization",
    "brokerproperties",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "user-agent",
    "accept-language",
];

/// The endpoint.
pub(super) fn router(queues: Queues) -> Router {
    Router::new().fallback(handle).with_state(queues)
}

async fn handle(State(queues): State<Queues>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = percent_decoded(parts.uri.path());
    let path = path.trim_matches('/');
    let query = parts.uri.query().unwrap_or_default();
    if path.is_empty() && parts.method == Method::GET {
        return Json(queues.lengths()).into_response();
    }
    if let (Some(queue), &Method::POST) = (path.strip_suffix("/messages"), &parts.method) {
        return match axum::body::to_bytes(body, MAX_REQUEST).await {
            Ok(body) => send(&queues, queue, &parts.headers, body).await,
            Err(_) => say(StatusCode::PAYLOAD_TOO_LARGE, "the message is too large"),
        };
    }
    match path.strip_suffix("/messages/head") {
        Some(queue) if parts.method == Method::DELETE => take(&queues, queue, query).await,
        _ => say(
            StatusCode::NOT_FOUND,
            "no such path; docs/batch.md lists them",
        ),
    }
}

async fn send(queues: &Queues, queue: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let read = if kind == Some("application/vnd.microsoft.servicebus.json") {
        batch(&body)
    } else {
        one(headers, kind, body).map(|message| vec![message])
    };
    let messages = match read {
        Ok(messages) => messages,
        Err(why) => return say(StatusCode::BAD_REQUEST, &why),
    };
    match queues.send(queue, messages).await {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => error.into_response(),
    }
}

fn one(headers: &HeaderMap, kind: Option<&str>, body: Bytes) -> Result<Outgoing, String> {
    let broker = match headers.get("brokerproperties") {
        Some(value) => {
            let text = value.to_str().map_err(|_| "BrokerProperties: not ASCII")?;
            serde_json::from_str(text).map_err(|error| format!("BrokerProperties: {error}"))?
        }
        None => Broker::default(),
    };
    let own = headers.iter().filter(|(name, _)| is_property(name));
    let own = own.filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), property(value.to_str().ok()?)))
    });
    broker.outgoing(body, kind.map(str::to_owned), own.collect())
}

fn is_property(name: &HeaderName) -> bool {
    !NO_PROPERTIES.contains(&name.as_str()) && !name.as_str().starts_with("x-ms-")
}

/// A text stands in quotes; a number or a truth value does not.
fn property(text: &str) -> Value {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) => inner.into(),
        None => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

fn batch(body: &[u8]) -> Result<Vec<Outgoing>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        body: String,
        #[serde(default)]
        broker_properties: Broker,
        #[serde(default)]
        user_properties: Map<String, Value>,
    }
    let items: Vec<Item> =
        serde_json::from_slice(body).map_err(|error| format!("the batch: {error}"))?;
    let items = items.into_iter().map(|item| {
        let kind = item.broker_properties.content_type.clone();
        item.broker_properties
            .outgoing(item.body.into(), kind, item.user_properties)
    });
    items.collect()
}

/// What `BrokerProperties` may hold; what else is in it is ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Broker {
    message_id: Option<String>,
    correlation_id: Option<String>,
    session_id: Option<String>,
    reply_to: Option<String>,
    reply_to_session_id: Option<String>,
    label: Option<String>,
    to: Option<String>,
    partition_key: Option<String>,
    content_type: Option<String>,
    time_to_live: Option<f64>,
    scheduled_enqueue_time_utc: Option<String>,
}

impl Broker {
    fn outgoing(
        self,
        body: Bytes,
        content_type: Option<String>,
        properties: Map<String, Value>,
    ) -> Result<Outgoing, String> {
        if let (Some(session), Some(partition)) = (&self.session_id, &self.partition_key)
            && session != partition
        {
            return Err("SessionId and PartitionKey differ".into());
        }
        let scheduled = self
            .scheduled_enqueue_time_utc
            .as_deref()
            .map(moment)
            .transpose()?;
        let ttl_s = self
            .time_to_live
            .map(|s| Duration::try_from_secs_f64(s.max(1.0)));
        let ttl_s = ttl_s
            .transpose()
            .map_err(|error| format!("TimeToLive: {error}"))?;
        Ok(Outgoing {
            message: Message {
                id: self.message_id,
                body,
                content_type,
                correlation_id: self.correlation_id,
                session_id: self.session_id,
                reply_to: self.reply_to,
                reply_to_session_id: self.reply_to_session_id,
                subject: self.label,
                to: self.to,
                partition_key: self.partition_key,
                properties,
            },
            scheduled,
            ttl_s: ttl_s.map(|ttl| ttl.as_secs()),
        })
    }
}

/// A moment in RFC 1123.
fn moment(text: &str) -> Result<Timestamp, String> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc2822;
    let moment = OffsetDateTime::parse(text, &Rfc2822);
    let moment = moment.map_err(|error| format!("ScheduledEnqueueTimeUtc: {error}"))?;
    let ms = u64::try_from(moment.unix_timestamp())
        .unwrap_or(0)
        .saturating_mul(1000);
    Ok(Timestamp::from_unix_ms(ms))
}

async fn take(queues: &Queues, queue: &str, query: &str) -> Response {
    let wait = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("timeout="));
    let wait = wait
        .and_then(|text| text.parse().ok())
        .unwrap_or(MAX_WAIT_S);
    match queues
        .take(queue, Duration::from_secs(wait.min(MAX_WAIT_S)))
        .await
    {
        Ok(Some(received)) => taken(&received),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// A message as the service answers it: its properties as headers.
fn taken(received: &Received) -> Response {
    let message = &received.message;
    let mut broker = Map::new();
    let texts = [
        ("MessageId", &message.id),
        ("CorrelationId", &message.correlation_id),
        ("SessionId", &message.session_id),
        ("ReplyTo", &message.reply_to),
        ("ReplyToSessionId", &message.reply_to_session_id),
        ("Label", &message.subject),
        ("To", &message.to),
        ("PartitionKey", &message.partition_key),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            broker.insert(name.into(), text.clone().into());
        }
    }
    broker.insert("SequenceNumber".into(), received.sequence.into());
    broker.insert("DeliveryCount".into(), received.deliveries.into());
    let mut response = Response::new(Body::from(message.body.clone()));
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put(
        HeaderName::from_static("brokerproperties"),
        &Value::Object(broker).to_string(),
    );
    if let Some(kind) = &message.content_type {
        put(CONTENT_TYPE, kind);
    }
    for (name, value) in &message.properties {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            put(name, &value.to_string());
        }
    }
    response
}

pub(super) fn say(status: StatusCode, why: &str) -> Response {
    (
        status,
        Json(json!({"error": {"code": status.as_u16(), "message": why}})),
    )
        .into_response()
}

/// A path without its percent codes; those that are none stay.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
