//! Reads a few values out of JSON that passes by in pieces, and keeps nothing else.
//!
//! Answers may be 100 MB and streams may last minutes, so they are neither collected nor parsed.
//! What is looked for stands at the top level or in the top-level object `response` (the responses
//! API's events): `usage`, `id`, `service_tier`, `error`, and whether `choices` is empty; at the top level
//! also the id of something that was made beside: `thread_id`, or the `id` in the object `file`. Of
//! generated text only the length is kept, for the estimate where no usage comes.
//!
//! Whatever comes in, no state grows: bad JSON yields nothing or nonsense, never an error.

use memchr::memchr2;

use super::service_tier::ServiceTier;

#[cfg(test)]
mod tests;

/// The longest `usage` that is kept, bytes. Recorded ones have some 400.
const MAX_USAGE: usize = 4096;

/// The longest `id` that is kept, bytes.
const MAX_ID: usize = 256;

/// The longest string that can be a key looked for.
const MAX_KEY: usize = 24;

/// The keys whose strings are generated text, by API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKeys {
    /// Chat: `content`, `arguments`, `reasoning_content`, `refusal`.
    Chat,
    /// Completions: `text`.
    Completions,
    /// Events of the responses API and of transcriptions: `delta`.
    Deltas,
    /// No text is counted.
    None,
}

impl TextKeys {
    fn contains(self, key: &[u8]) -> bool {
        match self {
            Self::Chat => {
                matches!(
                    key,
                    b"content" | b"arguments" | b"reasoning_content" | b"refusal"
                )
            }
            Self::Completions => key == b"text",
            Self::Deltas => key == b"delta",
            Self::None => false,
        }
    }
}

/// An incremental reader of one JSON document after the other.
#[derive(Debug)]
pub struct Skim {
    text_keys: TextKeys,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The last string: a key, if a colon follows.
    last: LastString,
    next_is_text: bool,
    counts_text: bool,
    inside: Inside,
    key: Key,
    capture: Option<Capture>,
    choices: Choices,
    usage: Vec<u8>,
    id: Vec<u8>,
    id_beside: Vec<u8>,
    error: Vec<u8>,
    service_tier: Option<ServiceTier>,
    text_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Usage,
    Id,
    IdBeside,
    Error,
    ServiceTier,
    Choices,
    Response,
    File,
    Other,
}

