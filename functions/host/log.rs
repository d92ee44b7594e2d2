//! What is logged, and where.

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The targets of Azure's crates begin with this.
const AZURE: &str = "azure_";

/// Lines of JSON on stdout: the host takes stderr for errors. RUST_LOG chooses the level, `level`
/// is it where that is not set.
///
/// Azure's crates are never heard below info, whatever RUST_LOG says: azure_core 0.21 logs requests
/// at debug level, with the `Authorization` header in clear and all others hidden, the other way
/// round than was meant (its `headers/mod.rs`), and azure_data_tables logs rows at trace level.
pub fn log_to_stdout(level: &str) {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(io::stdout)
        .with_filter(chosen.and(filter_fn(may_be_heard)));
    tracing_subscriber::registry().with(lines).init();
}

fn may_be_heard(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with(AZURE) || *metadata.level() <= Level::INFO
}
