//! Reads a few values out of JSON that passes by in pieces, and keeps nothing else.
//!
//! Answers may be 100 MB and streams may last minutes, so they are neither collected nor parsed.
//! What is looked for stands at the top level or in the top-level object `response` (the responses
//! API's events): `usage`, `id`, `error`, and whether `choices` is empty. Of generated text only
//! the length is kept, for the estimate where no usage comes.
//!
//! Whatever comes in, no state grows: bad JSON yields nothing or nonsense, never an error.

use memchr::memchr2;

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
    /// The last string, cut at [`MAX_KEY`]: a key, if a colon follows.
    last: Vec<u8>,
    next_is_text: bool,
    counts_text: bool,
    in_response: bool,
    key: Key,
    capture: Option<Capture>,
    choices: Choices,
    usage: Vec<u8>,
    id: Vec<u8>,
    error: Vec<u8>,
    text_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Usage,
    Id,
    Error,
    Choices,
    Response,
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
            last: Vec::new(),
            next_is_text: false,
            counts_text: false,
            in_response: false,
            key: Key::Other,
            capture: None,
            choices: Choices::Absent,
            usage: Vec::new(),
            id: Vec::new(),
            error: Vec::new(),
            text_bytes: 0,
        }
    }

    /// Reads the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = if self.in_string {
                self.string(rest)
            } else {
                self.structure(rest)
            };
        }
    }

    /// Forgets the document; the length of generated text goes on counting.
    pub fn reset(&mut self) {
        let mut fresh = Self::new(self.text_keys);
        fresh.text_bytes = self.text_bytes;
        for (old, new) in [
            (&mut self.last, &mut fresh.last),
            (&mut self.usage, &mut fresh.usage),
            (&mut self.id, &mut fresh.id),
            (&mut self.error, &mut fresh.error),
        ] {
            old.clear();
            std::mem::swap(old, new);
        }
        *self = fresh;
    }

    /// The JSON of `usage`, where it is there and not null.
    pub fn usage(&self) -> Option<&[u8]> {
        present(&self.usage)
    }

    /// The document's `id`, or its `response`'s, where it is a plain, non-empty string.
    pub fn id(&self) -> Option<&str> {
        let text = std::str::from_utf8(present(&self.id)?).ok()?;
        let id = text.trim().strip_prefix('"')?.strip_suffix('"')?;
        (!id.is_empty() && !id.contains('\\')).then_some(id)
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

    fn string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.escaped {
            let (escape, rest) = bytes.split_at(1.min(bytes.len()));
            self.escaped = false;
            self.content(escape);
            return rest;
        }
        let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let (content, rest) = bytes.split_at(end);
        self.content(content);
        let Some((&stop, rest)) = rest.split_first() else {
            return rest;
        };
        self.keep(&[stop]);
        if stop == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        rest
    }

    /// Bytes inside a string.
    fn content(&mut self, bytes: &[u8]) {
        if self.counts_text {
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.text_bytes = self.text_bytes.saturating_add(count);
        }
        push_up_to(&mut self.last, bytes, MAX_KEY);
        self.keep(bytes);
    }

    fn structure<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if self.choices == Choices::Open && !byte.is_ascii_whitespace() {
                self.choices = if byte == b']' {
                    Choices::Empty
                } else {
                    Choices::NotEmpty
                };
            }
            match byte {
                b'"' => {
                    self.keep(&[byte]);
                    self.in_string = true;
                    self.last.clear();
                    self.counts_text = std::mem::take(&mut self.next_is_text);
                    return rest;
                }
                b'{' | b'[' => self.open(byte),
                b'}' | b']' => self.close(byte),
                b',' => self.comma(),
                b':' => self.colon(),
                _ if self.capture.is_some() => self.keep(&[byte]),
                _ => {}
            }
        }
        rest
    }

    fn open(&mut self, byte: u8) {
        self.keep(&[byte]);
        self.next_is_text = false;
        if self.depth == 1 {
            self.in_response = byte == b'{' && self.key == Key::Response;
            if byte == b'[' && self.choices == Choices::Named {
                self.choices = Choices::Open;
            }
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn close(&mut self, byte: u8) {
        self.end_capture();
        self.depth = self.depth.saturating_sub(1);
        if self.depth <= 1 {
            self.in_response = false;
        }
        self.keep(&[byte]);
    }

    fn comma(&mut self) {
        self.end_capture();
        self.next_is_text = false;
        self.keep(b",");
        if self.is_tracked() {
            self.key = Key::Other;
        }
    }

    fn colon(&mut self) {
        self.next_is_text = self.text_keys.contains(&self.last);
        self.keep(b":");
        if !self.is_tracked() {
            return;
        }
        self.key = match self.last.as_slice() {
            b"usage" => Key::Usage,
            b"id" => Key::Id,
            b"error" => Key::Error,
            b"choices" if self.depth == 1 => Key::Choices,
            b"response" if self.depth == 1 => Key::Response,
            _ => Key::Other,
        };
        if self.key == Key::Choices {
            self.choices = Choices::Named;
        }
        if matches!(self.key, Key::Usage | Key::Id | Key::Error) {
            self.capture = Some(Capture {
                key: self.key,
                depth: self.depth,
            });
            if let Some((slot, _)) = self.slot() {
                slot.clear();
            }
        }
    }

    /// Whether the reader is in an object whose keys are looked at.
    const fn is_tracked(&self) -> bool {
        self.depth == 1 || (self.depth == 2 && self.in_response)
    }

    fn end_capture(&mut self) {
        if self
            .capture
            .is_some_and(|capture| capture.depth == self.depth)
        {
            self.capture = None;
        }
    }

    /// Keeps bytes of the value that is being captured, if one is.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some((slot, max)) = self.slot() {
            push_up_to(slot, bytes, max);
        }
    }

    fn slot(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        match self.capture?.key {
            Key::Usage => Some((&mut self.usage, MAX_USAGE)),
            Key::Id => Some((&mut self.id, MAX_ID)),
            // Only whether it is null matters.
            Key::Error => Some((&mut self.error, 8)),
            _ => None,
        }
    }
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
