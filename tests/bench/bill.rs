//! The bill of a month of many calls: how long it takes, and in how much memory; and their export.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use spillway::config::Config;
use spillway::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::time::{DAY_MS, Timestamp};
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;

/// 2026-09-01T00:00:00.000Z: a month that is over.
const FIRST: Timestamp = Timestamp::from_unix_ms(1_788_220_800_000);
const DAYS: u64 = 30;

/// Calls that are handed over at once, for each app.
const CHUNK: u64 = 2000;

const CONFIG: &str = r#"
[auth]
mode = "off"
[storage]
tables = "embedded:${DATA}"
[[backend]]
name = "ptu-sweden"
endpoint = "http://127.0.0.1:1"
region = "swedencentral"
[[backend.deployment]]
name = "gpt-4o-ptu"
model = "gpt-4o"
kind = "ptu"
ptus = 300
[[backend.deployment]]
name = "gpt-4.1-ptu"
model = "gpt-4.1"
kind = "ptu"
ptus = 200
[[backend]]
name = "payg-sweden"
endpoint = "http://127.0.0.1:1"
region = "swedencentral"
[[backend.deployment]]
name = "gpt-4o"
kind = "payg"
[[backend.deployment]]
name = "gpt-4.1"
kind = "payg"
[[backend.deployment]]
name = "gpt-4.1-mini"
kind = "payg"
[[backend.deployment]]
name = "text-embedding-3-small"
kind = "payg"
"#;

/// Where calls go, in turn: deployment, model, kind.
const PLACES: [(&str, &str, &str, Kind); 6] = [
    ("ptu-sweden", "gpt-4o-ptu", "gpt-4o", Kind::Ptu),
    ("payg-sweden", "gpt-4o", "gpt-4o", Kind::Payg),
    ("ptu-sweden", "gpt-4.1-ptu", "gpt-4.1", Kind::Ptu),
    ("payg-sweden", "gpt-4.1", "gpt-4.1", Kind::Payg),
    ("payg-sweden", "gpt-4.1-mini", "gpt-4.1-mini", Kind::Payg),
    (
        "payg-sweden",
        "text-embedding-3-small",
        "text-embedding-3-small",
        Kind::Payg,
    ),
];

#[derive(Args)]
pub(crate) struct Bill {
    /// The program, a release build.
    #[arg(long)]
    spillway: PathBuf,
    /// Calls of the month.
    #[arg(long, default_value_t = 10_000_000)]
    calls: u64,
    /// Apps that make them.
    #[arg(long, default_value_t = 20)]
    apps: u64,
    /// The folder of the store; where it is there already, nothing is written to it.
    #[arg(long)]
    data: PathBuf,
    /// The export too, which reads each call.
    #[arg(long)]
    export: bool,
}

/// Writes the month, where it is not there yet, and makes its bill.
pub(crate) fn run(args: &Bill) -> io::Result<()> {
    let mut out = io::stdout();
    let data = args.data.to_string_lossy();
    let text = CONFIG.replace("${DATA}", &data);
    if !args.data.exists() {
        let begun = Instant::now();
        let runtime = tokio::runtime::Runtime::new()?;
        let rows = runtime.block_on(write(args, &text))?;
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(
            out,
            "{rows} calls of {} apps in {DAYS} days written in {seconds:.0} s",
            args.apps
        )?;
    }
    let bytes = std::fs::metadata(args.data.join("spillway.redb"))?.len();
    writeln!(out, "the store has {} MB", bytes / 1_000_000)?;
    let config = args.data.join("spillway.toml");
    std::fs::write(&config, &text)?;
    let mut asked: Vec<(&str, &[&str])> = vec![
        ("bill by app", &["--by", "app"]),
        (
            "bill by app, model, kind and day",
            &["--by", "app,model,kind,day", "--format", "csv"],
        ),
        ("bill of one app", &["--app", "app-03", "--by", "model"]),
    ];
    if args.export {
        asked.push(("all calls as CSV", &["--rows", "--format", "csv"]));
    }
    for (what, more) in asked {
        let measured = measured(&args.spillway, &config, more)?;
        writeln!(
            out,
            "{what}: {:.2} s, {:.0} MB at most, {} bytes written",
            measured.took.as_secs_f64(),
            measured.peak_kib / 1024.0,
            measured.bytes
        )?;
    }
    Ok(())
}

