//! The gateway from outside: over HTTP, in front of backends that are simulated or scripted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too, which clippy.toml does not know as tests"
)]

mod answers;
mod bodies;
mod faults;
mod fixtures;
mod gateway;
mod handler;
mod host;
mod openings;
mod process;
mod purity;
mod raw;
mod restart;
mod scenes;
mod scripted;
mod seeds;
mod simulated;
mod store;
