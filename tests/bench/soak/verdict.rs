//! What has to hold, and whether it does.

use std::fmt::Write as _;

use super::traffic::Wrong;
use super::watch::{Sample, quantile};

/// Memory settles in the first ten minutes; a shorter soak gives it a third.
const SETTLES_S: f64 = 600.0;

const MEDIAN: f64 = 0.5;
const RARELY_LESS: f64 = 0.1;

/// A rule, and what was found.
#[derive(Debug)]
pub(super) struct Check {
    rule: &'static str,
    pub(super) holds: bool,
    found: String,
}

impl Check {
    pub(super) fn new(rule: &'static str, holds: bool, found: impl Into<String>) -> Self {
        Self {
            rule,
            holds,
            found: found.into(),
        }
    }

    /// Nothing is wrong; else the first things that are.
    pub(super) fn none(rule: &'static str, wrong: &Wrong, else_found: &str) -> Self {
        let found = match wrong.count {
            0 => else_found.to_owned(),
            count => format!("{count} wrong: {}", wrong.told.join("; ")),
        };
        Self::new(rule, wrong.count == 0, found)
    }
}

/// The rules as a table.
pub(super) fn table(checks: &[Check]) -> String {
    let mut text = String::from("| rule | found | holds |\n| --- | --- | --- |\n");
    for check in checks {
        let holds = if check.holds { "yes" } else { "**no**" };
        let found = check.found.replace(['\n', '|'], " ");
        let _ = writeln!(text, "| {} | {found} | {holds} |", check.rule);
    }
    text
}

/// Whether it is long enough for a line, and for a busy machine's minutes not to count as growth.
pub(super) fn is_long(seconds: f64) -> bool {
    seconds >= SETTLES_S * 2.0
}

/// When memory is taken to have settled, s from the beginning of so many.
pub(super) fn settled(seconds: f64) -> f64 {
    SETTLES_S.min(seconds / 3.0)
}

/// Memory does not grow: that which is not the program's own, whose pages come as they first run. By the
/// line of least squares from when it has settled on; where that is too short for a line, by the medians
/// of the second and the last third.
pub(super) fn memory(samples: &[Sample], seconds: f64) -> Check {
    let rule = "memory does not grow once it has settled";
    let from = settled(seconds);
    let late: Vec<&Sample> = samples.iter().filter(|at| at.at >= from).collect();
    let slope = slope(late.iter().map(|at| (at.at, at.vitals.anonymous)));
    let per_hour = slope * 3600.0;
    let of = |from: f64, to: f64| of(samples, [from, to], MEDIAN, |at| at.vitals.anonymous);
    let (second, last) = (
        of(from, seconds * 2.0 / 3.0),
        of(seconds * 2.0 / 3.0, seconds),
    );
    if is_long(seconds) {
        let growth = slope * (seconds - from);
        let bound = (0.05 * second).max(4.0);
        let found = format!(
            "{per_hour:+.1} MB an hour, {growth:+.1} MB in {:.0} minutes, at most {bound:.1}; median of the last third {last:.1} MB",
            (seconds - from) / 60.0
        );
        return Check::new(rule, growth <= bound, found);
    }
    let bound = (0.1 * second).max(8.0);
    let found = format!(
        "median of the second third {second:.1} MB, of the last {last:.1}, at most {bound:.1} more; line {per_hour:+.1} MB an hour"
    );
    Check::new(rule, last - second <= bound, found)
}

/// Descriptors and threads stay: what is rarely less in the last third is not more than in the second.
/// What calls that pile up take goes away with them; what leaks does not.
pub(super) fn flat(
    rule: &'static str,
    samples: &[Sample],
    seconds: f64,
    value: impl Fn(&Sample) -> f64,
) -> Check {
    let third = seconds / 3.0;
    let second = of(samples, [third, third * 2.0], RARELY_LESS, &value);
    let last = of(samples, [third * 2.0, seconds], RARELY_LESS, &value);
    let bound = (0.25 * second).max(32.0);
    let most = samples.iter().map(&value).fold(f64::NAN, f64::max);
    let found = format!(
        "rarely less than {second:.0} in the second third, than {last:.0} in the last, at most {bound:.0} more; most {most:.0}"
    );
    Check::new(rule, last - second <= bound, found)
}

/// The value that a share of the samples from one second to another do not exceed.
fn of(samples: &[Sample], [from, to]: [f64; 2], share: f64, value: impl Fn(&Sample) -> f64) -> f64 {
    let within = samples.iter().filter(|at| (from..=to).contains(&at.at));
    let mut values: Vec<f64> = within.map(value).collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, share)
}

/// The slope of the line of least squares through these points.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let all = crate::load::count(points.clone().count());
    let (x, y) = points
        .clone()
        .fold((0.0, 0.0), |(x, y), at| (x + at.0, y + at.1));
    let (x, y) = (x / all, y / all);
    let both: f64 = points.clone().map(|at| (at.0 - x) * (at.1 - y)).sum();
    let square: f64 = points.map(|at| (at.0 - x).powi(2)).sum();
    both / square
}

/// The soak by parts of its time.
pub(super) fn figures(samples: &[Sample], seconds: f64) -> String {
    let mut text = String::from(
        "| minute | calls/s | p50, ms | p99, ms | in flight | RSS, MB | anonymous, MB | descriptors | threads |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let parts = 12.0;
    let mut from = 0.0;
    while from < parts {
        let (begin, end) = (seconds * from / parts, seconds * (from + 1.0) / parts);
        let median = |value: fn(&Sample) -> f64| of(samples, [begin, end], MEDIAN, value);
        let _ = writeln!(
            text,
            "| {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
            end / 60.0,
            median(|at| at.calls),
            median(|at| at.p50),
            median(|at| at.p99),
            median(|at| at.in_flight),
            median(|at| at.vitals.rss),
            median(|at| at.vitals.anonymous),
            median(|at| at.vitals.descriptors),
            median(|at| at.vitals.threads),
        );
        from += 1.0;
    }
    text
}
