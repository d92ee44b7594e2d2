//! One direction of a session: bytes from one end to the other, and the frames that the gateway puts in
//! between.

use std::time::Duration;

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::gateway::websocket::{CLOSE, CONTINUATION, Frames, PING, TEXT, closing, frame};

/// Most that is read at once, bytes.
const PIECE: usize = 16 * 1024;

/// Longest wait for an end to take what it is sent, when the session is over.
const LINGER: Duration = Duration::from_secs(2);

/// One end's connection.
pub(super) type Io = TokioIo<Upgraded>;

/// How long an end may be silent, and how often it is asked for a sign of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) silence: Duration,
    /// `None`: never.
    pub(super) beat: Option<Duration>,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The connection has ended.
    Gone,
    /// Nothing has come for too long.
    Silent,
}

/// The way from one end to the other.
pub(super) struct Way {
    from: ReadHalf<Io>,
    to: WriteHalf<Io>,
    pub(super) frames: Frames,
    /// What frames to the other end are masked with, where they have to be: any four bytes do, since what is
    /// masked is no secret and comes from nobody who could attack a proxy by it.
    mask: Option<[u8; 4]>,
    patience: Patience,
    beat: Option<Interval>,
    last: Instant,
    buffer: BytesMut,
    /// Whether a write did not come to its end: what the other end has is no whole frame then.
    is_broken: bool,
}

impl Way {
    pub(super) fn new(
        from: ReadHalf<Io>,
        to: WriteHalf<Io>,
        frames: Frames,
        mask: Option<[u8; 4]>,
        patience: Patience,
    ) -> Self {
        let beat = patience.beat.map(|every| {
            let mut beat = interval_at(Instant::now() + every, every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        Self {
            from,
            to,
            frames,
            mask,
            patience,
            beat,
            last: Instant::now(),
            buffer: BytesMut::with_capacity(PIECE),
            is_broken: false,
        }
    }

    /// The next bytes from the one end. The other is sent a ping now and then, so that it answers, and so
    /// that whatever lies between does not take the session for dead.
    pub(super) async fn next(&mut self) -> Result<BytesMut, Stopped> {
        self.buffer.reserve(PIECE);
        loop {
            let silent = self.last + self.patience.silence;
            tokio::select! {
                read = self.from.read_buf(&mut self.buffer) => {
                    self.last = Instant::now();
                    return match read {
                        Ok(1..) => Ok(self.buffer.split()),
                        Ok(0) | Err(_) => Err(Stopped::Gone),
                    };
                }
                () = tick(&mut self.beat) => {
                    // A write that fails shows in the next one, or in silence.
                    let _ = self.say(PING, b"").await;
                }
                () = tokio::time::sleep_until(silent) => return Err(Stopped::Silent),
            }
        }
    }

    /// Hands bytes on. `false`: the other end is gone, or takes nothing.
    pub(super) async fn pass(&mut self, bytes: &[u8]) -> bool {
        if self.is_broken {
            return false;
        }
        // Until it is done: it may be given up half-way.
        self.is_broken = true;
        let written = async {
            self.to.write_all(bytes).await?;
            self.to.flush().await
        };
        let written = tokio::time::timeout(self.patience.silence, written).await;
        self.is_broken = !matches!(written, Ok(Ok(())));
        !self.is_broken
    }

    /// Whether a frame of the gateway's own may stand here.
    pub(super) const fn may_say(&self, opcode: u8) -> bool {
        let may = if opcode >= CLOSE {
            self.frames.is_between_frames()
        } else {
            self.frames.is_between_messages()
        };
        may && !self.frames.is_closed()
    }

    /// Puts in a frame of the gateway's own, if one may stand here.
    async fn say(&mut self, opcode: u8, payload: &[u8]) -> bool {
        self.may_say(opcode) && self.say_here(opcode, payload).await
    }

    /// Ends a message of which the one end has sent a part, so that one of the gateway's own may follow.
    /// `false`: none may, as a frame is not over yet.
    pub(super) async fn end_message(&mut self) -> bool {
        if self.may_say(TEXT) {
            return true;
        }
        let may_end = self.frames.is_between_frames() && !self.frames.is_closed();
        may_end && self.say_here(CONTINUATION, b"").await
    }

    /// As [`Self::say`], where whoever calls knows that one may stand.
    pub(super) async fn say_here(&mut self, opcode: u8, payload: &[u8]) -> bool {
        self.pass(&frame(opcode, payload, self.mask)).await
    }

    /// Closes towards the other end, unless that has been done.
    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let closed = async {
            self.say(CLOSE, &closing(code, reason)).await;
            // It may be gone, which is what is wanted.
            let _ = self.to.shutdown().await;
        };
        let _ = tokio::time::timeout(LINGER, closed).await;
    }

    /// Reads what the one end still sends, until it ends or has had its time: a connection that is
    /// closed with something unread is reset, and what was sent last may be lost with it.
    pub(super) async fn drain(&mut self) {
        let rest = async {
            loop {
                self.buffer.clear();
                self.buffer.reserve(PIECE);
                if !matches!(self.from.read_buf(&mut self.buffer).await, Ok(1..)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

async fn tick(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => {
            beat.tick().await;
        }
        None => std::future::pending().await,
    }
}
