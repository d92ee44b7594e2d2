//! The gateway from outside: over HTTP, in front of backends that are simulated or scripted.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too, which clippy.toml does not know as tests"
)]
#![expect(
    clippy::print_stderr,
    reason = "what a test measured, and the seed that repeats it"
)]

mod answers;
mod azurite;
mod batch;
mod batches;
mod bill;
mod blobs;
mod bodies;
mod cache;
mod chargeback;
mod console;
mod discover;
mod door;
mod double;
mod endings;
mod errors_page;
mod event_hub;
mod events;
mod fallback;
mod faults;
mod fixtures;
mod gateway;
mod graph;
mod handler;
mod host;
mod hosted;
mod hostile;
mod hostile_calls;
mod identity_endpoint;
mod kills;
mod limits;
mod live;
mod marks;
mod money;
mod monitor;
mod openings;
mod operator;
mod outbound;
mod outcomes;
mod process;
mod prompts;
mod purity;
mod raw;
mod realtime;
mod reconcile;
mod refusals;
mod restart;
mod retail_prices;
mod room;
mod routing;
mod scenes;
mod scripted;
mod secrets;
mod security;
mod seeds;
mod served;
mod simulated;
mod slots;
mod spillover;
mod store;
mod table_faults;
mod telemetry;
mod tenant;
mod tiers;
mod tokens;
mod transform;
mod versions;
