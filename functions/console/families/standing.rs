//! How things stand: the configuration, the deployments, and, of all instances, how full those are, and the
//! queue.

use std::sync::Arc;

use super::{
    BACKEND, DEPLOYMENT, KIND, MODEL, QUEUE, SOURCE, STATE, TOKEN_TYPE, family, of_deployment, one,
    with,
};
use crate::console::Console;
use crate::console::now::Now;
use crate::console::pacing::{SourceNow, Sources};
use crate::gateway::deployment::Deployment;
use crate::gateway::metrics::DeploymentName;
use crate::gateway::metrics::family::{Family, Sort};
use crate::gateway::pacing::figure::Source;
use crate::gateway::reconcile::Reconciled;
use crate::gateway::time::Timestamp;
use crate::live::standing::State;

use Sort::Gauge;

pub(super) fn configuration(state: &State) -> Vec<Family> {
    let info = family(
        "spillway.configuration.info",
        "",
        Gauge,
        "The configuration that runs, by the beginning of its SHA-256.",
    );
    let generation = [("spillway.generation", &*state.running.hash)];
    let since = family(
        "spillway.configuration.since",
        "s",
        Gauge,
        "Since when it runs, Unix time.",
    );
    let refused = family(
        "spillway.configuration.refused",
        "",
        Gauge,
        "Mistakes of the newest configuration, which is refused for them.",
    );
    let unreadable = family(
        "spillway.configuration.unreadable",
        "",
        Gauge,
        "1 while nobody knows whether there is a newer configuration.",
    );
    let mistakes = state.refused.as_ref().map_or(0, |one| one.mistakes.len());
    let mistakes = u64::try_from(mistakes).unwrap_or(u64::MAX);
    vec![
        one(info, &generation, 1),
        one(since, &[], state.running.since.unix_ms() / 1000),
        one(refused, &[], mistakes),
        one(unreadable, &[], u64::from(state.missed.is_some())),
    ]
}

pub(super) fn states(console: &Console, now: Timestamp) -> Vec<Family> {
    let settings = &console.relay.settings;
    let mut models: Vec<_> = settings.pool.models().collect();
    models.sort_by_key(|model| model.name().clone());
    let members = models.iter().flat_map(|model| {
        let deployments = model.deployments();
        deployments.map(|one| (DeploymentName::new(model.name(), &one.spec), one))
    });
    let members: Vec<(DeploymentName, &Arc<Deployment>)> = members.collect();
    let help = "Calls under way at a deployment.";
    let mut in_flight = family("spillway.calls_in_flight", "{call}", Gauge, help);
    for (name, one) in &members {
        in_flight.sample(&of_deployment(name), one.in_flight());
    }
    let mut all = vec![in_flight];
    if let Some(sessions) = console.relay.sessions() {
        let help = "Realtime sessions that are open.";
        let sort = family("spillway.realtime.sessions", "{session}", Gauge, help);
        let open = u64::try_from(sessions.open()).unwrap_or(u64::MAX);
        all.push(one(sort, &[], open));
    }
    let help = "1 for the reason that a deployment is left alone for, 0 for the others.";
    let mut marked = family("spillway.deployment.marked", "", Gauge, help);
    for (name, one) in &members {
        let mark = one.mark(now).map(|mark| mark.reason.as_str());
        for reason in ["throttled", "failed", "misconfigured"] {
            let attributes = with(name, ("spillway.reason", reason));
            marked.sample(&attributes, u64::from(mark == Some(reason)));
        }
    }
    all.push(marked);
    all
}

