//! Sends messages to Service Bus over REST (learn: rest/api/servicebus, "Send message" and "Send
//! message batch"): the only way in which a custom handler can say when a message is to appear, or
//! give it properties.
//!
//! A message whose application properties can be HTTP headers is sent in the plain form, which
//! alone carries its content type. Any other is sent as a batch of one, which is JSON: it keeps the
//! case of a property's name and any text.

mod count;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

pub use self::count::{CountError, Counted, Counts, Messages};
use super::describe;
use super::own_token::OwnToken;
use crate::config::{Endpoint, Scheme};
use crate::gateway::batch::message::{Message, Outgoing};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// The scope of tokens for Service Bus.
pub const SCOPE: &str = "https://servicebus.azure.net/.default";

/// Longest wait for the first token.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most of an error's body that is read, bytes.
const MAX_ERROR: usize = 4096;

/// RFC 1123, as BrokerProperties has moments.
const RFC1123: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The content type of a batch; the service takes none with parameters (azure-facts).
const BATCH: HeaderValue = HeaderValue::from_static("application/vnd.microsoft.servicebus.json");

const BROKER_PROPERTIES: HeaderName = HeaderName::from_static("brokerproperties");

/// Why a message was not sent. Whether a message of [`Self::Unavailable`] was taken is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// It is larger than the queue takes.
    TooLarge(String),
    /// The service can't take this: a property or the whole request.
    Refused(String),
    /// There is no such queue, or the gateway may not send to it. Somebody has to act.
    Misconfigured(String),
    /// The service could not be reached or was busy, or the queue is full; the same call may work
    /// later.
    Unavailable {
        /// What happened.
        why: String,
        /// When the service asks to be asked again, ms.
        retry_after_ms: Option<u64>,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(why) => write!(f, "too large: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Misconfigured(why) => write!(
                f,
                "{why}; the queue has to be there, and the gateway's identity needs the role Azure Service Bus Data Sender on it"
            ),
            Self::Unavailable { why, .. } => write!(f, "unavailable: {why}"),
        }
    }
}

impl std::error::Error for SendError {}

/// What sending comes to, some time later.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;

/// Where messages are sent.
pub trait Sends: fmt::Debug + Send + Sync {
    /// Sends a message to a queue.
    fn send<'a>(&'a self, queue: &'a str, message: &'a Outgoing) -> Sent<'a>;
}

impl Sends for ServiceBus {
    fn send<'a>(&'a self, queue: &'a str, message: &'a Outgoing) -> Sent<'a> {
        Box::pin(Self::send(self, queue, message))
    }
}

/// A namespace that messages are sent to.
#[derive(Debug)]
pub struct ServiceBus {
    namespace: Endpoint,
    token: Option<Arc<OwnToken>>,
    client: reqwest::Client,
    clock: Clock,
}

/// A request, before it has a token.
#[derive(Debug, PartialEq)]
struct Form {
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl ServiceBus {
    /// A namespace; `token` is the gateway's own for it, `None` for one on this machine.
    ///
    /// # Errors
    /// When the system has no usable certificate roots, or a namespace beyond this machine has no
    /// token.
    pub fn new(namespace: Endpoint, token: Option<Arc<OwnToken>>) -> Result<Self, String> {
        if namespace.scheme() == Scheme::Https && token.is_none() {
            return Err(format!("no token for {namespace}"));
        }
        Ok(Self {
            namespace,
            token,
            client: super::http_client()?,
            clock: Clock::new(),
        })
    }

    /// Sends a message to a queue.
    ///
    /// # Errors
    /// Why it was not sent.
    pub async fn send(&self, queue: &str, message: &Outgoing) -> Result<(), SendError> {
        let Form { mut headers, body } = form(message)?;
        if let Some(token) = &self.token {
            let header = token.header(self.clock.now(), PATIENCE).await;
            let header = header.map_err(|lack| SendError::Unavailable {
                why: "the gateway has no token for Service Bus".into(),
                retry_after_ms: Some(lack.next.ms_since(self.clock.now())),
            })?;
            headers.insert(AUTHORIZATION, header);
        }
        let url = format!("{}/{}/messages?timeout=60", self.namespace, encoded(queue));
        let request = self.client.post(url).headers(headers).body(body);
        let answer = request
            .send()
            .await
            .map_err(|error| SendError::Unavailable {
                why: describe(&error),
                retry_after_ms: None,
            })?;
        judge(answer).await
    }
}

async fn judge(mut answer: reqwest::Response) -> Result<(), SendError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = answer.headers().get(RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let mut detail = Vec::new();
    while detail.len() < MAX_ERROR
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        detail.extend_from_slice(&chunk);
    }
    let detail = String::from_utf8_lossy(&detail);
    let line: String = detail
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    Err(error(
        status,
        &line,
        seconds.map(|s| s.saturating_mul(1000)),
    ))
}

fn error(status: StatusCode, detail: &str, retry_after_ms: Option<u64>) -> SendError {
    let why = format!("{status} {detail}");
    let unavailable = |why| SendError::Unavailable {
        why,
        retry_after_ms,
    };
    match status.as_u16() {
        // One status for a message that is too large, a queue that is full and no right to send
        // (azure-facts): only the detail tells them apart.
        413 => SendError::TooLarge(why),
        400 | 403 if is_oversize(detail) => SendError::TooLarge(why),
        403 if is_full(detail) => unavailable(why),
        401 | 403 | 404 | 410 => SendError::Misconfigured(why),
        408 | 429 | 500.. => unavailable(why),
        _ => SendError::Refused(why),
    }
}

