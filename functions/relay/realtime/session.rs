//! A session that is open.
//!
//! Each response in it is a call of its own to whoever pays: its record is made when the one before has
//! ended, takes a place in the app's limits, and becomes a usage event when the backend says that the
//! response is done. What a session has used is so kept while it goes on, not when it ends.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::split;
use tokio::sync::watch;
use tokio::time::timeout;

use super::way::{Patience, Stopped, Way};
use crate::current::Current;
use crate::gateway::event::{Outcome, Tokens};
use crate::gateway::id::new_id;
use crate::gateway::realtime::{Listener, Said, UnderWay};
use crate::gateway::time::Timestamp;
use crate::gateway::websocket::{FrameError, Frames, TEXT, Text};
use crate::quota::Denial;
use crate::relay::Relay;
use crate::relay::record::CallRecord;

/// How long a response may take to end once its client has left.
const HUSH: Duration = Duration::from_secs(5);

/// Frames to a backend are masked with this.
const MASK: [u8; 4] = [0x53, 0x70, 0x69, 0x6c];

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client(Stopped),
    Backend(Stopped),
    /// The client sent what may not pass.
    BadClient(FrameError),
    BadBackend(FrameError),
    /// The app may use no more.
    Denied(&'static str),
    /// The process ends.
    GoingAway,
}

impl End {
    /// What the client is told, as far as it has not closed itself.
    const fn to_client(self) -> (u16, &'static str) {
        match self {
            Self::Client(Stopped::Gone) => (1000, ""),
            Self::Client(Stopped::Silent) => (1001, "no sign of life"),
            Self::Backend(Stopped::Gone) => (1011, "the backend's connection broke"),
            Self::Backend(Stopped::Silent) => (1011, "the backend was silent for too long"),
            Self::BadClient(error) => (error.code(), error.as_str()),
            Self::BadBackend(error) => (1011, error.as_str()),
            Self::Denied(what) => (1008, what),
            Self::GoingAway => (1001, "the gateway ends"),
        }
    }

    const fn outcome(self) -> Outcome {
        match self {
            Self::Client(_) | Self::BadClient(_) => Outcome::ClientGone,
            _ => Outcome::Cut,
        }
    }
}

/// An open session.
pub(super) struct Session {
    /// Its quotas are those that are current when a response asks for its place.
    relay: Current<Relay>,
    /// The response that ends next, or the one that begins next.
    record: CallRecord,
    listener: Listener,
    under_way: UnderWay,
    /// The same for others, to whom one has ended once the client has been sent its end.
    speaking: watch::Sender<UnderWay>,
    responses: u64,
}

impl Session {
    pub(super) fn new(relay: Current<Relay>, record: CallRecord) -> Self {
        Self {
            relay,
            record,
            listener: Listener::default(),
            under_way: UnderWay::default(),
            speaking: watch::Sender::default(),
            responses: 0,
        }
    }

    /// Hands on what either end sends until one of them ends.
    pub(super) async fn run(
        mut self,
        client: Upgraded,
        backend: Upgraded,
        ending: watch::Receiver<bool>,
    ) {
        let relay = self.relay.get();
        let gateway = &relay.settings.gateway;
        let max = u64::try_from(gateway.max_body()).unwrap_or(u64::MAX);
        let patience = Patience {
            silence: Duration::from_millis(gateway.idle_timeout_ms),
            beat: (gateway.heartbeat_ms > 0).then(|| Duration::from_millis(gateway.heartbeat_ms)),
        };
        let (from_client, to_client) = split(TokioIo::new(client));
        let (from_backend, to_backend) = split(TokioIo::new(backend));
        let up = Frames::of_client(max);
        let mut up = Way::new(from_client, to_backend, up, Some(MASK), patience);
        let down = Frames::of_server(max);
        let mut down = Way::new(from_backend, to_client, down, None, patience);
        let speaking = self.speaking.subscribe();
        let end = tokio::select! {
            end = go_up(&mut up, speaking.clone()) => end,
            end = self.go_down(&mut down) => end,
            () = asked_to_end(ending, speaking) => End::GoingAway,
        };
        tracing::debug!(
            ?end,
            responses = self.responses,
            "a realtime session is over"
        );
        let client_has_closed = up.frames.is_closed();
        let (code, reason) = end.to_client();
        tokio::join!(down.close(code, reason), up.close(1001, ""));
        tokio::join!(up.drain(), down.drain());
        // Last: a process that is asked to end waits for calls under way, and both ends are to be told.
        self.finish(end, client_has_closed);
    }

