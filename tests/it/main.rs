//! The gateway from outside: over HTTP, in front of backends that are simulated or scripted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too, which clippy.toml does not know as tests"
)]

mod answers;
mod azurite;
mod batch;
mod batches;
mod blobs;
mod bodies;
mod console;
mod discover;
mod door;
mod double;
mod fallback;
mod faults;
mod fixtures;
mod gateway;
mod handler;
mod host;
mod hosted;
mod identity_endpoint;
mod limits;
mod openings;
mod outbound;
mod outcomes;
mod process;
mod prompts;
mod purity;
mod raw;
mod restart;
mod routing;
mod scenes;
mod scripted;
mod secrets;
mod seeds;
mod served;
mod simulated;
mod store;
mod table_faults;
mod tenant;
mod tokens;
mod transform;
