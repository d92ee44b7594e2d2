//! The benchmark: Spillway beside nginx, Envoy and `LiteLLM`, all in front of the same backend,
//! in one run. `tests/bench/run` installs what it takes and calls it.

mod apps;
mod bare;
mod bill;
mod cache;
mod callgrind;
mod canned;
mod chargeback;
mod dump;
mod footprint;
mod growth;
mod http;
mod load;
mod machine;
mod measure;
mod mock;
mod pacing;
mod peers;
mod process;
mod report;
mod results;
mod scene;
mod soak;
mod spill;
mod stream;
mod syscalls;
mod tenant;
mod wrk;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::machine::Machine;
use self::measure::{Bench, Pace, Part};
use self::mock::{Behaviour, Mock};
use self::peers::{Place, Programs, Who};
use self::results::Results;

/// As Spillway's: what the libraries take by themselves ([`bare`]) is to differ from it in nothing else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures and prints the tables.
    Measure(Measure),
    /// Counts the instructions of a call.
    Callgrind(Counted),
    /// Counts the instructions of a call where there are many backends and apps.
    Growth(Counted),
    /// Counts the system calls of a call.
    Syscalls(Counted),
    /// Holds streams open and looks at what they take.
    Held {
        #[command(flatten)]
        counted: Counted,
        /// Streams.
        #[arg(long, default_value_t = 5000)]
        streams: usize,
    },
    /// Runs the scene of pacing in simulated time and prints its table.
    Pacing {
        /// What is random goes by this.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where the plot is written.
        #[arg(long)]
        plot: Option<PathBuf>,
    },
    /// Runs the scene of pacing in real time and prints its tables.
    Scene(scene::Scene),
    /// Mixed traffic for minutes, with faults, and all accounts settled at the end.
    Soak(soak::Soak),
    /// Writes a month of calls into an embedded store and makes its bill.
    Bill(bill::Bill),
    /// Measures how fast usage events become rows and sums.
    Chargeback {
        /// Azurite's table service.
        #[arg(
            long,
            default_value = "tests/azurite/node_modules/azurite/dist/src/table/main.js"
        )]
        azurite: PathBuf,
        #[arg(long, default_value_t = 18000)]
        port: u16,
        /// Seconds for each size of batch.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Passes calls on by the libraries alone: a peer that the parts start.
    Bare {
        #[arg(long)]
        port: u16,
        /// Where they go.
        backend: SocketAddr,
    },
    /// Serves the backend alone, for a look by hand.
    Mock {
        #[arg(long, default_value_t = 18000)]
        port: u16,
        /// Chunks of a stream, which come without a pause.
        #[arg(long, default_value_t = 100)]
        chunks: u32,
    },
}

#[derive(Args)]
struct Counted {
    /// The program; for callgrind one with its names in it.
    #[arg(long)]
    spillway: PathBuf,
    /// Calls counted.
    #[arg(long, default_value_t = 2000)]
    calls: u32,
    #[arg(long, default_value_t = 18000)]
    port: u16,
}

