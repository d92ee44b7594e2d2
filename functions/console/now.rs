//! What is happening: each model and its deployments in the last minute, and which are marked.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::Console;
use super::configuration::Configuration;
use super::pacing::{self, Paced, SlotsNow, Sources};
use super::queue::QueueNow;
use crate::gateway::deployment::Deployment;
use crate::gateway::event::Kind;
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::metrics::{DeploymentName, Total};
use crate::gateway::pacing::window::DeploymentId;
use crate::gateway::pool::ModelPool;
use crate::gateway::time::Timestamp;
use crate::store::console::Counted;

/// How long a rollup of another instance is of, seconds.
const MINUTE: f64 = 60.0;

/// What is happening.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Now {
    /// When, RFC 3339.
    pub(super) time: String,
    /// The gateway's version.
    pub(super) version: &'static str,
    /// When the answering instance started, RFC 3339.
    pub(super) started: String,
    /// Instances whose calls are in the figures.
    pub(super) instances: usize,
    /// Why other instances' calls are missing, where they are.
    pub(super) others_missing: Option<String>,
    /// Usage events that this instance could not keep, since it started.
    pub(super) dropped_events: u64,
    /// Calls whose prompt was to be kept and was not, of this instance, since it started.
    pub(super) dropped_prompts: u64,
    /// Why models' slots are missing, where they are.
    pub(super) slots_missing: Option<&'static str>,
    /// The batch queue; `null` where there is none.
    pub(super) queue: Option<QueueNow>,
    /// How the configuration of the answering instance stands; `null` where it is not watched.
    pub(super) configuration: Option<Configuration>,
    /// All calls.
    pub(super) all: Flow,
    /// The models: those with PTUs, then the others, by name.
    pub(super) models: Vec<ModelNow>,
}

/// A model.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ModelNow {
    /// Its name; empty for calls that name no model.
    pub(super) model: String,
    /// Its calls.
    pub(super) flow: Flow,
    /// The slots of its low-priority calls; `null` where they are not paced.
    pub(super) slots: Option<SlotsNow>,
    /// Its deployments, lower tiers first.
    pub(super) deployments: Vec<DeploymentNow>,
}

/// A deployment.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeploymentNow {
    /// The backend's name.
    pub(super) backend: String,
    /// The deployment's name there.
    pub(super) deployment: String,
    /// `ptu` or `payg`.
    pub(super) kind: &'static str,
    /// Lower is tried first.
    pub(super) tier: u8,
    /// `serving`, or why it is marked: `throttled`, `failed` or `misconfigured`; as the answering
    /// instance sees it.
    pub(super) state: &'static str,
    /// Until when it is marked, RFC 3339.
    pub(super) until: Option<String>,
    /// How full it is by the weighted tokens of the last minute that went through this gateway,
    /// percent; `null` where it is no PTU, or its capacity is not known.
    pub(super) utilization_percent: Option<f64>,
    /// How full it is by each source, and what low-priority calls are paced by; `null` where it is no
    /// PTU.
    pub(super) sources: Option<Sources>,
    /// Calls under way, of the answering instance.
    pub(super) in_flight: u32,
    /// Its attempts.
    pub(super) flow: Flow,
}

/// Calls of the last minute: of a model as clients saw them, of a deployment the attempts at it.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(super) struct Flow {
    /// Calls, or attempts, a second.
    pub(super) per_second: f64,
    /// Tokens a minute, prompt and output together.
    pub(super) tokens_per_minute: f64,
    /// Percent of them that met a 429; `null` where there was none.
    pub(super) throttled_percent: Option<f64>,
    /// Percent of them that failed with a 5xx or without an answer.
    pub(super) failed_percent: Option<f64>,
    /// Percent of them that a full PTU deployment passed on to pay-as-you-go.
    pub(super) spilled_percent: Option<f64>,
    /// Median of the time to the first byte, ms.
    pub(super) first_byte_p50_ms: Option<u64>,
    /// The 99th percentile of it.
    pub(super) first_byte_p99_ms: Option<u64>,
    /// Median of the whole time, ms.
    pub(super) duration_p50_ms: Option<u64>,
    /// The 99th percentile of it.
    pub(super) duration_p99_ms: Option<u64>,
}

