//! The counters as Prometheus text (exposition format 0.0.4).
//!
//! Names are OpenTelemetry's where its conventions for generative AI have one, as Prometheus writes
//! them; the gateway is the client of its backends there. Labels are names of the configuration only.

use std::fmt::{Display, Write};

use super::Console;
use super::now::Now;
use super::pacing::{SourceNow, Sources};
use crate::gateway::event::Kind;
use crate::gateway::metrics::histogram::{OTEL_MS, TOKENS};
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::metrics::{DeploymentName, Total, Totals};
use crate::gateway::pacing::figure::Source;
use crate::gateway::reconcile::Reconciled;
use crate::gateway::time::Timestamp;
use crate::live::standing::State;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Classes of calls, by label.
const CLASSES: [(&str, Count); 5] = [
    ("good", Count::Good),
    ("client_error", Count::ClientError),
    ("throttled", Count::Throttled),
    ("server_error", Count::ServerError),
    ("client_gone", Count::ClientGone),
];

/// What came of attempts, by label.
const ATTEMPTS: [(&str, Count); 4] = [
    ("served", Count::AttemptServed),
    ("throttled", Count::AttemptThrottled),
    ("failed", Count::AttemptFailed),
    ("refused", Count::AttemptRefused),
];

/// Sorts of tokens, by label. The last two are parts of the first two.
const SORTS: [(&str, Count); 4] = [
    ("input", Count::Input),
    ("output", Count::Output),
    ("cached", Count::Cached),
    ("reasoning", Count::Reasoning),
];

/// All metrics of this instance, those of pacing and of the queue, which `now` has, and how far each
/// deployment's newest reconciled day drifts.
pub(super) fn text(console: &Console, now: &Now, newest: &[Reconciled]) -> String {
    let relay = &console.relay;
    let totals = relay.metrics.totals();
    let mut text = Text::default();
    text.family("spillway_build_info", "gauge", "The gateway's version.");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.sample("spillway_build_info", &version, 1);
    text.family(
        "spillway_dropped_events_total",
        "counter",
        "Usage events that found their queue full.",
    );
    text.sample("spillway_dropped_events_total", &[], relay.dropped_events());
    let metric = "spillway_dropped_prompts_total";
    let help = "Calls whose prompt was to be kept and was not.";
    text.family(metric, "counter", help);
    text.sample(metric, &[], relay.dropped_prompts());
    if let Some(standing) = &console.configuration {
        configuration(&mut text, &standing.now());
    }
    calls(&mut text, &totals);
    apps(&mut text, &totals);
    deployments(&mut text, &totals);
    states(&mut text, console, relay.clock.now());
    utilization(&mut text, now);
    slots(&mut text, now);
    queue(&mut text, now);
    drifts(&mut text, newest);
    text.0
}

fn configuration(text: &mut Text, state: &State) {
    let name = "spillway_configuration_info";
    text.family(
        name,
        "gauge",
        "The configuration that runs, by the beginning of its SHA-256.",
    );
    text.sample(name, &[("generation", &*state.running.hash)], 1);
    let name = "spillway_configuration_since_seconds";
    text.family(name, "gauge", "Since when it runs, Unix time.");
    text.sample(name, &[], state.running.since.unix_ms() / 1000);
    let name = "spillway_configuration_refused";
    text.family(
        name,
        "gauge",
        "Mistakes of the newest configuration, which is refused for them.",
    );
    let mistakes = state.refused.as_ref().map_or(0, |one| one.mistakes.len());
    text.sample(name, &[], u64::try_from(mistakes).unwrap_or(u64::MAX));
    let name = "spillway_configuration_unreadable";
    text.family(
        name,
        "gauge",
        "1 while nobody knows whether there is a newer configuration.",
    );
    text.sample(name, &[], u64::from(state.missed.is_some()));
}

