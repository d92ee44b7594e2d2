//! Reads server-sent events as they pass, and keeps one of them from the client.
//!
//! Chunks go out as they came, without a copy. Only where the gateway itself asked for the usage
//! chunk (`stream_options.include_usage`) is that one event held back; it is the one that has
//! `usage` and no `choices` (OpenAI API reference, chat streaming).

use bytes::Bytes;

use super::event::Tokens;
use super::service_tier::ServiceTier;
use super::skim::{Skim, TextKeys};
use super::usage;

#[cfg(test)]
mod tests;

/// How much of an event is held back while it may still be the usage chunk, bytes. That chunk has
/// some 600; a longer event is none and goes out.
const MAX_HELD: usize = 16 * 1024;

/// A scanner of one stream.
#[derive(Debug)]
pub struct SseScanner {
    skim: Skim,
    hides_usage: bool,
    line: Line,
    /// Whether the last line ended with CR, so that an LF belongs to it.
    after_cr: bool,
    /// Whether the current event has any line yet.
    in_event: bool,
    /// Whether the current event has begun to go out and so can't be held any more.
    released: bool,
    held: Vec<Bytes>,
    held_len: usize,
    /// Whether the last event was kept from the client and nothing has come after it.
    hid_last: bool,
    seen: Seen,
}

/// What a stream has told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The usage that came last.
    pub usage: Option<Tokens>,
    /// The service tier that was named last: a response that begins may name the one that was asked for, and
    /// at its end that which processed it.
    pub service_tier: Option<ServiceTier>,
    /// The first id: of the response, or of the completion.
    pub id: Option<String>,
    /// Whether an event reported an error.
    pub error: bool,
    /// Events that ended.
    pub events: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// At its start, with so many bytes of `data:` read.
    Start(u8),
    Data,
    /// A field that does not matter, or a comment.
    Other,
}

const FIELD: &[u8] = b"data:";

impl SseScanner {
    /// A scanner that counts text under `text_keys`; with `hides_usage` it keeps the usage chunk
    /// from the client.
    pub const fn new(text_keys: TextKeys, hides_usage: bool) -> Self {
        Self {
            skim: Skim::new(text_keys),
            hides_usage,
            line: Line::Start(0),
            after_cr: false,
            in_event: false,
            released: false,
            held: Vec::new(),
            held_len: 0,
            hid_last: false,
            seen: Seen {
                usage: None,
                service_tier: None,
                id: None,
                error: false,
                events: 0,
            },
        }
    }

