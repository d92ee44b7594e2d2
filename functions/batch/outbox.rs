//! What is sent: replies, and messages that are put off.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::again;
use super::worker::Now;
use crate::azure::service_bus::{SendError, Sends, size};
use crate::gateway::batch::message::Outgoing;
use crate::gateway::batch::order::{Sender, bounded};
use crate::gateway::batch::reply::{self, Answer, Pointer, Sort};
use crate::gateway::time::Timestamp;

/// Where messages go out.
pub(super) struct Outbox {
    bus: Arc<dyn Sends>,
    max_message: usize,
    now: Now,
}

/// An answer on its way to its sender.
pub(super) struct Reply<'a> {
    pub(super) sender: &'a Sender,
    pub(super) custom_id: &'a str,
    pub(super) answer: &'a Answer,
    /// The number of the message that is given up with it.
    pub(super) dead: Option<u64>,
    /// Its size where it is kept, so that its app can fetch it; a reply that is too large points
    /// there.
    pub(super) kept_bytes: Option<usize>,
}

impl Outbox {
    pub(super) fn new(bus: Arc<dyn Sends>, max_message: usize, now: Now) -> Self {
        Self {
            bus,
            max_message,
            now,
        }
    }

    /// Largest answer that is worth reading: a larger one is not sent itself.
    pub(super) const fn max_message(&self) -> usize {
        self.max_message
    }

    /// Sends a reply, once or again: the broker drops the second of two.
    pub(super) async fn reply(&self, reply: &Reply<'_>, end: Timestamp) -> Result<(), SendError> {
        let line = reply::line(reply.sender, reply.custom_id, reply.answer);
        let is_whole = reply.kept_bytes.is_none_or(|bytes| bytes <= line.len());
        let sent = match self.message(reply, line, Map::new()) {
            None => return Ok(()),
            Some((queue, whole)) if is_whole && size(&whole.message) <= self.max_message => {
                self.send(&queue, &whole, end).await
            }
            Some(_) => Err(SendError::TooLarge(
                "it is larger than max_message_kb".into(),
            )),
        };
        match sent {
            Err(SendError::TooLarge(why)) => self.point(reply, end, why).await,
            Err(SendError::Refused(why)) => self.in_other_session(reply, end, why).await,
            other => other,
        }
    }

    fn message(
        &self,
        reply: &Reply<'_>,
        line: Bytes,
        properties: Map<String, Value>,
    ) -> Option<(String, Outgoing)> {
        let sort = reply.dead.map_or(Sort::Final, Sort::Dead);
        reply::message(reply.sender, reply.custom_id, line, sort, properties)
    }

    /// Sends where the answer lies instead of it.
    async fn point(&self, reply: &Reply<'_>, end: Timestamp, why: String) -> Result<(), SendError> {
        let Reply {
            sender,
            custom_id,
            answer,
            ..
        } = reply;
        let mut properties = Map::new();
        let line = match reply.kept_bytes {
            Some(bytes) => {
                properties.insert("claim-check".into(), true.into());
                let url = crate::gateway::batch::reply::fetch_path(&sender.key);
                reply::pointer_line(sender, custom_id, answer, &Pointer { url, bytes })
            }
            None => {
                let error = Answer::Error {
                    code: "answer_too_large".into(),
                    message: format!("The answer can't be sent ({why}) and is not kept."),
                };
                reply::line(sender, custom_id, &error)
            }
        };
        match self.message(reply, line, properties) {
            Some((queue, pointer)) => self.send(&queue, &pointer, end).await,
            None => Ok(()),
        }
    }

    /// A session that the broker does not take, or one that it wants and the sender did not name, must
    /// not cost the reply.
    async fn in_other_session(
        &self,
        reply: &Reply<'_>,
        end: Timestamp,
        why: String,
    ) -> Result<(), SendError> {
        let line = reply::line(reply.sender, reply.custom_id, reply.answer);
        let Some((queue, mut other)) = self.message(reply, line, Map::new()) else {
            return Ok(());
        };
        tracing::warn!(
            id = reply.sender.id,
            why,
            "a reply is sent in another session"
        );
        let message = &mut other.message;
        message.session_id = match message.session_id.take() {
            Some(_) => None,
            None => message.correlation_id.as_deref().map(bounded),
        };
        message
            .properties
            .insert("session-changed".into(), true.into());
        self.send(&queue, &other, end).await
    }

    /// Sends a message, trying again while that may help.
    pub(super) async fn send(
        &self,
        queue: &str,
        message: &Outgoing,
        end: Timestamp,
    ) -> Result<(), SendError> {
        let may_pass = |error: &SendError| matches!(error, SendError::Unavailable { .. });
        again::until(&self.now, end, may_pass, || self.bus.send(queue, message)).await
    }
}
