//! The rules of the section `[batch]`.

use serde_json::Value;

use super::super::Endpoint;
use super::super::batch::NAMESPACE;
use super::{Check, strings};

impl Check<'_, '_> {
    /// Checks the section `[batch]`.
    pub(super) fn batch(&mut self) {
        let tree = self.tree;
        let Some(batch) = tree.value.get("batch") else {
            return;
        };
        let namespace = batch.get("namespace").and_then(Value::as_str);
        if namespace.is_some_and(|text| text.parse::<Endpoint>().is_err()) {
            self.at("batch.namespace", NAMESPACE);
        }
        let replies = batch.get("reply_queues").and_then(Value::as_array);
        if replies.is_some_and(Vec::is_empty) {
            self.at(
                "batch.reply_queues",
                "is empty: replies have to go somewhere",
            );
        }
        let queue = batch.get("queue").and_then(Value::as_str);
        for (i, reply) in strings(batch, "reply_queues") {
            let path = format!("batch.reply_queues[{i}]");
            if reply.trim().is_empty() {
                self.at(&path, "is empty");
            }
            if queue.is_some_and(|queue| queue.eq_ignore_ascii_case(reply)) {
                self.at(
                    &path,
                    "is the queue that messages come in by: each reply would be taken for a request",
                );
            }
        }
        if !self.has_store() && tree.is_whole {
            self.at(
                "batch",
                "needs `tables` in [storage]: an answer is kept there until its reply is sent",
            );
        }
    }
}
