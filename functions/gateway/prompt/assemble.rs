//! What a stream of server-sent events comes to: the message that the same call would have brought
//! without streaming.

use serde_json::{Map, Value, json};

use super::super::route::Operation;
use super::super::tree::is_too_large;

/// Assembles a stream. What has an unknown form, or breaks off before anything was said, stands there as
/// the text it is.
pub(super) fn assemble(operation: Operation, stream: &[u8]) -> Value {
    let whole = match operation {
        Operation::ChatCompletions => chunks(stream, "chat.completion"),
        Operation::Completions => chunks(stream, "text_completion"),
        Operation::Responses => response(stream),
        _ => None,
    };
    whole.unwrap_or_else(|| super::text(stream))
}

/// The JSON of each event, in order. An event that the stream breaks off in is left out, and one with more values
/// than a tree may be made of.
fn events(stream: &[u8]) -> impl Iterator<Item = Value> {
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n");
    let events: Vec<String> = text.split("\n\n").map(data).collect();
    events
        .into_iter()
        .filter(|data| !is_too_large(data.as_bytes()))
        .filter_map(|data| serde_json::from_str(&data).ok())
}

fn data(event: &str) -> String {
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Chunks of a completion: choices and tool calls are put together by their index, texts one after
/// the other; of everything else the last word counts.
fn chunks(stream: &[u8], object: &str) -> Option<Value> {
    let mut whole = Map::new();
    for chunk in events(stream) {
        if let Value::Object(chunk) = chunk {
            merge_all(&mut whole, chunk, Within::Chunk);
        }
    }
    if whole.is_empty() {
        return None;
    }
    if whole.contains_key("choices") {
        whole.insert("object".into(), object.into());
    }
    let choices = whole.get_mut("choices").and_then(Value::as_array_mut);
    for choice in choices.into_iter().flatten() {
        if let Some(choice) = choice.as_object_mut()
            && let Some(message) = choice.remove("delta")
        {
            choice.insert("message".into(), message);
        }
    }
    Some(Value::Object(whole))
}

/// Where a value stands: texts within a delta are parts of a text, others are whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Chunk,
    Delta,
}

/// Texts of a delta that are said whole, once or each time.
const WHOLE: [&str; 3] = ["id", "type", "role"];

fn merge_all(whole: &mut Map<String, Value>, part: Map<String, Value>, within: Within) {
    for (key, value) in part {
        let inner = if key == "delta" {
            Within::Delta
        } else {
            within
        };
        let is_part = key == "text" || within == Within::Delta && !WHOLE.contains(&key.as_str());
        match whole.get_mut(&key) {
            // The first of an indexed list is put together with itself, as it may name an index twice.
            None if value.is_array() => {
                let mut list = Value::Array(Vec::new());
                merge(&mut list, value, inner, is_part);
                whole.insert(key, list);
            }
            None => {
                whole.insert(key, value);
            }
            Some(known) => merge(known, value, inner, is_part),
        }
    }
}

fn merge(whole: &mut Value, part: Value, within: Within, is_part: bool) {
    match (whole, part) {
        (_, Value::Null) => {}
        (Value::Object(whole), Value::Object(part)) => merge_all(whole, part, within),
        (Value::String(whole), Value::String(part)) if is_part => whole.push_str(&part),
        (Value::Array(whole), Value::Array(part)) => {
            part.into_iter()
                .for_each(|item| merge_item(whole, item, within));
        }
        (whole, part) => *whole = part,
    }
}

/// An item with an index is put together with the one that has the same; others follow.
fn merge_item(list: &mut Vec<Value>, item: Value, within: Within) {
    let index = item.get("index").cloned();
    let same = |known: &&mut Value| index.is_some() && known.get("index") == index.as_ref();
    match list.iter_mut().find(same) {
        Some(known) => merge(known, item, within, false),
        None => list.push(item),
    }
}

