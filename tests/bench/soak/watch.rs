//! A look at the process each second.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lock;
use super::traffic::Clients;

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vitals {
    /// Resident memory, MB (10^6 bytes): what it has written, and the parts of its program that have run.
    pub(super) rss: f64,
    /// The first of the two: anonymous pages, MB.
    pub(super) anonymous: f64,
    pub(super) descriptors: f64,
    pub(super) threads: f64,
}

/// A second of the soak.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Seconds from the beginning.
    pub(super) at: f64,
    pub(super) vitals: Vitals,
    /// Good answers a second.
    pub(super) calls: f64,
    pub(super) in_flight: f64,
    /// Of the answers of this second, ms; NaN without any.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// What a process holds now (proc(5)).
pub(super) fn vitals(pid: u32) -> io::Result<Vitals> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
            .ok_or_else(|| io::Error::other(format!("no {name} of process {pid}")))
    };
    Ok(Vitals {
        rss: number("VmRSS:")? * 1024.0 / 1e6,
        anonymous: number("RssAnon:")? * 1024.0 / 1e6,
        threads: number("Threads:")?,
        descriptors: crate::load::count(fs::read_dir(format!("/proc/{pid}/fd"))?.count()),
    })
}

/// Looks each second until `end`.
pub(super) async fn run(
    pid: u32,
    clients: &Clients,
    begin: Instant,
    end: Instant,
) -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut last = begin;
    for second in 1.. {
        let due = begin + Duration::from_secs(second);
        if due > end {
            break;
        }
        sleep_until(due).await;
        let mut latencies = std::mem::take(&mut *lock(&clients.latencies));
        latencies.sort_by(f64::total_cmp);
        let now = Instant::now();
        samples.push(Sample {
            at: (now - begin).as_secs_f64(),
            vitals: vitals(pid)?,
            calls: crate::load::count(latencies.len()) / (now - last).as_secs_f64(),
            in_flight: crate::load::count(clients.in_flight()),
            p50: quantile(&latencies, 0.5),
            p99: quantile(&latencies, 0.99),
        });
        last = now;
    }
    Ok(samples)
}

/// The value that a share of sorted values does not exceed (nearest rank); NaN of none.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let all = crate::load::count(sorted.len());
    let at = (1..)
        .zip(sorted)
        .find(|(place, _)| f64::from(*place) >= share * all);
    at.map_or(f64::NAN, |(_, value): (u32, _)| *value)
}
