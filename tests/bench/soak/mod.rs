//! The soak: mixed traffic for minutes at 70 % of what the machine carries, with faults coming and
//! going, at one process of `spillway local` whose tables and blobs lie in Azurite. What clients got,
//! what backends served, rows and sums are held against each other at the end.
//!
//! `tests/soak/run` starts it; docs/soak.md says what has to hold.

mod audit;
mod backend;
mod batch;
mod faults;
mod plot;
mod reader;
mod store;
mod traffic;
mod verdict;
mod watch;
mod world;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::audit::{Books, counted, now};
use self::traffic::Clients;
use self::verdict::Check;
use self::world::World;
use crate::load::count;
use crate::say;

/// Of what the machine carries.
const SHARE: f64 = 0.7;

/// How long it is measured what the machine carries.
const MEASURED: Duration = Duration::from_secs(10);

/// Most rows in the whole soak. Azurite has them in memory, and reads a whole table for each query.
const MOST_ROWS: f64 = 150_000.0;

/// Longest wait for rows, replies and connections to settle.
const PATIENCE: Duration = Duration::from_secs(180);

/// By then connections of clients that have left are closed, and so are idle ones to backends.
const A_MOMENT: Duration = Duration::from_secs(12);

/// Descriptors above those before the soak that may be open after it: pools to backends and store.
const MORE_DESCRIPTORS: f64 = 16.0;

#[derive(Args)]
pub(crate) struct Soak {
    #[arg(long)]
    spillway: PathBuf,
    /// Azurite's services.
    #[arg(long, default_value = "tests/azurite/node_modules/azurite/dist/src")]
    azurite: PathBuf,
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Calls a second; absent: 70 % of what the machine carries.
    #[arg(long)]
    rate: Option<f64>,
    /// Where the plot is written.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Soaks; the report, and whether all holds.
pub(crate) fn run(args: &Soak) -> io::Result<(String, bool)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // On this thread: what it starts ends with it.
    runtime.block_on(soak(args))
}

