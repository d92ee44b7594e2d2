//! Reads a request's body for the few values that routing needs, and edits it in place.
//!
//! The body is never rebuilt: what has to change is a span of it, and the body that goes out is
//! the old one's slices with the new values between them, so every other byte stays as it came.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use self::ids::Ids;

mod ids;
#[cfg(test)]
mod tests;

/// Most ids of stored things that a body may name: each of them may be a read of the store. A batch of files for a
/// vector store has 500 at most (OpenAI's API reference, "Create vector store file batch").
const MAX_STORED_IDS: usize = 512;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError {
    /// Line of the mistake, from 1; 0 where the body as a whole is meant.
    pub line: usize,
    /// Column of the mistake in bytes, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}, column {}: {}", self.column, self.message),
        }
    }
}

impl std::error::Error for BodyError {}

impl BodyError {
    /// A mistake of the body as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: 0,
            message: message.into(),
        }
    }

    /// What the JSON reader says of a body.
    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&place).unwrap_or(&message);
        Self {
            line: error.line(),
            column: error.column(),
            message: if error.is_data() {
                message.to_owned()
            } else {
                format!("the body is not valid JSON: {message}")
            },
        }
    }

    fn at(body: &[u8], offset: usize, message: impl Into<String>) -> Self {
        let before = body.get(..offset).unwrap_or(body);
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Self {
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: before.len() - line_start + 1,
            message: message.into(),
        }
    }
}

/// A change of a body: what stands in `range` becomes `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes that go; empty where something is only put in.
    pub range: Range<usize>,
    /// The bytes that come in their place.
    pub text: Bytes,
}

/// `body` with `edits` made, as slices of it and of the edits, in order. Edits that overlap are
/// made in the order of where they begin, each from where the one before ended.
pub fn segments(body: &Bytes, edits: &[Edit]) -> Vec<Bytes> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.range.start);
    let mut parts = Vec::with_capacity(sorted.len() * 2 + 1);
    let mut at = 0;
    for edit in sorted {
        let start = edit.range.start.clamp(at, body.len());
        parts.push(body.slice(at..start));
        parts.push(edit.text.clone());
        at = edit.range.end.clamp(start, body.len());
    }
    parts.push(body.slice(at..));
    parts.retain(|part| !part.is_empty());
    parts
}

/// What a JSON body says of itself.
#[derive(Debug, Default)]
pub struct Head<'a> {
    body: &'a [u8],
    model: Option<&'a RawValue>,
    stream: bool,
    background: bool,
    stream_options: Option<&'a RawValue>,
    max_output_tokens: Option<u64>,
    store: Option<bool>,
    stored_ids: Ids<'a>,
    has_data_sources: bool,
    prompt: Option<&'a RawValue>,
    /// Where the first key may be put in.
    inside: usize,
    is_empty: bool,
}

