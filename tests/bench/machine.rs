//! How busy the machine was with other things meanwhile.

use std::fs;
use std::io;
use std::time::Instant;

use crate::process::TICKS_PER_SECOND;

/// The machine's CPU time at a moment.
pub(crate) struct Machine {
    at: Instant,
    cores: f64,
    busy: f64,
    own: f64,
}

impl Machine {
    pub(crate) fn now() -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self {
            at: Instant::now(),
            cores: crate::load::count(cores),
            busy: busy()?,
            own: own()?,
        })
    }

    /// The percentage of the machine's CPU time since then that neither the benchmark nor what it
    /// started (and has ended) took. What a hypervisor took counts too.
    pub(crate) fn taken_by_others(&self) -> io::Result<f64> {
        let others = (busy()? - self.busy) - (own()? - self.own);
        let all = self.at.elapsed().as_secs_f64() * self.cores;
        Ok((others / all * 100.0).max(0.0))
    }
}

fn numbers<'a>(fields: impl Iterator<Item = &'a str>) -> Vec<f64> {
    fields.filter_map(|field| field.parse().ok()).collect()
}

/// Seconds of all cores that were not idle: user, nice, system, irq, softirq, steal (proc(5)).
fn busy() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = numbers(text.lines().next().unwrap_or_default().split_whitespace());
    let of = |places: &[usize]| -> Option<f64> { places.iter().map(|at| fields.get(*at)).sum() };
    let ticks = of(&[0, 1, 2, 5, 6, 7]);
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/stat has a strange form"))?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Seconds of this process and of its children that have ended.
fn own() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let rest = text.rsplit_once(')').map(|(_, rest)| rest);
    let fields: Vec<&str> = rest.unwrap_or_default().split_whitespace().collect();
    let four = fields.get(11..15).unwrap_or_default();
    Ok(numbers(four.iter().copied()).iter().sum::<f64>() / TICKS_PER_SECOND)
}
