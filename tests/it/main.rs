//! The gateway from outside: over HTTP, in front of backends that are simulated or scripted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too, which clippy.toml does not know as tests"
)]

mod door;
mod faults;
mod gateway;
mod host;
mod identity_endpoint;
mod outbound;
mod outcomes;
mod purity;
mod routing;
mod scenes;
mod scripted;
mod secrets;
mod served;
mod tenant;
mod tokens;