impl<'a> Head<'a> {
    /// Reads a body that has to be a JSON object.
    ///
    /// Of the values only those are checked that routing needs; what is wrong with the others is
    /// the backend's to say.
    ///
    /// # Errors
    /// Where the body is no JSON or no object, where a key that is read stands twice, and where too many
    /// stored things are named.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let inside = body.iter().position(|byte| !byte.is_ascii_whitespace());
        let inside = match inside {
            None => {
                return Err(BodyError::whole(
                    "the body is empty; a JSON object is expected",
                ));
            }
            Some(at) if body.get(at) == Some(&b'{') => at + 1,
            Some(at) => return Err(BodyError::at(body, at, "the body must be a JSON object")),
        };
        let mut head = Head {
            body,
            inside,
            is_empty: true,
            ..Head::default()
        };
        let mut json = serde_json::Deserializer::from_slice(body);
        json.deserialize_map(Fields(&mut head))
            .and_then(|()| json.end())
            .map_err(|e| BodyError::not_json(&e))?;
        head.stored_ids.add_within(body);
        if head.stored_ids.are_too_many() {
            return Err(BodyError::whole(format!(
                "the body names more than {MAX_STORED_IDS} stored things (files, vector stores and the like); make several calls of it"
            )));
        }
        Ok(head)
    }

    /// The model asked for, if one is.
    ///
    /// # Errors
    /// When `model` is there and no string.
    pub fn model(&self) -> Result<Option<Cow<'a, str>>, BodyError> {
        let Some(raw) = self.model else {
            return Ok(None);
        };
        let at = self.span(raw).start;
        text(raw.get())
            .map(Some)
            .ok_or_else(|| BodyError::at(self.body, at, "`model` must be a string"))
    }

    /// Whether a stream is asked for.
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the answer is to be made after the call has ended.
    pub const fn background(&self) -> bool {
        self.background
    }

    /// The most tokens that the answer may have, where the body says.
    pub const fn max_output_tokens(&self) -> Option<u64> {
        self.max_output_tokens
    }

    /// Whether the answer is to be kept for later calls, where the body says.
    pub const fn store(&self) -> Option<bool> {
        self.store
    }

    /// The ids of what is stored that the call builds on: a response, conversation, file, assistant,
    /// thread, vector store.
    pub fn stored_ids(&self) -> impl Iterator<Item = &str> {
        self.stored_ids.iter()
    }

    /// The JSON of the prompt: `messages`, `input` or `prompt`.
    pub fn prompt(&self) -> Option<&'a [u8]> {
        self.prompt.map(|raw| raw.get().as_bytes())
    }

    /// The edit that makes `model` be `deployment`; `None` where it is already.
    pub fn set_model(&self, deployment: &str) -> Option<Edit> {
        match self.model {
            Some(raw) if text(raw.get()).as_deref() == Some(deployment) => None,
            Some(raw) => Some(Edit {
                range: self.span(raw),
                text: json_string(deployment).into(),
            }),
            None => Some(self.insert(&format!("\"model\":{}", json_string(deployment)))),
        }
    }

    /// The edit that makes a chat or completions stream report its usage; `None` where it does
    /// already, and where the backend would refuse the wish: with data of one's own
    /// (`data_sources`) Azure takes no `stream_options` (openai-python, issue 2296).
    pub fn ask_usage(&self) -> Option<Edit> {
        if self.has_data_sources && self.stream_options.is_none() {
            return None;
        }
        let Some(raw) = self.stream_options else {
            return Some(self.insert("\"stream_options\":{\"include_usage\":true}"));
        };
        let span = self.span(raw);
        let Ok(options) = serde_json::from_str::<Options<'_>>(raw.get()) else {
            // Null, or an object that says it twice. Anything else is the backend's to refuse.
            return (raw.get() == "null" || raw.get().starts_with('{')).then(|| Edit {
                range: span,
                text: Bytes::from_static(b"{\"include_usage\":true}"),
            });
        };
        match options.include_usage {
            Some(value) if value.get() == "true" => None,
            Some(value) => Some(Edit {
                range: self.span(value),
                text: Bytes::from_static(b"true"),
            }),
            None => {
                let empty = raw.get().trim_matches(['{', '}']).trim().is_empty();
                let text: &[u8] = if empty {
                    b"\"include_usage\":true"
                } else {
                    b"\"include_usage\":true,"
                };
                Some(Edit {
                    range: span.start + 1..span.start + 1,
                    text: Bytes::from_static(text),
                })
            }
        }
    }

    fn insert(&self, field: &str) -> Edit {
        let comma = if self.is_empty { "" } else { "," };
        Edit {
            range: self.inside..self.inside,
            text: format!("{field}{comma}").into(),
        }
    }

    /// Where a value that was read from this body stands in it.
    fn span(&self, raw: &RawValue) -> Range<usize> {
        let start = raw
            .get()
            .as_ptr()
            .addr()
            .saturating_sub(self.body.as_ptr().addr());
        start..start + raw.get().len()
    }
}

#[derive(serde::Deserialize)]
struct Options<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    include_usage: Option<&'a RawValue>,
}

/// An `Option` alone would take null for absent.
fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    serde::Deserialize::deserialize(value).map(Some)
}

/// The text of a JSON string.
fn text(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn json_string(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// The keys that are looked at, by their place in [`NAMES`]; `None`: any other.
struct Key(Option<usize>);

/// Keys that routing, limits and ownership go by.
const NAMES: [&str; 22] = [
    "model",
    "stream",
    "background",
    "stream_options",
    "store",
    "conversation",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "previous_response_id",
    "input_file_id",
    "assistant_id",
    "thread_id",
    "training_file",
    "validation_file",
    "data_source",
    "video",
    "messages",
    "input",
    "prompt",
    "data_sources",
    "dataSources",
];

impl<'de> serde::Deserialize<'de> for Key {
    /// Matched without allocating.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(Key(NAMES.iter().position(|name| *name == key)))
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

struct Fields<'h, 'a>(&'h mut Head<'a>);

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let head = self.0;
        let mut seen = [false; NAMES.len()];
        while let Some(Key(known)) = map.next_key()? {
            let raw: &'a RawValue = map.next_value()?;
            head.is_empty = false;
            let Some((name, seen)) = known.and_then(|at| NAMES.get(at).zip(seen.get_mut(at)))
            else {
                continue;
            };
            if std::mem::replace(seen, true) {
                return Err(twice(name));
            }
            head.take(name, raw);
        }
        Ok(())
    }
}

/// Two readers could each believe another of the two: the gateway goes by one, the backend by the
/// other.
fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("`{key}` stands twice in the body"))
}

impl<'a> Head<'a> {
    /// Takes in a member of the body, whose key is one of [`NAMES`].
    fn take(&mut self, name: &str, raw: &'a RawValue) {
        match name {
            "model" => self.model = Some(raw),
            "stream" => self.stream = raw.get() == "true",
            "background" => self.background = raw.get() == "true",
            "stream_options" => self.stream_options = Some(raw),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let limit = raw.get().parse().ok();
                self.max_output_tokens = self.max_output_tokens.max(limit);
            }
            "store" => self.store = raw.get().parse().ok(),
            "messages" | "input" | "prompt" => {
                self.prompt = self.prompt.or(Some(raw));
            }
            "data_sources" | "dataSources" => self.has_data_sources = true,
            // The ids; a conversation and a video may be objects that have one.
            _ => self.stored_ids.add_named(raw.get()),
        }
    }
}
