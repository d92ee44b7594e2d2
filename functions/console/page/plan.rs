//! The view "What if".

use maud::{Markup, html};

use super::super::plan::{MOST_TPM, Outcome, WhatIf};
use super::figures::{NONE, day_and_minute, money, percent, short, whole};

/// The view. `found` is the replay, or what is wrong with the wish.
pub(super) fn page(found: Result<&WhatIf, &str>) -> Markup {
    html! {
        h1 { "What if" }
        @match found {
            Err(mistake) => p.error role="alert" { (mistake) },
            Ok(found) if found.ptus_now == 0 && found.tpm_per_ptu == 0 => {
                p.empty { "No deployment is of kind " code { "ptu" } "." }
            },
            Ok(found) => {
                (form(found))
                @match &found.asked {
                    None => p.empty { "Nothing is recorded yet: the first full hour has to be over." },
                    Some(asked) => (outcome(found, asked)),
                }
                (terms(found))
            },
        }
    }
}

fn form(found: &WhatIf) -> Markup {
    let ptus = found
        .asked
        .as_ref()
        .map_or(found.ptus_now, |asked| asked.ptus);
    let pacing = found.pacing.as_ref();
    html! {
        form.search method="get" {
            div {
                label for="model" { "Model" }
                select #model name="model" {
                    @for model in &found.models {
                        option value=(model) selected[*model == found.model] { (model) }
                    }
                }
            }
            div {
                label for="ptus" { "PTUs" }
                input #ptus type="number" name="ptus" min="0" max="100000" value=(ptus);
            }
            (limit("lower_percent", "Lower limit, %", 0, 99, pacing.map(|p| p.lower_percent)))
            (limit("upper_percent", "Upper limit, %", 1, 100, pacing.map(|p| p.upper_percent)))
            (limit("slots", "Slots", 1, 1000, pacing.map(|p| p.slots)))
            (limit("payg_tpm", "PAYG tokens/min", 0, MOST_TPM, found.payg_tpm))
            button { "Replay" }
        }
    }
}

/// A field that may be empty.
fn limit(
    name: &str,
    label: &str,
    least: u32,
    most: u32,
    value: Option<impl std::fmt::Display>,
) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) type="number" name=(name) min=(least) max=(most)
                value=[value.map(|value| value.to_string())];
        }
    }
}

fn outcome(found: &WhatIf, asked: &Outcome) -> Markup {
    let currency = &found.currency;
    html! {
        p.note {
            (found.model) " with " strong { (whole(asked.ptus.into())) " PTUs" } " instead of "
            (whole(found.ptus_now.into())) ", over the " (found.hours) " hours since "
            (day_and_minute(&found.from)) " UTC:"
        }
        dl.tiles {
            (tile("Utilization", &percent(asked.utilization_percent), ""))
            (tile("Spilled", &percent(asked.spilled_percent), ""))
            (tile("Hours full", &percent(asked.full_hours_percent), ""))
            @if found.payg_tpm.is_some() {
                (tile("Refused by PAYG", &percent(asked.refused_percent), ""))
            }
            @if found.pacing.is_some() {
                (tile("Hours with low-priority work waiting", &percent(asked.waiting_hours_percent), ""))
                (tile("Still waiting at the end", &percent(asked.left_percent), "of the demand"))
            }
            (tile("PTUs", &amount(asked.ptu_cost.as_ref()), currency))
            (tile("Pay-as-you-go", &amount(asked.payg_cost.as_ref()), currency))
            (tile("Together", &amount(asked.cost.as_ref()), currency))
        }
        @if let Some(cheapest) = &found.cheapest {
            p {
                "Cheapest together"
                @if found.pacing.is_some() || found.payg_tpm.is_some() {
                    ", of those that leave least undone"
                }
                ": " strong { (whole(cheapest.ptus.into())) " PTUs" } ", "
                (amount(cheapest.cost.as_ref())) " " (currency) "."
                @if cheapest.ptus == 0 { " Provisioned throughput pays at no number." }
            }
        }
        @if let Some(part) = found.break_even_percent { (break_even(part)) }
        (compared(found))
    }
}

fn break_even(percent_of_time: f64) -> Markup {
    html! {
        p {
            @if percent_of_time <= 100.0 {
                "Break-even: a PTU that is used for " strong { (percent(Some(percent_of_time))) }
                " of its time costs what its tokens cost at pay-as-you-go."
            } @else {
                "Break-even: never. A PTU that is used all the time costs "
                strong { (short(percent_of_time / 100.0)) " times" }
                " what its tokens cost at pay-as-you-go."
            }
        }
    }
}