/// A response: its last event has it whole. Without that, what was said until then.
fn response(stream: &[u8]) -> Option<Value> {
    let (mut last, mut text) = (None, String::new());
    for mut event in events(stream) {
        if let Some(response) = event.get_mut("response").filter(|r| r.is_object()) {
            last = Some(response.take());
        }
        let kind = event.get("type").and_then(Value::as_str);
        if kind == Some("response.output_text.delta") {
            text.extend(event.get("delta").and_then(Value::as_str));
        }
    }
    let mut last = last?;
    let output = last.get("output").and_then(Value::as_array);
    let is_unfinished = output.is_none_or(Vec::is_empty) && !text.is_empty();
    if let Some(last) = last.as_object_mut().filter(|_| is_unfinished) {
        let message = json!({
            "type": "message",
            "role": "assistant",
            "status": "incomplete",
            "content": [{"type": "output_text", "text": text}],
        });
        last.insert("output".into(), json!([message]));
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(events: &[Value]) -> String {
        events
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect()
    }

    #[test]
    fn a_chat_stream_comes_to_its_completion() {
        let chunk = |choices: Value| json!({"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": choices});
        let delta = |index: u32, delta: Value| {
            chunk(json!([{"index": index, "delta": delta, "finish_reason": null}]))
        };
        let call = |id: Value, arguments: &str| json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": id, "arguments": arguments}}]});
        let mut events = vec![
            delta(0, json!({"role": "assistant", "content": ""})),
            delta(0, json!({"content": "Hel"})),
            delta(1, json!({"role": "assistant", "content": "Other"})),
            delta(0, json!({"role": "assistant", "content": "lo"})),
            delta(1, call(json!("f"), "{\"a\"")),
            delta(
                1,
                json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
            ),
            chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])),
        ];
        events.push(json!({"id": "c1", "choices": [], "usage": {"total_tokens": 3}}));
        let text = stream(&events) + ": keep-alive\n\ndata: [DONE]\n\ndata: {\"cut";
        assert_eq!(
            assemble(Operation::ChatCompletions, text.as_bytes()),
            json!({
                "id": "c1", "object": "chat.completion", "model": "m",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}},
                    {"index": 1, "finish_reason": null, "message": {"role": "assistant", "content": "Other",
                        "tool_calls": [{"index": 0, "id": "f", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}},
                ],
                "usage": {"total_tokens": 3},
            })
        );
    }

    #[test]
    fn an_event_with_too_many_values_is_left_out() {
        let part = |text: &str, more: Value| json!({"id": "c", "choices": [{"index": 0, "text": text}], "more": more});
        let bomb = part("x", json!(vec![0; 300_000]));
        let events = [part("a", Value::Null), bomb, part("b", Value::Null)];
        let whole = assemble(Operation::Completions, stream(&events).as_bytes());
        assert_eq!(whole["choices"][0]["text"], "ab");
    }

    #[test]
    fn a_completions_stream_comes_to_its_completion() {
        let part = |text: &str| json!({"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": null}]});
        let whole = assemble(
            Operation::Completions,
            stream(&[part("a"), part("b")])
                .replace('\n', "\r\n")
                .as_bytes(),
        );
        assert_eq!(whole["choices"][0]["text"], "ab");
        assert_eq!(whole["object"], "text_completion");
    }

    #[test]
    fn a_response_is_its_last_event_or_what_was_said_until_it_broke_off() {
        let created = json!({"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}});
        let delta = |text: &str| json!({"type": "response.output_text.delta", "delta": text});
        let done = json!({"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [{"x": 1}]}});
        let mut events = vec![created, delta("Hel"), delta("lo")];
        let cut = assemble(Operation::Responses, stream(&events).as_bytes());
        assert_eq!(cut["output"][0]["content"][0]["text"], "Hello");
        events.push(done);
        let whole = assemble(Operation::Responses, stream(&events).as_bytes());
        assert_eq!(
            whole,
            json!({"id": "r", "status": "completed", "output": [{"x": 1}]})
        );
    }

    #[test]
    fn what_is_no_such_stream_stays_text() {
        let other = "data: {\"type\":\"transcript.text.delta\"}\n\n";
        assert_eq!(assemble(Operation::Transcription, other.as_bytes()), other);
        assert_eq!(assemble(Operation::ChatCompletions, b""), "");
        assert_eq!(
            assemble(Operation::Responses, b"data: [DONE]\n\n"),
            "data: [DONE]\n\n"
        );
    }
}
