//! WebSocket frames as they pass (RFC 6455, section 5), and the few that the gateway adds of its own.
//!
//! Frames are relayed as the bytes that they are. What has to be known of them is where they end, so
//! that another one can be put in between; how long a message is; and what the text says that a backend
//! sends, which is not masked.

#[cfg(test)]
mod tests;

/// A further part of a message.
pub const CONTINUATION: u8 = 0;
/// A whole text, or its first part.
pub const TEXT: u8 = 1;
/// The sender closes.
pub const CLOSE: u8 = 8;
/// The other end is to answer with a pong.
pub const PING: u8 = 9;

const BINARY: u8 = 2;
const PONG: u8 = 10;

/// Longest payload of a control frame, bytes.
const MAX_CONTROL: usize = 125;

/// The longest head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// Why what a peer sends is no WebSocket that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It breaks the protocol.
    Protocol(&'static str),
    /// A message is longer than the gateway takes.
    TooLong,
}

impl FrameError {
    /// The code to close with (RFC 6455, section 7.4.1).
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::TooLong => 1009,
        }
    }

    /// The reason to close with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protocol(what) => what,
            Self::TooLong => "the message is too long",
        }
    }
}

/// A text message of a backend, as it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// The next bytes of it.
    Part(&'a [u8]),
    /// It is whole.
    End,
}

/// Reads the frames that one end sends.
#[derive(Debug)]
pub struct Frames {
    /// Whether they are masked: a client's have to be, a server's must not be.
    masked: bool,
    /// Longest message, bytes.
    max: u64,
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// Bytes of the frame's payload that are still to come; `None` until its head is whole.
    left: Option<u64>,
    /// The message under way; `None`: there is none.
    message: Option<Message>,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    is_text: bool,
    length: u64,
}

impl Frames {
    /// A reader of a client's frames, whose messages have at most `max` bytes.
    pub const fn of_client(max: u64) -> Self {
        Self::new(true, max)
    }

    /// A reader of a server's frames, whose messages have at most `max` bytes.
    pub const fn of_server(max: u64) -> Self {
        Self::new(false, max)
    }

    const fn new(masked: bool, max: u64) -> Self {
        Self {
            masked,
            max,
            head: [0; MAX_HEAD],
            head_len: 0,
            left: None,
            message: None,
            closed: false,
        }
    }

    /// Reads the next bytes and hands on what text stands in them, unless they are masked. Where a frame
    /// that closes begins in them, not within a message, the place of its first byte.
    ///
    /// # Errors
    /// When they may not pass. Nothing that comes after makes sense then.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut text: impl FnMut(Text<'_>),
    ) -> Result<Option<usize>, FrameError> {
        let mut close_at = None;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(left) = self.left else {
                let closes = rest.first().is_some_and(|first| first & 0x0f == CLOSE);
                let begins = closes && self.is_between_messages();
                close_at = close_at.or(begins.then_some(at));
                at += self.read_head(rest)?;
                if self.left == Some(0) {
                    self.end_frame(&mut text);
                }
                continue;
            };
            let take = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if self.is_text() && !self.masked {
                text(Text::Part(rest.get(..take).unwrap_or_default()));
            }
            at += take;
            let left = left - u64::try_from(take).unwrap_or(left);
            self.left = Some(left);
            if left == 0 {
                self.end_frame(&mut text);
            }
        }
        Ok(close_at)
    }

    /// Whether the last byte ended a frame, so that one of control may follow.
    pub const fn is_between_frames(&self) -> bool {
        self.head_len == 0
    }

    /// Whether the last byte ended a message, so that another one may follow.
    pub const fn is_between_messages(&self) -> bool {
        self.is_between_frames() && self.message.is_none()
    }

    /// Whether the end has closed: nothing may follow.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what belongs to the head; how many bytes that were.
    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        for (taken, byte) in bytes.iter().enumerate() {
            if let Some(place) = self.head.get_mut(self.head_len) {
                *place = *byte;
            }
            self.head_len += 1;
            if self.head_len >= 2 && self.head_len == self.head_needs() {
                self.begin_frame()?;
                return Ok(taken + 1);
            }
        }
        Ok(bytes.len())
    }

    /// Length of a head that begins so.
    const fn head_needs(&self) -> usize {
        let [_, second, ..] = self.head;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_frame(&mut self) -> Result<(), FrameError> {
        let [first, second, l0, l1, l2, l3, l4, l5, l6, l7, ..] = self.head;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([l0, l1])),
            127 => u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            short => u64::from(short),
        };
        if self.closed {
            return Err(FrameError::Protocol("a frame after the one that closes"));
        }
        if first & 0x70 != 0 {
            return Err(FrameError::Protocol("an extension that was not agreed on"));
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(FrameError::Protocol(
                "masked where it must not be, or not masked",
            ));
        }
        let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
        match (opcode, self.message) {
            (CLOSE | PING | PONG, _) => {
                if !is_last || length > MAX_CONTROL as u64 {
                    return Err(FrameError::Protocol("a frame of control that is too long"));
                }
            }
            (CONTINUATION, Some(message)) => self.lengthen(message, length)?,
            (TEXT | BINARY, None) => {
                let is_text = opcode == TEXT;
                self.lengthen(Message { is_text, length: 0 }, length)?;
            }
            _ => return Err(FrameError::Protocol("a frame out of order")),
        }
        self.left = Some(length);
        Ok(())
    }

    fn lengthen(&mut self, message: Message, more: u64) -> Result<(), FrameError> {
        let length = message.length.saturating_add(more);
        if length > self.max {
            return Err(FrameError::TooLong);
        }
        self.message = Some(Message { length, ..message });
        Ok(())
    }

    const fn opcode(&self) -> u8 {
        let [first, ..] = self.head;
        first & 0x0f
    }

    /// Whether the frame under way is one of a text.
    fn is_text(&self) -> bool {
        let is_data = matches!(self.opcode(), CONTINUATION | TEXT);
        is_data && self.message.is_some_and(|message| message.is_text)
    }

    fn end_frame(&mut self, text: &mut impl FnMut(Text<'_>)) {
        let [first, ..] = self.head;
        let ends_message = first & 0x80 != 0 && self.opcode() < CLOSE;
        if ends_message {
            if self.is_text() && !self.masked {
                text(Text::End);
            }
            self.message = None;
        }
        self.closed |= self.opcode() == CLOSE;
        self.head_len = 0;
        self.left = None;
    }
}

/// A whole frame. A client's has a `mask`, which may be any.
pub fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short <= 125 => frame.push(mask_bit | short),
        (_, Ok(length)) => {
            frame.push(mask_bit | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(mask_bit | 127);
            let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
            frame.extend(length.to_be_bytes());
        }
    }
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame.extend(mask);
            let mask = mask.iter().cycle();
            frame.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

/// The payload of a frame that closes.
pub fn closing(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let end = reason.floor_char_boundary(MAX_CONTROL - 2);
    payload.extend(reason.as_bytes().get(..end).unwrap_or_default());
    payload
}
