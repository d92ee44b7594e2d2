//! All that is shown of this instance's counters and states, whichever way it goes out.
//!
//! Names and attributes are OpenTelemetry's where its conventions for generative AI have one; the gateway is
//! the client of its backends there. Attributes are names of the configuration only.

mod counted;
mod standing;

use self::counted::{apps, calls, deployments};
use self::standing::{configuration, drifts, queue, slots, states, utilization};
use super::Console;
use super::now::Now;
use crate::gateway::event::Kind;
use crate::gateway::metrics::DeploymentName;
use crate::gateway::metrics::family::{Family, Sort};
use crate::gateway::reconcile::Reconciled;

use Sort::{Counter, Gauge};

const APP: &str = "spillway.app";
const BACKEND: &str = "spillway.backend";
const CLASS: &str = "spillway.class";
const DEPLOYMENT: &str = "spillway.deployment";
const KIND: &str = "spillway.kind";
const MODEL: &str = "gen_ai.request.model";
const QUEUE: &str = "spillway.queue";
const SOURCE: &str = "spillway.source";
const STATE: &str = "spillway.state";
const TOKEN_TYPE: &str = "gen_ai.token.type";

type Attribute<'a> = (&'static str, &'a str);

/// All metrics of this instance, those of pacing and of the queue, which `now` has, and how far each
/// deployment's newest reconciled day drifts.
pub(super) fn of(console: &Console, now: &Now, newest: &[Reconciled]) -> Vec<Family> {
    let totals = console.relay.metrics.totals();
    let mut all = itself(console);
    if let Some(standing) = &console.configuration {
        all.extend(configuration(&standing.now()));
    }
    all.extend(calls(&totals));
    all.extend(apps(&totals));
    all.extend(deployments(&totals));
    all.extend(states(console, console.relay.clock.now()));
    all.extend(utilization(now));
    all.extend(slots(now));
    all.extend(queue(now));
    all.extend(drifts(newest));
    all
}

fn family(name: &'static str, unit: &'static str, sort: Sort, help: &'static str) -> Family {
    Family {
        name,
        unit,
        sort,
        help,
        samples: Vec::new(),
    }
}

/// A metric with one sample.
fn one(mut family: Family, attributes: &[Attribute<'_>], value: u64) -> Family {
    family.sample(attributes, value);
    family
}

fn itself(console: &Console) -> Vec<Family> {
    let relay = &console.relay;
    let info = family("spillway.build.info", "", Gauge, "The gateway's version.");
    let version = [("spillway.version", env!("CARGO_PKG_VERSION"))];
    let events = family(
        "spillway.dropped_events",
        "{event}",
        Counter,
        "Usage events that found their queue full.",
    );
    let prompts = family(
        "spillway.dropped_prompts",
        "{call}",
        Counter,
        "Calls whose prompt was to be kept and was not.",
    );
    let mut all = vec![
        one(info, &version, 1),
        one(events, &[], relay.dropped_events()),
        one(prompts, &[], relay.dropped_prompts()),
    ];
    if let Some(dropped) = &console.dropped_spans {
        let spans = family(
            "spillway.dropped_spans",
            "{span}",
            Counter,
            "Spans that were to be sent over OTLP and were not.",
        );
        all.push(one(spans, &[], dropped.count()));
    }
    all
}

fn of_deployment(name: &DeploymentName) -> [Attribute<'_>; 4] {
    [
        (BACKEND, &*name.backend),
        (DEPLOYMENT, &*name.deployment),
        (MODEL, &*name.model),
        kind(name.kind),
    ]
}

const fn kind(kind: Kind) -> Attribute<'static> {
    (KIND, kind.as_str())
}

fn with<'a>(name: &'a DeploymentName, more: Attribute<'a>) -> [Attribute<'a>; 5] {
    let [backend, deployment, model, kind] = of_deployment(name);
    [backend, deployment, model, kind, more]
}
