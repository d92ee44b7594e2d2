//! The view "Money".

use maud::{Markup, html};

use super::super::idle::{IdleHour, IdleWeek};
use super::super::money::{AppMoney, Money};
use super::super::reconciliation::DriftDay;
use super::figures::{NONE, money, percent, short_whole, whole};

/// The view.
pub(super) fn page(found: &Money, idle: &IdleWeek, has_store: bool) -> Markup {
    let total = &found.total;
    let currency = &found.currency;
    html! {
        div.top {
            h1 { "Money" }
            (choice(found))
            a href={ "/spillway/money.csv?month=" (found.month) } { "CSV" }
        }
        @if !has_store {
            p.empty { "Nothing is kept: " code { "[storage] tables" } " names no store." }
        }
        dl.tiles {
            (tile("All apps", &money(&total.cost), currency))
            (tile("Pay-as-you-go", &money(&total.payg_cost), currency))
            (tile("PTUs, used", &money(&total.ptu_cost), currency))
            (tile("PTUs, idle", &money(&found.idle_cost), currency))
            (tile("Spilled, of PAYG", &money(&total.spilled_cost), currency))
            @if total.saved_tokens > 0 {
                (tile("Saved by the cache", &money(&total.saved_cost), currency))
                (tile("Tokens saved", &short_whole(total.saved_tokens), ""))
            }
            (tile("Calls", &whole(total.calls), ""))
            (tile("Tokens", &short_whole(total.tokens), ""))
        }
        @if !found.unpriced.is_empty() {
            p.error {
                strong { "Without a price, and missing above, or there at the standard tier's: " }
                @for (place, one) in found.unpriced.iter().enumerate() {
                    @if place > 0 { ", " }
                    (one.model) " (" (whole(one.calls)) ")"
                }
                ". Give them one with " code { "[[price]]" } "."
            }
        }
        @if found.apps.is_empty() {
            p.empty { "No calls in this month." }
        } @else {
            (apps(found, total.saved_tokens > 0))
        }
        (reconciliation(found))
        (heat(idle))
    }
}

fn choice(found: &Money) -> Markup {
    html! {
        form.choice method="get" {
            label for="month" { "Month" }
            select #month name="month" {
                @for month in &found.months {
                    option value=(month) selected[*month == found.month] { (month) }
                }
                @if !found.months.contains(&found.month) {
                    option selected { (found.month) }
                }
            }
            button { "Show" }
        }
    }
}

fn tile(name: &str, figure: &str, unit: &str) -> Markup {
    html! {
        div { dt { (name) } dd { (figure) @if !unit.is_empty() { " " small { (unit) } } } }
    }
}

/// The apps. There may be hundreds: each row is as short as can be.
fn apps(found: &Money, has_saved: bool) -> Markup {
    html! {
        h2 { "By app, " (found.currency) }
        div.scroll role="region" tabindex="0" aria-label="By app" {
            table.money {
                thead {
                    tr {
                        th scope="col" { "App" }
                        th scope="col" { "Cost" }
                        th scope="col" { "Share" }
                        th scope="col" { "Budget" }
                        th scope="col" { "PAYG" }
                        th scope="col" { "Spilled" }
                        th scope="col" { "PTU" }
                        th scope="col" { "Filled PTUs" }
                        th scope="col" { "Calls" }
                        th scope="col" { "Tokens" }
                        @if has_saved { th scope="col" { "Saved" } }
                    }
                }
                tbody { @for one in &found.apps { (row(one, has_saved)) } }
            }
        }
        @if found.apps.iter().any(|one| one.budget.is_some()) {
            p.note { "Budgets go by pay-as-you-go; a share of PTUs counts for none." }
        }
    }
}

fn row(one: &AppMoney, has_saved: bool) -> Markup {
    let amounts = &one.amounts;
    html! {
        tr {
            th scope="row" {
                @match &one.app_name {
                    Some(name) => { (name) span.sub.id { (one.app) } }
                    None => (one.app),
                }
            }
            td { (money(&amounts.cost)) }
            td { (percent(one.cost_percent)) (bar("payg", one.cost_percent)) }
            td { (budget(one)) }
            td { (money(&amounts.payg_cost)) }
            td { (money(&amounts.spilled_cost)) }
            td { (money(&amounts.ptu_cost)) }
            td { (percent(one.ptu_percent)) }
            td { (whole(amounts.calls)) }
            td { (short_whole(amounts.tokens)) }
            @if has_saved { td { (money(&amounts.saved_cost)) } }
        }
    }
}