#[derive(Args)]
struct Measure {
    #[command(flatten)]
    programs: Programs,
    /// A short run that shows that everything works.
    #[arg(long)]
    quick: bool,
    /// Rounds; absent: 3, and 1 for a quick run.
    #[arg(long)]
    rounds: Option<usize>,
    /// Measures these parts only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measures these peers only.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Who>,
    /// The first of some 50 ports.
    #[arg(long, default_value_t = 18000)]
    port: u16,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Measure(args) => measure(args),
        Command::Callgrind(args) => alone(&args, |place, backend| {
            callgrind::run(place, backend, args.calls)
        }),
        Command::Growth(args) => alone(&args, |place, backend| {
            growth::run(place, backend, args.calls)
        }),
        Command::Syscalls(args) => alone(&args, |place, backend| {
            syscalls::run(place, backend, args.calls)
        }),
        Command::Held { counted, streams } => alone(&counted, |place, backend| {
            footprint::held(place, backend, streams)
        }),
        Command::Pacing { seed, plot } => pacing::run(seed, plot.as_deref())
            .and_then(|table| io::stdout().write_all(table.as_bytes()))
            .map(|()| ExitCode::SUCCESS),
        Command::Scene(args) => scene::run(&args)
            .and_then(|text| io::stdout().write_all(text.as_bytes()))
            .map(|()| ExitCode::SUCCESS),
        Command::Soak(args) => soak::run(&args).and_then(|(text, holds)| {
            io::stdout().write_all(text.as_bytes())?;
            Ok(if holds {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }),
        Command::Bill(args) => bill::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Chargeback {
            azurite,
            port,
            seconds,
        } => chargeback::run(&azurite, port, seconds).and_then(|text| {
            io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Bare { port, backend } => bare::serve(port, backend).map(|()| ExitCode::SUCCESS),
        Command::Mock { port, chunks } => Mock::start(port).map(|mock| {
            mock.play(Behaviour {
                chunks,
                ..Behaviour::default()
            });
            say(&format!("the backend listens on {}", mock.address));
            mock::serve_forever()
        }),
    };
    done.unwrap_or_else(|error| {
        say(&format!("broken: {error}"));
        ExitCode::FAILURE
    })
}

fn say(text: &str) {
    // Nobody is left to be told where this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

fn measure(args: Measure) -> io::Result<ExitCode> {
    let work = tempfile::tempdir()?;
    let (backend, ptu) = (Mock::start(args.port)?, Mock::start(args.port + 1)?);
    let place = Place {
        programs: args.programs,
        work: work.path().to_owned(),
        port: args.port,
        backend: backend.address,
        ptu: ptu.address,
    };
    let wanted = |who: &Who| args.peers.is_empty() || args.peers.contains(who);
    let mut missing = Vec::new();
    let mut peers = Vec::new();
    for who in Who::ALL.into_iter().filter(wanted) {
        match place.has(who) {
            Ok(()) => peers.push(who),
            Err(why) => missing.push(format!("{who} was not measured: {why}.")),
        }
    }
    let mut pace = if args.quick { Pace::QUICK } else { Pace::FULL };
    pace.rounds = args.rounds.unwrap_or(pace.rounds).max(1);
    let all = [
        Part::Process,
        Part::Throughput,
        Part::Latency,
        Part::Streams,
        Part::Spill,
        Part::Apps,
        Part::Cache,
    ];
    let parts = if args.only.is_empty() {
        all.to_vec()
    } else {
        args.only
    };
    let mut bench = Bench {
        place,
        pace,
        peers,
        backend,
        ptu,
        results: Results::default(),
        broken: Vec::new(),
        say,
    };
    let machine = Machine::now()?;
    bench.run(&parts)?;
    let others = machine.taken_by_others()?;
    let mut out = io::stdout();
    writeln!(
        out,
        "Median of {} rounds (lowest to highest). Everything else on the machine took {others:.0} % \
         of its CPU time meanwhile.\n\n{}\n{}",
        pace.rounds,
        report::figures(&bench.results),
        report::goals(&bench.results)
    )?;
    for line in missing.iter().chain(&bench.broken) {
        writeln!(out, "{line}")?;
    }
    Ok(if bench.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a part in which there is Spillway only, in front of one backend, and prints what it found.
fn alone(
    args: &Counted,
    part: impl FnOnce(&Place, &Mock) -> io::Result<String>,
) -> io::Result<ExitCode> {
    let work = tempfile::tempdir()?;
    let backend = Mock::start(args.port)?;
    let place = Place {
        programs: Programs {
            spillway: args.spillway.clone(),
            nginx: None,
            envoy: None,
            litellm: None,
        },
        work: work.path().to_owned(),
        port: args.port,
        backend: backend.address,
        ptu: backend.address,
    };
    let text = part(&place, &backend)?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
