//! The view "History".

use std::sync::Arc;

use maud::{Markup, html};

use super::super::history::{History, Point, Reach};
use super::super::sign_in::form_urlencoded;
use super::chart::{Chart, Form, Limit, Series};
use super::figures::{day_and_minute, ms, percent, short_whole, time_of_day, whole};

/// The view.
pub(super) fn page(past: &History, models: &[Arc<str>], has_store: bool) -> Markup {
    html! {
        div.top {
            h1 { "The last " (past.reach.as_str()) }
            (choice(past, models))
        }
        @if !has_store {
            p.empty {
                "Nothing is kept: " code { "[storage] tables" } " names no store."
            }
        } @else if past.points.iter().all(|point| point.calls == 0) {
            p.empty { "No calls in this time." }
        }
        div.charts { @for chart in charts(past) { (chart.draw()) } }
        (deployments(past))
        (figures(past))
    }
}

fn choice(past: &History, models: &[Arc<str>]) -> Markup {
    let query = if past.model.is_empty() {
        String::new()
    } else {
        format!("&model={}", form_urlencoded(&past.model))
    };
    html! {
        nav.choice aria-label="How far back" {
            @for reach in Reach::ALL {
                a href={ "?reach=" (reach.as_str()) (query) }
                    aria-current=[(reach == past.reach).then_some("true")] { (reach.as_str()) }
            }
        }
        form.choice method="get" {
            input type="hidden" name="reach" value=(past.reach.as_str());
            label for="model" { "Model" }
            select #model name="model" {
                option value="" { "all" }
                @for model in models.iter().filter(|model| !model.is_empty()) {
                    option value=(model) selected[**model == *past.model] { (model) }
                }
            }
            button { "Show" }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn series(
    past: &History,
    name: &'static str,
    class: &'static str,
    figure: impl Fn(&Point) -> Option<u64>,
) -> Series {
    let values = past.points.iter();
    Series {
        name,
        class,
        values: values.map(|one| figure(one).map(|n| n as f64)).collect(),
    }
}

fn charts(past: &History) -> Vec<Chart> {
    let per = match past.reach {
        Reach::Hour => "a minute",
        Reach::Day | Reach::Week => "an hour",
    };
    let points = || {
        let names = past.points.iter().map(|point| match past.reach {
            Reach::Hour => time_of_day(&point.time).get(..5).unwrap_or("").to_owned(),
            Reach::Day | Reach::Week => day_and_minute(&point.time),
        });
        names.collect()
    };
    let tokens = vec![
        series(past, "PTU", "ptu", |one| Some(one.ptu_tokens)),
        series(past, "PAYG", "payg", |one| Some(one.payg_tokens)),
    ];
    let calls = vec![
        series(past, "good", "good", |one| Some(one.good)),
        series(past, "client's error", "client", |one| {
            Some(one.client_errors)
        }),
        series(past, "client gone", "gone", |one| Some(one.client_gone)),
        series(past, "429", "throttled", |one| Some(one.throttled)),
        series(past, "failed", "failed", |one| Some(one.server_errors)),
    ];
    let spilled = vec![series(past, "spilled", "payg", |one| Some(one.spilled))];
    let throttles = vec![
        series(past, "PTU", "ptu", |one| Some(one.ptu_throttles)),
        series(past, "PAYG", "payg", |one| Some(one.payg_throttles)),
    ];
    let first_byte = vec![
        series(past, "median", "median", |one| one.first_byte_p50_ms),
        series(past, "p99", "p99", |one| one.first_byte_p99_ms),
    ];
    let percents = |name, class, percent: fn(&Point) -> Option<f64>| Series {
        name,
        class,
        values: past.points.iter().map(percent).collect(),
    };
    let utilization = vec![
        percents("calls", "ptu", |one| one.utilization_percent),
        percents("Azure Monitor", "good", |one| one.monitor_percent),
        percents("alert", "throttled", |one| one.alert_percent),
    ];
    let limit = |name: &str, percent: Option<u32>| {
        percent.map(|percent| Limit {
            name: format!("{name} {percent} %"),
            value: percent.into(),
        })
    };
    let limits = [
        limit("lower limit", past.lower_percent),
        limit("upper limit", past.upper_percent),
    ];
    vec![
        Chart {
            limits: limits.into_iter().flatten().collect(),
            write: write_percent,
            ..Chart::new(
                "PTU utilization",
                "of all PTUs",
                Form::Lines,
                points(),
                utilization,
            )
        },
        Chart::new("Tokens served", per, Form::Stacked, points(), tokens),
        Chart::new("Calls", per, Form::Stacked, points(), calls),
        Chart::new("Spilled to PAYG", per, Form::Stacked, points(), spilled),
        Chart::new(
            "429s of deployments",
            per,
            Form::Stacked,
            points(),
            throttles,
        ),
        Chart {
            write: write_ms,
            ..Chart::new("First byte", "", Form::Lines, points(), first_byte)
        },
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was a whole number of milliseconds"
)]
fn write_ms(value: f64) -> String {
    ms(Some(value.max(0.0) as u64))
}

fn write_percent(value: f64) -> String {
    percent(Some(value))
}

fn deployments(past: &History) -> Markup {
    html! {
        @if !past.deployments.is_empty() {
            section {
                h2 { "Deployments" }
                div.scroll role="region" tabindex="0" aria-label="Deployments" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Model" }
                                th scope="col" { "Deployment" }
                                th scope="col" { "Kind" }
                                th.n scope="col" { "Attempts" }
                                th.n scope="col" { "Tokens" }
                                th.n scope="col" { "From cache" }
                                th.n scope="col" { "First byte p50" }
                                th.n scope="col" { "p99" }
                                th.n scope="col" { "429" }
                                th.n scope="col" { "Failed" }
                            }
                        }
                        tbody {
                            @for one in &past.deployments {
                                tr {
                                    td { (one.model) }
                                    th scope="row" { (one.backend) span.sub { (one.deployment) } }
                                    td { span.kind.(one.kind) { (one.kind) } }
                                    td.n { (whole(one.attempts)) }
                                    td.n { (short_whole(one.tokens)) }
                                    td.n { (percent(one.cached_percent)) }
                                    td.n { (ms(one.first_byte_p50_ms)) }
                                    td.n { (ms(one.first_byte_p99_ms)) }
                                    td.n { (percent(one.throttled_percent)) }
                                    td.n { (percent(one.failed_percent)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The charts' figures, for who can't see them or wants them exactly.
fn figures(past: &History) -> Markup {
    html! {
        details {
            summary { "The figures" }
            div.scroll role="region" tabindex="0" aria-label="The figures" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Time (UTC)" }
                            th.n scope="col" { "Calls" }
                            th.n scope="col" { "429" }
                            th.n scope="col" { "Failed" }
                            th.n scope="col" { "Spilled" }
                            th.n scope="col" { "PTU tokens" }
                            th.n scope="col" { "PAYG tokens" }
                            th.n scope="col" { "Utilization" }
                            th.n scope="col" { "Azure Monitor" }
                            th.n scope="col" { "Alert" }
                            th.n scope="col" { "First byte p50" }
                            th.n scope="col" { "p99" }
                        }
                    }
                    tbody {
                        @for one in past.points.iter().rev().filter(|one| one.calls > 0 || one.monitor_percent.is_some()) {
                            tr {
                                th scope="row" { (day_and_minute(&one.time)) }
                                td.n { (whole(one.calls)) }
                                td.n { (whole(one.throttled)) }
                                td.n { (whole(one.server_errors)) }
                                td.n { (whole(one.spilled)) }
                                td.n { (whole(one.ptu_tokens)) }
                                td.n { (whole(one.payg_tokens)) }
                                td.n { (percent(one.utilization_percent)) }
                                td.n { (percent(one.monitor_percent)) }
                                td.n { (percent(one.alert_percent)) }
                                td.n { (ms(one.first_byte_p50_ms)) }
                                td.n { (ms(one.first_byte_p99_ms)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
