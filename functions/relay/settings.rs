//! The configuration as the relay looks things up in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

use super::credential::Credential;
use crate::azure::own_token::OwnTokens;
use crate::config::{ApiForm, AuthMode, Config, Endpoint};
use crate::door::ANONYMOUS;
use crate::gateway::app::{App, NO_TIER};
use crate::gateway::classify::MarkTimes;
use crate::gateway::deployment::DeploymentSpec;
use crate::gateway::event::Kind;
use crate::gateway::fallback::Chain;
use crate::gateway::metrics::{DeploymentName, Names};
use crate::gateway::plan::Limits;
use crate::gateway::pool::{Before, ModelPool, Pool};
use crate::gateway::route::Form;
use crate::gateway::strategy::{Selection, Strategy};

/// How a backend is reached.
#[derive(Debug)]
pub struct Backend {
    /// Its name, as answers carry it.
    pub name: HeaderValue,
    /// Where it listens.
    pub place: Place,
    /// What it is shown.
    pub credential: Credential,
    /// The generation that it is called by; `None`: the app's.
    pub form: Option<Form>,
    /// `api-version` where the app names none.
    pub api_version: String,
}

impl Backend {
    /// Whether it is the same place, and is shown the same, as `other`.
    fn is_reached_as(&self, other: &Self) -> bool {
        self.place == other.place && self.credential.is_same(&other.credential)
    }
}

/// Where a backend listens, in the parts that a request is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    scheme: Scheme,
    authority: Authority,
    /// The `host` header's value.
    pub host: HeaderValue,
}

impl Place {
    fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let text = endpoint.authority();
        let odd = |_| format!("{text} can't stand in a URL");
        let scheme = endpoint.scheme().as_str();
        Ok(Self {
            scheme: scheme.parse().map_err(odd)?,
            authority: text.parse().map_err(odd)?,
            host: HeaderValue::from_str(text)
                .map_err(|_| format!("{text} can't stand in a header"))?,
        })
    }

    /// Its host, an IPv6 address without brackets, and its port.
    pub fn address(&self) -> (&str, u16) {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = if self.scheme == Scheme::HTTP { 80 } else { 443 };
        (host, self.authority.port_u16().unwrap_or(port))
    }

    /// The URL of a path there; `None` where it has characters that no URL may have.
    pub fn url(&self, path: String) -> Option<Uri> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
        Uri::from_parts(parts).ok()
    }
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
    /// Whether backends are told the object id of who called.
    pub passes_object_id: bool,
    /// The models that may serve in another's place, by that one.
    pub fallbacks: HashMap<Arc<str>, Chain>,
    /// The section `[cache]`.
    pub cache: crate::config::Cache,
    /// What is counted.
    pub names: Arc<Names>,
    /// Whether the end of an answer waits until its usage event lasts.
    pub is_durable: bool,
    /// What bounds a call.
    pub limits: Limits,
    /// How long marks last.
    pub marks: MarkTimes,
    /// The section `[gateway]`.
    pub gateway: crate::config::Gateway,
}

