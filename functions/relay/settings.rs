//! The configuration as the relay looks things up in it.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use crate::config::{ApiForm, AuthMode, Config, Endpoint, KeyHash};
use crate::gateway::classify::MarkTimes;
use crate::gateway::deployment::DeploymentSpec;
use crate::gateway::event::Kind;
use crate::gateway::plan::Limits;
use crate::gateway::pool::{ModelPool, Pool};
use crate::gateway::route::Form;
use crate::gateway::strategy::{Selection, Strategy};

/// What an app is called that did not have to say who it is.
pub const ANONYMOUS: &str = "anonymous";

/// An app that calls.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: Arc<str>,
    /// The models it may use; `None`: all.
    pub models: Option<Vec<Arc<str>>>,
    /// The backends it may use; `None`: all.
    pub backends: Option<Vec<Arc<str>>>,
}

impl App {
    /// Whether it may use the model.
    pub fn may_use(&self, model: &str) -> bool {
        let models = self.models.as_ref();
        models.is_none_or(|all| all.iter().any(|one| &**one == model))
    }
}

/// How a backend is reached.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The `api-key` header's value.
    pub key: Option<HeaderValue>,
    /// The generation that it is called by; `None`: the app's.
    pub form: Option<Form>,
    /// `api-version` where the app names none.
    pub api_version: String,
}

/// All that the relay goes by.
#[derive(Debug)]
pub struct Settings {
    /// The deployments of each model.
    pub pool: Pool,
    /// Each backend once, as a deployment without a name, for calls that name no model.
    pub any_backend: Arc<ModelPool>,
    /// Backends by name.
    pub backends: HashMap<Arc<str>, Backend>,
    /// Apps by their keys' hashes; `None` when nobody has to show one.
    pub apps: Option<HashMap<KeyHash, Arc<App>>>,
    /// Every caller when nobody has to show a key.
    pub anonymous: Arc<App>,
    /// What bounds a call.
    pub limits: Limits,
    /// How long marks last.
    pub marks: MarkTimes,
    /// The section `[gateway]`.
    pub gateway: crate::config::Gateway,
}

impl Settings {
    /// The settings of a configuration.
    ///
    /// # Errors
    /// When a backend's key can't stand in a header.
    pub fn new(config: &Config) -> Result<Self, String> {
        let mut backends = HashMap::new();
        for backend in &config.backends {
            let name: Arc<str> = backend.name.as_str().into();
            backends.insert(name, read_backend(backend, &config.gateway.api_version)?);
        }
        let gateway = config.gateway.clone();
        Ok(Self {
            pool: pool(config),
            any_backend: Arc::new(any_backend(config)),
            backends,
            apps: (config.auth.mode == AuthMode::Required).then(|| apps(config)),
            anonymous: Arc::new(App {
                name: ANONYMOUS.into(),
                models: None,
                backends: None,
            }),
            limits: Limits {
                wait_budget_ms: gateway.wait_budget_ms,
                max_attempts: gateway.max_attempts,
                deadline_ms: gateway.deadline_ms,
                ramp_ms: gateway.ramp_ms,
            },
            marks: MarkTimes {
                default_ms: gateway.default_mark_ms,
                max_ms: gateway.max_mark_ms,
            },
            gateway,
        })
    }
}

fn read_backend(backend: &crate::config::Backend, api_version: &str) -> Result<Backend, String> {
    let key = backend.key.as_ref().map(|key| {
        let mut value = HeaderValue::from_str(key.expose()).map_err(|_| {
            format!(
                "the key of backend {} can't stand in a header",
                backend.name
            )
        })?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    });
    Ok(Backend {
        endpoint: backend.endpoint.clone(),
        key: key.transpose()?,
        form: match backend.api {
            ApiForm::AsCalled => None,
            ApiForm::Classic => Some(Form::Classic),
            ApiForm::V1 => Some(Form::V1),
        },
        api_version: backend
            .api_version
            .as_deref()
            .unwrap_or(api_version)
            .to_owned(),
    })
}

fn pool(config: &Config) -> Pool {
    let deployments = config.backends.iter().flat_map(|backend| {
        backend.deployments.iter().map(|deployment| {
            let spec = DeploymentSpec {
                backend: backend.name.as_str().into(),
                name: deployment.name.as_str().into(),
                kind: deployment.kind,
                tier: deployment.tier(),
                weight: deployment.weight,
                region: backend.region.as_deref().map(Arc::from),
            };
            (deployment.model().into(), spec)
        })
    });
    Pool::new(deployments, |name| {
        let model = config.models.iter().find(|model| model.name == name);
        model
            .map(crate::config::Model::selection)
            .unwrap_or_default()
    })
}

/// Calls that name no model (files, batches, threads) go to one backend an app, so that what one
/// call made is there for the next one.
fn any_backend(config: &Config) -> ModelPool {
    let backends = config.backends.iter().map(|backend| {
        let ptu = |d: &crate::config::Deployment| d.kind == Kind::Ptu;
        let all_ptu = !backend.deployments.is_empty() && backend.deployments.iter().all(ptu);
        DeploymentSpec {
            backend: backend.name.as_str().into(),
            name: "".into(),
            kind: if all_ptu { Kind::Ptu } else { Kind::Payg },
            tier: 1,
            weight: 1,
            region: backend.region.as_deref().map(Arc::from),
        }
    });
    let selection = Selection {
        strategy: Strategy::Hash,
        hash_load_percent: 1000,
        ..Selection::default()
    };
    ModelPool::new("".into(), backends, selection)
}

fn apps(config: &Config) -> HashMap<KeyHash, Arc<App>> {
    let shared = |names: &Option<Vec<String>>| {
        let names = names.as_ref()?;
        Some(names.iter().map(|name| Arc::from(name.as_str())).collect())
    };
    let mut apps = HashMap::new();
    for app in &config.apps {
        let entry = Arc::new(App {
            name: app.name.as_str().into(),
            models: shared(&app.models),
            backends: shared(&app.backends),
        });
        for hash in &app.key_hashes {
            apps.insert(*hash, Arc::clone(&entry));
        }
    }
    apps
}
