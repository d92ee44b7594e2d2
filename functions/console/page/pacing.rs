//! The parts of the view "Now" that show pacing: what each source says of provisioned deployments, the
//! slots on their curve, and the batch queue.

use std::fmt::Write;

use maud::{Markup, html};

use super::super::now::{DeploymentNow, ModelNow};
use super::super::pacing::{SlotsNow, SourceNow, Sources};
use super::super::queue::QueueNow;
use super::figures::{NONE, ago, percent, short, whole};
use crate::gateway::pacing::rule::Pace;
use crate::gateway::ptu::Utilization;

/// A model's pacing; nothing where it has no provisioned deployment.
pub(super) fn section(model: &ModelNow, name: &str) -> Markup {
    let ptus: Vec<(&DeploymentNow, &Sources)> = model
        .deployments
        .iter()
        .filter_map(|one| Some((one, one.sources.as_ref()?)))
        .collect();
    html! {
        @if !ptus.is_empty() {
            div.pacing {
                @if let Some(slots) = &model.slots { (curve(slots, name)) }
                (table(&ptus, name))
            }
        }
    }
}

fn table(ptus: &[(&DeploymentNow, &Sources)], name: &str) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label={ "Utilization by source: " (name) } {
            table {
                thead {
                    tr {
                        th scope="col" { "Utilization of" }
                        th.n scope="col" { "Azure Monitor" }
                        th.n scope="col" { "Calls" }
                        th.n scope="col" { "Header" }
                        th.n scope="col" { "Alert" }
                        th.n scope="col" { "Factor of calls" }
                        th.n scope="col" { "Together" }
                    }
                }
                tbody {
                    @for (one, sources) in ptus {
                        tr {
                            th scope="row" { (one.backend) span.sub { (one.deployment) } }
                            td.n { (source(sources.monitor.as_ref())) }
                            td.n { (source(sources.events.as_ref())) }
                            td.n { (source(sources.header.as_ref())) }
                            td.n { (source(sources.alert.as_ref())) }
                            td.n { (format!("{:.2}", sources.factor)) }
                            td.n { (together(sources)) }
                        }
                    }
                }
            }
        }
    }
}

fn source(said: Option<&SourceNow>) -> Markup {
    html! {
        @match said {
            None => (NONE),
            Some(said) => {
                (percent(Some(said.percent)))
                span.sub {
                    (ago(said.age_s)) " ago"
                    @if !said.counts { ", past" }
                }
            },
        }
    }
}

fn together(sources: &Sources) -> Markup {
    html! {
        @match sources.together_percent {
            None => { (NONE) span.sub { "not paced" } },
            Some(full) => {
                strong { (percent(Some(full))) }
                @if let Some(known) = sources.known_percent.filter(|known| *known < 100.0) {
                    span.sub { (short(known)) " % known" }
                }
            },
        }
    }
}

/// Most percent that the curve is drawn to.
const MOST_PERCENT: f64 = 100.0;

/// The slots on the curve of the rule.
fn curve(slots: &SlotsNow, name: &str) -> Markup {
    let most = f64::from(slots.most.max(1));
    let y = |number: u32| 100.0 - f64::from(number) * 100.0 / most;
    let utilization = slots.utilization_percent;
    let summary = format!(
        "Slots of {name}: {} in use, {} open of {}; all up to {} % utilization, none from {} % on; now {}",
        slots.in_use,
        slots.open,
        slots.most,
        slots.lower_percent,
        slots.upper_percent,
        percent(utilization),
    );
    html! {
        figure.chart {
            figcaption {
                span.title { "Slots" }
                " " span.unit {
                    (slots.in_use) " in use, " (slots.open) " open"
                    @if slots.waiting > 0 { ", " (whole(slots.waiting.into())) " calls wait" }
                }
                span.legend {
                    span { i.ptu {} "the rule" }
                    span { i.good {} "in use" }
                    @if utilization.is_some() { span { i.limit {} "utilization" } }
                }
            }
            div.plot {
                div.y aria-hidden="true" {
                    span { (slots.most) }
                    span { "0" }
                }
                svg.low viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label=(summary) {
                    path.grid d="M0 0H100M0 100H100" {}
                    rect.good y=(y(slots.in_use)) width="100" height=(100.0 - y(slots.in_use))
                        fill-opacity="0.35" {}
                    path.line.ptu d=(steps(slots)) {}
                    @if let Some(full) = utilization {
                        path.limit d={ "M" (full.min(MOST_PERCENT)) " 0V100" } {}
                    }
                }
                div.x aria-hidden="true" {
                    span { "0 %" } span { "25 %" } span { "50 %" } span { "75 %" } span { "100 %" }
                }
            }
        }
    }
}