fn calls(text: &mut Text, totals: &Totals) {
    let names = &totals.names;
    let models = || names.models.iter().zip(&totals.models).filter(shown);
    text.family(
        "spillway_calls_total",
        "counter",
        "Calls by what the client got.",
    );
    for (model, total) in models() {
        for (class, count) in CLASSES {
            let labels = [("gen_ai_request_model", &**model), ("class", class)];
            text.sample("spillway_calls_total", &labels, total.get(count));
        }
    }
    for (name, help, count) in [
        (
            "spillway_spilled_calls_total",
            "Calls that a full PTU deployment passed on to pay-as-you-go.",
            Count::Spilled,
        ),
        (
            "spillway_cut_calls_total",
            "Calls whose answer broke off after its first byte.",
            Count::Cut,
        ),
    ] {
        text.family(name, "counter", help);
        for (model, total) in models() {
            text.sample(name, &[("gen_ai_request_model", model)], total.get(count));
        }
    }
    for (name, help, size) in [
        (
            "spillway_call_duration_seconds",
            "From a call's arrival to its end.",
            Size::Duration,
        ),
        (
            "spillway_call_first_byte_seconds",
            "From a call's arrival to the first byte of its answer.",
            Size::FirstByte,
        ),
    ] {
        text.family(name, "histogram", help);
        for (model, total) in models() {
            text.histogram(name, &[("gen_ai_request_model", model)], total, size);
        }
    }
}

fn apps(text: &mut Text, totals: &Totals) {
    let names = &totals.names;
    let apps = || names.apps.iter().zip(&totals.apps).filter(shown);
    text.family(
        "spillway_app_calls_total",
        "counter",
        "An app's calls by what the client got.",
    );
    for (app, total) in apps() {
        for (class, count) in CLASSES {
            let labels = [("app", &**app), ("class", class)];
            text.sample("spillway_app_calls_total", &labels, total.get(count));
        }
    }
    text.family(
        "spillway_app_tokens_total",
        "counter",
        "An app's tokens; cached ones are part of input, reasoning of output.",
    );
    for (app, total) in apps() {
        for (sort, count) in SORTS {
            let labels = [("app", &**app), ("gen_ai_token_type", sort)];
            text.sample("spillway_app_tokens_total", &labels, total.get(count));
        }
    }
}

fn deployments(text: &mut Text, totals: &Totals) {
    let names = &totals.names;
    let all = || {
        let pairs = names.deployments.iter().zip(&totals.deployments);
        pairs.filter(|(_, total)| !total.is_none())
    };
    text.family(
        "spillway_attempts_total",
        "counter",
        "Attempts at a deployment by what came of them.",
    );
    for (name, total) in all() {
        for (result, count) in ATTEMPTS {
            let labels = with(name, ("result", result));
            text.sample("spillway_attempts_total", &labels, total.get(count));
        }
    }
    text.family(
        "spillway_tokens_total",
        "counter",
        "Tokens that a deployment served; cached ones are part of input, reasoning of output.",
    );
    for (name, total) in all() {
        for (sort, count) in SORTS {
            let labels = with(name, ("gen_ai_token_type", sort));
            text.sample("spillway_tokens_total", &labels, total.get(count));
        }
    }
    for (metric, help, size) in [
        (
            "gen_ai_client_operation_duration_seconds",
            "From the request to a deployment to the end of its answer.",
            Size::Duration,
        ),
        (
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "From the request to a deployment to the first byte of its answer, streamed or not.",
            Size::FirstByte,
        ),
    ] {
        text.family(metric, "histogram", help);
        for (name, total) in all() {
            let labels = with(name, PROVIDER);
            text.histogram(metric, &labels, total, size);
        }
    }
    let metric = "gen_ai_client_token_usage";
    text.family(metric, "histogram", "Tokens of a call.");
    for (name, total) in all() {
        for (sort, size) in [("input", Size::Input), ("output", Size::Output)] {
            let [backend, deployment, model, kind, provider] = with(name, PROVIDER);
            let sort = ("gen_ai_token_type", sort);
            let labels = [backend, deployment, model, kind, provider, sort];
            text.histogram(metric, &labels, total, size);
        }
    }
}

/// Azure OpenAI, as OpenTelemetry calls it.
const PROVIDER: (&str, &str) = ("gen_ai_provider_name", "azure.ai.openai");

