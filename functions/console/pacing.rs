//! How low-priority work is paced: what each source says of provisioned deployments, what it comes to,
//! and how the slots of their models stand. All of it from the store, of all instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;

use super::Console;
use super::now::{as_f64, rounded, seconds};
use crate::gateway::event::Kind;
use crate::gateway::pacing::figure::Source;
use crate::gateway::pacing::rule::Pace;
use crate::gateway::pacing::window::DeploymentId;
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;
use crate::pacing::{self, Reading};
use crate::store::StoreError;

/// How full a provisioned deployment is, by each source.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Sources {
    /// Azure Monitor: right, and minutes late.
    pub(super) monitor: Option<SourceNow>,
    /// The weighted tokens of all instances' calls, corrected by the factor.
    pub(super) events: Option<SourceNow>,
    /// The header of the deployment's answers: the highest of the last 30 seconds, else the newest.
    pub(super) header: Option<SourceNow>,
    /// Azure Monitor's alerts: the highest in force, else the newest.
    pub(super) alert: Option<SourceNow>,
    /// What estimates from the calls are multiplied by, as learnt from Azure Monitor.
    pub(super) factor: f64,
    /// What all of it comes to, percent; `null` where nothing is paced.
    pub(super) together_percent: Option<f64>,
    /// How much of that is known, percent: what is missing is taken for nearly full.
    pub(super) known_percent: Option<f64>,
}

/// What a source says.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct SourceNow {
    /// How full the deployment was, percent.
    pub(super) percent: f64,
    /// How long ago that was, seconds.
    pub(super) age_s: f64,
    /// Whether it still counts.
    pub(super) counts: bool,
}

/// The slots of a model's low-priority calls.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct SlotsNow {
    /// Slots in use, of all instances.
    pub(super) in_use: u32,
    /// Slots that are open.
    pub(super) open: u32,
    /// Most that there are: all are open up to the lower limit.
    pub(super) most: u32,
    /// Calls that wait for one, of all instances.
    pub(super) waiting: u32,
    /// The lower limit of utilization, percent.
    pub(super) lower_percent: f64,
    /// The upper limit, from which on none is open.
    pub(super) upper_percent: f64,
    /// How full the fullest of the model's provisioned deployments is that all apps may use.
    pub(super) utilization_percent: Option<f64>,
}

/// What is known of all models.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) deployments: BTreeMap<DeploymentId, Sources>,
    pub(super) slots: BTreeMap<Arc<str>, SlotsNow>,
    /// Why slots are missing, where they are.
    pub(super) missing: Option<&'static str>,
}

/// A model and its provisioned deployments; of each, whether all apps may use it.
struct Ptus {
    model: Arc<str>,
    ids: Vec<(DeploymentId, bool)>,
}

/// Looks.
pub(super) async fn look(console: &Console, now: Timestamp) -> Paced {
    let models = console.relay.settings.pool.models().filter_map(|model| {
        let ptus = model.deployments();
        let ptus = ptus.filter(|one| one.spec.kind == Kind::Ptu);
        let ids = ptus.map(|one| {
            let id = DeploymentId {
                backend: Arc::clone(&one.spec.backend),
                deployment: Arc::clone(&one.spec.name),
            };
            (id, one.spec.apps.is_empty())
        });
        let ids: Vec<_> = ids.collect();
        let model = Arc::clone(model.name());
        (!ids.is_empty()).then_some(Ptus { model, ids })
    });
    let mut paced = Paced::default();
    for seen in join_all(models.map(|model| of_model(console, model, now))).await {
        let (model, slots, deployments) = seen;
        paced.deployments.extend(deployments);
        match slots {
            Ok(Some(slots)) => {
                paced.slots.insert(model, slots);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "slots can't be read");
                paced.missing = Some("the store can't be read: slots are not known");
            }
        }
    }
    paced
}

type Seen = (
    Arc<str>,
    Result<Option<SlotsNow>, StoreError>,
    Vec<(DeploymentId, Sources)>,
);

async fn of_model(console: &Console, of: Ptus, now: Timestamp) -> Seen {
    let slots = &console.relay.slots;
    let gauge = slots.gauge();
    let stand = slots.look(&of.model, now).await;
    let in_use = stand.as_ref().ok().and_then(Option::as_ref);
    let in_use = in_use.map_or(0, |stand| stand.in_use);
    let model = &of.model;
    let readings = of.ids.iter().map(|(id, is_all_apps)| async move {
        let reading = gauge.reading(id, model, in_use, now).await?;
        Some((id.clone(), *is_all_apps, reading))
    });
    let readings: Vec<_> = join_all(readings).await.into_iter().flatten().collect();
    let open_to_all = readings.iter().filter(|(_, is_all_apps, _)| *is_all_apps);
    let figures = open_to_all.filter_map(|(_, _, reading)| reading.figure);
    let fullest = figures.map(|(utilization, _)| utilization).max();
    let stand = stand.map(|stand| {
        let (stand, pace) = (stand?, gauge.pace()?);
        Some(slots_now(stand, &pace, fullest))
    });
    let deployments = readings
        .iter()
        .map(|(id, _, reading)| (id.clone(), sources(reading, now)));
    let deployments = deployments.collect();
    (of.model, stand, deployments)
}

fn slots_now(stand: pacing::SlotsNow, pace: &Pace, fullest: Option<Utilization>) -> SlotsNow {
    SlotsNow {
        in_use: stand.in_use,
        open: stand.open,
        most: stand.most,
        waiting: stand.waiting,
        lower_percent: percent(pace.lower),
        upper_percent: percent(pace.upper),
        utilization_percent: fullest.map(percent),
    }
}

fn sources(reading: &Reading, now: Timestamp) -> Sources {
    let by = |source: Source| {
        let said = reading.said.iter().find(|said| said.source == source)?;
        Some(SourceNow {
            percent: percent(said.utilization),
            age_s: seconds(now.ms_since(said.at)),
            counts: said.counts,
        })
    };
    Sources {
        monitor: by(Source::Monitor),
        events: by(Source::Events),
        header: by(Source::Header),
        alert: by(Source::Alert),
        factor: as_f64(reading.calibration.thousandths()) / 1000.0,
        together_percent: reading.figure.map(|(utilization, _)| percent(utilization)),
        known_percent: reading
            .figure
            .map(|(_, trust)| rounded(as_f64(trust) / 10.0)),
    }
}

/// A utilization in percent.
pub(super) fn percent(utilization: Utilization) -> f64 {
    as_f64(utilization.tenths()) / 10.0
}
