//! What a message asks for: who pays, until when, and where the reply goes.

use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::line::{self, Line};
use super::message::{MAX_ID, Message, Outgoing, Received};
use crate::gateway::priority::Priority;
use crate::gateway::time::Timestamp;

/// The application properties that a sender may use, beside those of the broker.
pub mod property {
    /// The app that pays.
    pub const APP: &str = "app";
    /// Until when an answer is of use, RFC 3339.
    pub const DEADLINE: &str = "deadline";
    /// `high` or `low`.
    pub const PRIORITY: &str = "priority";
    /// The operation, for a request that comes alone.
    pub const URL: &str = "url";
    /// `wait=SECONDS` (RFC 7240).
    pub const PREFER: &str = "Prefer";
    /// The id of the message that this one is a later copy of.
    pub const ID: &str = "spillway-id";
    /// How often it was put off.
    pub const DEFERRALS: &str = "spillway-deferrals";
    /// When the first copy came, ms since the Unix epoch.
    pub const FIRST: &str = "spillway-first";
    /// When this copy was to appear, ms since the Unix epoch.
    pub const VISIBLE: &str = "spillway-visible";
    /// Whether the answer is fetched over HTTP instead of sent.
    pub const FETCHED: &str = "spillway-fetched";
    /// Whether the request lies in a blob.
    pub const IN_BLOB: &str = "spillway-in-blob";
}

/// What the configuration says of batch messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The queues that replies may go to; the first one is the default.
    pub reply_queues: Vec<String>,
    /// Largest body, bytes.
    pub max_request: usize,
    /// How long a message has that says nothing of a deadline, ms.
    pub life_ms: u64,
}

/// Where a reply goes, and what it is known by there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The queue; `None`: the answer is kept until it is fetched.
    pub queue: Option<String>,
    /// The reply's session.
    pub session: Option<String>,
    /// The reply's `CorrelationId`.
    pub correlation: Option<String>,
}

/// Who a message is, whatever it asks for: enough to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The id of the message's first copy.
    pub id: String,
    /// The app that it names; empty where it names none.
    pub app: String,
    /// Tells requests of the same id apart: the id and a digest of what is asked. An id of its own
    /// alone where the answer is fetched over HTTP.
    pub key: String,
    /// Where the reply goes.
    pub address: Address,
    /// The reply address that was asked for in vain.
    pub refused_address: Option<String>,
    /// How often it was put off.
    pub deferrals: u32,
    /// When the first copy came.
    pub first: Timestamp,
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The sender's own name for it.
    pub custom_id: String,
    /// The path to call.
    pub path: String,
    /// The model.
    pub model: String,
    /// The request.
    pub request: bytes::Bytes,
    /// Until when an answer is of use.
    pub deadline: Timestamp,
    /// How urgent it wishes to be.
    pub priority: Priority,
}

impl Sender {
    /// Whom a message is from.
    pub fn of(received: &Received, rules: &Rules) -> Self {
        let message = &received.message;
        let id = id(received);
        let app = message.property(property::APP).unwrap_or_default();
        let fetched = is_true(message, property::FETCHED);
        let key = if fetched {
            id.clone()
        } else {
            format!("{id}~{}", digest(app, message))
        };
        let (queue, refused_address) = queue(message, rules, fetched);
        let first = number(message, property::FIRST);
        Self {
            app: app.to_owned(),
            key,
            address: Address {
                queue,
                session: message.reply_to_session_id.clone(),
                correlation: message.correlation_id.clone().or_else(|| Some(id.clone())),
            },
            id,
            refused_address,
            deferrals: number(message, property::DEFERRALS)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            first: first.map_or(received.enqueued, Timestamp::from_unix_ms),
        }
    }
}

impl Order {
    /// What a message asks for; `body` is its own, or what it was a pointer to.
    ///
    /// # Errors
    /// What is wrong with it. A deadline in the past is none of it: see [`super::patience`].
    pub fn read(
        received: &Received,
        body: &bytes::Bytes,
        sender: &Sender,
        rules: &Rules,
    ) -> Result<Self, Fault> {
        let message = &received.message;
        if let Some(queue) = &sender.refused_address {
            return Err(Fault::ReplyTo(queue.clone()));
        }
        if body.len() > rules.max_request {
            return Err(Fault::TooLarge {
                bytes: body.len(),
                max: rules.max_request,
            });
        }
        let Line {
            custom_id,
            path,
            model,
            request,
        } = line::read(body, text(message, property::URL)?)?;
        Ok(Self {
            custom_id: custom_id.unwrap_or_else(|| line::clipped(&sender.id).to_owned()),
            path,
            model,
            request,
            deadline: deadline(received, sender, rules)?,
            priority: priority(message)?,
        })
    }
}

/// The sender's name for a request, as far as it can be read, for the reply to a message that has
/// something wrong with it; no longer than names may be.
pub fn custom_id(body: &[u8], sender: &Sender) -> String {
    line::custom_id(body).unwrap_or_else(|| line::clipped(&sender.id).to_owned())
}