/// The top-level object that the reader is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Response,
    File,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Capture {
    key: Key,
    depth: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choices {
    Absent,
    /// The key has been seen, its array not yet.
    Named,
    /// The array is open, nothing in it yet.
    Open,
    Empty,
    NotEmpty,
}

impl Skim {
    /// A reader that counts text under `text_keys`.
    pub const fn new(text_keys: TextKeys) -> Self {
        Self {
            text_keys,
            depth: 0,
            in_string: false,
            escaped: false,
            last: LastString::EMPTY,
            next_is_text: false,
            counts_text: false,
            inside: Inside::Other,
            key: Key::Other,
            capture: None,
            choices: Choices::Absent,
            usage: Vec::new(),
            id: Vec::new(),
            id_beside: Vec::new(),
            error: Vec::new(),
            service_tier: None,
            text_bytes: 0,
        }
    }

    /// Reads the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut piece = Piece { bytes, kept: 0 };
        let mut at = 0;
        while at < bytes.len() {
            at = if self.in_string {
                self.string(bytes, at)
            } else {
                self.structure(&mut piece, at)
            };
        }
        self.keep(&mut piece, bytes.len());
    }

    /// Forgets the document; the length of generated text goes on counting.
    pub fn reset(&mut self) {
        self.depth = 0;
        self.in_string = false;
        self.escaped = false;
        self.last.length = 0;
        self.next_is_text = false;
        self.counts_text = false;
        self.inside = Inside::Other;
        self.key = Key::Other;
        self.capture = None;
        self.choices = Choices::Absent;
        self.usage.clear();
        self.id.clear();
        self.id_beside.clear();
        self.error.clear();
        self.service_tier = None;
    }

    /// The JSON of `usage`, where it is there and not null.
    pub fn usage(&self) -> Option<&[u8]> {
        present(&self.usage)
    }

    /// The document's `id`, or its `response`'s, where it is a plain, non-empty string.
    pub fn id(&self) -> Option<&str> {
        plain(&self.id)
    }

    /// The id of what was made beside the document: its `thread_id`, or that of its `file`, where it is a
    /// plain, non-empty string.
    pub fn id_beside(&self) -> Option<&str> {
        plain(&self.id_beside)
    }

    /// The service tier that processed the call, where the document or its `response` names one.
    pub const fn service_tier(&self) -> Option<ServiceTier> {
        self.service_tier
    }

    /// Whether the document has an `error` that is not null.
    pub fn has_error(&self) -> bool {
        present(&self.error).is_some()
    }

    /// Whether there are `choices` and none in them.
    pub fn choices_are_empty(&self) -> bool {
        self.choices == Choices::Empty
    }

    /// Whether a choice has been seen.
    pub fn has_choices(&self) -> bool {
        self.choices == Choices::NotEmpty
    }

    /// Bytes of generated text so far, in all documents.
    pub const fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Reads string content from `at` on; where it stopped.
    fn string(&mut self, bytes: &[u8], at: usize) -> usize {
        if std::mem::take(&mut self.escaped) {
            self.content(bytes.get(at..).unwrap_or_default(), 1);
            return at + 1;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let length = string_end(rest).unwrap_or(rest.len());
        self.content(rest, length);
        match rest.get(length) {
            Some(b'"') => self.in_string = false,
            Some(_) => {
                self.escaped = true;
                // No key that is looked for has one.
                self.last.push(b"\\", 1);
            }
            None => {}
        }
        at + length + 1
    }

    /// The first `length` of these bytes, which are inside a string.
    fn content(&mut self, bytes: &[u8], length: usize) {
        if self.counts_text {
            let count = u64::try_from(length).unwrap_or(u64::MAX);
            self.text_bytes = self.text_bytes.saturating_add(count);
        }
        self.last.push(bytes, length);
    }

    /// Reads up to the next string; where it stopped.
    fn structure(&mut self, piece: &mut Piece<'_>, at: usize) -> usize {
        let rest = piece.bytes.get(at..).unwrap_or_default();
        for (at, &byte) in (at..).zip(rest) {
            if self.choices == Choices::Open && !byte.is_ascii_whitespace() {
                self.choices = if byte == b']' {
                    Choices::Empty
                } else {
                    Choices::NotEmpty
                };
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.last.length = 0;
                    self.counts_text = std::mem::take(&mut self.next_is_text);
                    return at + 1;
                }
                b'{' | b'[' => self.open(byte),
                b'}' | b']' => self.close(piece, at),
                b',' => self.comma(piece, at),
                b':' => self.colon(piece, at),
                _ => {}
            }
        }
        piece.bytes.len()
    }

    fn open(&mut self, byte: u8) {
        self.next_is_text = false;
        if self.key == Key::ServiceTier {
            // No word: what is inside is none either.
            self.key = Key::Other;
        }
        if self.depth == 1 {
            self.inside = match (byte, self.key) {
                (b'{', Key::Response) => Inside::Response,
                (b'{', Key::File) => Inside::File,
                _ => Inside::Other,
            };
            if byte == b'[' && self.choices == Choices::Named {
                self.choices = Choices::Open;
            }
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn close(&mut self, piece: &mut Piece<'_>, at: usize) {
        self.end_capture(piece, at);
        self.note_tier();
        self.depth = self.depth.saturating_sub(1);
        if self.depth <= 1 {
            self.inside = Inside::Other;
        }
    }

    fn comma(&mut self, piece: &mut Piece<'_>, at: usize) {
        self.end_capture(piece, at);
        self.next_is_text = false;
        self.note_tier();
        if self.is_tracked() {
            self.key = Key::Other;
        }
    }

    /// Takes note of the tier where its value is over: a text, then, was the last string. Any other value
    /// names none.
    fn note_tier(&mut self) {
        if self.key == Key::ServiceTier && self.last.length > 0 {
            self.service_tier = Some(ServiceTier::named(self.last.as_slice()));
        }
    }

    fn colon(&mut self, piece: &mut Piece<'_>, at: usize) {
        self.next_is_text = self.text_keys.contains(self.last.as_slice());
        if !self.is_tracked() {
            return;
        }
        self.key = self.named();
        match self.key {
            Key::Choices => self.choices = Choices::Named,
            Key::ServiceTier => self.last.length = 0,
            _ => {}
        }
        if matches!(self.key, Key::Usage | Key::Id | Key::IdBeside | Key::Error) {
            // Without a comma before the key, the last value goes up to here: the same wherever it is cut.
            self.keep(piece, at);
            self.capture = Some(Capture {
                key: self.key,
                depth: self.depth,
            });
            piece.kept = at + 1;
            if let Some((slot, _)) = self.slot() {
                slot.clear();
            }
        }
    }

    /// The key that the last string is where the reader stands.
    fn named(&self) -> Key {
        let name = self.last.as_slice();
        if self.inside == Inside::File {
            return if name == b"id" {
                Key::IdBeside
            } else {
                Key::Other
            };
        }
        match name {
            b"usage" => Key::Usage,
            b"id" => Key::Id,
            b"error" => Key::Error,
            b"service_tier" => Key::ServiceTier,
            b"choices" if self.depth == 1 => Key::Choices,
            b"response" if self.depth == 1 => Key::Response,
            b"file" if self.depth == 1 => Key::File,
            b"thread_id" if self.depth == 1 => Key::IdBeside,
            _ => Key::Other,
        }
    }

    /// Whether the reader is in an object whose keys are looked at.
    const fn is_tracked(&self) -> bool {
        let is_read = matches!(self.inside, Inside::Response | Inside::File);
        self.depth == 1 || (self.depth == 2 && is_read)
    }

    /// Ends a capture whose value is over before `at`.
    fn end_capture(&mut self, piece: &mut Piece<'_>, at: usize) {
        if self
            .capture
            .is_some_and(|capture| capture.depth == self.depth)
        {
            self.keep(piece, at);
            self.capture = None;
        }
    }

    /// Keeps what came up to `end` of the value that is being captured, if one is.
    fn keep(&mut self, piece: &mut Piece<'_>, end: usize) {
        let part = piece.bytes.get(piece.kept..end).unwrap_or_default();
        if let Some((slot, max)) = self.slot() {
            push_up_to(slot, part, max);
        }
        piece.kept = end;
    }

    fn slot(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.capture?.key {
            Key::Usage => Some((&mut self.usage, MAX_USAGE)),
            Key::Id => Some((&mut self.id, MAX_ID)),
            Key::IdBeside => Some((&mut self.id_beside, MAX_ID)),
            // Only whether it is null matters.
            Key::Error => Some((&mut self.error, 8)),
            _ => None,
        }
    }
}

/// A piece that is being read.
struct Piece<'a> {
    bytes: &'a [u8],
    /// Up to where a captured value has been kept.
    kept: usize,
}

/// A string that may be a key: its start, which is enough to know one.
#[derive(Clone, Copy, Debug)]
struct LastString {
    start: [u8; MAX_KEY],
    /// Its length; one more than [`MAX_KEY`] where it is longer than any key.
    length: usize,
}

impl LastString {
    const EMPTY: Self = Self {
        start: [0; MAX_KEY],
        length: 0,
    };

    /// Appends the first `length` of these bytes.
    fn push(&mut self, bytes: &[u8], length: usize) {
        // A whole key, mostly. What is copied beyond it is cheaper than a copy of just its length.
        if let (0, 0..=MAX_KEY, Some(start)) = (self.length, length, bytes.first_chunk()) {
            self.start = *start;
            self.length = length;
            return;
        }
        let part = bytes.get(..length).unwrap_or_default();
        let end = self.length.saturating_add(part.len());
        if let Some(room) = self.start.get_mut(self.length..end) {
            room.copy_from_slice(part);
        }
        self.length = end.min(MAX_KEY + 1);
    }

    /// The string; empty where it is longer than any key.
    fn as_slice(&self) -> &[u8] {
        self.start.get(..self.length).unwrap_or_default()
    }
}

/// Where the first quote or backslash stands. Most strings here are short keys: for these the two
/// calls that memchr takes cost more than looking at eight bytes at a time.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let short = words.get(..MAX_KEY / 8).unwrap_or(words);
    for (at, word) in short.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let passed = short.len() * 8;
    let rest = bytes.get(passed..).unwrap_or_default();
    memchr2(b'"', b'\\', rest).map(|at| passed + at)
}

/// The high bit of the first byte of `word` that is `byte`, from the low end; what is above that bit
/// tells nothing (Warren, "Hacker's Delight", section 6-1).
const fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let differs = word ^ (LOW * byte as u64);
    differs.wrapping_sub(LOW) & !differs & HIGH
}

/// Appends; what goes beyond `max` is cut, and one byte more tells that it was.
fn push_up_to(slot: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let room = (max + 1).saturating_sub(slot.len());
    if let Some(part) = bytes.get(..room.min(bytes.len())) {
        slot.extend_from_slice(part);
    }
}

fn present(value: &[u8]) -> Option<&[u8]> {
    let trimmed = value.trim_ascii();
    (!trimmed.is_empty() && trimmed != b"null").then_some(trimmed)
}

/// The text of a string that is not empty and has no escapes.
fn plain(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(present(value)?).ok()?;
    let text = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty() && !text.contains('\\')).then_some(text)
}
