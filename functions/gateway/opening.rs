//! A stream's opening: its events before the first one that carries something of the answer.
//!
//! A 200 is no answer yet. Azure's front end accepts a streamed response and refuses it in the
//! stream's second or third event (see [`classify::stream_event`](super::classify::stream_event)).
//! While nothing of the answer has come, nothing of it need have gone to the client, and the call
//! can still be made elsewhere. What is held is bounded here by size; by time it is the caller's.

use std::borrow::Cow;

use super::classify::{StreamEvent, stream_event};

/// Most of a stream that is held while it opens, bytes. A `response.created` event repeats the
/// request's instructions and tools, so it can be long; what is longer still goes out unread.
pub const MAX_OPENING: usize = 1 << 20;

/// The reader of one stream's opening.
#[derive(Debug, Default)]
pub struct Opening {
    /// What came after the last whole event.
    rest: Vec<u8>,
    read: usize,
}

impl Opening {
    /// Reads the next chunk and says what the stream has shown itself to be.
    /// [`StreamEvent::Opening`]: nothing yet.
    pub fn push(&mut self, chunk: &[u8]) -> StreamEvent {
        self.read = self.read.saturating_add(chunk.len());
        let (found, used) = if self.rest.is_empty() {
            read(chunk, 0)
        } else {
            // An event's end may begin in the chunk before.
            let from = self.rest.len().saturating_sub(2);
            self.rest.extend_from_slice(chunk);
            read(&self.rest, from)
        };
        if found != StreamEvent::Opening {
            return found;
        }
        if self.read > MAX_OPENING {
            return StreamEvent::Answer;
        }
        if self.rest.is_empty() {
            let rest = chunk.get(used..).unwrap_or_default();
            self.rest.extend_from_slice(rest);
        } else {
            self.rest.drain(..used);
        }
        StreamEvent::Opening
    }
}

/// Reads whole events up to the first that decides; also how many bytes those had that did not.
/// There is no event's end before `from`.
fn read(bytes: &[u8], mut from: usize) -> (StreamEvent, usize) {
    let mut used = 0;
    while let Some(end) = event_end(bytes, from) {
        let event = bytes.get(used..end).unwrap_or_default();
        let found = data_of(event).map_or(StreamEvent::Opening, |data| stream_event(&data));
        if found != StreamEvent::Opening {
            return (found, used);
        }
        (used, from) = (end, end);
    }
    (StreamEvent::Opening, used)
}

/// Where the first event ends whose blank line is not before `from`.
fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let tail = bytes.get(at..)?;
        at += memchr::memchr2(b'\n', b'\r', tail)?;
        at += line_end(bytes, at);
        let blank = line_end(bytes, at);
        if blank > 0 {
            return Some(at + blank);
        }
    }
}

/// Bytes of the line end at `at`: LF, CR or both, or none.
fn line_end(bytes: &[u8], at: usize) -> usize {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => 2,
        (Some(b'\r' | b'\n'), _) => 1,
        _ => 0,
    }
}

/// An event's data: that of its `data` lines, joined. `None` where it has none: a comment.
fn data_of(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut lines = event
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter_map(|line| line.strip_prefix(b"data:"))
        .map(|data| data.strip_prefix(b" ").unwrap_or(data));
    let first = lines.next()?;
    let mut data = Cow::Borrowed(first);
    for line in lines {
        let whole = data.to_mut();
        whole.push(b'\n');
        whole.extend_from_slice(line);
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deployment::MarkReason;
    use super::*;

    const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"error\":null}}\n\n";
    const THROTTLED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"too_many_requests\",\"code\":\"rate_limit_exceeded\"},\"sequence_number\":1}\n\n";
    const DELTA: &str = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n";

    fn of(text: &str) -> StreamEvent {
        Opening::default().push(text.as_bytes())
    }

    #[test]
    fn events_that_say_nothing_yet_leave_it_open() {
        assert_eq!(of(""), StreamEvent::Opening);
        assert_eq!(of(": keep-alive\n\n\n"), StreamEvent::Opening);
        assert_eq!(of(CREATED), StreamEvent::Opening);
        assert_eq!(of(&DELTA[..DELTA.len() - 1]), StreamEvent::Opening);
    }

    #[test]
    fn the_first_event_of_the_answer_decides_and_a_later_error_is_the_clients() {
        assert_eq!(
            of(&[CREATED, DELTA, THROTTLED].concat()),
            StreamEvent::Answer
        );
        assert_eq!(of("data: [DONE]\n\n"), StreamEvent::Answer);
    }

    #[test]
    fn a_refusal_in_the_second_event_is_found() {
        let text = [": hello\n\n", CREATED, THROTTLED].concat();
        assert_eq!(of(&text), StreamEvent::Fault(MarkReason::Throttled));
    }

    #[test]
    fn data_on_several_lines_is_one() {
        let text = "data: {\"error\":\ndata:{\"code\":\"429\"}}\n\n";
        assert_eq!(of(text), StreamEvent::Fault(MarkReason::Throttled));
    }

    #[test]
    fn an_opening_that_is_too_long_goes_out_unread() {
        let mut opening = Opening::default();
        let long = format!(
            "data: {{\"type\":\"response.created\",\"x\":\"{}",
            "y".repeat(MAX_OPENING / 2)
        );
        assert_eq!(opening.push(long.as_bytes()), StreamEvent::Opening);
        assert_eq!(opening.push(long.as_bytes()), StreamEvent::Answer);
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_a_refusal_is_found_at_its_last_byte(
            cuts in prop::collection::vec(0usize..1000, 0..12),
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            refused in any::<bool>(),
        ) {
            let (last, expected) = if refused {
                (THROTTLED, StreamEvent::Fault(MarkReason::Throttled))
            } else {
                (DELTA, StreamEvent::Answer)
            };
            let text = [": a\n\n", CREATED, CREATED, last].concat().replace('\n', line_end);
            // A line's end of two bytes ends the event with its first.
            let end = text.len() - usize::from(line_end == "\r\n");
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % end).collect();
            cuts.sort_unstable();
            let mut opening = Opening::default();
            let mut from = 0;
            for cut in cuts {
                prop_assert_eq!(opening.push(&text.as_bytes()[from..cut]), StreamEvent::Opening);
                from = cut;
            }
            prop_assert_eq!(opening.push(&text.as_bytes()[from..end]), expected);
        }

        #[test]
        fn any_bytes_are_taken(chunks in prop::collection::vec("[data: \\{\\}\r\n\"ro]{0,40}", 0..8)) {
            let mut opening = Opening::default();
            for chunk in chunks {
                if opening.push(chunk.as_bytes()) != StreamEvent::Opening {
                    break;
                }
                prop_assert!(opening.rest.len() <= opening.read);
            }
        }
    }
}