fn states(text: &mut Text, console: &Console, now: Timestamp) {
    let settings = &console.relay.settings;
    let mut models: Vec<_> = settings.pool.models().collect();
    models.sort_by_key(|model| model.name().clone());
    let all = || {
        let members = models.iter().flat_map(|model| {
            let deployments = model.deployments();
            deployments.map(|one| (DeploymentName::new(model.name(), &one.spec), one))
        });
        members.collect::<Vec<_>>()
    };
    text.family(
        "spillway_calls_in_flight",
        "gauge",
        "Calls under way at a deployment.",
    );
    for (name, one) in all() {
        let labels = of(&name);
        text.sample("spillway_calls_in_flight", &labels, one.in_flight());
    }
    if let Some(sessions) = console.relay.sessions() {
        let name = "spillway_realtime_sessions";
        text.family(name, "gauge", "Realtime sessions that are open.");
        text.sample(name, &[], sessions.open());
    }
    text.family(
        "spillway_deployment_marked",
        "gauge",
        "1 for the reason that a deployment is left alone for, 0 for the others.",
    );
    for (name, one) in all() {
        let mark = one.mark(now).map(|mark| mark.reason.as_str());
        for reason in ["throttled", "failed", "misconfigured"] {
            let labels = with(&name, ("reason", reason));
            let value = u64::from(mark == Some(reason));
            text.sample("spillway_deployment_marked", &labels, value);
        }
    }
}

/// Of all instances, as everything below. What is not known has no sample.
fn utilization(text: &mut Text, now: &Now) {
    let all = || {
        now.models.iter().flat_map(|model| {
            let ptus = model.deployments.iter();
            ptus.filter_map(|one| {
                let labels = [
                    ("backend", &*one.backend),
                    ("deployment", &*one.deployment),
                    ("gen_ai_request_model", &*model.model),
                    ("kind", one.kind),
                ];
                Some((labels, one.sources.as_ref()?))
            })
        })
    };
    let metric = "spillway_ptu_utilization_ratio";
    let help =
        "How full a provisioned deployment is, by source; together: what calls are paced by.";
    text.family(metric, "gauge", help);
    for ([backend, deployment, model, kind], sources) in all() {
        let said = by_source(sources).map(|(name, said)| (name, said.map(|said| said.percent)));
        let together = ("together", sources.together_percent);
        for (source, percent) in said.into_iter().chain([together]) {
            if let Some(percent) = percent {
                let labels = [backend, deployment, model, kind, ("source", source)];
                text.sample(metric, &labels, ratio(percent));
            }
        }
    }
    let metric = "spillway_ptu_utilization_age_seconds";
    text.family(metric, "gauge", "How old what a source says is.");
    for ([backend, deployment, model, kind], sources) in all() {
        for (source, said) in by_source(sources) {
            if let Some(said) = said {
                let labels = [backend, deployment, model, kind, ("source", source)];
                text.sample(metric, &labels, said.age_s);
            }
        }
    }
    let metric = "spillway_ptu_calibration_factor";
    text.family(
        metric,
        "gauge",
        "What estimates from the calls are multiplied by.",
    );
    for (labels, sources) in all() {
        text.sample(metric, &labels, sources.factor);
    }
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

fn slots(text: &mut Text, now: &Now) {
    let all = || {
        let models = now.models.iter();
        models.filter_map(|model| Some((&*model.model, model.slots.as_ref()?)))
    };
    let metric = "spillway_slots";
    let help = "Slots of low-priority calls: those in use, those open, and the most there are.";
    text.family(metric, "gauge", help);
    for (model, slots) in all() {
        for (state, number) in [
            ("in_use", slots.in_use),
            ("open", slots.open),
            ("most", slots.most),
        ] {
            let labels = [("gen_ai_request_model", model), ("state", state)];
            text.sample(metric, &labels, number);
        }
    }
    let metric = "spillway_slots_waiting_calls";
    text.family(metric, "gauge", "Low-priority calls that wait for a slot.");
    for (model, slots) in all() {
        text.sample(metric, &[("gen_ai_request_model", model)], slots.waiting);
    }
}

fn queue(text: &mut Text, now: &Now) {
    let queue = now.queue.as_ref();
    let name = ("queue", queue.map_or("", |queue| &*queue.queue));
    let metric = "spillway_batch_queue_messages";
    text.family(metric, "gauge", "Messages in the batch queue.");
    for (state, number) in [
        ("waiting", queue.and_then(|queue| queue.waiting)),
        ("scheduled", queue.and_then(|queue| queue.scheduled)),
        ("dead", queue.and_then(|queue| queue.dead)),
    ] {
        if let Some(number) = number {
            text.sample(metric, &[name, ("state", state)], number);
        }
    }
    for (metric, help, age) in [
        (
            "spillway_batch_queue_oldest_age_seconds",
            "How long the oldest message has waited.",
            queue.and_then(|queue| queue.oldest_s),
        ),
        (
            "spillway_batch_queue_wait_seconds",
            "How long messages had waited that were delivered lately.",
            queue.and_then(|queue| queue.waited_s),
        ),
    ] {
        text.family(metric, "gauge", help);
        if let Some(age) = age {
            text.sample(metric, &[name], age);
        }
    }
}

/// What is not known has no sample.
fn drifts(text: &mut Text, newest: &[Reconciled]) {
    let metric = "spillway_reconciliation_drift_percent";
    let help = "How far a deployment's tokens of its newest reconciled day are from Azure Monitor's count.";
    if newest.is_empty() {
        return;
    }
    text.family(metric, "gauge", help);
    for one in newest {
        for (sort, figure) in [("input", one.prompt), ("output", one.generated)] {
            if let Some(percent) = figure.percent() {
                let of = [
                    ("backend", &*one.backend),
                    ("deployment", &*one.deployment),
                    ("gen_ai_token_type", sort),
                ];
                text.sample(metric, &of, percent);
            }
        }
    }
}

/// Calls of no model, and of no app, are shown where there are any.
fn shown<T: AsRef<str>>((name, total): &(&T, &Total)) -> bool {
    !name.as_ref().is_empty() || !total.is_none()
}

type Label<'a> = (&'a str, &'a str);

const fn kind(kind: Kind) -> Label<'static> {
    ("kind", kind.as_str())
}

