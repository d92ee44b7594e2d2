//! How the configuration stands, where it is watched.

use schemars::JsonSchema;
use serde::Serialize;

use crate::live::standing::Standing;

/// The configuration of an instance.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Configuration {
    /// The one that runs: the beginning of its text's SHA-256.
    pub(super) generation: String,
    /// Since when, RFC 3339.
    pub(super) since: String,
    /// Where it is from.
    pub(super) from: String,
    /// The newest one, where it was refused.
    pub(super) refused: Option<Refused>,
    /// Why nobody knows whether there is a newer one; `null` where that is known.
    pub(super) unreadable: Option<String>,
}

/// A configuration that was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Refused {
    /// The beginning of its text's SHA-256.
    pub(super) generation: String,
    /// When, RFC 3339.
    pub(super) at: String,
    /// All that is wrong with it.
    pub(super) mistakes: Vec<String>,
}

impl Configuration {
    /// As it stands now.
    pub(super) fn of(standing: &Standing) -> Self {
        let state = standing.now();
        Self {
            generation: state.running.hash,
            since: state.running.since.rfc3339(),
            from: state.running.from,
            refused: state.refused.map(|refused| Refused {
                generation: refused.hash,
                at: refused.at.rfc3339(),
                mistakes: refused.mistakes,
            }),
            unreadable: state.missed.map(|missed| missed.why),
        }
    }
}