    /// Reads the next chunk and hands on what the client gets of it, in order.
    pub fn push(&mut self, chunk: &Bytes, mut emit: impl FnMut(Bytes)) {
        let mut reader = Reader {
            chunk,
            emitted: 0,
            event_start: 0,
        };
        let mut at = 0;
        if self.after_cr && !self.in_event && chunk.first() == Some(&b'\n') {
            // The rest of the last event's line end, which shares that event's fate.
            reader.emitted = usize::from(self.hid_last);
            reader.event_start = 1;
        }
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let (used, event_ended) = self.read(rest);
            at += used;
            if event_ended {
                self.end_event(&mut reader, at, &mut emit);
            } else if !self.in_event {
                // A blank line between events is no part of the next one.
                reader.event_start = at;
            }
        }
        self.end_chunk(&mut reader, &mut emit);
    }

    /// The end of the stream: an event without its blank line, and what was held of it.
    pub fn finish(&mut self, emit: impl FnMut(Bytes)) {
        if self.in_event {
            self.note_event();
        }
        self.held_len = 0;
        self.held.drain(..).for_each(emit);
    }

    /// Whether the client has whole events only, so that another line may be put in between.
    pub fn at_boundary(&self) -> bool {
        !self.in_event && self.line == Line::Start(0)
    }

    /// What the stream has told so far.
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Bytes of generated text so far.
    pub const fn text_bytes(&self) -> u64 {
        self.skim.text_bytes()
    }

    /// Reads up to the end of a line or a field name's byte; how much, and whether an event ended.
    fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        let first = bytes.first().copied().unwrap_or_default();
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            return (1, false);
        }
        if let Line::Start(matched) = self.line {
            return self.read_start(bytes, first, matched);
        }
        let end = memchr::memchr2(b'\n', b'\r', bytes);
        let content = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if self.line == Line::Data {
            self.skim.push(content);
        }
        let Some(end) = end else {
            return (bytes.len(), false);
        };
        self.after_cr = bytes.get(end) == Some(&b'\r');
        self.line = Line::Start(0);
        (end + 1, false)
    }

    fn read_start(&mut self, bytes: &[u8], first: u8, matched: u8) -> (usize, bool) {
        self.hid_last = false;
        if matches!(first, b'\n' | b'\r') {
            let whole = bytes.starts_with(b"\r\n");
            self.after_cr = first == b'\r' && !whole;
            self.line = Line::Start(0);
            let blank = matched == 0;
            return (1 + usize::from(whole), blank && self.in_event);
        }
        self.in_event = true;
        if matched == 0 && bytes.starts_with(FIELD) {
            self.line = Line::Data;
            return (FIELD.len(), false);
        }
        let expected = FIELD.get(usize::from(matched)).copied();
        self.line = match (
            expected == Some(first),
            usize::from(matched) + 1 == FIELD.len(),
        ) {
            (true, true) => Line::Data,
            (true, false) => Line::Start(matched + 1),
            (false, _) => Line::Other,
        };
        (1, false)
    }

    fn end_event(&mut self, reader: &mut Reader<'_>, end: usize, emit: &mut impl FnMut(Bytes)) {
        let hidden = self.note_event() && !self.released;
        if hidden {
            reader.emit_up_to(reader.event_start, emit);
            reader.emitted = end;
            self.held.clear();
        } else {
            // What was held of an event came before this chunk.
            self.held.drain(..).for_each(&mut *emit);
        }
        self.hid_last = hidden;
        self.held_len = 0;
        self.released = false;
        reader.event_start = end;
    }

    /// Takes note of an event that ended. Whether it is the usage chunk.
    fn note_event(&mut self) -> bool {
        let mut is_usage_chunk = false;
        if let Some(tokens) = self.skim.usage().and_then(usage::parse) {
            self.seen.usage = Some(tokens);
            is_usage_chunk = self.hides_usage && self.skim.choices_are_empty();
        }
        self.seen.service_tier = self.skim.service_tier().or(self.seen.service_tier);
        if self.seen.id.is_none() {
            self.seen.id = self.skim.id().map(str::to_owned);
        }
        self.seen.error |= self.skim.has_error();
        self.seen.events = self.seen.events.saturating_add(1);
        self.skim.reset();
        self.in_event = false;
        is_usage_chunk
    }

    fn end_chunk(&mut self, reader: &mut Reader<'_>, emit: &mut impl FnMut(Bytes)) {
        let may_hide = self.hides_usage
            && !self.released
            && self.in_event
            && !self.skim.has_choices()
            && self.held_len + reader.unfinished() <= MAX_HELD;
        if may_hide {
            reader.emit_up_to(reader.event_start, emit);
            let part = reader
                .chunk
                .slice(reader.event_start.min(reader.chunk.len())..);
            self.held_len += part.len();
            self.held.push(part);
            return;
        }
        self.held.drain(..).for_each(&mut *emit);
        self.held_len = 0;
        self.released = self.in_event;
        reader.emit_up_to(reader.chunk.len(), emit);
    }
}

/// How far a chunk has been handed on.
struct Reader<'a> {
    chunk: &'a Bytes,
    emitted: usize,
    event_start: usize,
}

impl Reader<'_> {
    fn emit_up_to(&mut self, end: usize, emit: &mut impl FnMut(Bytes)) {
        if end > self.emitted && end <= self.chunk.len() {
            emit(self.chunk.slice(self.emitted..end));
            self.emitted = end;
        }
    }

    fn unfinished(&self) -> usize {
        self.chunk.len().saturating_sub(self.event_start)
    }
}
