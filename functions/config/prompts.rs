//! The section `[prompts]`: how prompts are kept of apps with `log_prompts = true`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::gateway::prompt::Pattern;

/// How requests and answers are kept of apps with `log_prompts = true`. How long is up to the
/// storage account's rules (see docs/prompts.md).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prompts {
    /// Most bytes that are kept of a request, and as many of an answer; the rest is cut off.
    #[schemars(range(min = 1024, max = 33_554_432))]
    pub max_bytes: usize,
    /// Memory for requests and answers of calls that run or wait to be kept, MiB. Where it is full,
    /// calls go on, and are not kept.
    #[schemars(range(min = 1, max = 4096))]
    pub queue_mb: usize,
    /// Regular expressions; what they match in a request's or answer's texts is kept as
    /// `[redacted]`.
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub redact: Vec<Pattern>,
}

impl Default for Prompts {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            queue_mb: 64,
            redact: Vec::new(),
        }
    }
}