/// What several instances counted, each in a time of its own.
#[derive(Clone, Debug)]
struct Sum {
    total: Total,
    per_second: f64,
    tokens_per_second: f64,
    /// Weighted tokens a second, of a PTU.
    weighted_per_second: f64,
}

impl Sum {
    fn none() -> Self {
        Self {
            total: Total::none(&Size::ALL),
            per_second: 0.0,
            tokens_per_second: 0.0,
            weighted_per_second: 0.0,
        }
    }

    fn add(&mut self, total: &Total, number: u64, seconds: f64) {
        self.per_second += as_f64(number) / seconds;
        self.tokens_per_second += as_f64(total.tokens()) / seconds;
        self.total.add(total);
    }

    fn add_sum(&mut self, other: &Self) {
        self.total.add(&other.total);
        self.per_second += other.per_second;
        self.tokens_per_second += other.tokens_per_second;
    }

    fn flow(&self, of: u64, throttled: u64, failed: u64) -> Flow {
        let total = &self.total;
        Flow {
            per_second: rounded(self.per_second),
            tokens_per_minute: rounded(self.tokens_per_second * MINUTE),
            throttled_percent: percent(throttled, of),
            failed_percent: percent(failed, of),
            spilled_percent: percent(total.get(Count::Spilled), of),
            first_byte_p50_ms: total.quantile(Size::FirstByte, 50),
            first_byte_p99_ms: total.quantile(Size::FirstByte, 99),
            duration_p50_ms: total.quantile(Size::Duration, 50),
            duration_p99_ms: total.quantile(Size::Duration, 99),
        }
    }

    fn of_calls(&self) -> Flow {
        let total = &self.total;
        let failed = total.get(Count::ServerError) + total.get(Count::Cut);
        self.flow(total.calls(), total.get(Count::Throttled), failed)
    }

    fn of_attempts(&self) -> Flow {
        let total = &self.total;
        let failed = total.get(Count::AttemptFailed)
            + total.get(Count::AttemptRefused)
            + total.get(Count::Cut);
        let throttled = total.get(Count::AttemptThrottled);
        self.flow(total.attempts(), throttled, failed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) const fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> f64 {
    as_f64(ms) / 1000.0
}

/// To two digits after the point.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The percentage that `part` is of `whole`, to two digits; `None` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| rounded(as_f64(part) * 100.0 / as_f64(whole)))
}

type ByDeployment = BTreeMap<(Arc<str>, Arc<str>), Sum>;
type ByModel = BTreeMap<Arc<str>, Sum>;

/// Looks.
pub(super) async fn look(console: &Console) -> Now {
    let now = console.relay.clock.now();
    let (others, others_missing) = match &console.store {
        None => (Arc::default(), None),
        Some(store) => match console.watch.others(store.as_ref(), now).await {
            Ok(others) => (others, None),
            Err(error) => {
                tracing::warn!(%error, "other instances' counts can't be read");
                let why = "the store can't be read: only this instance's calls are shown";
                (Arc::default(), Some(why.to_owned()))
            }
        },
    };
    let paced = pacing::look(console, now).await;
    let queue = match &console.queue {
        Some(queue) => Some(queue.look(console.store.as_deref(), now).await),
        None => None,
    };
    let (deployments, models) = sums(console, &others, now);
    let mut all = Sum::none();
    models.values().for_each(|model| all.add_sum(model));
    let settings = &console.relay.settings;
    let mut pools: Vec<_> = settings.pool.models().collect();
    pools.sort_by_key(|model| {
        let has_ptu = model.deployments().any(|one| one.spec.kind == Kind::Ptu);
        (!has_ptu, Arc::clone(model.name()))
    });
    let any = models
        .get("")
        .filter(|sum| !sum.total.is_none())
        .map(|_| &settings.any_backend);
    let pools = pools.into_iter().chain(any);
    Now {
        time: now.rfc3339(),
        version: env!("CARGO_PKG_VERSION"),
        started: console.watch.started().rfc3339(),
        instances: 1 + others.len(),
        others_missing,
        dropped_events: console.relay.dropped_events(),
        dropped_prompts: console.relay.dropped_prompts(),
        slots_missing: paced.missing,
        queue,
        configuration: console.configuration.as_deref().map(Configuration::of),
        all: all.of_calls(),
        models: pools
            .map(|pool| model(console, pool, &deployments, &models, &paced, now))
            .collect(),
    }
}

fn sums(console: &Console, others: &[Counted], now: Timestamp) -> (ByDeployment, ByModel) {
    let metrics = &console.relay.metrics;
    let (mut deployments, mut models) = (ByDeployment::new(), ByModel::new());
    if let Some(lately) = console.watch.lately(metrics, now) {
        let seconds = as_f64(lately.ms) / 1000.0;
        let names = Arc::clone(&lately.totals.names);
        for (name, total) in names.deployments.iter().zip(&lately.totals.deployments) {
            let sum = at_deployment(&mut deployments, name);
            sum.add(total, total.attempts(), seconds);
            if let Some(capacity) = console.capacities.get(&name.backend, &name.deployment) {
                // A PTU's utilization is of a minute, also in a process that is younger.
                let minute = seconds.max(MINUTE);
                sum.weighted_per_second +=
                    as_f64(capacity.weighted(|count| total.get(count))) / minute;
            }
        }
        for (name, total) in names.models.iter().zip(&lately.totals.models) {
            at_model(&mut models, name).add(total, total.calls(), seconds);
        }
    }
    for rollup in others.iter().map(|other| &other.rollup) {
        for roll in &rollup.deployments {
            let key = (Arc::clone(&roll.backend), Arc::clone(&roll.deployment));
            let total = roll.total();
            let sum = deployments.entry(key).or_insert_with(Sum::none);
            sum.add(&total, total.attempts(), MINUTE);
            if let Some(capacity) = console.capacities.get(&roll.backend, &roll.deployment) {
                sum.weighted_per_second +=
                    as_f64(capacity.weighted(|count| total.get(count))) / MINUTE;
            }
        }
        for roll in &rollup.models {
            let total = roll.total();
            at_model(&mut models, &roll.model).add(&total, total.calls(), MINUTE);
        }
    }
    (deployments, models)
}

fn at_deployment<'a>(sums: &'a mut ByDeployment, name: &DeploymentName) -> &'a mut Sum {
    let key = (Arc::clone(&name.backend), Arc::clone(&name.deployment));
    sums.entry(key).or_insert_with(Sum::none)
}

