//! The section `[batch]`: where batch messages come from, and where their replies go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Endpoint, mebibytes};
use crate::gateway::batch::order::Rules;
use crate::gateway::batch::patience::Patience;

/// What a namespace has to look like.
pub(super) const NAMESPACE: &str =
    "must be a URL such as https://NAME.servicebus.windows.net, without a path";

/// Batch messages: a Service Bus queue that apps put calls into, and the queues of their replies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The Service Bus namespace, for example `https://contoso.servicebus.windows.net`, reached
    /// with the gateway's own identity.
    #[schemars(with = "String")]
    pub namespace: Endpoint,
    /// The queue that messages come in by. The function's own setting says it as well.
    #[schemars(length(min = 1, max = 260))]
    pub queue: String,
    /// The queues that replies may go to. Those to messages that name none go to the first one.
    #[schemars(length(max = 100))]
    pub reply_queues: Vec<String>,
    /// The client id of the user-assigned identity to send with; absent: what AZURE_CLIENT_ID
    /// says, else the system-assigned identity.
    pub client_id: Option<String>,
    /// Largest message that the namespace's tier takes, KiB: 256 in Standard; what the queue is
    /// set to in Premium.
    #[serde(default = "max_message_kb")]
    #[schemars(range(min = 64, max = 102_400))]
    pub max_message_kb: u32,
    /// Largest request in a message, MiB.
    #[serde(default = "max_request_mb")]
    #[schemars(range(min = 1, max = 100))]
    pub max_request_mb: u32,
    /// The queue's maxDeliveryCount: a message that fails as often is dead-lettered, and its sender
    /// told.
    #[serde(default = "max_deliveries")]
    #[schemars(range(min = 1, max = 2000))]
    pub max_deliveries: u64,
    /// Longest that a message is held while there is no room for it, ms; then it is put off. With the time that
    /// its call may take after that (`batch_timeout_ms`) it is less than host.json's maxAutoLockRenewalDuration.
    #[serde(default = "hold_ms")]
    #[schemars(range(min = 0, max = 480_000))]
    pub hold_ms: u64,
    /// Shortest time for which a message is put off, ms; each further time it is twice as long.
    #[serde(default = "defer_ms")]
    #[schemars(range(min = 1000, max = 3_600_000))]
    pub defer_ms: u64,
    /// Longest time for which a message is put off, ms.
    #[serde(default = "max_defer_ms")]
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub max_defer_ms: u64,
    /// A message whose deadline is nearer than this goes to pay-as-you-go, where its app's tiers
    /// allow that, ms.
    #[serde(default = "spill_before_ms")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub spill_before_ms: u64,
    /// How long an answer is of use where the message says nothing of a deadline, hours.
    #[serde(default = "life_h")]
    #[schemars(range(min = 1, max = 336))]
    pub life_h: u64,
    /// How long answers are kept, so that a message that is delivered again is not paid again,
    /// hours.
    #[serde(default = "keep_h")]
    #[schemars(range(min = 1, max = 720))]
    pub keep_h: u64,
}

const fn max_message_kb() -> u32 {
    256
}

const fn max_request_mb() -> u32 {
    8
}

const fn max_deliveries() -> u64 {
    10
}

const fn hold_ms() -> u64 {
    240_000
}

const fn defer_ms() -> u64 {
    60_000
}

const fn max_defer_ms() -> u64 {
    900_000
}

const fn spill_before_ms() -> u64 {
    60_000
}

const fn life_h() -> u64 {
    24
}

const fn keep_h() -> u64 {
    48
}

const HOUR_MS: u64 = 3_600_000;

impl Batch {
    /// These queues of `namespace`, all else as it is where nothing is said.
    pub fn new(namespace: Endpoint, queue: &str, reply_queues: &[&str]) -> Self {
        Self {
            namespace,
            queue: queue.to_owned(),
            reply_queues: reply_queues.iter().map(|&name| name.to_owned()).collect(),
            client_id: None,
            max_message_kb: max_message_kb(),
            max_request_mb: max_request_mb(),
            max_deliveries: max_deliveries(),
            hold_ms: hold_ms(),
            defer_ms: defer_ms(),
            max_defer_ms: max_defer_ms(),
            spill_before_ms: spill_before_ms(),
            life_h: life_h(),
            keep_h: keep_h(),
        }
    }

    /// What messages are read by.
    pub fn rules(&self) -> Rules {
        Rules {
            reply_queues: self.reply_queues.clone(),
            max_request: mebibytes(self.max_request_mb),
            life_ms: self.life_h.saturating_mul(HOUR_MS),
        }
    }

    /// What bounds a message's patience.
    pub const fn patience(&self) -> Patience {
        Patience {
            hold_ms: self.hold_ms,
            spill_before_ms: self.spill_before_ms,
            defer_ms: self.defer_ms,
            max_defer_ms: self.max_defer_ms,
        }
    }

    /// Largest message that can be sent, bytes.
    pub fn max_message(&self) -> usize {
        usize::try_from(self.max_message_kb).map_or(usize::MAX, |kb| kb.saturating_mul(1024))
    }

    /// How long answers are kept, ms.
    pub const fn keep_ms(&self) -> u64 {
        self.keep_h.saturating_mul(HOUR_MS)
    }
}
