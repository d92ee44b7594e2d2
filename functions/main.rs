//! The command line.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use spillway::azure::service_bus::Counts;
use spillway::billing::command::{DECIMALS, Request, What, run as run_bill};
use spillway::billing::render::Format;
use spillway::billing::{Billing, Period, Span};
use spillway::chargeback::Consumer;
use spillway::config::{
    Batch, BatchApi, Config, Endpoint, KeyHash, Pacing, ResourceId, Source, Storage, StoragePlace,
    schema,
};
use spillway::discover::{PUBLIC_CLOUD, discover};
use spillway::door::new_key;
use spillway::gateway::bill::By;
use spillway::host::clock::Clock;
use spillway::host::log::log_to_stdout;
use spillway::host::server::bind;
use spillway::live::{Written, command};
use spillway::local::queue::Queues;
use spillway::local::{embedded, simulation::Latency, timer};
use spillway::package;
use spillway::serve::batch::Trigger;
use spillway::serve::ending::{Asked, Starter, serve_until_asked};
use spillway::serve::live;
use spillway::serve::{Gateway, Keeping, Place, keep, may_listen, may_run, open_blobs, open_store};
use tokio::net::TcpListener;

/// The port that the Functions host names for its handler.
const PORT_VARIABLE: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

/// The folder in which `spillway local` keeps what nobody said where to keep.
const DATA: &str = ".spillway";

