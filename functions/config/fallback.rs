//! The tables `[[model.fallback]]`: which models may serve in another's place.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Config;
use crate::gateway::fallback::{Chain, Reason, Substitute};

/// A model that may serve in another's place. The first table goes first.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// The model, as apps ask for it.
    pub model: String,
    /// What it serves after: `exhausted` (no deployment of the other could answer),
    /// `context-length` (the call is too long for the other), `content-filter` (the other's filter
    /// refused the prompt).
    #[serde(default = "exhausted")]
    #[schemars(length(max = 3))]
    pub on: Vec<Reason>,
}

fn exhausted() -> Vec<Reason> {
    vec![Reason::Exhausted]
}

impl Config {
    /// The chains of the models that have one.
    pub fn fallbacks(&self) -> HashMap<Arc<str>, Chain> {
        let substitute = |fallback: &Fallback| Substitute {
            model: fallback.model.as_str().into(),
            on: fallback.on.clone(),
        };
        let models = self
            .models
            .iter()
            .filter(|model| !model.fallbacks.is_empty());
        let chain = |model: &super::Model| {
            let chain = Chain(model.fallbacks.iter().map(substitute).collect());
            (Arc::from(model.name.as_str()), chain)
        };
        models.map(chain).collect()
    }
}
