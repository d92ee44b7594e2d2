//! How a model's calls are spread over the deployments of one tier: the settings.

use serde::{Deserialize, Serialize};

/// How one of several available deployments of a tier is picked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// In turn, in proportion to the weights, spread as evenly as can be.
    #[default]
    WeightedRoundRobin,
    /// At random, in proportion to the weights.
    Random,
    /// The one with the fewest calls in flight for its weight.
    LeastInFlight,
    /// One of those whose time to first byte is within a range of the fastest's.
    LowestLatency,
    /// The same one for the same key while its load allows: keeps prompt caches warm.
    Hash,
}

/// What the key of [`Strategy::Hash`] is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashOn {
    /// The calling app.
    #[default]
    Caller,
    /// The first bytes of the prompt: calls that share a prefix share a prompt cache.
    Prompt,
    /// The value of a request header, by its lower-case name.
    Header(String),
}

/// What a model's selection goes by; one per model, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// How a deployment is picked within a tier.
    pub strategy: Strategy,
    /// What [`Strategy::Hash`] hashes.
    pub hash_on: HashOn,
    /// [`Strategy::Hash`] moves on from a deployment that has more than this share of the calls
    /// in flight, in percent of its fair share (consistent hashing with bounded loads,
    /// arXiv:1608.01350; 125 there is a factor of 1.25).
    pub hash_load_percent: u32,
    /// [`Strategy::LowestLatency`] picks among those at most this much slower than the fastest, ms.
    pub latency_range_ms: u32,
    /// How long a call waits for a throttled PTU before it spills over to the next tier, ms.
    pub spill_after_ms: u64,
    /// Deployments in the gateway's own region go first within a tier.
    pub prefer_region: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            hash_on: HashOn::default(),
            hash_load_percent: 125,
            latency_range_ms: 50,
            spill_after_ms: 0,
            prefer_region: false,
        }
    }
}
