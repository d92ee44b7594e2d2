//! The view "Calls".

use std::sync::Arc;

use maud::{Markup, html};

use super::super::calls::{AttemptRow, CallRow, Calls, Status, Wish};
use super::figures::{NONE, day_and_minute, ms, time_of_day, whole};

/// The view. `found` are the calls, or what is wrong with the wish.
pub(super) fn page(wish: &Wish, found: Result<&Calls, &str>, apps: &[Arc<str>]) -> Markup {
    html! {
        h1 { "Calls" }
        (search(wish, apps))
        @match found {
            Err(mistake) => p.error role="alert" { (mistake) },
            Ok(found) => {
                p.note { (what(wish)) }
                @if found.calls.is_empty() {
                    p.empty { "None." }
                } @else {
                    (table(found))
                }
                @if found.is_cut {
                    p.note { "There may be more; these are the newest that were found." }
                }
            },
        }
    }
}

const fn what(wish: &Wish) -> &'static str {
    if !wish.id.is_empty() {
        "The call of this id."
    } else if !wish.app.is_empty() {
        "The app's last calls of a day."
    } else {
        "The last calls of a day that failed or were slow. With an id or an app any call is found."
    }
}

const fn name(status: Status) -> &'static str {
    match status {
        Status::Any => "any",
        Status::Failed => "failed (5xx, broken off)",
        Status::Throttled => "refused with 429",
        Status::Client => "client's error (4xx)",
        Status::Slow => "slow (first byte after 10 s)",
    }
}

fn search(wish: &Wish, apps: &[Arc<str>]) -> Markup {
    html! {
        form.search method="get" role="search" {
            div {
                label for="id" { "Request id" }
                input #id name="id" value=(wish.id) maxlength="26" size="28" spellcheck="false"
                    autocomplete="off";
            }
            div {
                label for="app" { "App" }
                input #app name="app" value=(wish.app) maxlength="64" list="apps"
                    autocomplete="off";
                datalist #apps {
                    @for app in apps.iter().filter(|app| !app.is_empty()) {
                        option value=(app) {}
                    }
                }
            }
            div {
                label for="status" { "Status" }
                select #status name="status" {
                    @for status in Status::ALL {
                        option value=(status.as_str()) selected[status == wish.status] {
                            (name(status))
                        }
                    }
                }
            }
            button { "Search" }
        }
    }
}

fn table(found: &Calls) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label="Calls" {
            table {
                thead {
                    tr {
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "App" }
                        th scope="col" { "Model" }
                        th scope="col" { "Status" }
                        th scope="col" { "Answered by" }
                        th.n scope="col" { "First byte" }
                        th.n scope="col" { "Whole" }
                        th.n scope="col" { "Tokens in/out" }
                        th scope="col" { "Attempts" }
                    }
                }
                tbody { @for call in &found.calls { (row(call)) } }
            }
        }
    }
}

fn row(call: &CallRow) -> Markup {
    html! {
        tr {
            th scope="row" {
                time datetime=(call.time) {
                    (day_and_minute(&call.time)) (time_of_day(&call.time).get(5..).unwrap_or(""))
                }
                span.sub.id { (call.id) }
            }
            td { (call.app) }
            td { (call.model) span.sub { (call.operation) } }
            td {
                span.state.(class(call)) { (call.status) }
                span.sub { (call.outcome.replace('_', " ")) }
            }
            td {
                @if call.cache == "hit" {
                    "cache"
                    @if call.streamed { span.sub { "streamed" } }
                } @else if call.backend.is_empty() { (NONE) } @else {
                    (call.backend)
                    span.sub {
                        (call.deployment) " " (call.kind)
                        @if call.spilled { ", spilled" }
                        @if call.streamed { ", streamed" }
                        @if call.cache == "coalesced" { ", shared" }
                    }
                }
            }
            td.n {
                @if call.backend.is_empty() && call.cache.is_empty() { (NONE) }
                @else { (ms(Some(call.first_byte_ms))) }
            }
            td.n { (ms(Some(call.total_ms))) }
            td.n {
                (whole(call.input_tokens)) " / " (whole(call.output_tokens))
                @if call.saved_tokens > 0 { span.sub { (whole(call.saved_tokens)) " saved" } }
            }
            td { (attempts(call)) }
        }
    }
}

fn class(call: &CallRow) -> &'static str {
    match call.status {
        _ if call.outcome == "cut" => "failed",
        429 => "throttled",
        500.. => "failed",
        400..=499 => "client",
        _ => "serving",
    }
}

fn attempts(call: &CallRow) -> Markup {
    html! {
        @if call.attempts.is_empty() { "none" } @else {
            details {
                summary { (call.attempts.len()) }
                ol { @for one in &call.attempts { li { (attempt(one)) } } }
                @if !call.trace_id.is_empty() { p.sub { "trace " (call.trace_id) } }
            }
        }
    }
}

fn attempt(one: &AttemptRow) -> Markup {
    html! {
        (one.backend) " " (one.deployment) " (" (one.kind) "): "
        @match one.status { Some(status) => (status), None => "no answer" }
        @if let Some(error) = &one.error { ", " (error.replace('_', " ")) }
        ", " (ms(Some(one.ms)))
    }
}
