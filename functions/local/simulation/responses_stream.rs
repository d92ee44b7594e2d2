//! `responses` as a stream: the event sequence of the real API, numbered.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Answer;
use super::pace::Event;
use super::resource::Resource;
use super::responses::{Made, status_of, with_status};
use super::tokens::OwnedTokens;

/// The events of a response. It is remembered when the last one is made: a stream that is cut off
/// leaves nothing to continue.
pub(super) fn events(
    made: Made,
    resource: Arc<Resource>,
) -> impl Iterator<Item = Event> + Send + Unpin + 'static {
    let item = made.body.pointer("/output/0").cloned().unwrap_or_default();
    let script = Script::of(&item, &made.answer);
    let in_progress = with_status(&made.body, "in_progress");
    let mut opening = vec![
        json!({ "type": "response.created", "response": in_progress }),
        json!({ "type": "response.in_progress", "response": in_progress }),
    ];
    opening.extend(script.opening);
    let deltas = made.answer.tokens();
    let first_delta = u64::try_from(opening.len()).unwrap_or(u64::MAX);
    let first_closing = first_delta.saturating_add(deltas);
    let last =
        first_closing.saturating_add(u64::try_from(script.closing.len()).unwrap_or(u64::MAX));

    let pieces = OwnedTokens::of(script.text)
        .zip(first_delta..)
        .map(move |(piece, number)| {
            let mut delta = script.delta.clone();
            if let Some(fields) = delta.as_object_mut() {
                fields.insert("delta".to_owned(), piece.into());
            }
            numbered(delta, number).with_tokens(1)
        });
    let finish = std::iter::once_with(move || {
        let kind = format!("response.{}", status_of(&made.body));
        let event = json!({ "type": kind, "response": made.body });
        made.remember(&resource, None);
        numbered(event, last)
    });
    let opening = opening
        .into_iter()
        .zip(0..)
        .map(|(event, number)| numbered(event, number));
    let closing = script.closing.into_iter().zip(first_closing..);
    let closing = closing.map(|(event, number)| numbered(event, number));
    opening.chain(pieces).chain(closing).chain(Box::new(finish))
}

fn numbered(mut event: Value, number: u64) -> Event {
    if let Some(fields) = event.as_object_mut() {
        fields.insert("sequence_number".to_owned(), number.into());
    }
    let name = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Event::named(name, &event)
}

/// What comes before, between and after the deltas of one output item.
struct Script {
    opening: Vec<Value>,
    text: String,
    delta: Value,
    closing: Vec<Value>,
}

impl Script {
    fn of(item: &Value, answer: &Answer) -> Self {
        match answer {
            Answer::Text(text) => Self::message(item, &text.text),
            Answer::Call(call) => Self::call(item, &call.arguments),
        }
    }

    fn message(item: &Value, text: &str) -> Self {
        let id = item.get("id");
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
        let event = |kind: &str| json!({ "type": kind, "item_id": id, "output_index": 0, "content_index": 0 });
        let with = |kind: &str, key: &str, value: Value| {
            let mut event = event(kind);
            if let Some(fields) = event.as_object_mut() {
                fields.insert(key.to_owned(), value);
            }
            event
        };
        Self {
            opening: vec![
                item_event("added", &begun(item, "content", json!([]))),
                with("response.content_part.added", "part", part("")),
            ],
            text: text.to_owned(),
            delta: event("response.output_text.delta"),
            closing: vec![
                with("response.output_text.done", "text", text.into()),
                with("response.content_part.done", "part", part(text)),
                item_event("done", item),
            ],
        }
    }

    fn call(item: &Value, arguments: &str) -> Self {
        let id = item.get("id");
        let kind = "response.function_call_arguments";
        Self {
            opening: vec![item_event("added", &begun(item, "arguments", json!("")))],
            text: arguments.to_owned(),
            delta: json!({ "type": format!("{kind}.delta"), "item_id": id, "output_index": 0 }),
            closing: vec![
                json!({
                    "type": format!("{kind}.done"), "item_id": id, "output_index": 0,
                    "arguments": arguments, "name": item.get("name"),
                }),
                item_event("done", item),
            ],
        }
    }
}

fn item_event(what: &str, item: &Value) -> Value {
    json!({ "type": format!("response.output_item.{what}"), "output_index": 0, "item": item })
}

/// An item as it is when it begins: in progress, and empty in `field`.
fn begun(item: &Value, field: &str, empty: Value) -> Value {
    let mut item = item.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.insert("status".to_owned(), "in_progress".into());
        fields.insert(field.to_owned(), empty);
    }
    item
}