/// An Azure OpenAI gateway that is a set of Azure Functions.
#[derive(Parser)]
#[command(name = "spillway", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The custom handler: listens on the port that the Functions host names.
    Serve(ServeArgs),
    /// Everything on this machine: simulated deployments, unless a configuration names real ones.
    Local(LocalArgs),
    /// Reads a configuration and says every mistake of it.
    Check(CheckArgs),
    /// Writes the folder that the Functions host runs.
    Package(PackageArgs),
    /// Proposes a configuration from what is deployed on Azure.
    Discover(DiscoverArgs),
    /// Keys of apps.
    #[command(subcommand)]
    Key(KeyCommand),
    /// What each app owes, from what is kept of its calls.
    Bill(BillArgs),
    /// What differs between two configurations, and what of it needs a restart. Ends with 1 where
    /// anything does, with 2 where they can't be compared.
    Diff(DiffArgs),
    /// The configuration in a blob, which running gateways watch ([live] blob).
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Args)]
struct DiffArgs {
    /// The configuration before; where it is the only one: after, and the blob's before.
    file: PathBuf,
    /// The configuration after.
    other: Option<PathBuf>,
    /// The file that names the blob, where one is compared with it.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// The configurations that gateways have taken, the newest first; `*`: the one that is there.
    List {
        /// The file that names the blob.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Puts a file there.
    Put {
        /// The configuration.
        file: PathBuf,
        /// The file that names the blob.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Puts one of the list there again.
    Rollback {
        /// Its name in the list.
        name: String,
        /// The file that names the blob.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Makes a key for an app, shows it once, and says what to put into the configuration.
    New {
        /// The app's name.
        app: String,
    },
}

#[derive(Args, Default)]
struct ServeArgs {
    /// Address to listen on; 0.0.0.0 outside the Functions host.
    #[arg(long)]
    host: Option<Ipv4Addr>,
    /// Port; default: what FUNCTIONS_CUSTOMHANDLER_PORT says, else 8080.
    #[arg(long)]
    port: Option<u16>,
    /// The configuration's file.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct LocalArgs {
    /// Port of the gateway.
    #[arg(long, default_value_t = 7071)]
    port: u16,
    /// A configuration that names real deployments.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The folder in which usage events and owners are kept; default: what the configuration
    /// says, else `.spillway`.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Port of the batch queue, where the configuration names none on this machine; default: the
    /// gateway's and one more.
    #[arg(long)]
    queue_port: Option<u16>,
    /// Milliseconds to the first token of a simulated answer, and a fifteenth of it for each
    /// further one; 0: no waiting.
    #[arg(long, default_value_t = Latency::SMALL_MODEL.first_token_ms)]
    latency_ms: u64,
    /// Most low-priority calls of a model at once on the simulated PTU deployment.
    #[arg(long, default_value_t = Pacing::default().slots, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,
}

#[derive(Args)]
struct CheckArgs {
    /// The configuration's file.
    file: Option<PathBuf>,
    /// Prints the JSON Schema of the configuration instead.
    #[arg(long)]
    schema: bool,
}

#[derive(Args)]
struct DiscoverArgs {
    /// Ids of Azure OpenAI resources:
    /// /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.CognitiveServices/accounts/NAME
    #[arg(required = true, value_name = "RESOURCE_ID")]
    resources: Vec<ResourceId>,
    /// Azure Resource Manager; another one for another cloud than the public one.
    #[arg(long, default_value = PUBLIC_CLOUD)]
    manager: Endpoint,
}

#[derive(Args)]
struct PackageArgs {
    /// The folder to write; new or empty.
    #[arg(long)]
    out: PathBuf,
    /// The configuration to put in.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The handler to put in, where it was built for another system than this one; default: this
    /// program.
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Args)]
struct BillArgs {
    /// The month, for example 2026-11; default: this one.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    month: Option<String>,
    /// The first day, for example 2026-11-01.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// The last day.
    #[arg(long, requires = "from")]
    to: Option<String>,
    /// Only this app.
    #[arg(long)]
    app: Option<String>,
    /// What the bill is broken down by, in this order: app, model, backend, kind, day, user. The
    /// last one reads each call.
    #[arg(long, value_delimiter = ',', default_value = "app")]
    by: Vec<By>,
    /// table, csv or json.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Digits after the point of a table's amounts.
    #[arg(long, default_value_t = DECIMALS, value_parser = clap::value_parser!(u32).range(0..=12))]
    decimals: u32,
    /// The calls themselves instead, one by one; csv or json.
    #[arg(long, conflicts_with = "spill")]
    rows: bool,
    /// Instead, what spilling cost, and which apps had filled the PTU in that minute. Reads each call.
    #[arg(long)]
    spill: bool,
    /// Instead, where Azure's list prices differ from the list, as found by the last daily look.
    #[arg(long, conflicts_with_all = ["rows", "spill"])]
    price_proposals: bool,
    /// The configuration's file: it says where calls are kept, and what PTUs cost.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The folder in which `spillway local` keeps them; no configuration is needed then.
    #[arg(long)]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = match command.unwrap_or_else(|| Command::Serve(ServeArgs::default())) {
        Command::Serve(args) => serve(&args),
        Command::Local(args) => local(&args),
        Command::Check(args) => check(&args),
        Command::Package(args) => write_package(&args),
        Command::Discover(args) => propose(args),
        Command::Key(KeyCommand::New { app }) => make_key(&app),
        Command::Bill(args) => bill(args),
        Command::Diff(args) => {
            return match compare(&args) {
                Ok(differs) => ExitCode::from(u8::from(differs)),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "{error}");
                    ExitCode::from(2)
                }
            };
        }
        Command::Config(command) => place_configuration(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The host restarts a handler that ends with an error, never one that ends with 0.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(named: Option<&Path>) -> io::Result<Config> {
    Packaged::read(named).map(|packaged| packaged.config)
}

/// The configuration that comes with the program.
struct Packaged {
    config: Config,
    written: Written,
    /// Where it is from, where that is a file.
    file: Option<PathBuf>,
}

impl Packaged {
    fn read(named: Option<&Path>) -> io::Result<Self> {
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

fn serve(args: &ServeArgs) -> io::Result<()> {
    log_to_stdout("info");
    let Packaged {
        config,
        written,
        file,
    } = Packaged::read(args.config.as_deref())?;
    let port = match (args.port, env(PORT_VARIABLE)) {
        (Some(port), _) => port,
        // Not 0, which would be a port that the host does not know.
        (None, Some(text)) => text.parse().map(NonZeroU16::get).map_err(|_| {
            io::Error::other(format!(
                "{PORT_VARIABLE} must be a port, from 1 to 65535, is {text:?}"
            ))
        })?,
        (None, None) => 8080,
    };
    let host = args.host.unwrap_or(Ipv4Addr::LOCALHOST);
    may_run(&config.auth, &env)?;
    may_listen(&config.auth, host.into())?;
    run(async move {
        let asked = Asked::listen()?;
        let listener = bind(SocketAddr::from((host, port))).await?;
        // The Functions host alone marks what comes from outside.
        let trigger = match env(PORT_VARIABLE) {
            Some(_) => Trigger::Invoked,
            None => Trigger::Absent,
        };
        let may_serve = |config: &Config| {
            may_run(&config.auth, &env)?;
            may_listen(&config.auth, host.into())
        };
        let watched = Some((written, file));
        let started = start(Place::Azure, config, watched, None, trigger, may_serve);
        let (mut gateway, keeping) = started.await?;
        if trigger == Trigger::Absent {
            gateway = gateway.with_realtime();
        }
        tracing::info!(address = %listener.local_addr()?, "listening");
        let starter = env(PORT_VARIABLE).map_or(Starter::Other, |_| Starter::Host);
        serve_until_asked(gateway, listener, keeping, starter, asked).await
    })
}

fn local(args: &LocalArgs) -> io::Result<()> {
    log_to_stdout("warn");
    let real = args.config.as_deref();
    let real = real.map(|file| Packaged::read(Some(file))).transpose()?;
    let latency = Latency {
        first_token_ms: args.latency_ms,
        per_token_ms: args.latency_ms / 15,
    };
    let slots = args.slots;
    let (data, blobs) = (args.data.clone(), args.data.clone());
    let queue_port = args.queue_port.unwrap_or(match args.port {
        // Any that is free, as the gateway's.
        0 => 0,
        port => port.saturating_add(1),
    });
    run(async move {
        let asked = Asked::listen()?;
        let (mut config, watched) = match real {
            Some(real) => (real.config, Some((real.written, real.file))),
            None => {
                let text = embedded::start(latency, slots).await?;
                let config = Config::parse(&text, "the embedded configuration", &env);
                let config = Config {
                    batch_api: Some(BatchApi::default()),
                    ..config.map_err(io::Error::other)?
                };
                (config, None)
            }
        };
        let named = data.map(StoragePlace::Embedded).or(config.storage.tables);
        config.storage.tables = Some(named.unwrap_or_else(|| StoragePlace::Embedded(DATA.into())));
        let named = blobs.map(StoragePlace::Embedded).or(config.storage.blobs);
        config.storage.blobs = Some(named.unwrap_or_else(|| StoragePlace::Embedded(DATA.into())));
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).await?;
        let queues = queues(&mut config, queue_port).await?;
        let counts = queues
            .as_ref()
            .map(|(queues, _)| Arc::new(queues.clone()) as Arc<dyn Counts>);
        let copy = config.clone();
        let started = start(
            Place::Local,
            copy,
            watched,
            counts,
            Trigger::Invoked,
            |_| Ok(()),
        );
        let (gateway, keeping) = started.await?;
        let gateway = gateway.with_realtime();
        let address = listener.local_addr()?;
        say_how_to_try(address, &config)?;
        if let Some((queues, queue_listener)) = queues {
            say_how_to_queue(queue_listener.local_addr()?, &config)?;
            queues.start(queue_listener, address);
        }
        if config.backends.iter().any(|b| b.resource_id.is_some()) || config.live.is_some() {
            tokio::spawn(timer::keep(address));
        }
        serve_until_asked(gateway, listener, keeping, Starter::Other, asked).await
    })
}

/// The embedded queues, where the configuration names no other, and where they listen: at the address
/// that it names, else on `port`.
async fn queues(config: &mut Config, port: u16) -> io::Result<Option<(Queues, TcpListener)>> {
    let folder = match &config.storage.tables {
        Some(StoragePlace::Embedded(folder)) => folder.clone(),
        _ => DATA.into(),
    };
    let address = match &config.batch {
        Some(batch) if !batch.namespace.is_loopback() => {
            tracing::warn!(namespace = %batch.namespace, "batch messages are sent there, but only the Functions host can hand them over");
            return Ok(None);
        }
        Some(batch) => SocketAddr::from((Ipv4Addr::LOCALHOST, batch.namespace.port())),
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    };
    let listener = bind(address).await?;
    let namespace = format!("http://{}", listener.local_addr()?);
    let namespace = namespace.parse().map_err(io::Error::other)?;
    let batch = config
        .batch
        .get_or_insert_with(|| Batch::new(namespace, "batch", &["results"]));
    let queues = Queues::open(&folder, batch)?;
    Ok(Some((queues, listener)))
}

/// A gateway with its store, and a thread that brings it what calls leave behind. What is `watched`
/// may have another configuration in place of `config`, if that `may_serve`. `counts` counts the batch
/// queue's messages where that is not Service Bus.
async fn start(
    place: Place,
    mut config: Config,
    watched: Option<(Written, Option<PathBuf>)>,
    counts: Option<Arc<dyn Counts>>,
    trigger: Trigger,
    may_serve: impl Fn(&Config) -> io::Result<()>,
) -> io::Result<(Gateway, Keeping)> {
    let blobs = open_blobs(place, &config.storage)?;
    let watcher =
        watched.and_then(|(written, file)| live::watcher(&config, written, file, blobs.as_ref()));
    let watcher = match watcher {
        Some(mut watcher) => {
            let may_serve = |config: &Config| may_serve(config).map_err(|why| why.to_string());
            if let Some(begun) = watcher.begin(may_serve).await {
                let batch = match place {
                    Place::Local => config.batch,
                    Place::Azure => begun.batch,
                };
                let storage = config.storage;
                config = Config {
                    batch,
                    storage,
                    ..begun
                };
            }
            Some(watcher)
        }
        None => None,
    };
    let config = &config;
    let store = open_store(place, &config.storage)?;
    if store.is_none() {
        tracing::warn!(
            "no storage.tables: usage events are only logged, owners of stored objects are only in memory"
        );
    }
    let (mut gateway, inbox) = Gateway::at(place, config, store.clone())?;
    let ledger = store.clone().map(|store| gateway.ledger(store));
    let ledger = ledger.map(Arc::new);
    let keeping = keep(place, config, inbox, store.clone(), ledger.clone())?;
    gateway = gateway.charging_by(keeping.prices().clone());
    if let Some(blobs) = &blobs {
        gateway = gateway.with_blobs(config, blobs, store.as_ref());
    }
    if let Some(store) = &store {
        gateway = gateway.with_names(place, config, store)?;
    }
    if let (Some(batch), Some(store)) = (&config.batch, &store) {
        gateway = gateway.with_batch(place, batch, store, blobs.as_ref(), counts, trigger)?;
    }
    if let Some(store) = &store {
        gateway = gateway.with_reconciliation(place, config, store)?;
    }
    if let (Some(store), Trigger::Invoked) = (&store, trigger) {
        gateway = gateway.with_utilization(place, config, store)?;
    }
    if let (Trigger::Invoked, Some(ledger)) = (trigger, ledger) {
        gateway = gateway.with_consumer(Consumer::new(config, ledger));
    }
    if let Some(watcher) = watcher {
        gateway = gateway.watching(watcher);
    }
    Ok((gateway, keeping))
}

fn say_how_to_queue(address: SocketAddr, config: &Config) -> io::Result<()> {
    let Some(batch) = &config.batch else {
        return Ok(());
    };
    let replies = batch.reply_queues.first().map_or("results", String::as_str);
    let mut out = io::stdout();
    writeln!(
        out,
        "batch: POST http://{address}/{}/messages, DELETE http://{address}/{replies}/messages/head (docs/batch.md)",
        batch.queue
    )?;
    out.flush()
}

fn say_how_to_try(address: SocketAddr, config: &Config) -> io::Result<()> {
    let deployments = config
        .backends
        .iter()
        .flat_map(|backend| &backend.deployments);
    let model = deployments
        .map(spillway::config::Deployment::model)
        .next()
        .unwrap_or("gpt-4o");
    let mut out = io::stdout();
    writeln!(
        out,
        "curl http://{address}/v1/chat/completions -H 'content-type: application/json' -H 'api-key: local' -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    )?;
    writeln!(
        out,
        "python: OpenAI(base_url=\"http://{address}/v1\", api_key=\"local\").chat.completions.create(model=\"{model}\", messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}])"
    )?;
    writeln!(out, "console: http://{address}/spillway/")?;
    out.flush()
}

fn check(args: &CheckArgs) -> io::Result<()> {
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

fn propose(args: DiscoverArgs) -> io::Result<()> {
    run(async move {
        let text = discover(args.manager, &args.resources).await?;
        io::stdout().write_all(text.as_bytes())
    })
}

/// The configuration is checked for its mistakes, but not for its references: the variables are
/// app settings, which this machine does not have.
fn write_package(args: &PackageArgs) -> io::Result<()> {
    let source = Source::find(args.config.as_deref(), &env);
    let (text, _) = source.read().map_err(io::Error::other)?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?,
    };
    package::write(&args.out, &binary, &text)
}

/// The key itself is written nowhere else: the configuration has its hash only.
fn make_key(app: &str) -> io::Result<()> {
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
fn compare(args: &DiffArgs) -> io::Result<bool> {
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

fn place_configuration(command: ConfigCommand) -> io::Result<()> {
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

/// Works on the blob that a configuration's `[live]` names. The file is read for its `[live]` and
/// `[storage]` only: this machine may not have the variables that the rest takes.
fn in_place<T>(
    named: Option<&Path>,
    work: impl AsyncFnOnce(command::Place) -> io::Result<T>,
) -> io::Result<T> {
    let (text, from) = Source::find(named, &env).read().map_err(io::Error::other)?;
    let (live, storage) = Config::place(&text, &from, &env).map_err(io::Error::other)?;
    let name = live.blob_name().map(str::to_owned);
    let name =
        name.ok_or_else(|| io::Error::other(format!("{from} names no blob: [live] blob")))?;
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

fn bill(args: BillArgs) -> io::Result<()> {
    let now = Clock::new().now();
    let span = Span {
        month: args.month.as_deref(),
        from: args.from.as_deref(),
        to: args.to.as_deref(),
    };
    let what = match (args.rows, args.spill, args.price_proposals) {
        (true, ..) => What::Calls,
        (_, true, _) => What::Spill,
        (.., true) => What::PriceProposals,
        _ => What::Bill,
    };
    let request = Request {
        period: Period::read(span, now).map_err(io::Error::other)?,
        app: args.app.map(Into::into),
        by: args.by,
        format: args.format,
        decimals: args.decimals,
        what,
    };
    run(async move {
        let billing = billing_of(args.config.as_deref(), args.data)?;
        let mut out = io::BufWriter::new(io::stdout());
        run_bill(&billing, request, now, &mut out).await
    })
}

fn billing_of(config: Option<&Path>, data: Option<PathBuf>) -> io::Result<Billing> {
    let (storage, config) = match (data, config) {
        (Some(folder), None) => {
            // The simulated PTUs of `spillway local` cost nothing.
            let storage = Storage {
                tables: Some(StoragePlace::Embedded(folder)),
                ..Storage::default()
            };
            (storage, None)
        }
        (data, config) => {
            let config = read(config)?;
            let mut storage = config.storage.clone();
            storage.tables = data.map(StoragePlace::Embedded).or(storage.tables);
            (storage, Some(config))
        }
    };
    let store = open_store(Place::Local, &storage)?;
    let store = store.ok_or_else(|| {
        io::Error::other("the configuration has no storage.tables: nothing is kept of calls")
    })?;
    Ok(match config {
        Some(config) => Billing::new(&config, store),
        None => Billing::without_ptus(store),
    })
}

fn run(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
