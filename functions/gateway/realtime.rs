//! The realtime API over WebSocket: its URLs, what it is shown, and what a backend's events say.
//!
//! The two generations (Microsoft Learn, "Use the GPT Realtime API via WebSockets"):
//! `/openai/v1/realtime?model={deployment}` and `/openai/realtime?api-version=...&deployment={deployment}`.
//! Plain OpenAI clients say `/v1/realtime?model=...`.

use std::borrow::Cow;

use super::event::Tokens;
use super::route::{Form, percent_decode, percent_encode_into};
use super::skim::{Skim, TextKeys};
use super::usage;

mod under_way;

#[cfg(test)]
mod tests;

pub use self::under_way::UnderWay;

/// What a browser, which can set no header, names its key by among the protocols that it offers
/// (OpenAI, "Realtime API with WebSocket").
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// How much of an event is looked at for its type, bytes. It comes first or second.
const MAX_START: usize = 1024;

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let (_, value) = pairs(query).find(|(other, value)| *other == name && !value.is_empty())?;
    Some(percent_decode(value))
}

/// The model that a session is for.
pub fn model(query: &str) -> Option<Cow<'_, str>> {
    value(query, "model").or_else(|| value(query, "deployment"))
}

/// The key that the URL or the offered protocols show, where no header can.
pub fn key<'a>(query: &'a str, protocols: &'a str) -> Option<Cow<'a, str>> {
    let offered = protocols.split(',').map(str::trim);
    let mut keys = offered.filter_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL));
    let key = keys.next().filter(|key| !key.is_empty());
    key.map(Cow::Borrowed).or_else(|| value(query, "api-key"))
}

/// The protocols that a backend is offered: the client's without its key.
pub fn without_key(protocols: &str) -> String {
    let offered = protocols.split(',').map(str::trim);
    let others = offered.filter(|protocol| !protocol.starts_with(KEY_PROTOCOL));
    others.collect::<Vec<_>>().join(", ")
}

/// The path and query at a backend that speaks `form`, for `deployment` there.
pub(super) fn upstream(query: &str, form: Form, deployment: &str, api_version: &str) -> String {
    let named = pairs(query).find(|(name, value)| *name == "api-version" && !value.is_empty());
    let mut url = match form {
        Form::V1 => "/openai/v1/realtime?model=".to_owned(),
        Form::Classic => format!(
            "/openai/realtime?api-version={}&deployment=",
            named.map_or(api_version, |(_, version)| version)
        ),
    };
    percent_encode_into(&mut url, deployment);
    for (name, value) in pairs(query) {
        // `code` is the host's function key.
        let is_ours = matches!(
            name,
            "model" | "deployment" | "api-version" | "api-key" | "code"
        );
        if !is_ours {
            url.push('&');
            url.push_str(name);
            url.push('=');
            url.push_str(value);
        }
    }
    url
}

/// What a backend's event tells; of responses their ids, where they have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// This response has begun.
    Begun(Option<Box<str>>),
    /// This response has ended, and used so much.
    Done(Option<Box<str>>, Option<Tokens>),
}

/// Reads the events of one session as they pass.
#[derive(Debug)]
pub struct Listener {
    start: Vec<u8>,
    skim: Skim,
    /// Bytes of text of all events before this one, with those that are no text.
    skimmed: u64,
    text_bytes: u64,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            skim: Skim::new(TextKeys::Deltas),
            skimmed: 0,
            text_bytes: 0,
        }
    }
}

impl Listener {
    /// The next bytes of an event.
    pub fn part(&mut self, bytes: &[u8]) {
        let room = MAX_START.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend(bytes.get(..room).unwrap_or_default());
        self.skim.push(bytes);
    }

    /// The event is whole: what it tells, if that matters.
    pub fn end(&mut self) -> Option<Said> {
        let kind = kind(&self.start).unwrap_or_default();
        let id = || self.skim.id().map(Box::from);
        let said = match kind {
            b"response.created" => Some(Said::Begun(id())),
            b"response.done" => {
                let used = self.skim.usage().and_then(usage::parse);
                Some(Said::Done(id(), used))
            }
            _ => None,
        };
        let text = self.skim.text_bytes() - self.skimmed;
        self.skimmed = self.skim.text_bytes();
        if !kind.ends_with(b"audio.delta") {
            self.text_bytes = self.text_bytes.saturating_add(text);
        }
        self.start.clear();
        self.skim.reset();
        said
    }

    /// Bytes of generated text since this was last asked.
    pub const fn take_text_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.text_bytes, 0)
    }
}

/// The value of the top-level key `type`, where it is a plain text.
fn kind(json: &[u8]) -> Option<&[u8]> {
    let (mut depth, mut at) = (0_u32, 0);
    let mut is_type = false;
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => is_type = false,
            b'"' => {
                let text = string(json.get(at..)?)?;
                at += text.len() + 1;
                if is_type && depth == 1 {
                    return Some(text);
                }
                let rest = json.get(at..).unwrap_or_default().trim_ascii_start();
                is_type = depth == 1 && text == b"type" && rest.first() == Some(&b':');
            }
            _ => {}
        }
    }
    None
}

/// A string's bytes up to its closing quote, escapes as they are.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    let end = bytes.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    bytes.get(..end?)
}
