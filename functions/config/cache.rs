//! The section `[cache]`: which answers are kept and given again.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::gateway::cache::{Generated, Rules, Scope};

/// Which answers are kept and given again to the same call. Nothing is unless `scope`, or an app's `cache`,
/// says so (see docs/cache.md).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Whose answers an app's calls may be given, unless its own `cache` says otherwise.
    pub scope: Scope,
    /// Which answers of chat, completions and responses are kept.
    pub generated: Generated,
    /// Whether embeddings are kept.
    pub embeddings: bool,
    /// How long an answer may be given again, seconds.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub ttl_seconds: u64,
    /// Memory for answers, of each instance, MiB.
    #[schemars(range(min = 1, max = 4096))]
    pub memory_mb: u32,
    /// Most answers in the memory of an instance.
    #[schemars(range(min = 2, max = 10_000_000))]
    pub max_entries: usize,
    /// Largest answer that is kept, KiB.
    #[schemars(range(min = 1, max = 4000))]
    pub max_answer_kb: u32,
    /// Whether answers lie in `[storage] blobs` too, so that instances give each other's.
    pub blobs: bool,
    /// Longest wait of a call for the answer of the same call that is under way, ms; 0: it does not wait.
    #[schemars(range(min = 0, max = 200_000))]
    pub wait_ms: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            scope: Scope::Off,
            generated: Generated::Deterministic,
            embeddings: true,
            ttl_seconds: 3600,
            memory_mb: 64,
            max_entries: 50_000,
            max_answer_kb: 512,
            blobs: false,
            wait_ms: 30_000,
        }
    }
}

impl Cache {
    /// Largest answer that is kept, bytes.
    pub fn max_answer(&self) -> usize {
        usize::try_from(self.max_answer_kb).map_or(usize::MAX, |kb| kb.saturating_mul(1024))
    }

    /// What is kept of the answers to an app's calls, which has `own` scope; `None`: nothing.
    pub fn rules(&self, own: Option<Scope>) -> Option<Rules> {
        let rules = Rules {
            scope: own.unwrap_or(self.scope),
            generated: self.generated,
            embeddings: self.embeddings,
            ttl_ms: self.ttl_seconds.saturating_mul(1000),
        };
        (rules.scope != Scope::Off).then_some(rules)
    }
}
