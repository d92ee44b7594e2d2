//! What can be said on the command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use spillway::billing::command::DECIMALS;
use spillway::billing::render::Format;
use spillway::config::{Endpoint, Pacing, ResourceId};
use spillway::discover::PUBLIC_CLOUD;
use spillway::gateway::bill::By;
use spillway::local::simulation::Latency;

/// An Azure OpenAI gateway that is a set of Azure Functions.
#[derive(Parser)]
#[command(name = "spillway", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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
pub(crate) struct DiffArgs {
    /// The configuration before; where it is the only one: after, and the blob's before.
    pub(crate) file: PathBuf,
    /// The configuration after.
    pub(crate) other: Option<PathBuf>,
    /// The file that names the blob, where one is compared with it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
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
pub(crate) enum KeyCommand {
    /// Makes a key for an app, shows it once, and says what to put into the configuration.
    New {
        /// The app's name.
        app: String,
    },
}

#[derive(Args, Default)]
pub(crate) struct ServeArgs {
    /// Address to listen on; 0.0.0.0 outside the Functions host.
    #[arg(long)]
    pub(crate) host: Option<Ipv4Addr>,
    /// Port; default: what FUNCTIONS_CUSTOMHANDLER_PORT says, else 8080.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The configuration's file.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct LocalArgs {
    /// Port of the gateway.
    #[arg(long, default_value_t = 7071)]
    pub(crate) port: u16,
    /// A configuration that names real deployments.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The folder in which usage events and owners are kept; default: what the configuration
    /// says, else `.spillway`.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Port of the batch queue, where the configuration names none on this machine; default: the
    /// gateway's and one more.
    #[arg(long)]
    pub(crate) queue_port: Option<u16>,
    /// Milliseconds to the first token of a simulated answer, and a fifteenth of it for each
    /// further one; 0: no waiting.
    #[arg(long, default_value_t = Latency::SMALL_MODEL.first_token_ms)]
    pub(crate) latency_ms: u64,
    /// Most low-priority calls of a model at once on the simulated PTU deployment.
    #[arg(long, default_value_t = Pacing::default().slots, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slots: u32,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The configuration's file.
    pub(crate) file: Option<PathBuf>,
    /// Prints the JSON Schema of the configuration instead.
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Args)]
pub(crate) struct DiscoverArgs {
    /// Ids of Azure OpenAI resources:
    /// /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.CognitiveServices/accounts/NAME
    #[arg(required = true, value_name = "RESOURCE_ID")]
    pub(crate) resources: Vec<ResourceId>,
    /// Azure Resource Manager; another one for another cloud than the public one.
    #[arg(long, default_value = PUBLIC_CLOUD)]
    pub(crate) manager: Endpoint,
}

#[derive(Args)]
pub(crate) struct PackageArgs {
    /// The folder to write; new or empty.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The configuration to put in.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The handler to put in, where it was built for another system than this one; default: this
    /// program.
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct BillArgs {
    /// The month, for example 2026-11; default: this one.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) month: Option<String>,
    /// The first day, for example 2026-11-01.
    #[arg(long, requires = "to")]
    pub(crate) from: Option<String>,
    /// The last day.
    #[arg(long, requires = "from")]
    pub(crate) to: Option<String>,
    /// Only this app.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// What the bill is broken down by, in this order: app, model, backend, kind, day, user. The
    /// last one reads each call.
    #[arg(long, value_delimiter = ',', default_value = "app")]
    pub(crate) by: Vec<By>,
    /// table, csv or json.
    #[arg(long, default_value = "table")]
    pub(crate) format: Format,
    /// Digits after the point of a table's amounts.
    #[arg(long, default_value_t = DECIMALS, value_parser = clap::value_parser!(u32).range(0..=12))]
    pub(crate) decimals: u32,
    /// The calls themselves instead, one by one; csv or json.
    #[arg(long, conflicts_with = "spill")]
    pub(crate) rows: bool,
    /// Instead, what spilling cost, and which apps had filled the PTU in that minute. Reads each call.
    #[arg(long)]
    pub(crate) spill: bool,
    /// Instead, where Azure's list prices differ from the list, as found by the last daily look.
    #[arg(long, conflicts_with_all = ["rows", "spill"])]
    pub(crate) price_proposals: bool,
    /// The configuration's file: it says where calls are kept, and what PTUs cost.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The folder in which `spillway local` keeps them; no configuration is needed then.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}