fn tile(name: &str, figure: &str, unit: &str) -> Markup {
    html! {
        div { dt { (name) } dd { (figure) @if !unit.is_empty() { " " small { (unit) } } } }
    }
}

fn amount(cost: Option<&String>) -> String {
    cost.map_or(NONE.to_owned(), |cost| money(cost))
}

fn compared(found: &WhatIf) -> Markup {
    let most = found.compared.iter().filter_map(cost).fold(0.0, f64::max);
    html! {
        h2 { "From none to enough" }
        div.scroll role="region" tabindex="0" aria-label="From none to enough" {
            table {
                thead {
                    tr {
                        th.n scope="col" { "PTUs" }
                        th scope="col" { "Cost: PTUs and pay-as-you-go" }
                        th.n scope="col" { "Together, " (found.currency) }
                        th.n scope="col" { "PTUs" }
                        th.n scope="col" { "PAYG" }
                        th.n scope="col" { "Utilization" }
                        th.n scope="col" { "Spilled" }
                        th.n scope="col" { "Hours full" }
                    }
                }
                tbody {
                    @for one in &found.compared {
                        tr {
                            th.n scope="row" { (whole(one.ptus.into())) }
                            td { (bar(one, most)) }
                            td.n { (amount(one.cost.as_ref())) }
                            td.n { (amount(one.ptu_cost.as_ref())) }
                            td.n { (amount(one.payg_cost.as_ref())) }
                            td.n { (percent(one.utilization_percent)) }
                            td.n { (percent(one.spilled_percent)) }
                            td.n { (percent(one.full_hours_percent)) }
                        }
                    }
                }
            }
        }
    }
}

fn cost(one: &Outcome) -> Option<f64> {
    one.cost.as_ref()?.parse().ok()
}

fn bar(one: &Outcome, most: f64) -> Markup {
    let part = |text: &Option<String>| {
        let amount = text.as_ref().and_then(|text| text.parse::<f64>().ok());
        let part = amount.unwrap_or(0.0) * 100.0 / most.max(f64::MIN_POSITIVE);
        (part.clamp(0.0, 100.0) * 10.0).round() / 10.0
    };
    let (ptu, payg) = (part(&one.ptu_cost), part(&one.payg_cost));
    html! {
        @if cost(one).is_some() {
            svg.bar.wide viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
                rect.ptu width=(ptu) height="1" {}
                rect.payg x=(ptu) width=(payg) height="1" {}
            }
        } @else { (NONE) }
    }
}

/// By what it was replayed: a figure is worth what its model is.
fn terms(found: &WhatIf) -> Markup {
    html! {
        section {
            h2 { "How this is reckoned" }
            ul {
                li {
                    "Everything that went through this gateway for the model in an hour is demand, in "
                    "weighted tokens: input, less what came from the cache, plus " (found.output_ratio)
                    " times output."
                }
                li {
                    "A PTU does " (whole(found.tpm_per_ptu)) " weighted tokens a minute. What an hour's "
                    "PTUs can't do spills. Within an hour demand counts as even: shorter bursts spill "
                    "more than this says."
                }
                li {
                    "A PTU costs "
                    @match &found.ptu_hour {
                        Some(price) => { (price) " " (found.currency) " an hour" },
                        None => "what is not known here (give the deployment its ptus, or a [[price]])",
                    }
                    ", whether it is used or not; reservations cost less than list prices by the hour."
                }
                li {
                    "A million weighted tokens cost "
                    @match &found.payg_million {
                        Some(price) => { (price) " " (found.currency) },
                        None => "what is not known here",
                    }
                    " at pay-as-you-go: the price of the recorded calls' average."
                }
                @match &found.pacing {
                    Some(pacing) => {
                        li {
                            "Low-priority calls (" (percent(found.low_percent)) " of the demand) don't spill: "
                            "what the slots can't do in an hour waits for the next one. "
                            (pacing.slots) " slots are open up to " (pacing.lower_percent) " % utilization, "
                            "none from " (pacing.upper_percent) " % on, fewer and fewer in between. "
                            @match pacing.slot_tpm {
                                Some(tokens) => {
                                    "A slot does " (whole(tokens)) " weighted tokens a minute: what the recorded "
                                    "calls' average weighs, in the median of their times."
                                },
                                None => "What a slot does is not known yet: as much as there is room for.",
                            }
                        }
                    },
                    None => li { "Low-priority calls are not paced: they count as any other." },
                }
                @if let Some(limit) = found.payg_tpm {
                    li {
                        "Pay-as-you-go serves " (whole(limit.into())) " tokens a minute; what spills beyond "
                        "that is refused, and costs nothing here."
                    }
                }
                li { "PTUs are sold in steps that depend on the model; the numbers here do not." }
            }
        }
    }
}
