//! The rules of `[cache]`.

use serde_json::Value;

use super::Check;
use crate::config::{Cache, mebibytes};

impl Check<'_, '_> {
    /// Checks that there is a place for answers that are shared, and room for the largest.
    pub(super) fn cache(&mut self) {
        let Some(cache) = self.tree.value.get("cache") else {
            return;
        };
        let shares = cache.get("blobs").and_then(Value::as_bool) == Some(true);
        let has_place = self.tree.value.pointer("/storage/blobs").is_some()
            || self.report.is_meant("storage.blobs");
        if shares && !has_place {
            self.at(
                "cache.blobs",
                "needs a place for the answers: [storage] blobs",
            );
        }
        let number = |name: &str, default: u32| {
            let number = cache.get(name).and_then(Value::as_u64);
            number.map_or(default, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let default = Cache::default();
        let sizes = Cache {
            memory_mb: number("memory_mb", default.memory_mb),
            max_answer_kb: number("max_answer_kb", default.max_answer_kb),
            ..default
        };
        // Memory has two generations, and an answer takes some more than its body.
        if sizes.max_answer() >= mebibytes(sizes.memory_mb) / 2 {
            self.at(
                "cache.max_answer_kb",
                "must be less than half of memory_mb: an answer of that size would find no room",
            );
        }
    }
}
