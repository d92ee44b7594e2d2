//! `chat/completions` as a stream, chunk by chunk as Azure sends it.
//!
//! The first chunk has no choices and the prompt's filter results; with `include_usage` every chunk
//! but the last has `"usage":null` and the last has no choices (azure-facts, section 1, "Streaming").

use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::chat::{Completion, finish_reason};
use super::pace::Event;
use super::resource::new_id;
use super::tokens::OwnedTokens;

/// The events of a completion, made as they are asked for.
pub(super) fn events(
    completion: Completion,
    include_usage: bool,
) -> impl Iterator<Item = Event> + Send + Unpin + 'static {
    let Completion {
        id,
        created,
        model,
        choices,
        usage,
    } = completion;
    let frame = Frame {
        id,
        created,
        model,
        include_usage,
    };
    let first = std::iter::once(frame.prompt_filter());
    let last = include_usage.then(|| frame.usage(&usage));
    let choices = choices.into_iter().enumerate();
    let chunks = choices.flat_map(move |(index, answer)| frame.choice(index, &answer));
    first
        .chain(chunks)
        .chain(last)
        .chain(std::iter::once(Event::done()))
}

/// What all chunks of a stream share.
struct Frame {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Frame {
    /// One chunk with `choices`, as JSON.
    fn chunk(&self, choices: &Value) -> Map<String, Value> {
        let mut chunk = Map::new();
        chunk.insert("id".to_owned(), self.id.as_str().into());
        chunk.insert("object".to_owned(), "chat.completion.chunk".into());
        chunk.insert("created".to_owned(), self.created.into());
        chunk.insert("model".to_owned(), self.model.as_str().into());
        chunk.insert("system_fingerprint".to_owned(), "fp_simulated".into());
        chunk.insert("choices".to_owned(), choices.clone());
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    }

    fn prompt_filter(&self) -> Event {
        let mut chunk = self.chunk(&json!([]));
        for empty in ["id", "object", "model"] {
            chunk.insert(empty.to_owned(), "".into());
        }
        chunk.insert("created".to_owned(), 0.into());
        chunk.insert("prompt_filter_results".to_owned(), answer::clean_prompt());
        Event::data(&chunk.into())
    }

    fn usage(&self, usage: &Value) -> Event {
        let mut chunk = self.chunk(&json!([]));
        chunk.insert("usage".to_owned(), usage.clone());
        Event::data(&chunk.into())
    }

    fn delta(&self, index: usize, delta: &Value, finish: Option<&str>, filter: &Value) -> Value {
        let choice = json!({
            "index": index, "delta": delta, "finish_reason": finish, "logprobs": null,
            "content_filter_results": filter,
        });
        self.chunk(&json!([choice])).into()
    }

    /// All chunks of one choice.
    fn choice(&self, index: usize, answer: &Answer) -> impl Iterator<Item = Event> + use<> {
        let (opening, text) = match answer {
            Answer::Text(text) => {
                let delta = json!({ "role": "assistant", "content": "", "refusal": null });
                (delta, &text.text)
            }
            Answer::Call(call) => {
                let function = json!({ "name": call.name, "arguments": "" });
                let call_delta = json!([{
                    "index": 0, "id": new_id("call_"), "type": "function", "function": function,
                }]);
                let delta = json!({
                    "role": "assistant", "content": null, "tool_calls": call_delta,
                });
                (delta, &call.arguments)
            }
        };
        let piece = match answer {
            Answer::Text(_) => json!({ "content": HOLE }),
            Answer::Call(_) => {
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": HOLE } }] })
            }
        };
        let pattern = self
            .delta(index, &piece, None, &answer::clean_filter())
            .to_string();
        let quoted_hole = format!("\"{HOLE}\"");
        let (before, after) = pattern.split_once(&quoted_hole).unwrap_or((&pattern, ""));
        let (before, after) = (format!("data: {before}"), format!("{after}\n\n"));
        let pieces = OwnedTokens::of(text.clone()).map(move |piece| {
            let quoted = Value::from(piece).to_string();
            Event::raw(format!("{before}{quoted}{after}")).with_tokens(1)
        });
        let opening = Event::data(&self.delta(index, &opening, None, &json!({})));
        let finish = Some(finish_reason(answer));
        let closing = Event::data(&self.delta(index, &json!({}), finish, &json!({})));
        std::iter::once(opening)
            .chain(pieces)
            .chain(std::iter::once(closing))
    }
}

/// Where a piece goes in a chunk's pattern: the JSON around it is written once per stream.
const HOLE: &str = "\u{fffc}";