    /// From the backend to the client.
    async fn go_down(&mut self, way: &mut Way) -> End {
        let mut is_deaf = false;
        loop {
            let next = way.next();
            let bytes = if is_deaf {
                timeout(HUSH, next).await.unwrap_or(Err(Stopped::Silent))
            } else {
                next.await
            };
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(_) if is_deaf => return End::Client(Stopped::Gone),
                Err(stopped) => return End::Backend(stopped),
            };
            let mut said = Vec::new();
            let listener = &mut self.listener;
            let read = way.frames.push(&bytes, |text| match text {
                Text::Part(part) => listener.part(part),
                Text::End => said.extend(listener.end()),
            });
            if let Err(error) = read {
                return End::BadBackend(error);
            }
            let mut denied = None;
            for said in said {
                match said {
                    Said::Begun(id) => self.under_way.begin(id, self.record.now()),
                    Said::Done(id, usage) => {
                        let begun = self.under_way.end(id.as_deref());
                        denied = denied.or(self.done(begun, usage).await);
                    }
                }
            }
            is_deaf |= !way.pass(&bytes).await;
            let under_way = &self.under_way;
            self.speaking.send_if_modified(|told| {
                let differs = told != under_way;
                if differs {
                    told.clone_from(under_way);
                }
                differs
            });
            if let Some(what) = denied {
                return End::Denied(what);
            }
            if is_deaf && self.under_way.is_empty() {
                return End::Client(Stopped::Gone);
            }
        }
    }

    /// The record of a response that began then and has ended; the next one's takes its place.
    fn ended(&mut self, begun: Option<Timestamp>) -> CallRecord {
        let id = new_id(self.record.now(), &mut fastrand::Rng::new());
        let next = self.record.next_response(id);
        let mut ended = std::mem::replace(&mut self.record, next);
        ended.event.time = begun.unwrap_or(ended.event.time);
        ended.event.status = 200;
        ended
    }

    /// Keeps what a response used that began then. Where the app may have no other, why not.
    async fn done(
        &mut self,
        begun: Option<Timestamp>,
        usage: Option<Tokens>,
    ) -> Option<&'static str> {
        let ended = self.ended(begun);
        let text_bytes = self.listener.take_text_bytes();
        self.responses += 1;
        if let Some(lasting) = ended.finish(Outcome::Completed, usage, text_bytes) {
            // An error is the end of waiting too: the event could not be made to last.
            let _ = lasting.await;
        }
        self.admit()
    }

    /// Takes the next response's place in the app's limits.
    fn admit(&mut self) -> Option<&'static str> {
        let event = &self.record.event;
        let (relay, now) = (self.relay.get(), self.record.now());
        let quotas = &relay.quotas;
        let admission = quotas.admit(&event.app, &event.model, true, || 0, now);
        match admission.verdict {
            Ok(reservation) => {
                self.record.reservation = reservation;
                None
            }
            Err(Denial::Limit(_)) => Some("a limit of the app is reached"),
            Err(Denial::Budget(_)) => Some("the app has spent its budget"),
        }
    }

    /// What is left of the session becomes events: one of each response that did not come to its end, or
    /// that there was none at all.
    fn finish(mut self, end: End, client_has_closed: bool) {
        let left = std::mem::take(&mut self.under_way);
        if left.is_empty() && self.responses == 0 {
            self.record.finish(Outcome::Completed, None, 0);
            return;
        }
        let outcome = if client_has_closed {
            Outcome::ClientGone
        } else {
            end.outcome()
        };
        // Whose of several the text is is not known: it is charged once.
        let mut text_bytes = self.listener.take_text_bytes();
        for begun in left.begun() {
            if self.record.reservation.is_none() {
                // It was made, whether or not the app may have another.
                let _ = self.admit();
            }
            let ended = self.ended(Some(begun));
            ended.finish(outcome, None, std::mem::take(&mut text_bytes));
        }
        self.record.forget();
    }
}

/// From the client to the backend.
async fn go_up(way: &mut Way, mut speaking: watch::Receiver<UnderWay>) -> End {
    loop {
        let bytes = match way.next().await {
            Ok(bytes) => bytes,
            Err(stopped) => {
                if way.end_message().await {
                    hush(way, &mut speaking).await;
                } else if !way.frames.is_closed() {
                    // Its responses can't be cancelled: they may come to their ends.
                    let _ = timeout(HUSH, speaking.wait_for(UnderWay::is_empty)).await;
                }
                return End::Client(stopped);
            }
        };
        let closes_at = match way.frames.push(&bytes, |_| {}) {
            Ok(closes_at) => closes_at,
            Err(error) => return End::BadClient(error),
        };
        let (before, closing) = bytes.split_at(closes_at.unwrap_or(bytes.len()));
        let mut is_there = way.pass(before).await;
        // A backend whose client has closed says no more what a response used.
        if closes_at.is_some() {
            hush(way, &mut speaking).await;
        }
        is_there &= way.pass(closing).await;
        if !is_there {
            // What the backend still has to say comes the other way.
            std::future::pending::<()>().await;
        }
    }
}

/// Has the backend end each response that is under way, and those that begin meanwhile, and waits until
/// none is, but not for long. Whoever calls knows that a message may stand here.
async fn hush(way: &mut Way, speaking: &mut watch::Receiver<UnderWay>) {
    let hushed = async {
        let mut asked = Vec::new();
        loop {
            let cancels = speaking.borrow_and_update().cancels();
            if cancels.is_empty() {
                return;
            }
            for cancel in cancels {
                if asked.contains(&cancel) {
                    continue;
                }
                if !way.say_here(TEXT, &cancel).await {
                    return;
                }
                asked.push(cancel);
            }
            if speaking.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(HUSH, hushed).await;
}

async fn asked_to_end(mut ending: watch::Receiver<bool>, mut speaking: watch::Receiver<UnderWay>) {
    let asked = ending.wait_for(|ending| *ending).await.is_ok();
    if !asked {
        // Nobody is left who could ask.
        return std::future::pending().await;
    }
    let _ = speaking.wait_for(UnderWay::is_empty).await;
}
