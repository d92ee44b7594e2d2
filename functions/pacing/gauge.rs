//! How full the provisioned deployments of each model are, and how many slots that leaves open.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, Deployment};
use crate::gateway::event::Kind;
use crate::gateway::pacing::rule::Pace;
use crate::gateway::time::Timestamp;

/// The models with provisioned deployments, and the rule that they are paced by.
#[derive(Debug)]
pub struct Gauge {
    pace: Pace,
    models: BTreeMap<Arc<str>, ()>,
}

impl Gauge {
    /// The gauge of a configuration; `None` where nothing is paced.
    pub fn new(config: &Config) -> Option<Self> {
        let pace = config.pacing.as_ref()?.pace();
        let deployments = config.backends.iter().flat_map(|b| &b.deployments);
        let ptu = deployments.filter(|d| d.kind == Kind::Ptu);
        let models = ptu.map(Deployment::model).map(|model| (model.into(), ()));
        Some(Self {
            pace,
            models: models.collect(),
        })
    }

    /// The models with provisioned deployments.
    pub fn models(&self) -> impl Iterator<Item = &Arc<str>> {
        self.models.keys()
    }

    /// The slots of a model that are open now.
    #[expect(clippy::unused_async, reason = "the table is read here")]
    pub async fn open(&self, _model: &str, _in_use: u32, _now: Timestamp) -> u32 {
        self.pace.slots
    }
}
