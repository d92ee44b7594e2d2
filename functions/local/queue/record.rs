//! A stored message as it is kept in a file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::broker::Stored;
use crate::gateway::batch::message::Message;
use crate::gateway::time::Timestamp;

/// What is kept of it beside its body.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    deliveries: u64,
    visible: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires: Option<Timestamp>,
    is_dead: bool,
    texts: [Option<String>; 9],
    properties: Map<String, Value>,
}

impl Record {
    /// A message's record and body.
    pub(super) fn of(stored: &Stored) -> (Self, &bytes::Bytes) {
        let m = &stored.message;
        let texts = [
            &m.id,
            &m.content_type,
            &m.correlation_id,
            &m.session_id,
            &m.reply_to,
            &m.reply_to_session_id,
            &m.subject,
            &m.to,
            &m.partition_key,
        ];
        let record = Self {
            deliveries: stored.deliveries,
            visible: stored.visible,
            expires: stored.expires,
            is_dead: stored.is_dead,
            texts: texts.map(Clone::clone),
            properties: m.properties.clone(),
        };
        (record, &m.body)
    }

    /// The message again.
    pub(super) fn into_stored(self, sequence: u64, body: bytes::Bytes) -> Stored {
        let [
            id,
            content_type,
            correlation_id,
            session_id,
            reply_to,
            reply_to_session_id,
            subject,
            to,
            partition_key,
        ] = self.texts;
        Stored {
            sequence,
            deliveries: self.deliveries,
            visible: self.visible,
            expires: self.expires,
            is_dead: self.is_dead,
            message: Message {
                id,
                body,
                content_type,
                correlation_id,
                session_id,
                reply_to,
                reply_to_session_id,
                subject,
                to,
                partition_key,
                properties: self.properties,
            },
        }
    }
}