/// A copy of a message that becomes visible at `visible`, with all that its sender said of it.
pub fn later(received: &Received, sender: &Sender, visible: Timestamp) -> Outgoing {
    let mut message = received.message.clone();
    let deferrals = sender.deferrals.saturating_add(1);
    let properties = &mut message.properties;
    properties.insert(property::ID.into(), sender.id.clone().into());
    properties.insert(property::DEFERRALS.into(), deferrals.into());
    properties.insert(property::FIRST.into(), sender.first.unix_ms().into());
    properties.insert(property::VISIBLE.into(), visible.unix_ms().into());
    // The same for whoever makes the same copy again, so that the broker drops it.
    message.id = Some(bounded(&format!("{}~{deferrals}", sender.id)));
    let left = received.expires.map(|expires| expires.ms_since(visible));
    Outgoing {
        message,
        scheduled: Some(visible),
        ttl_s: left.map(|ms| (ms / 1000).max(1)),
    }
}

/// How late a scheduled message may appear, ms, and still be taken for one.
const LATE_MS: u64 = 60_000;

/// Whether a message was put into the queue after `moment`, by its sender or, out of the dead
/// letters, by somebody else. A copy that was put off before appears later, but was not.
pub fn is_sent_since(received: &Received, moment: Timestamp) -> bool {
    let appeared = received.enqueued;
    let planned = number(&received.message, property::VISIBLE);
    appeared > moment && planned.is_none_or(|ms| appeared.unix_ms() > ms.saturating_add(LATE_MS))
}

/// `id`, or where it is longer than ids may be, a digest of it.
pub fn bounded(id: &str) -> String {
    if id.encode_utf16().count() <= MAX_ID {
        return id.to_owned();
    }
    hex(&Sha256::digest(id.as_bytes()))
}

/// The first copy's id. A message without one has what the broker numbers it by.
fn id(received: &Received) -> String {
    let message = &received.message;
    let named = message.property(property::ID).or(message.id.as_deref());
    match named.filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None => format!(
            "{}-{}",
            received.sequence,
            received.enqueued.unix_ms() / 1000
        ),
    }
}

/// Senders have used an id again for something else; apps don't know of each other's ids.
fn digest(app: &str, message: &Message) -> String {
    let mut hash = Sha256::new();
    let url = message.property(property::URL).unwrap_or_default();
    for part in [app.as_bytes(), b"\0", url.as_bytes(), b"\0", &message.body] {
        hash.update(part);
    }
    hex(&hash.finalize()).chars().take(16).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// The queue that the reply goes to, and the one that was asked for in vain.
fn queue(message: &Message, rules: &Rules, fetched: bool) -> (Option<String>, Option<String>) {
    if fetched {
        return (None, None);
    }
    let default = rules.reply_queues.first().cloned();
    let asked = message.reply_to.as_deref().map(str::trim);
    match asked.filter(|queue| !queue.is_empty()) {
        None => (default, None),
        // Service Bus compares names of queues without case.
        Some(asked) => match rules
            .reply_queues
            .iter()
            .find(|q| q.eq_ignore_ascii_case(asked))
        {
            Some(queue) => (Some(queue.clone()), None),
            None => (default, Some(asked.to_owned())),
        },
    }
}

/// The earliest of what the message says, or the configuration's where it says nothing; never
/// after the broker discards it.
fn deadline(received: &Received, sender: &Sender, rules: &Rules) -> Result<Timestamp, Fault> {
    let message = &received.message;
    let named = match text(message, property::DEADLINE)? {
        None => None,
        Some(text) => Some(Timestamp::parse(text).ok_or(Fault::Property {
            name: property::DEADLINE,
            expected: "a moment in RFC 3339, for example 2026-11-25T18:00:00Z",
        })?),
    };
    let wait = prefer_wait_s(text(message, property::PREFER)?.unwrap_or_default());
    let wished = wait.map(|s| sender.first.plus_ms(s.saturating_mul(1000)));
    let own = [named, wished].into_iter().flatten().min();
    let own = own.unwrap_or_else(|| sender.first.plus_ms(rules.life_ms));
    Ok(received.expires.map_or(own, |expires| expires.min(own)))
}

/// The seconds of `wait=` in a `Prefer` (RFC 7240, section 4.3); other preferences are none of a
/// message's.
pub fn prefer_wait_s(prefer: &str) -> Option<u64> {
    let mut wishes = prefer.split([',', ';']).map(str::trim);
    let wait = wishes.find_map(|wish| {
        let (name, value) = wish.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then_some(value.trim())
    });
    wait?.trim_matches('"').parse().ok()
}

/// Batch messages are of low priority unless they say otherwise.
fn priority(message: &Message) -> Result<Priority, Fault> {
    let wrong = Fault::Property {
        name: property::PRIORITY,
        expected: "`high` or `low`",
    };
    match message.properties.get(property::PRIORITY) {
        None => Ok(Priority::Low),
        Some(value) => value.as_str().and_then(Priority::parse).ok_or(wrong),
    }
}

fn text<'a>(message: &'a Message, name: &'static str) -> Result<Option<&'a str>, Fault> {
    match message.properties.get(name) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(Fault::Property {
            name,
            expected: "a text",
        }),
    }
}

/// Numbers come back from the broker as such, or as texts.
fn number(message: &Message, name: &str) -> Option<u64> {
    let value = message.properties.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Whether a message's own property says yes.
pub fn is_true(message: &Message, name: &str) -> bool {
    match message.properties.get(name) {
        Some(serde_json::Value::Bool(yes)) => *yes,
        Some(serde_json::Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
