//! The scene of pacing: interactive calls with a day's shape and a backlog of batch calls at one
//! provisioned deployment, in simulated time. What decides is the gateway's own: rule, figure,
//! windows, calibration. What is simulated is the deployment, Azure Monitor and the callers.
//!
//! `tests/bench/run --pacing` prints the table and writes the plot of docs/utilization.md.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a scene of known size, whose figures are small"
)]

mod plot;
mod ptu;
mod world;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use self::world::{Day, MINUTES, Sources, World};

/// What is compared: a name, and what the gateway goes by; `None`: there is no batch work.
const RUNS: [(&str, Option<Sources>); 6] = [
    ("without batch", None),
    (
        "Monitor alone, 2 min late",
        Some(Sources {
            monitor_late_min: Some(2),
            events: false,
            header: false,
        }),
    ),
    (
        "Monitor alone, 15 min late",
        Some(Sources {
            monitor_late_min: Some(15),
            events: false,
            header: false,
        }),
    ),
    (
        "events alone",
        Some(Sources {
            monitor_late_min: None,
            events: true,
            header: false,
        }),
    ),
    (
        "all, Monitor 2 min late",
        Some(Sources {
            monitor_late_min: Some(2),
            events: true,
            header: true,
        }),
    ),
    (
        "all, Monitor 15 min late",
        Some(Sources {
            monitor_late_min: Some(15),
            events: true,
            header: true,
        }),
    ),
];

/// Runs the scene; the table. The plot goes to `plot`, where it is named.
pub(crate) fn run(seed: u64, plot: Option<&Path>) -> io::Result<String> {
    let days: Vec<(&str, Day)> = RUNS
        .into_iter()
        .map(|(name, sources)| (name, World::new(sources, seed).run()))
        .collect();
    if let Some(path) = plot {
        let shown = [
            "without batch",
            "Monitor alone, 15 min late",
            "all, Monitor 15 min late",
        ];
        std::fs::write(path, plot::svg(&shown_of(&days, &shown)))?;
    }
    Ok(table(&days))
}

fn shown_of<'a>(days: &'a [(&'a str, Day)], names: &[&str]) -> Vec<&'a (&'a str, Day)> {
    let of = |name: &&str| days.iter().find(|(n, _)| n == name);
    names.iter().filter_map(of).collect()
}

fn table(days: &[(&str, Day)]) -> String {
    let mut text = String::from(
        "| the gateway knows | utilization while backlog lasts: mean | 5th to 95th percentile | drained after | interactive calls throttled | interactive p50, p99 | batch calls throttled |\n|---|---|---|---|---|---|---|\n",
    );
    let drained: Vec<usize> = days.iter().filter_map(|(_, day)| day.drained_min).collect();
    for (name, day) in days {
        let until = day.drained_min.or(drained.first().copied());
        let until = until.unwrap_or(MINUTES).min(day.utilization.len());
        let mut busy: Vec<f64> = day.utilization[..until].to_vec();
        let mean = busy.iter().sum::<f64>() / busy.len().max(1) as f64;
        busy.sort_by(f64::total_cmp);
        let at = |part: f64| busy[((busy.len() - 1) as f64 * part) as usize];
        let drain = match (day.drained_min, day.backlog_left) {
            (Some(minutes), _) => format!("{} h {:02} min", minutes / 60, minutes % 60),
            (None, 0) => "-".to_owned(),
            (None, left) => format!("{left} left after {} h", MINUTES / 60),
        };
        let _ = writeln!(
            text,
            "| {name} | {mean:.1} % | {:.0} to {:.0} % | {drain} | {} of {} | {:.2} s, {:.2} s | {} of {} |",
            at(0.05),
            at(0.95),
            day.interactive_throttled,
            day.interactive,
            day.interactive_ms(0.5) as f64 / 1000.0,
            day.interactive_ms(0.99) as f64 / 1000.0,
            day.batch_throttled,
            day.batch,
        );
    }
    text
}
