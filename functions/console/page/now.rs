//! The view "Now".

use maud::{Markup, html};

use super::super::configuration::Configuration;
use super::super::now::{DeploymentNow, Flow, ModelNow, Now};
use super::figures::{NONE, ms, percent, short, time_of_day};
use super::pacing;

/// The view.
pub(in super::super) fn page(now: &Now) -> Markup {
    html! {
        div.top {
            h1 { "Now" }
            button #pause.quiet type="button" aria-pressed="false" hidden { "Pause" }
        }
        div #moving data-live="/spillway/live" { (moving(now)) }
    }
}

/// The part of it that moves.
pub(in super::super) fn moving(now: &Now) -> Markup {
    html! {
        p.note {
            "The last minute, as of "
            time datetime=(now.time) { (time_of_day(&now.time)) " UTC" }
            @if now.instances > 1 { ", of " (now.instances) " instances" }
            "."
            @if let Some(why) = &now.others_missing { " " strong { (why) "." } }
            @if now.dropped_events > 0 {
                " " strong { (now.dropped_events) " usage events were lost since the start." }
            }
            @if now.dropped_prompts > 0 {
                " " strong { (now.dropped_prompts) " prompts were not kept since the start." }
            }
            @if let Some(why) = now.slots_missing { " " strong { (why) "." } }
        }
        @if let Some(one) = &now.configuration { (configuration(one)) }
        (tiles(&now.all))
        @if now.models.is_empty() {
            p.empty { "No deployment is configured." }
        }
        @for model in &now.models { (section(model)) }
        @if let Some(queue) = &now.queue { (pacing::queue(queue)) }
    }
}

fn configuration(one: &Configuration) -> Markup {
    html! {
        p.note {
            "Configuration " code { (one.generation) } " since "
            time datetime=(one.since) { (one.since) } ", from " (one.from) "."
            @if let Some(why) = &one.unreadable { " " strong { (why) "." } }
        }
        @if let Some(refused) = &one.refused {
            p.note {
                strong { "Configuration " (refused.generation) " was refused:" }
            }
            ul { @for mistake in &refused.mistakes { li { (mistake) } } }
        }
    }
}

fn tiles(all: &Flow) -> Markup {
    html! {
        dl.tiles {
            (tile("Calls a second", &short(all.per_second), ""))
            (tile("Tokens a minute", &short(all.tokens_per_minute), ""))
            (tile("First byte", &ms(all.first_byte_p50_ms), &format!("p99 {}", ms(all.first_byte_p99_ms))))
            (tile("Whole call", &ms(all.duration_p50_ms), &format!("p99 {}", ms(all.duration_p99_ms))))
            (tile("Spilled to PAYG", &percent(all.spilled_percent), ""))
            (tile("Refused with 429", &percent(all.throttled_percent), ""))
            (tile("Failed", &percent(all.failed_percent), ""))
        }
    }
}

pub(super) fn tile(name: &str, figure: &str, more: &str) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { (figure) @if !more.is_empty() { " " small { (more) } } }
        }
    }
}

fn section(model: &ModelNow) -> Markup {
    let name = if model.model.is_empty() {
        "Calls without a model"
    } else {
        &model.model
    };
    let flow = &model.flow;
    let tokens = model.deployments.iter();
    let tokens: f64 = tokens.map(|one| one.flow.tokens_per_minute).sum();
    html! {
        section {
            h2 { (name) }
            p.note {
                (short(flow.per_second)) " calls/s, "
                (short(flow.tokens_per_minute)) " tokens/min, first byte "
                (ms(flow.first_byte_p50_ms)) " (p99 " (ms(flow.first_byte_p99_ms)) "), "
                (percent(flow.spilled_percent)) " spilled, "
                (percent(flow.throttled_percent)) " refused with 429, "
                (percent(flow.failed_percent)) " failed"
            }
            div.scroll role="region" tabindex="0" aria-label={ "Deployments: " (name) } {
                table {
                    thead {
                        tr {
                            th scope="col" { "Tier" }
                            th scope="col" { "Deployment" }
                            th scope="col" { "State" }
                            th scope="col" { "Utilization" }
                            th scope="col" { "Share of tokens" }
                            th.n scope="col" { "Tokens/min" }
                            th.n scope="col" { "Attempts/s" }
                            th.n scope="col" { "In flight" }
                            th.n scope="col" { "First byte p50" }
                            th.n scope="col" { "p99" }
                            th.n scope="col" { "429" }
                            th.n scope="col" { "Failed" }
                        }
                    }
                    tbody { @for one in &model.deployments { (row(one, tokens)) } }
                }
            }
            (pacing::section(model, name))
        }
    }
}

fn row(one: &DeploymentNow, of_tokens: f64) -> Markup {
    let flow = &one.flow;
    let share = if of_tokens > 0.0 {
        (flow.tokens_per_minute * 100.0 / of_tokens).round()
    } else {
        0.0
    };
    html! {
        tr {
            td { @if one.tier > 0 { (one.tier) } }
            th scope="row" {
                (one.backend)
                @if !one.deployment.is_empty() { span.sub { (one.deployment) } }
            }
            td { (state(one)) }
            td {
                @match one.utilization_percent {
                    Some(full) => { (percent(Some(full))) (bar(fullness(full), full.min(100.0))) },
                    None => (NONE),
                }
            }
            td {
                span.kind.(one.kind) { (one.kind) } " " (share) " %"
                (bar(one.kind, share))
            }
            td.n { (short(flow.tokens_per_minute)) }
            td.n { (short(flow.per_second)) }
            td.n { (one.in_flight) }
            td.n { (ms(flow.first_byte_p50_ms)) }
            td.n { (ms(flow.first_byte_p99_ms)) }
            td.n { (percent(flow.throttled_percent)) }
            td.n { (percent(flow.failed_percent)) }
        }
    }
}

const fn fullness(percent: f64) -> &'static str {
    match percent {
        ..80.0 => "good",
        ..100.0 => "throttled",
        _ => "failed",
    }
}

fn state(one: &DeploymentNow) -> Markup {
    html! {
        span.state.(one.state) { (one.state) }
        @if let Some(until) = &one.until {
            span.sub { "until " time datetime=(until) { (time_of_day(until)) } }
        }
    }
}

fn bar(class: &str, percent: f64) -> Markup {
    html! {
        svg.bar viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="1" {}
            rect class=(class) width=(percent) height="1" {}
        }
    }
}
