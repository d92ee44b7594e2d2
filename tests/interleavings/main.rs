//! What threads share, tried in the orders in which two or three threads can go on, and with the values that a
//! load may then see by C11's memory model (loom).
//!
//! The domain is compiled into this program as it stands; [`sync`] gives it loom's atomics in the place of
//! the standard library's. docs/decisions.md says what is not tried, and why.

// There is nothing to test in it: it is run.
#![cfg(not(test))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a model fails by a panic; how many orders were tried is its result"
)]

#[allow(unused, reason = "of the domain only some is shared")]
#[path = "../../functions/gateway/mod.rs"]
mod gateway;
mod marks;
mod metrics;
mod rooms;

/// The relay's cache, as far as calls for the same answer wait for each other.
#[path = "."]
mod relay {
    #[path = "."]
    pub(crate) mod cache {
        #[allow(unused, reason = "whether a lead was found is the cache's business")]
        #[path = "../../functions/relay/cache/flight.rs"]
        mod flight;
        pub(crate) mod flights;
    }
}

/// As functions/sync.rs.
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
}

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// What holds, and a world of threads in which it is tried.
type Model = (&'static str, fn());

fn main() -> ExitCode {
    let models = [
        marks::MODELS,
        rooms::MODELS,
        metrics::MODELS,
        relay::cache::flights::MODELS,
    ]
    .concat();
    let held = models.into_iter().map(|(what, world)| {
        let held = catch_unwind(|| tried(world)).is_ok();
        println!("{} {what}", if held { "holds:" } else { "DOES NOT HOLD:" });
        held
    });
    // All of them, also after one that does not hold.
    let held: Vec<bool> = held.collect();
    if held.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Tries a world in all orders.
fn tried(world: fn()) {
    let orders = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&orders);
    let begun = Instant::now();
    loom::model(move || {
        counted.fetch_add(1, Relaxed);
        world();
    });
    let ms = begun.elapsed().as_millis();
    print!("{:>8} orders, {ms:>6} ms, ", orders.load(Relaxed));
}
