//! What the batch function goes by.

use crate::config::Batch;
use crate::gateway::batch::order::Rules;
use crate::gateway::batch::patience::Patience;

/// What handling a message goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How messages are read.
    pub rules: Rules,
    /// What bounds their patience.
    pub patience: Patience,
    /// The queue that they come in by, and are put off to.
    pub queue: String,
    /// Largest message that can be sent, bytes.
    pub max_message: usize,
    /// The queue's maxDeliveryCount.
    pub max_deliveries: u64,
    /// How long answers are kept, ms.
    pub keep_ms: u64,
}

impl Settings {
    /// The settings of a configuration.
    pub fn new(batch: &Batch) -> Self {
        Self {
            rules: batch.rules(),
            patience: batch.patience(),
            queue: batch.queue.clone(),
            max_message: batch.max_message(),
            max_deliveries: batch.max_deliveries,
            keep_ms: batch.keep_ms(),
        }
    }
}
