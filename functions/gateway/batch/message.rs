//! Messages of Service Bus, as far as the gateway reads and writes them.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::gateway::time::Timestamp;

/// Longest `MessageId` and `SessionId` (azure-facts, "Service Bus").
pub const MAX_ID: usize = 128;

/// What a message's sender says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `MessageId`; the broker drops a second message of the same id where it detects duplicates.
    pub id: Option<String>,
    /// The payload.
    pub body: Bytes,
    /// `ContentType`
    pub content_type: Option<String>,
    /// `CorrelationId`
    pub correlation_id: Option<String>,
    /// `SessionId`
    pub session_id: Option<String>,
    /// `ReplyTo`: the queue that the reply goes to.
    pub reply_to: Option<String>,
    /// `ReplyToSessionId`: the reply's session.
    pub reply_to_session_id: Option<String>,
    /// `Subject`, once called `Label`.
    pub subject: Option<String>,
    /// `To`
    pub to: Option<String>,
    /// `PartitionKey`
    pub partition_key: Option<String>,
    /// The application's own properties.
    pub properties: Map<String, Value>,
}

impl Message {
    /// An application property that is a text.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)?.as_str()
    }
}

/// A message that was received, and what the broker says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// `SequenceNumber`: the same whenever the message is delivered again.
    pub sequence: u64,
    /// `DeliveryCount`: 1 for the first time.
    pub deliveries: u64,
    /// When it became visible in the queue.
    pub enqueued: Timestamp,
    /// When the broker discards it; `None`: never.
    pub expires: Option<Timestamp>,
}

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// When it becomes visible; `None`: at once.
    pub scheduled: Option<Timestamp>,
    /// How long the broker keeps it from then on, seconds; `None`: as the queue says.
    pub ttl_s: Option<u64>,
}
