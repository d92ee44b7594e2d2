//! The commands.

pub(crate) mod args;
pub(crate) mod bill;
pub(crate) mod configuration;
pub(crate) mod local;
pub(crate) mod serve;

use std::io;
use std::path::{Path, PathBuf};

use spillway::config::{Config, Source};
use spillway::live::Written;

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(named: Option<&Path>) -> io::Result<Config> {
    Packaged::read(named).map(|packaged| packaged.config)
}

/// The configuration that comes with the program.
pub(crate) struct Packaged {
    pub(crate) config: Config,
    pub(crate) written: Written,
    /// Where it is from, where that is a file.
    pub(crate) file: Option<PathBuf>,
}

impl Packaged {
    pub(crate) fn read(named: Option<&Path>) -> io::Result<Self> {
        let source = Source::find(named, &env);
        let (text, from) = source.read().map_err(io::Error::other)?;
        let config = Config::parse(&text, &from, &env).map_err(io::Error::other)?;
        Ok(Self {
            config,
            written: Written { text, from },
            file: match source {
                Source::File(file) => Some(file),
                Source::Text(_) => None,
            },
        })
    }
}

fn run(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
