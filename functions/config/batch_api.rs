//! The section `[batch_api]`: OpenAI's Batch API over spare provisioned throughput.

use schemars::JsonSchema;
use serde::Deserialize;

/// OpenAI's Batch API, `/v1/files` and `/v1/batches`, by the gateway itself: files with the purpose
/// `batch` are kept in `[storage] blobs`, and their lines called as low-priority calls. Absent: both
/// paths go to backends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchApi {
    /// Largest file, MiB. The Functions host takes 100 at most unless
    /// FUNCTIONS_REQUEST_BODY_SIZE_LIMIT says otherwise.
    #[schemars(range(min = 1, max = 200))]
    pub max_file_mb: u32,
    /// Most lines of a file.
    #[schemars(range(min = 1, max = 50_000))]
    pub max_lines: u32,
    /// Lines of a batch that are called at the same time, where there are slots for them.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: usize,
    /// A batch whose 24 hours are over in less than this goes to pay-as-you-go, too, where its
    /// app's tiers allow that, minutes; 0: never.
    #[schemars(range(min = 0, max = 1440))]
    pub spill_before_minutes: u32,
}

impl Default for BatchApi {
    fn default() -> Self {
        Self {
            max_file_mb: 200,
            max_lines: 50_000,
            concurrency: 16,
            spill_before_minutes: 60,
        }
    }
}
