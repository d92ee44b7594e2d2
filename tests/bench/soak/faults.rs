//! Which faults come when: one or two backends at a time, never all, and Azurite by turns silent and out of reach.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::backend::{Backend, Fault};
use super::store::Service;

/// A backend has a fault once in this time, from the first to the second moment of it, s.
const BACKENDS_EVERY: u64 = 20;
const BACKENDS: [u64; 2] = [5, 15];

/// As above, of Azurite.
const STORE_EVERY: u64 = 60;
const STORE: [u64; 2] = [28, 38];

/// No fault begins so near the end, s.
const QUIET_END: u64 = 15;

/// What backends suffer, in turn, the slow ones first, which most connections are opened by. The first two are the PTU ones, which have all calls while they are
/// well: the other serves where one fails, pay-as-you-go where both are full.
const KINDS: [(Fault, &[usize]); 9] = [
    (Fault::Slow, &[0, 1]),
    (Fault::Full, &[0, 1]),
    (Fault::HangUp, &[0]),
    (Fault::Reset, &[1]),
    (Fault::Error, &[0]),
    (Fault::Error, &[0, 1]),
    (Fault::Reset, &[0]),
    (Fault::HangUp, &[1]),
    (Fault::Full, &[0]),
];

/// What suffers, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// These backends.
    Backends(Fault, &'static [usize]),
    /// Both of Azurite's services are stopped.
    StoreSilent,
    /// No connection to either can be had.
    StoreAway,
}

/// A fault, s from the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) what: What,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Band {
    pub(super) fn is_at(&self, second: f64) -> bool {
        (self.begins_s()..self.ends_s()).contains(&second)
    }

    pub(super) fn begins_s(&self) -> f64 {
        Duration::from_secs(self.from).as_secs_f64()
    }

    pub(super) fn ends_s(&self) -> f64 {
        Duration::from_secs(self.to).as_secs_f64()
    }

    pub(super) const fn is_of_the_store(&self) -> bool {
        !matches!(self.what, What::Backends(..))
    }
}

/// The faults of so many seconds, by when they begin.
pub(super) fn plan(seconds: u64) -> Vec<Band> {
    let mut bands = Vec::new();
    let times = (0..seconds).step_by(BACKENDS_EVERY.try_into().unwrap_or(usize::MAX));
    for (start, (fault, which)) in times.zip(KINDS.into_iter().cycle()) {
        bands.push(Band {
            what: What::Backends(fault, which),
            from: start + BACKENDS[0],
            to: start + BACKENDS[1],
        });
    }
    let times = (0..seconds).step_by(STORE_EVERY.try_into().unwrap_or(usize::MAX));
    for (turn, start) in times.enumerate() {
        bands.push(Band {
            what: if turn % 2 == 0 {
                What::StoreSilent
            } else {
                What::StoreAway
            },
            from: start + STORE[0],
            to: start + STORE[1],
        });
    }
    bands.retain(|band| band.to + QUIET_END <= seconds);
    bands.sort_by_key(|band| band.from);
    bands
}

/// How often each comes.
pub(super) fn count(bands: &[Band]) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for band in bands {
        let name = match band.what {
            What::Backends(fault, _) => fault.name(),
            What::StoreSilent => "Azurite silent",
            What::StoreAway => "Azurite out of reach",
        };
        *counts.entry(name).or_default() += 1;
    }
    let counts = counts
        .iter()
        .map(|(name, count)| format!("{count} x {name}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Lets the faults come and go.
pub(super) async fn run(
    bands: &[Band],
    begin: Instant,
    backends: &[Backend],
    store: &[Service],
) -> io::Result<()> {
    let mut edges: Vec<(u64, &Band)> = Vec::new();
    for band in bands {
        edges.push((band.from, band));
        edges.push((band.to, band));
    }
    edges.sort_by_key(|(at, _)| *at);
    for (at, band) in edges {
        sleep_until(begin + Duration::from_secs(at)).await;
        let begins = at == band.from;
        match band.what {
            What::Backends(fault, which) => {
                for backend in which.iter().filter_map(|at| backends.get(*at)) {
                    backend.suffer(if begins { fault } else { Fault::None });
                }
            }
            What::StoreSilent if begins => store.iter().try_for_each(Service::stop)?,
            What::StoreSilent => store.iter().try_for_each(Service::go_on)?,
            What::StoreAway if begins => store.iter().for_each(Service::shut),
            What::StoreAway => store.iter().for_each(Service::open),
        }
    }
    Ok(())
}