async fn write(args: &Bill, config: &str) -> io::Result<u64> {
    let config = Config::parse(config, "bench", &|_| None).map_err(io::Error::other)?;
    let prices = config.prices();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&args.data)?);
    let ledger = Ledger::new(store);
    let charging = |event: &UsageEvent| prices.charge(event);
    let per_app_day = args.calls / (args.apps * DAYS);
    let mut written = 0;
    for day in 0..DAYS {
        let mut done = 0;
        while done < per_app_day {
            let count = CHUNK.min(per_app_day - done);
            let events: Vec<UsageEvent> = (0..args.apps)
                .flat_map(|app| (done..done + count).map(move |n| call(app, day, n, per_app_day)))
                .collect();
            let events: Vec<&UsageEvent> = events.iter().collect();
            let recorded = ledger.record(&events, &charging).await;
            let recorded = recorded.map_err(io::Error::other)?;
            written += u64::try_from(recorded.counted.len()).map_err(io::Error::other)?;
            done += count;
        }
        crate::say(&format!("day {} of {DAYS}", day + 1));
    }
    Ok(written)
}

/// Call number `n` of an app's day, spread over it evenly.
fn call(app: u64, day: u64, n: u64, of: u64) -> UsageEvent {
    let time = FIRST.plus_ms(day * DAY_MS + n * DAY_MS / of);
    let turn = usize::try_from(n).unwrap_or_default();
    let [first, ..] = PLACES;
    let place = PLACES.get(turn % PLACES.len()).copied();
    let (backend, deployment, model, kind) = place.unwrap_or(first);
    UsageEvent {
        id: format!("{:012x}{app:04x}{n:08x}", time.unix_ms()),
        time,
        app: format!("app-{app:02}").into(),
        user: format!("00000000-0000-0000-0000-{:012}", n % 50).into(),
        model: model.into(),
        operation: "chat/completions".into(),
        backend: backend.into(),
        deployment: deployment.into(),
        kind: Some(kind),
        region: "swedencentral".into(),
        status: 200,
        streamed: true,
        spilled: kind == Kind::Payg && n.is_multiple_of(7),
        outcome: Outcome::Completed,
        tokens: Tokens {
            input: 500 + n % 1500,
            cached: n % 400,
            output: 50 + n % 450,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        first_byte_ms: 180,
        total_ms: 2400,
        attempts: vec![Attempt {
            backend: backend.into(),
            deployment: deployment.into(),
            kind,
            status: Some(200),
            error: None,
            after_ms: 0,
            ms: 180,
            billed: true,
        }],
        ..UsageEvent::default()
    }
}

struct Measured {
    took: Duration,
    peak_kib: f64,
    bytes: u64,
}

/// Runs the command to its end; its peak memory is read while it runs.
fn measured(program: &Path, config: &Path, more: &[&str]) -> io::Result<Measured> {
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(["bill", "--month", "2026-09", "--config"])
        .arg(config)
        .args(more)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut written = child
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("no output"))?;
    let reader = std::thread::spawn(move || io::copy(&mut written, &mut io::sink()));
    let mut peak_kib = 0.0;
    while child.try_wait()?.is_none() {
        peak_kib = peak(&child).unwrap_or(peak_kib);
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    let bytes = reader
        .join()
        .map_err(|_| io::Error::other("the reader broke"))??;
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "spillway bill ended with {status}"
        )));
    }
    Ok(Measured {
        took,
        peak_kib,
        bytes,
    })
}

/// The most memory that it has had so far, KiB (Linux, proc(5): `VmHWM`).
fn peak(child: &Child) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
