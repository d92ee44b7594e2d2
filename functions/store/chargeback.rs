//! The rows of table `chargeback`: a row a usage event.
//!
//! The partition is an app's UTC day, the row key `call|` and the event's id: an event that comes
//! twice meets its own row.

use super::{Change, Fields, Key, Store, StoreError, Table, Write, bounds, encode_key};
use crate::gateway::event::UsageEvent;

/// What the keys of calls begin with.
pub const CALL: &str = "call|";

/// The key of an event's row.
pub fn key(event: &UsageEvent) -> Key {
    Key {
        partition: format!("{}|{}", encode_key(&event.app), event.time.day()),
        row: format!("{CALL}{}", encode_key(&event.id)),
    }
}

/// What stands in an event's row.
pub fn fields(event: &UsageEvent) -> Fields {
    let tokens = &event.tokens;
    Fields::new()
        .text("id", &*event.id)
        .text("time", event.time.rfc3339())
        .text("app", &*event.app)
        .text("model", &*event.model)
        .text("operation", clipped(&event.operation))
        .text("backend", &*event.backend)
        .text("deployment", &*event.deployment)
        .text("kind", event.kind.map_or("", |kind| kind.as_str()))
        .text("region", &*event.region)
        .number("status", event.status.into())
        .flag("streamed", event.streamed)
        .flag("spilled", event.spilled)
        .text("outcome", event.outcome.as_str())
        .number("input_tokens", tokens.input)
        .number("output_tokens", tokens.output)
        .number("cached_tokens", tokens.cached)
        .number("reasoning_tokens", tokens.reasoning)
        .number("audio_input_tokens", tokens.audio_input)
        .number("audio_output_tokens", tokens.audio_output)
        .number("image_input_tokens", tokens.image_input)
        .text("usage", event.usage.as_str())
        .number("first_byte_ms", event.first_byte_ms)
        .number("total_ms", event.total_ms)
        .text("attempts", attempts(event))
        .text("trace_id", &*event.trace_id)
        .text("prompt_log", &*event.prompt_log)
}

/// The attempts as JSON. There are at most 32, so that they fit a field.
fn attempts(event: &UsageEvent) -> String {
    serde_json::to_string(&event.attempts).unwrap_or_default()
}

/// An operation is a part of the client's URL, which may be longer than a field.
fn clipped(text: &str) -> String {
    text.chars().take(1024).collect()
}

/// Writes events, each once: those that are there already are passed over. All of `events` have
/// to be of one partition.
///
/// # Errors
/// When the store fails; none of the events or some are written then, and writing them all again
/// is right.
pub async fn insert(store: &dyn Store, events: &[&UsageEvent]) -> Result<(), StoreError> {
    for batch in events.chunks(bounds::MAX_WRITES) {
        let mut batch = batch.to_vec();
        while let Some(first) = batch.first() {
            let partition = key(first).partition;
            let writes = batch.iter().map(|event| Write {
                row: key(event).row,
                change: Change::Insert(fields(event)),
            });
            match store
                .write(Table::Chargeback, &partition, writes.collect())
                .await
            {
                Ok(()) => break,
                Err(StoreError::Exists { index }) if index < batch.len() => {
                    batch.remove(index);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
