//! The rows of table `chargeback`: a row a usage event, and which apps have any.
//!
//! The partition is an app's UTC day, the row key `call|` and the event's id: an event that comes
//! twice meets its own row. Beside a day's calls lie its sums ([`super::sums`]). Partition
//! `index|2026-11` has a row for each app with calls in that month, so that a bill finds them without
//! a scan of the table.

use super::{Change, Fields, Key, Write, encode_key};
use crate::gateway::event::{Cache, Kind, UsageEvent};
use crate::gateway::price::Charge;
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

/// What the keys of calls begin with.
pub const CALL: &str = "call|";

/// What the partitions of the index begin with.
pub const INDEX: &str = "index|";

/// Characters of a UTC month, such as `2026-11`.
const MONTH: usize = 7;

/// The partition of an app's UTC day, such as `2026-11-23`.
pub fn partition(app: &str, day: &str) -> String {
    format!("{}|{day}", encode_key(app))
}

/// The key of an event's row.
pub fn key(event: &UsageEvent) -> Key {
    Key {
        partition: partition(&event.app, &event.time.day()),
        row: format!("{CALL}{}", encode_key(&event.id)),
    }
}

/// The partition and the write that say that an app has calls in the month of `time`. One that is there
/// already says the same.
pub fn index(app: &str, time: Timestamp) -> (String, Write) {
    let mut month = time.day();
    month.truncate(MONTH);
    let write = Write {
        row: encode_key(app),
        change: Change::Insert(Fields::new().text("app", app).text("month", &*month)),
    };
    (format!("{INDEX}{month}"), write)
}

/// What a row says where no price is known of its call, whether or not it has a cost.
pub(super) const UNPRICED: &str = "unpriced";

/// What stands in an event's row.
pub fn fields(event: &UsageEvent, charge: &Charge) -> Fields {
    let cost = charge.cost.map(|cost| cost.to_string());
    let mut fields = call(event)
        .text("cost", cost.unwrap_or_default())
        .number("weighted_tokens", charge.weighted);
    if charge.is_unpriced {
        fields = fields.flag(UNPRICED, true);
    }
    match event.saving {
        Some(_) => fields.text("saved_cost", charge.saved.to_string()),
        None => fields,
    }
}

/// As [`fields`], without what the call costs. Backend, deployment and kind are those by which the
/// call is in the sums ([`UsageEvent::served`]).
pub fn call(event: &UsageEvent) -> Fields {
    let served = event.served();
    let tier = Some(event.service_tier).filter(|tier| !tier.is_standard());
    let fields = Fields::new()
        .text("id", &*event.id)
        .text("time", event.time.rfc3339())
        .text("app", &*event.app)
        .text("user", clipped(&event.user))
        .text("subject", clipped(&event.subject))
        .text("priority", event.priority.as_str())
        .text("model", &*event.model)
        .text("operation", clipped(&event.operation))
        .text("backend", &**served.backend)
        .text("deployment", &**served.deployment)
        .text("kind", served.kind.map_or("", Kind::as_str))
        .text("region", &*event.region)
        .number("status", event.status.into())
        .flag("streamed", event.streamed)
        .flag("spilled", event.spilled)
        .text("outcome", event.outcome.as_str())
        .tokens(&event.tokens)
        .text("usage", event.usage.as_str())
        .text("service_tier", tier.map_or("", ServiceTier::as_str))
        .number("first_byte_ms", event.first_byte_ms)
        .number("total_ms", event.total_ms)
        .text("attempts", attempts(event))
        .text("trace_id", &*event.trace_id)
        .text("prompt_log", &*event.prompt_log)
        .text("cache", event.cache.map_or("", Cache::as_str));
    match event.saving {
        Some(_) => fields.number("saved_tokens", event.saved_tokens()),
        None => fields,
    }
}

/// The attempts as JSON. There are at most 33, so that they fit a field.
fn attempts(event: &UsageEvent) -> String {
    serde_json::to_string(&event.attempts).unwrap_or_default()
}

/// An operation is a part of the client's URL, which may be longer than a field.
fn clipped(text: &str) -> String {
    text.chars().take(1024).collect()
}