impl Settings {
    /// The settings of a configuration. The tokens that it needs are taken from `tokens`.
    ///
    /// # Errors
    /// When a backend's name or key can't stand in a header, or the system has no usable certificate roots.
    pub fn new(config: &Config, tokens: &mut OwnTokens) -> Result<Self, String> {
        let mut backends = HashMap::new();
        for backend in &config.backends {
            let name: Arc<str> = backend.name.as_str().into();
            let read = read_backend(backend, &config.gateway.api_version, tokens)?;
            backends.insert(name, read);
        }
        let gateway = config.gateway.clone();
        let (pool, any_backend) = pools(&Before::new(), config);
        Ok(Self {
            fallbacks: config.fallbacks(),
            cache: config.cache.clone(),
            names: Arc::new(names(&pool, &any_backend, config)),
            pool,
            any_backend,
            backends,
            passes_object_id: config.auth.pass_caller_object_id,
            is_durable: config.chargeback.durable,
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

    /// The backends among which calls of an app that name no model have their place: those that serve most of
    /// the models that it may use, so that what is made there can be used with them. None where it may
    /// use no model: all are alike then.
    pub fn homes(&self, app: &App) -> Vec<Arc<str>> {
        let mut models: HashMap<&Arc<str>, usize> = HashMap::new();
        for model in self.pool.models().filter(|m| app.may_ask_for(m.name())) {
            let usable = model.deployments().filter(|one| app.may_use(&one.spec));
            let backends: HashSet<_> = usable.map(|one| &one.spec.backend).collect();
            for backend in backends {
                *models.entry(backend).or_default() += 1;
            }
        }
        let most = models.values().max().copied();
        let homes = models.into_iter().filter(|(_, count)| Some(*count) == most);
        homes.map(|(backend, _)| Arc::clone(backend)).collect()
    }

    /// The settings of the next configuration. Deployments keep their marks, unless their backend is
    /// at another place or shown something else: what was learnt of it then is of no use.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn after(&self, config: &Config, tokens: &mut OwnTokens) -> Result<Self, String> {
        let mut fresh = Self::new(config, tokens)?;
        let same = |name: &Arc<str>| {
            let pair = (self.backends.get(name), fresh.backends.get(name));
            matches!(pair, (Some(before), Some(now)) if before.is_reached_as(now))
        };
        let all = self.pool.deployments().iter();
        let all = all.chain(self.any_backend.deployments());
        let before: Before = all
            .filter(|one| same(&one.spec.backend))
            .map(|one| {
                let spec = &one.spec;
                let key = (Arc::clone(&spec.backend), Arc::clone(&spec.name));
                (key, Arc::clone(one))
            })
            .collect();
        (fresh.pool, fresh.any_backend) = pools(&before, config);
        Ok(fresh)
    }
}

fn read_backend(
    backend: &crate::config::Backend,
    api_version: &str,
    tokens: &mut OwnTokens,
) -> Result<Backend, String> {
    let name = &backend.name;
    Ok(Backend {
        name: HeaderValue::from_str(name)
            .map_err(|_| format!("the name of backend {name} can't stand in a header"))?,
        place: Place::new(&backend.endpoint)?,
        credential: Credential::new(backend, tokens)?,
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

/// The deployments of each model, and each backend once. They go on from where those of `before` are.
fn pools(before: &Before, config: &Config) -> (Pool, Arc<ModelPool>) {
    (pool(before, config), Arc::new(any_backend(before, config)))
}

fn pool(before: &Before, config: &Config) -> Pool {
    let deployments = config.backends.iter().flat_map(|backend| {
        backend.deployments.iter().map(|deployment| {
            let spec = DeploymentSpec {
                backend: backend.name.as_str().into(),
                name: deployment.name.as_str().into(),
                kind: deployment.kind,
                tier: deployment.tier(),
                weight: deployment.weight,
                region: backend.region.as_deref().map(Arc::from),
                apps: shared(deployment.apps.as_deref().unwrap_or_default()),
            };
            (deployment.model().into(), spec)
        })
    });
    Pool::after(before, deployments, |name| {
        let model = config.models.iter().find(|model| model.name == name);
        model
            .map(crate::config::Model::selection)
            .unwrap_or_default()
    })
}

fn names(pool: &Pool, any_backend: &ModelPool, config: &Config) -> Names {
    let models = pool.models().map(|model| &**model).chain([any_backend]);
    let deployments = models.flat_map(|model| {
        let all = model.deployments();
        all.map(|deployment| DeploymentName::new(model.name(), &deployment.spec))
    });
    let apps = config.apps.iter().map(|app| Arc::from(app.name.as_str()));
    let nobody = (config.auth.mode == AuthMode::Off).then(|| Arc::from(ANONYMOUS));
    Names::new(deployments.collect(), apps.chain(nobody))
}

fn shared(names: &[String]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(name.as_str())).collect()
}

/// The apps that a backend is for: those of its deployments, where each has some.
fn owners(deployments: &[&crate::config::Deployment]) -> Vec<Arc<str>> {
    let of_each = deployments.iter().map(|deployment| &deployment.apps);
    let all: Option<Vec<&Vec<String>>> = of_each.map(Option::as_ref).collect();
    all.into_iter()
        .flatten()
        .flat_map(|apps| shared(apps))
        .collect()
}

/// Calls that name no model (files, batches, threads) go to one backend an app, so that what one
/// call made is there for the next one.
fn any_backend(before: &Before, config: &Config) -> ModelPool {
    let backends = config.backends.iter().map(|backend| {
        // Those that were deleted too: what their apps made is there still.
        let all: Vec<_> = (backend.deployments.iter())
            .chain(&backend.deleted)
            .collect();
        let all_ptu = !all.is_empty() && all.iter().all(|one| one.kind == Kind::Ptu);
        DeploymentSpec {
            backend: backend.name.as_str().into(),
            name: "".into(),
            kind: if all_ptu { Kind::Ptu } else { Kind::Payg },
            tier: NO_TIER,
            weight: 1,
            region: backend.region.as_deref().map(Arc::from),
            apps: owners(&all),
        }
    });
    let selection = Selection {
        strategy: Strategy::Hash,
        hash_load_percent: 1000,
        ..Selection::default()
    };
    ModelPool::after(before, "".into(), backends, selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_its_owners_only_where_all_its_deployments_are() {
        let deployment = |apps: Option<&str>| crate::config::Deployment {
            name: "m".into(),
            model: None,
            kind: Kind::Ptu,
            tier: None,
            weight: 1,
            ptus: None,
            base_model: None,
            shared: false,
            since: None,
            before: Vec::new(),
            deleted: None,
            region_class: crate::gateway::price::RegionClass::Global,
            apps: apps.map(|app| vec![app.to_owned()]),
        };
        let [a, b, open] = [Some("a"), Some("b"), None].map(deployment);
        assert_eq!(owners(&[&a, &b]), ["a".into(), "b".into()]);
        assert!(owners(&[&a, &open]).is_empty());
        assert!(owners(&[]).is_empty());
    }
}
