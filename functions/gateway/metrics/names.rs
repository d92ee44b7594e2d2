//! What is counted: the deployments, models and apps that the configuration names. A name that comes
//! with a call and is none of them counts as "", so that no caller can make a counter.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gateway::deployment::DeploymentSpec;
use crate::gateway::event::Kind;

/// A deployment that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentName {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The deployment's name there; empty for calls that name no model.
    pub deployment: Arc<str>,
    /// The model it serves; empty for calls that name none.
    pub model: Arc<str>,
    /// How it is paid for.
    pub kind: Kind,
    /// Its tier.
    pub tier: u8,
}

impl DeploymentName {
    /// The name of a deployment of `model`.
    pub fn new(model: &Arc<str>, spec: &DeploymentSpec) -> Self {
        Self {
            backend: Arc::clone(&spec.backend),
            deployment: Arc::clone(&spec.name),
            model: Arc::clone(model),
            kind: spec.kind,
            tier: spec.tier,
        }
    }
}

/// All that is counted. The last model and the last app are "": whatever is none of the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// The deployments.
    pub deployments: Vec<DeploymentName>,
    /// The models.
    pub models: Vec<Arc<str>>,
    /// The apps.
    pub apps: Vec<Arc<str>>,
    /// A deployment's place, by its name, by its backend.
    by_backend: HashMap<Arc<str>, HashMap<Arc<str>, usize>>,
    by_model: HashMap<Arc<str>, usize>,
    by_app: HashMap<Arc<str>, usize>,
}

impl Names {
    /// Names of deployments and apps; the models are the deployments'.
    pub fn new(
        mut deployments: Vec<DeploymentName>,
        apps: impl IntoIterator<Item = Arc<str>>,
    ) -> Self {
        let order = |a: &DeploymentName| (Arc::clone(&a.model), a.tier, Arc::clone(&a.backend));
        deployments.sort_by_key(|name| (name.model.is_empty(), order(name)));
        let models = deployments.iter().map(|name| Arc::clone(&name.model));
        let (models, by_model) = places(models);
        let (apps, by_app) = places(apps);
        let mut by_backend: HashMap<_, HashMap<_, _>> = HashMap::new();
        for (place, name) in deployments.iter().enumerate() {
            let backend = by_backend.entry(Arc::clone(&name.backend)).or_default();
            backend.insert(Arc::clone(&name.deployment), place);
        }
        Self {
            deployments,
            models,
            apps,
            by_backend,
            by_model,
            by_app,
        }
    }

    /// The place of a deployment.
    pub fn deployment(&self, backend: &str, deployment: &str) -> Option<usize> {
        self.by_backend.get(backend)?.get(deployment).copied()
    }

    /// The place of a model; of one that is none, the last.
    pub fn model(&self, model: &str) -> usize {
        self.known_model(model).unwrap_or(self.models.len() - 1)
    }

    pub(super) fn known_model(&self, model: &str) -> Option<usize> {
        self.by_model.get(model).copied()
    }

    pub(super) fn app(&self, app: &str) -> usize {
        self.known_app(app).unwrap_or(self.apps.len() - 1)
    }

    pub(super) fn known_app(&self, app: &str) -> Option<usize> {
        self.by_app.get(app).copied()
    }
}

/// Each name once, "" last; and where each is.
fn places(names: impl IntoIterator<Item = Arc<str>>) -> (Vec<Arc<str>>, HashMap<Arc<str>, usize>) {
    let (mut all, mut by_name) = (Vec::new(), HashMap::new());
    let named = names.into_iter().filter(|name| !name.is_empty());
    for name in named.chain([Arc::from("")]) {
        by_name.entry(Arc::clone(&name)).or_insert_with(|| {
            all.push(name);
            all.len() - 1
        });
    }
    (all, by_name)
}