fn at_model<'a>(sums: &'a mut ByModel, name: &Arc<str>) -> &'a mut Sum {
    sums.entry(Arc::clone(name)).or_insert_with(Sum::none)
}

fn model(
    console: &Console,
    pool: &ModelPool,
    deployments: &ByDeployment,
    models: &ByModel,
    paced: &Paced,
    now: Timestamp,
) -> ModelNow {
    let flow = models.get(pool.name()).map(Sum::of_calls);
    let members = pool.deployments();
    ModelNow {
        model: pool.name().to_string(),
        flow: flow.unwrap_or_default(),
        slots: paced.slots.get(pool.name()).cloned(),
        deployments: members
            .map(|one| deployment(console, one, deployments, paced, now))
            .collect(),
    }
}

fn deployment(
    console: &Console,
    deployment: &Deployment,
    sums: &ByDeployment,
    paced: &Paced,
    now: Timestamp,
) -> DeploymentNow {
    let spec = &deployment.spec;
    let mark = deployment.mark(now);
    let key = (Arc::clone(&spec.backend), Arc::clone(&spec.name));
    let capacity = console.capacities.get(&spec.backend, &spec.name);
    let capacity = capacity.filter(|capacity| capacity.per_hour > 0);
    let id = DeploymentId {
        backend: Arc::clone(&spec.backend),
        deployment: Arc::clone(&spec.name),
    };
    let weighted = sums.get(&key).map_or(0.0, |sum| sum.weighted_per_second);
    DeploymentNow {
        utilization_percent: capacity
            .map(|one| rounded(weighted * 3600.0 * 100.0 / as_f64(one.per_hour))),
        sources: paced.deployments.get(&id).cloned(),
        backend: spec.backend.to_string(),
        deployment: spec.name.to_string(),
        kind: spec.kind.as_str(),
        tier: spec.tier,
        state: mark.map_or("serving", |mark| mark.reason.as_str()),
        until: mark.map(|mark| mark.until.rfc3339()),
        in_flight: deployment.in_flight(),
        flow: sums.get(&key).map(Sum::of_attempts).unwrap_or_default(),
    }
}