fn budget(one: &AppMoney) -> Markup {
    let class = match one.budget_percent {
        Some(percent) if percent >= 100.0 => "failed",
        Some(percent) if percent >= 80.0 => "throttled",
        _ => "good",
    };
    html! {
        @match &one.budget {
            None => (NONE),
            Some(budget) => {
                (percent(one.budget_percent)) " of " (money(budget))
                (bar(class, one.budget_percent))
            }
        }
    }
}

fn bar(class: &str, percent: Option<f64>) -> Markup {
    let width = percent.unwrap_or(0.0).clamp(0.0, 100.0).round();
    html! {
        svg.bar viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
            path.(class) d={ "M0 0h" (width) "v1H0z" } {}
        }
    }
}

/// Most days of deployments that are shown; the JSON has all of them.
const MOST_DRIFTS: usize = 40;

/// What Azure Monitor counts beside what the gateway does.
fn reconciliation(found: &Money) -> Markup {
    html! {
        @if !found.reconciliation.is_empty() {
            h2 { "Beside Azure Monitor's count" }
            p.note {
                "Of each deployment's day: what the gateway counted, and Azure. The drift is that of prompt or "
                "generated tokens, whichever are farther from Azure's count."
            }
            div.scroll role="region" tabindex="0" aria-label="Beside Azure Monitor's count" {
                table.money.drift {
                    thead {
                        tr {
                            th scope="col" { "Deployment" }
                            th scope="col" { "Day" }
                            th scope="col" { "Drift" }
                            th scope="col" { "Prompt" }
                            th scope="col" { "Azure" }
                            th scope="col" { "Generated" }
                            th scope="col" { "Azure" }
                            th scope="col" { "Calls" }
                            th scope="col" { "Azure" }
                            th scope="col" { "Note" }
                        }
                    }
                    tbody { @for one in found.reconciliation.iter().take(MOST_DRIFTS) { (drift(one)) } }
                }
            }
            @if found.reconciliation.len() > MOST_DRIFTS {
                p.note {
                    "The newest " (MOST_DRIFTS) "; "
                    a href={ "/spillway/api/money?month=" (found.month) } { "JSON" } " has all."
                }
            }
        }
    }
}

fn drift(one: &DriftDay) -> Markup {
    let azures = |count: Option<u64>| count.map_or(NONE.to_owned(), whole);
    let drift = one.drift_percent;
    let drift = drift.map_or(NONE.to_owned(), |drift| format!("{drift:+.2} %"));
    html! {
        tr {
            th scope="row" { (one.backend) "/" (one.deployment) }
            td { (one.day) }
            td.beyond[one.is_beyond] { (drift) }
            td { (whole(one.prompt_tokens)) }
            td { (azures(one.azure_prompt_tokens)) }
            td { (whole(one.generated_tokens)) }
            td { (azures(one.azure_generated_tokens)) }
            td { (whole(one.requests)) }
            td { (azures(one.azure_requests)) }
            td.note { (one.note) }
        }
    }
}

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// When PTUs are idle, as a table whose cells have the colour of their figure.
fn heat(idle: &IdleWeek) -> Markup {
    html! {
        section {
            h2 { "Idle PTUs by hour of the week" }
            @if idle.week.is_empty() {
                p.empty {
                    "No hour of a PTU is known: deployments need " code { "ptus" }
                    ", and the first full hour has to be over."
                }
            } @else {
                p.note {
                    "Percent of all PTUs' capacity that this gateway did not use, of the last "
                    (idle.hours) " hours; in an average week that is worth "
                    strong { (money(&idle.cost_per_week)) " " (idle.currency) }
                    ". What an hour is worth is shown on it."
                    @if idle.week.iter().any(|hour| hour.idle_percent.is_none()) {
                        " Hours of the week that have not been recorded yet are not in it."
                    }
                }
                div.scroll role="region" tabindex="0" aria-label="Idle PTUs by hour of the week" {
                    table.heat {
                        thead {
                            tr {
                                th scope="col" { "UTC" }
                                @for hour in 0..24 { th scope="col" { (hour) } }
                            }
                        }
                        tbody {
                            @for (day, hours) in DAYS.iter().zip(idle.week.chunks(24)) {
                                tr {
                                    th scope="row" { (day) }
                                    @for hour in hours { (cell(hour, &idle.currency)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(hour: &IdleHour, currency: &str) -> Markup {
    html! {
        @match hour.idle_percent {
            None => td { (NONE) },
            Some(percent) => {
                td.(level(percent)) title={ (money(&hour.cost)) " " (currency) } {
                    (percent.round())
                }
            }
        }
    }
}

fn level(percent: f64) -> &'static str {
    match percent {
        ..20.0 => "h0",
        ..40.0 => "h1",
        ..60.0 => "h2",
        ..80.0 => "h3",
        _ => "h4",
    }
}
