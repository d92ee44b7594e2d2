//! How fast the Event Hub function is: events a second and round trips, by store and batch size.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spillway::chargeback::{Consumer, Delivered};
use spillway::config::Config;
use spillway::gateway::event::{Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::time::Timestamp;
use spillway::store::azure_tables::AzureTables;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;
use spillway::store::{Answer, Key, Page, Range, Row, Store, Table, Write};

/// Events in a batch. The host hands over 100 at most, unless host.json says otherwise.
const BATCHES: [usize; 4] = [1, 10, 100, 1000];

/// Apps that the events of a batch are of, in turn.
const APPS: usize = 5;

/// One backend, whose model has a list price.
const CONFIG: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n";

/// A store that counts what is asked of it: each is a round trip.
#[derive(Debug)]
struct Counting {
    store: Arc<dyn Store>,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Store for Counting {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        self.reads.fetch_add(1, Relaxed);
        self.store.get(table, key)
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        self.reads.fetch_add(1, Relaxed);
        self.store.read(table, range)
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        self.writes.fetch_add(1, Relaxed);
        self.store.write(table, partition, writes)
    }
}

/// Measures both stores, `seconds` for each size of batch; a table of it.
pub(crate) fn run(azurite: &Path, port: u16, seconds: u64) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(azurite, port, Duration::from_secs(seconds)))
}

async fn measure(azurite: &Path, port: u16, time: Duration) -> io::Result<String> {
    let mut text = String::from(
        "| store | events a batch | events/s | reads a batch | transactions a batch | the same again: events/s |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let folder = tempfile::tempdir()?;
    let embedded = Arc::new(Embedded::open(folder.path())?);
    rows(&mut text, "embedded", embedded, time).await?;
    let running = Azurite::start(azurite, port)?;
    let url = format!("http://{}", running.address);
    let endpoint = url.parse().map_err(io::Error::other)?;
    let tables = AzureTables::emulator(&endpoint).map_err(io::Error::other)?;
    tables.make_tables().await.map_err(io::Error::other)?;
    rows(&mut text, "Azurite", Arc::new(tables), time).await?;
    Ok(text)
}

async fn rows(
    text: &mut String,
    name: &str,
    store: Arc<dyn Store>,
    time: Duration,
) -> io::Result<()> {
    let config = Config::parse(CONFIG, "the benchmark", &|_| None).map_err(io::Error::other)?;
    let store = Arc::new(Counting {
        store,
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
    });
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let consumer = Consumer::new(&config, Arc::new(ledger));
    let mut next = 0;
    for size in BATCHES {
        // The index and the first sums.
        take(&consumer, &batch(&mut next, APPS)).await?;
        store.reads.store(0, Relaxed);
        store.writes.store(0, Relaxed);
        let (mut batches, mut events) = (0_u32, 0_u32);
        let mut last = Vec::new();
        let (mut spent, mut again) = (Duration::ZERO, Duration::ZERO);
        while spent < time {
            last = batch(&mut next, size);
            let begun = Instant::now();
            take(&consumer, &last).await?;
            spent += begun.elapsed();
            batches += 1;
            events += u32::try_from(size).map_err(io::Error::other)?;
        }
        let (reads, writes) = (store.reads.load(Relaxed), store.writes.load(Relaxed));
        let mut repeated = 0_u32;
        while again < time / 4 {
            let begun = Instant::now();
            take(&consumer, &last).await?;
            again += begun.elapsed();
            repeated += u32::try_from(size).map_err(io::Error::other)?;
        }
        let a_batch =
            |count: u64| u32::try_from(count).map_or(f64::NAN, f64::from) / f64::from(batches);
        let _ = writeln!(
            text,
            "| {name} | {size} | {:.0} | {:.1} | {:.1} | {:.0} |",
            f64::from(events) / spent.as_secs_f64(),
            a_batch(reads),
            a_batch(writes),
            f64::from(repeated) / again.as_secs_f64(),
        );
    }
    Ok(())
}

async fn take(consumer: &Consumer, batch: &[Delivered]) -> io::Result<()> {
    let taken = consumer.take(batch).await.map_err(io::Error::other)?;
    if taken.rejected > 0 {
        return Err(io::Error::other("the benchmark's events are rejected"));
    }
    Ok(())
}

/// New events, of all apps in turn, as the relay writes them.
fn batch(next: &mut u64, size: usize) -> Vec<Delivered> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let event = |number: u64, app: usize| UsageEvent {
        id: format!("{number:026}"),
        time: Timestamp::from_unix_ms(ms),
        app: format!("app-{}", app % APPS).into(),
        model: "gpt-4o".into(),
        operation: "chat/completions".into(),
        backend: "a".into(),
        deployment: "gpt-4o".into(),
        kind: Some(Kind::Payg),
        status: 200,
        outcome: Outcome::Completed,
        usage: UsageSource::Reported,
        tokens: Tokens {
            input: 1000 + number % 1000,
            output: 100,
            ..Tokens::default()
        },
        first_byte_ms: 350,
        total_ms: 1900,
        ..UsageEvent::default()
    };
    let events = (0..size).map(|app| {
        *next += 1;
        let body = serde_json::to_vec(&event(*next, app)).unwrap_or_default();
        Delivered {
            body,
            ..Delivered::default()
        }
    });
    events.collect()
}

/// Microsoft's emulator, with its rows in memory; it ends with this.
struct Azurite {
    child: Child,
    address: SocketAddr,
}

impl Azurite {
    fn start(main: &Path, port: u16) -> io::Result<Self> {
        let main: PathBuf = main.canonicalize()?;
        let folder = std::env::temp_dir();
        let child = Command::new("node")
            .arg(main)
            .args(["--tableHost", "127.0.0.1", "--tablePort", &port.to_string()])
            .args(["--inMemoryPersistence", "--silent", "--disableTelemetry"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let running = Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        let begun = Instant::now();
        while TcpStream::connect(running.address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("Azurite does not listen"));
            }
            thread::sleep(Duration::from_millis(25));
        }
        Ok(running)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