/// Whether a detail is of the message's size. That of a full queue speaks of sizes too: "The maximum
/// entity size has been reached or exceeded for Queue: ..." (Microsoft, "Service Bus messaging
/// exceptions"), with the queue's name, which may be any.
fn is_oversize(detail: &str) -> bool {
    let words = ["message size", "messagesize", "message-size", "too large"];
    !says(detail, &["entity size", "entitysize"]) && says(detail, &words)
}

fn is_full(detail: &str) -> bool {
    says(detail, &["quota", "entity size", "entitysize", "exceed"])
}

fn says(detail: &str, words: &[&str]) -> bool {
    let lower = detail.to_ascii_lowercase();
    words.iter().any(|word| lower.contains(word))
}

/// The bytes that a message takes in its queue, roughly: what the broker counts is the body and
/// all properties.
pub fn size(message: &Message) -> usize {
    let texts = [
        &message.id,
        &message.content_type,
        &message.correlation_id,
        &message.session_id,
        &message.reply_to,
        &message.reply_to_session_id,
        &message.subject,
        &message.to,
        &message.partition_key,
    ];
    let texts = texts.into_iter().flatten().map(|text| text.len() + 16);
    let properties = message.properties.iter();
    let properties = properties.map(|(name, value)| name.len() + value.to_string().len() + 16);
    message.body.len() + texts.sum::<usize>() + properties.sum::<usize>() + 512
}

fn form(outgoing: &Outgoing) -> Result<Form, SendError> {
    let message = &outgoing.message;
    let broker = Value::Object(broker_properties(outgoing));
    match plain(message, &broker) {
        Some(headers) => Ok(Form {
            headers,
            body: message.body.clone(),
        }),
        None => batch(message, broker),
    }
}

fn broker_properties(outgoing: &Outgoing) -> Map<String, Value> {
    let message = &outgoing.message;
    let mut all = Map::new();
    let texts = [
        ("MessageId", &message.id),
        ("CorrelationId", &message.correlation_id),
        ("SessionId", &message.session_id),
        ("ReplyTo", &message.reply_to),
        ("ReplyToSessionId", &message.reply_to_session_id),
        ("Label", &message.subject),
        ("To", &message.to),
        // Equal to the session where there is one: the service refuses two that differ.
        (
            "PartitionKey",
            message
                .session_id
                .as_ref()
                .map_or(&message.partition_key, |_| &message.session_id),
        ),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            all.insert(name.into(), text.clone().into());
        }
    }
    if let Some(seconds) = outgoing.ttl_s {
        all.insert("TimeToLive".into(), seconds.into());
    }
    if let Some(visible) = outgoing.scheduled {
        all.insert("ScheduledEnqueueTimeUtc".into(), rfc1123(visible).into());
    }
    all
}

/// Whole seconds are what the form has; later rather than sooner.
fn rfc1123(moment: Timestamp) -> String {
    let seconds = i64::try_from(moment.unix_ms().div_ceil(1000)).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds);
    let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(RFC1123).unwrap_or_default()
}

/// The headers of the plain form; `None` where a property can't be one.
fn plain(message: &Message, broker: &Value) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.properties {
        headers.insert(header_name(name)?, header_value(value)?);
    }
    let kind = message
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).ok()?);
    headers.insert(
        BROKER_PROPERTIES,
        HeaderValue::from_str(&ascii_json(broker)).ok()?,
    );
    Some(headers)
}

/// Headers that mean something else in a request, or to a server between.
const TAKEN: [&str; 14] = [
    "accept",
    "authorization",
    "brokerproperties",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The header that a property goes in. Names in HTTP have no case, and this client writes them in
/// lower case; properties do.
fn header_name(name: &str) -> Option<HeaderName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = name.bytes().all(plain) && !TAKEN.contains(&name) && !name.starts_with("x-ms-");
    fits.then(|| HeaderName::from_bytes(name.as_bytes()).ok())?
}

/// Texts stand in double quotes, numbers and truth values without. How a quote within a text is
/// written is not said anywhere, so that such a text goes the other way.
fn header_value(value: &Value) -> Option<HeaderValue> {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
    let text = match value {
        Value::String(text) if text.bytes().all(plain) => format!("\"{text}\""),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        _ => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// JSON whose every character may stand in a header.
fn ascii_json(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// A batch of one message.
fn batch(message: &Message, broker: Value) -> Result<Form, SendError> {
    let Ok(body) = std::str::from_utf8(&message.body) else {
        return Err(SendError::Refused(
            "its properties need the JSON form, which takes no body that is not UTF-8".into(),
        ));
    };
    let mut broker = broker;
    if let (Value::Object(broker), Some(kind)) = (&mut broker, &message.content_type) {
        broker.insert("ContentType".into(), kind.clone().into());
    }
    let all = json!([{
        "Body": body,
        "BrokerProperties": broker,
        "UserProperties": message.properties,
    }]);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, BATCH);
    Ok(Form {
        headers,
        body: all.to_string().into(),
    })
}

/// A queue's name in a path; its own slashes stay.
fn encoded(queue: &str) -> String {
    let mut path = String::with_capacity(queue.len());
    for byte in queue.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/$".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests;
