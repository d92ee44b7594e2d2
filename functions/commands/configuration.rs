//! The commands that read, write and compare configurations.

use std::io::{self, Write};
use std::path::Path;

use spillway::config::{Config, KeyHash, Source, Storage, schema};
use spillway::discover::discover;
use spillway::door::new_key;
use spillway::live::command;
use spillway::package;
use spillway::serve::{Place, open_blobs};

use super::args::{CheckArgs, ConfigCommand, DiffArgs, DiscoverArgs, PackageArgs};
use super::{env, read, run};

pub(crate) fn check(args: &CheckArgs) -> io::Result<()> {
    let mut out = io::stdout();
    if args.schema {
        return writeln!(out, "{:#}", schema());
    }
    let config = read(args.file.as_deref())?;
    let deployments: usize = config
        .backends
        .iter()
        .map(|backend| backend.deployments.len())
        .sum();
    let (backends, apps) = (config.backends.len(), config.apps.len());
    writeln!(
        out,
        "good: {backends} backends, {deployments} deployments, {apps} apps"
    )
}

pub(crate) fn propose(args: DiscoverArgs) -> io::Result<()> {
    run(async move {
        let text = discover(args.manager, &args.resources).await?;
        io::stdout().write_all(text.as_bytes())
    })
}

/// The configuration is checked for its mistakes, but not for its references: the variables are
/// app settings, which this machine does not have.
pub(crate) fn write_package(args: &PackageArgs) -> io::Result<()> {
    let source = Source::find(args.config.as_deref(), &env);
    let (text, _) = source.read().map_err(io::Error::other)?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?,
    };
    package::write(&args.out, &binary, &text)
}

/// The key itself is written nowhere else: the configuration has its hash only.
pub(crate) fn make_key(app: &str) -> io::Result<()> {
    let key = new_key()?;
    let hash = KeyHash::of(&key);
    let mut out = io::stdout();
    writeln!(out, "{key}\n")?;
    writeln!(
        out,
        "This is the key of {app}, shown this once. In spillway.toml, in the [[app]] of that name:"
    )?;
    writeln!(out, "\nkey_hashes = [\"{hash}\"]\n")?;
    writeln!(
        out,
        "An app can have two: add this one beside the old one, let the app change over, take the old one out."
    )
}

/// Whether they differ.
pub(crate) fn compare(args: &DiffArgs) -> io::Result<bool> {
    let first = command::file(&args.file)?;
    let (before, after) = match &args.other {
        Some(other) => (first, command::file(other)?),
        None => {
            let named = args.config.as_deref();
            (in_place(named, async |place| place.read().await)?, first)
        }
    };
    command::diff(&before, &after, &mut io::stdout())
}

pub(crate) fn place_configuration(command: ConfigCommand) -> io::Result<()> {
    let mut out = io::stdout();
    match command {
        ConfigCommand::List { config } => {
            in_place(config.as_deref(), async |place| place.list(&mut out).await)
        }
        ConfigCommand::Put { file, config } => {
            let next = command::file(&file)?;
            in_place(config.as_deref(), async |place| {
                place.put(&next, &mut out).await
            })
        }
        ConfigCommand::Rollback { name, config } => in_place(config.as_deref(), async |place| {
            place.roll_back(&name, &mut out).await
        }),
    }
}

/// Works on the blob that a configuration's `[live]` names. The file is read for that and for where blobs
/// are only: this machine may not have the variables that the rest takes.
fn in_place<T>(
    named: Option<&Path>,
    work: impl AsyncFnOnce(command::Place) -> io::Result<T>,
) -> io::Result<T> {
    let (text, from) = Source::find(named, &env).read().map_err(io::Error::other)?;
    let (live, blobs) = Config::place(&text, &from, &env).map_err(io::Error::other)?;
    let name = live.blob_name().map(str::to_owned);
    let name =
        name.ok_or_else(|| io::Error::other(format!("{from} names no blob: [live] blob")))?;
    let storage = Storage {
        tables: None,
        blobs,
    };
    let mut done = None;
    run(async {
        let blobs = open_blobs(Place::Local, &storage)?;
        let blobs =
            blobs.ok_or_else(|| io::Error::other(format!("{from} has no storage.blobs")))?;
        done = Some(work(command::Place::new(blobs, &name)).await?);
        Ok(())
    })?;
    done.ok_or_else(|| io::Error::other("nothing was done"))
}
