//! What is counted of calls, attempts and tokens.

use super::{APP, Attribute, CLASS, MODEL, TOKEN_TYPE, family, with};
use crate::gateway::metrics::family::{Buckets, Family, Sort};
use crate::gateway::metrics::histogram::{OTEL_MS, TOKENS};
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::metrics::{Total, Totals};

use Sort::{Counter, Histogram};

/// Classes of calls, by their attribute.
const CLASSES: [(&str, Count); 5] = [
    ("good", Count::Good),
    ("client_error", Count::ClientError),
    ("throttled", Count::Throttled),
    ("server_error", Count::ServerError),
    ("client_gone", Count::ClientGone),
];

/// What came of attempts, by their attribute.
const ATTEMPTS: [(&str, Count); 4] = [
    ("served", Count::AttemptServed),
    ("throttled", Count::AttemptThrottled),
    ("failed", Count::AttemptFailed),
    ("refused", Count::AttemptRefused),
];

/// Sorts of tokens, by their attribute. The last two are parts of the first two.
const SORTS: [(&str, Count); 4] = [
    ("input", Count::Input),
    ("output", Count::Output),
    ("cached", Count::Cached),
    ("reasoning", Count::Reasoning),
];

/// Azure OpenAI, as OpenTelemetry calls it.
const PROVIDER: Attribute<'static> = ("gen_ai.provider.name", "azure.ai.openai");

pub(super) fn calls(totals: &Totals) -> Vec<Family> {
    let names = &totals.names;
    let models = || names.models.iter().zip(&totals.models).filter(shown);
    let help = "Calls by what the client got.";
    let mut calls = family("spillway.calls", "{call}", Counter, help);
    for (model, total) in models() {
        for (class, count) in CLASSES {
            calls.sample(&[(MODEL, model), (CLASS, class)], total.get(count));
        }
    }
    let mut all = vec![calls];
    for (name, help, count) in [
        (
            "spillway.spilled_calls",
            "Calls that a full PTU deployment passed on to pay-as-you-go.",
            Count::Spilled,
        ),
        (
            "spillway.cut_calls",
            "Calls whose answer broke off after its first byte.",
            Count::Cut,
        ),
    ] {
        let mut family = family(name, "{call}", Counter, help);
        for (model, total) in models() {
            family.sample(&[(MODEL, model)], total.get(count));
        }
        all.push(family);
    }
    for (name, help, size) in [
        (
            "spillway.call.duration",
            "From a call's arrival to its end.",
            Size::Duration,
        ),
        (
            "spillway.call.first_byte",
            "From a call's arrival to the first byte of its answer.",
            Size::FirstByte,
        ),
    ] {
        let mut family = family(name, "s", Histogram, help);
        for (model, total) in models() {
            histogram(&mut family, &[(MODEL, model)], total, size);
        }
        all.push(family);
    }
    all
}

pub(super) fn apps(totals: &Totals) -> [Family; 2] {
    let names = &totals.names;
    let apps = || names.apps.iter().zip(&totals.apps).filter(shown);
    let help = "An app's calls by what the client got.";
    let mut calls = family("spillway.app.calls", "{call}", Counter, help);
    for (app, total) in apps() {
        for (class, count) in CLASSES {
            calls.sample(&[(APP, app), (CLASS, class)], total.get(count));
        }
    }
    let help = "An app's tokens; cached ones are part of input, reasoning of output.";
    let mut tokens = family("spillway.app.tokens", "{token}", Counter, help);
    for (app, total) in apps() {
        for (sort, count) in SORTS {
            tokens.sample(&[(APP, app), (TOKEN_TYPE, sort)], total.get(count));
        }
    }
    [calls, tokens]
}

pub(super) fn deployments(totals: &Totals) -> Vec<Family> {
    let names = &totals.names;
    let all = || {
        let pairs = names.deployments.iter().zip(&totals.deployments);
        pairs.filter(|(_, total)| !total.is_none())
    };
    let help = "Attempts at a deployment by what came of them.";
    let mut attempts = family("spillway.attempts", "{attempt}", Counter, help);
    let help =
        "Tokens that a deployment served; cached ones are part of input, reasoning of output.";
    let mut tokens = family("spillway.tokens", "{token}", Counter, help);
    for (name, total) in all() {
        for (result, count) in ATTEMPTS {
            let result = with(name, ("spillway.result", result));
            attempts.sample(&result, total.get(count));
        }
        for (sort, count) in SORTS {
            tokens.sample(&with(name, (TOKEN_TYPE, sort)), total.get(count));
        }
    }
    let mut families = vec![attempts, tokens];
    for (metric, help, size) in [
        (
            "gen_ai.client.operation.duration",
            "From the request to a deployment to the end of its answer.",
            Size::Duration,
        ),
        (
            "gen_ai.client.operation.time_to_first_chunk",
            "From the request to a deployment to the first byte of its answer, streamed or not.",
            Size::FirstByte,
        ),
    ] {
        let mut family = family(metric, "s", Histogram, help);
        for (name, total) in all() {
            histogram(&mut family, &with(name, PROVIDER), total, size);
        }
        families.push(family);
    }
    let metric = "gen_ai.client.token.usage";
    let mut usage = family(metric, "{token}", Histogram, "Tokens of a call.");
    for (name, total) in all() {
        for (sort, size) in [("input", Size::Input), ("output", Size::Output)] {
            let [backend, deployment, model, kind, provider] = with(name, PROVIDER);
            let sort = (TOKEN_TYPE, sort);
            let attributes = [backend, deployment, model, kind, provider, sort];
            histogram(&mut usage, &attributes, total, size);
        }
    }
    families.push(usage);
    families
}

/// Calls of no model, and of no app, are shown where there are any.
fn shown<T: AsRef<str>>((name, total): &(&T, &Total)) -> bool {
    !name.as_ref().is_empty() || !total.is_none()
}

fn histogram(family: &mut Family, attributes: &[Attribute<'_>], total: &Total, size: Size) {
    let (bounds, is_time) = match size {
        Size::Duration | Size::FirstByte => (OTEL_MS, true),
        Size::Input | Size::Output => (TOKENS, false),
    };
    if let Some(tally) = total.size(size) {
        family.sample(attributes, Buckets::of(tally, bounds, is_time));
    }
}
