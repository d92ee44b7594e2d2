//! Puts the watching of the configuration into the process.

use std::path::PathBuf;
use std::sync::Arc;

use super::Gateway;
use crate::config::Config;
use crate::live::history::History;
use crate::live::source::Source;
use crate::live::{Watcher, Written};
use crate::store::blobs::{Blob, Blobs, Container};

/// What watches the configuration, where `config` asks for that. `packaged` is its text, `file` where
/// that is from, if it is from a file.
pub fn watcher(
    config: &Config,
    packaged: Written,
    file: Option<PathBuf>,
    blobs: Option<&Arc<dyn Blobs>>,
) -> Option<Watcher> {
    let live = config.live.as_ref()?;
    let source = match (live.blob_name(), blobs, file) {
        (Some(name), Some(blobs), _) => {
            Source::Blob(Arc::clone(blobs), Blob::new(Container::Config, name))
        }
        (None, _, Some(file)) => Source::File(file),
        _ => {
            tracing::error!(
                "[live] has nothing to watch: name a blob, or have the configuration in a file"
            );
            return None;
        }
    };
    let history = blobs.map(|blobs| History::new(Arc::clone(blobs), live.keep));
    let env = Box::new(|name: &str| std::env::var(name).ok());
    let seconds = live.poll_seconds;
    Some(Watcher::new(source, seconds, packaged, history, env))
}

impl Gateway {
    /// This gateway, which goes by what `watcher` finds from then on. To be called when it has all
    /// its other parts: those that it gets later don't change.
    #[must_use]
    pub fn watching(mut self, watcher: Watcher) -> Self {
        let console = self.swap.console.get();
        let console = console.showing(Arc::clone(watcher.standing()));
        self.swap.console.set(console);
        let swap = self.swap.clone();
        let watching = watcher.keep(move |config| swap.to(config));
        self.background.spawn(watching);
        self
    }
}