async fn soak(args: &Soak) -> io::Result<(String, bool)> {
    let since = now();
    let mut world = World::start(args).await?;
    let burst = Clients::new(world.gateway, 0)?;
    let carried = carried(&world, &burst, since).await?;
    let before = burst.seen();
    let idle = world.settled(0.0, A_MOMENT).await?;
    let minutes = f64::from(args.minutes);
    let seconds = u64::from(args.minutes) * 60;
    let most = MOST_ROWS / (minutes * 60.0);
    let rate = args
        .rate
        .unwrap_or((SHARE * carried.calls.min(carried.rows)).min(most));
    say(&format!(
        "carries {:.0} calls/s and {:.0} rows/s; {rate:.1} calls/s for {minutes} minutes",
        carried.calls, carried.rows
    ));
    let bands = faults::plan(seconds);
    let clients = Clients::new(world.gateway, before.next)?;
    let run = world.run(&clients, rate, seconds, bands).await?;
    let mut seen = clients.seen();
    seen.join(before);
    let expected = u64::try_from(seen.got.len()).map_err(io::Error::other)?;
    let lag = world.wait_for_rows(since, expected, PATIENCE).await?;
    let metric = |name| run.reader.metric(name);
    let dropped = [
        metric("spillway_dropped_events_total").await?,
        metric("spillway_dropped_prompts_total").await?,
    ];
    let sent = *lock(&run.batch.sent);
    let unanswered = run.batch.without_one_reply()?;
    let bound = idle.descriptors + MORE_DESCRIPTORS;
    let after = world.settled(bound, PATIENCE).await?;
    let words = world.last_words();
    let ended = world.end()?;
    let books = Books::read(world.tables.as_ref()).await?;
    let reckoning = lock(&world.reckoning);
    let cut = seen.got.iter().filter(|got| got.is_cut).count();
    let length = f64::from(u32::try_from(seconds).unwrap_or(u32::MAX));
    let mut checks = vec![
        Check::none(
            "clients get a whole answer of their own, but for streams that a backend breaks off",
            &seen.wrong,
            &format!(
                "{} calls, {cut} of them streams that broke off",
                seen.got.len()
            ),
        ),
        Check::new(
            "a stream breaks off where a backend breaks it off, and nowhere else",
            u64::try_from(cut).is_ok_and(|cut| cut == reckoning.cut),
            format!("{cut} at clients, {} at backends", reckoning.cut),
        ),
        Check::none(
            "each answer has one row, with its tokens, and each row its answer",
            &books.against_clients(&seen.got),
            &format!(
                "{} rows; the last ones {:.1} s after the end",
                books.rows(),
                lag.as_secs_f64()
            ),
        ),
        Check::none(
            "rows are what backends served, by app: calls, tokens",
            &books.against_backends(&reckoning.served),
            &format!("{:?}", reckoning.served),
        ),
        Check::none(
            "sums are those of their rows",
            &books.sums(),
            "calls, tokens and cost",
        ),
        Check::new(
            "no event and no prompt is dropped",
            dropped == [0.0, 0.0],
            format!("{} events, {} prompts", dropped[0], dropped[1]),
        ),
        Check::none(
            "replies are their messages' own",
            &lock(&run.batch.wrong),
            "all",
        ),
        Check::new(
            "each batch message has one reply",
            unanswered == (0, 0),
            format!(
                "{sent} sent, {} without a reply, {} with several",
                unanswered.0, unanswered.1
            ),
        ),
        Check::none(
            "the call that a reply names has its row",
            &books.against_replies(&lock(&run.batch.events)),
            "all",
        ),
        Check::none(
            "console, API, metrics and chargeback answer, with 503 at most while the store is away",
            &lock(&run.reader.wrong),
            &run.reader.found(),
        ),
        verdict::memory(&run.samples, length),
        Check::new(
            "descriptors are closed when the clients have left",
            after.descriptors <= bound,
            format!(
                "{} before, {} after, at most {bound}",
                idle.descriptors, after.descriptors
            ),
        ),
        verdict::flat("threads stay", &run.samples, length, |at| at.vitals.threads),
        Check::new(
            "asked to end, it ends with 0",
            ended.is_ok(),
            ended.unwrap_or_else(|why| why),
        ),
    ];
    if verdict::is_long(length) {
        let descriptors = |at: &watch::Sample| at.vitals.descriptors;
        checks.push(verdict::flat(
            "descriptors stay",
            &run.samples,
            length,
            descriptors,
        ));
    }
    let holds = checks.iter().all(|check| check.holds);
    if !holds {
        say(&format!("what the gateway logged last:\n{words}"));
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&run.samples, &run.bands, length))?;
    }
    let text = format!(
        "Carried in a closed loop: {:.0} calls/s, {:.0} rows/s. Soaked with {rate:.1} calls/s of the clients for {minutes} minutes; \
         faults: {}; backends met {} calls with theirs.\n\n{}\n{}",
        carried.calls,
        carried.rows,
        faults::count(&run.bands),
        reckoning.faults,
        verdict::figures(&run.samples, length),
        verdict::table(&checks),
    );
    Ok((text, holds))
}

/// What the machine carries, a second.
struct Carried {
    /// Calls that are answered.
    calls: f64,
    /// Rows, with their sums, that are written.
    rows: f64,
}

/// Calls as fast as they are answered, and until all of them are in the sums.
async fn carried(
    world: &World,
    clients: &Arc<Clients>,
    since: spillway::gateway::time::Timestamp,
) -> io::Result<Carried> {
    let begun = Instant::now();
    let calls = clients.closed_loop(MEASURED).await;
    let answered = begun.elapsed().as_secs_f64();
    world.wait_for_rows(since, calls, PATIENCE).await?;
    if counted(world.tables.as_ref(), since).await? < calls {
        return Err(io::Error::other("the rows of the measurement don't come"));
    }
    let calls = count(usize::try_from(calls).map_err(io::Error::other)?);
    Ok(Carried {
        calls: calls / answered,
        rows: calls / begun.elapsed().as_secs_f64(),
    })
}
