//! The section `[live]`: a configuration that is changed while the gateway runs.

use schemars::JsonSchema;
use serde::Deserialize;

/// What the name of the configuration's blob begins with: its container's.
pub(super) const CONTAINER: &str = "config/";

/// What the name of the configuration's blob has to look like.
pub(super) const RULE: &str =
    "must be `config/NAME`: a blob of the container `config` of storage.blobs";

/// Watches the configuration: a new one is taken while the gateway runs, if it is good.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    /// The blob that is watched, in `[storage] blobs`: `config/NAME`. Where it is there and good, it
    /// serves in place of this file. Absent: this file itself is watched.
    pub blob: Option<String>,
    /// Time from look to look, seconds; each instance adds up to a quarter of it.
    #[schemars(range(min = 1, max = 3600))]
    pub poll_seconds: u64,
    /// How many configurations that were taken are kept, in the container `confighistory` of
    /// `[storage] blobs`; 0: none.
    #[schemars(range(min = 0, max = 100))]
    pub keep: usize,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            blob: None,
            poll_seconds: 30,
            keep: 10,
        }
    }
}

impl Live {
    /// The blob's name in its container, where a blob is watched.
    pub fn blob_name(&self) -> Option<&str> {
        self.blob.as_deref()?.strip_prefix(CONTAINER)
    }
}