/// Of all instances, as everything below. What is not known has no sample.
pub(super) fn utilization(now: &Now) -> [Family; 3] {
    let all = || {
        now.models.iter().flat_map(|model| {
            let ptus = model.deployments.iter();
            ptus.filter_map(|one| {
                let attributes = [
                    (BACKEND, &*one.backend),
                    (DEPLOYMENT, &*one.deployment),
                    (MODEL, &*model.model),
                    (KIND, one.kind),
                ];
                Some((attributes, one.sources.as_ref()?))
            })
        })
    };
    let help =
        "How full a provisioned deployment is, by source; together: what calls are paced by.";
    let mut utilization = family("spillway.ptu.utilization", "1", Gauge, help);
    let help = "How old what a source says is.";
    let mut age = family("spillway.ptu.utilization_age", "s", Gauge, help);
    let help = "What estimates from the calls are multiplied by.";
    let mut factor = family("spillway.ptu.calibration_factor", "", Gauge, help);
    for (attributes, sources) in all() {
        let [backend, deployment, model, kind] = attributes;
        let of = |source| [backend, deployment, model, kind, (SOURCE, source)];
        for (source, said) in by_source(sources) {
            if let Some(said) = said {
                utilization.sample(&of(source), ratio(said.percent));
                age.sample(&of(source), said.age_s);
            }
        }
        if let Some(percent) = sources.together_percent {
            utilization.sample(&of("together"), ratio(percent));
        }
        factor.sample(&attributes, sources.factor);
    }
    [utilization, age, factor]
}

const fn by_source(sources: &Sources) -> [(&'static str, Option<&SourceNow>); 4] {
    [
        (Source::Monitor.as_str(), sources.monitor.as_ref()),
        (Source::Events.as_str(), sources.events.as_ref()),
        (Source::Header.as_str(), sources.header.as_ref()),
        (Source::Alert.as_str(), sources.alert.as_ref()),
    ]
}

/// A percentage, to a tenth, as a part of one.
fn ratio(percent: f64) -> f64 {
    (percent * 10.0).round() / 1000.0
}

pub(super) fn slots(now: &Now) -> [Family; 2] {
    let help = "Slots of low-priority calls: those in use, those open, and the most there are.";
    let mut all = family("spillway.slots", "{slot}", Gauge, help);
    let help = "Low-priority calls that wait for a slot.";
    let mut waiting = family("spillway.slots_waiting_calls", "{call}", Gauge, help);
    for model in &now.models {
        let Some(slots) = &model.slots else { continue };
        let name = (MODEL, &*model.model);
        for (state, number) in [
            ("in_use", slots.in_use),
            ("open", slots.open),
            ("most", slots.most),
        ] {
            all.sample(&[name, (STATE, state)], number);
        }
        waiting.sample(&[name], slots.waiting);
    }
    [all, waiting]
}

pub(super) fn queue(now: &Now) -> [Family; 3] {
    let queue = now.queue.as_ref();
    let name = (QUEUE, queue.map_or("", |queue| &*queue.queue));
    let help = "Messages in the batch queue.";
    let mut messages = family("spillway.batch_queue.messages", "{message}", Gauge, help);
    for (state, number) in [
        ("waiting", queue.and_then(|queue| queue.waiting)),
        ("scheduled", queue.and_then(|queue| queue.scheduled)),
        ("dead", queue.and_then(|queue| queue.dead)),
    ] {
        if let Some(number) = number {
            messages.sample(&[name, (STATE, state)], number);
        }
    }
    let age = |metric, help, age: Option<f64>| {
        let mut family = family(metric, "s", Gauge, help);
        if let Some(age) = age {
            family.sample(&[name], age);
        }
        family
    };
    let oldest = age(
        "spillway.batch_queue.oldest_age",
        "How long the oldest message has waited.",
        queue.and_then(|queue| queue.oldest_s),
    );
    let wait = age(
        "spillway.batch_queue.wait",
        "How long messages had waited that were delivered lately.",
        queue.and_then(|queue| queue.waited_s),
    );
    [messages, oldest, wait]
}

/// What is not known has no sample.
pub(super) fn drifts(newest: &[Reconciled]) -> Option<Family> {
    let metric = "spillway.reconciliation.drift";
    let help = "How far a deployment's tokens of its newest reconciled day are from Azure Monitor's count.";
    let mut drift = family(metric, "%", Gauge, help);
    for one in newest {
        for (sort, figure) in [("input", one.prompt), ("output", one.generated)] {
            if let Some(percent) = figure.percent() {
                let of = [
                    (BACKEND, &*one.backend),
                    (DEPLOYMENT, &*one.deployment),
                    (TOKEN_TYPE, sort),
                ];
                drift.sample(&of, percent);
            }
        }
    }
    (!newest.is_empty()).then_some(drift)
}