/// The rule as a line: the slots that are open at each percent.
fn steps(slots: &SlotsNow) -> String {
    let limit = |percent: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was whole tenths of a percent"
        )]
        Utilization::of_tenths((percent * 10.0).round() as u64)
    };
    let pace = Pace {
        slots: slots.most,
        lower: limit(slots.lower_percent),
        upper: limit(slots.upper_percent),
    };
    let most = f64::from(slots.most.max(1));
    let mut path = String::new();
    let mut last = None;
    for percent in 0..100_u32 {
        let open = pace.open(Utilization::of_percent(percent.into()));
        let y = ((100.0 - f64::from(open) * 100.0 / most) * 100.0).round() / 100.0;
        // Writing to a String can't fail.
        let _ = match last {
            None => write!(path, "M0 {y}"),
            Some(before) if before != open => write!(path, "H{percent}V{y}"),
            Some(_) => Ok(()),
        };
        last = Some(open);
    }
    path.push_str("H100");
    path
}

/// The batch queue.
pub(super) fn queue(queue: &QueueNow) -> Markup {
    let count = |number: Option<u64>| number.map_or("unknown".to_owned(), whole);
    let oldest = match (queue.oldest_s, queue.waiting) {
        (Some(age_s), _) => ago(age_s),
        (None, Some(0)) => NONE.to_owned(),
        (None, _) => "unknown".to_owned(),
    };
    html! {
        section {
            h2 { "Batch queue " (queue.queue) }
            dl.tiles {
                (super::now::tile("Messages waiting", &count(queue.waiting), ""))
                (super::now::tile("Oldest has waited", &oldest, ""))
                (super::now::tile("For later", &count(queue.scheduled), ""))
                (super::now::tile("Dead letters", &count(queue.dead), ""))
                @if let (Some(waited_s), Some(ago_s)) = (queue.waited_s, queue.delivered_ago_s) {
                    (super::now::tile("Waited until delivered", &ago(waited_s),
                        &format!("the last one {} ago", ago(ago_s))))
                }
            }
            @if let Some(why) = &queue.unknown {
                p.note { "Not known: " (why) "." }
            } @else if queue.oldest_s.is_none() && queue.waiting != Some(0) {
                p.note { "Service Bus does not say how long the oldest message has waited." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> SlotsNow {
        SlotsNow {
            in_use: 3,
            open: 4,
            most: 10,
            waiting: 7,
            lower_percent: 20.0,
            upper_percent: 90.0,
            utilization_percent: Some(62.5),
        }
    }

    #[test]
    fn the_curve_is_the_rules_and_shows_where_the_model_stands() {
        let path = steps(&slots());
        assert!(path.starts_with("M0 0H27V10H34V20H41V30"), "{path}");
        assert!(path.ends_with("H90V100H100"), "{path}");
        let svg = curve(&slots(), "<gpt>").into_string();
        assert!(svg.contains("M62.5 0V100"), "{svg}");
        assert!(
            svg.contains("Slots of &lt;gpt&gt;: 3 in use, 4 open of 10"),
            "{svg}"
        );
        assert!(svg.contains("7 calls wait"), "{svg}");
    }

    #[test]
    fn without_a_figure_there_is_none_in_the_curve() {
        let unknown = SlotsNow {
            utilization_percent: None,
            ..slots()
        };
        let svg = curve(&unknown, "x").into_string();
        assert!(!svg.contains("path class=\"limit\""), "{svg}");
    }

    #[test]
    fn what_is_not_known_of_the_queue_is_said() {
        let unknown = QueueNow {
            queue: "batch".into(),
            waiting: None,
            scheduled: None,
            dead: None,
            unknown: Some("it may not".into()),
            oldest_s: None,
            waited_s: Some(90.0),
            delivered_ago_s: Some(5.0),
        };
        let text = queue(&unknown).into_string();
        assert_eq!(text.matches("<dd>unknown</dd>").count(), 4, "{text}");
        assert!(text.contains("Not known: it may not."), "{text}");
        assert!(text.contains("the last one 5.0 s ago"), "{text}");
    }
}