fn of(name: &DeploymentName) -> [Label<'_>; 4] {
    [
        ("backend", &*name.backend),
        ("deployment", &*name.deployment),
        ("gen_ai_request_model", &*name.model),
        kind(name.kind),
    ]
}

fn with<'a>(name: &'a DeploymentName, more: Label<'a>) -> [Label<'a>; 5] {
    let [backend, deployment, model, kind] = of(name);
    [backend, deployment, model, kind, more]
}

/// Text as it grows. Writing to a String can't fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, sort: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {sort}");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0 += name;
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    fn labels(&mut self, labels: &[Label<'_>], le: Option<&str>) {
        let le = le.map(|le| ("le", le));
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(le) {
            let _ = write!(self.0, "{open}{name}=\"");
            self.escaped(value);
            self.0.push('"');
            open = ',';
        }
        if open == ',' {
            self.0.push('}');
        }
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.0 += "\\\\",
                '"' => self.0 += "\\\"",
                '\n' => self.0 += "\\n",
                c => self.0.push(c),
            }
        }
    }

    /// A histogram; times are in milliseconds here and in seconds there.
    fn histogram(&mut self, name: &str, labels: &[Label<'_>], total: &Total, size: Size) {
        let Some(tally) = total.size(size) else {
            return;
        };
        let (bounds, is_time) = match size {
            Size::Duration | Size::FirstByte => (OTEL_MS, true),
            Size::Input | Size::Output => (TOKENS, false),
        };
        let unit = |value: u64| {
            if is_time {
                seconds(value)
            } else {
                value.to_string()
            }
        };
        for bound in bounds {
            self.bucket(name, labels, &unit(*bound), tally.at_most(*bound));
        }
        self.bucket(name, labels, "+Inf", tally.count());
        self.sample(&format!("{name}_sum"), labels, unit(tally.sum));
        self.sample(&format!("{name}_count"), labels, tally.count());
    }

    fn bucket(&mut self, name: &str, labels: &[Label<'_>], le: &str, count: u64) {
        let _ = write!(self.0, "{name}_bucket");
        self.labels(labels, Some(le));
        let _ = writeln!(self.0, " {count}");
    }
}

/// Milliseconds as seconds, exactly.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_exact_in_seconds() {
        let texts = [0, 10, 160, 1280, 10_240, 81_920, 100_000].map(seconds);
        assert_eq!(
            texts,
            ["0", "0.01", "0.16", "1.28", "10.24", "81.92", "100"]
        );
    }

    #[test]
    fn a_label_holds_any_text() {
        let mut text = Text::default();
        text.sample("a", &[("b", "x\"y\\z\n"), ("c", "")], 1);
        assert_eq!(text.0, "a{b=\"x\\\"y\\\\z\\n\",c=\"\"} 1\n");
    }
}
