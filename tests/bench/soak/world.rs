//! What the soak consists of: backends, Azurite, the gateway, and those who call it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use spillway::gateway::time::Timestamp;
use spillway::store::Store;
use spillway::store::azure_tables::AzureTables;
use tokio::time::{Instant, sleep};

use super::audit::counted;
use super::backend::{Backend, Reckoning};
use super::batch::Batch;
use super::faults::{self, Band};
use super::reader::{ADMIN, Reader};
use super::store::{Service, free_address, listens};
use super::traffic::{APPS, Clients};
use super::watch::{self, Sample, Vitals, vitals};
use super::{PATIENCE, Soak};
use crate::process::{Launch, Process};

/// Batch messages beside each call of the clients.
const BATCH_SHARE: f64 = 0.02;

/// The longest that a page may take: it reads several ranges, each of which may wait for the store.
const TO_ANSWER: Duration = Duration::from_secs(180);

/// The longest that the gateway may take to end: calls have 15 s, events 8 s.
const TO_END: Duration = Duration::from_secs(40);

const CONFIG: &str = include_str!("spillway.toml");

/// Everything that runs.
pub(super) struct World {
    pub(super) gateway: SocketAddr,
    queues: SocketAddr,
    process: Process,
    backends: [Backend; 3],
    services: [Service; 2],
    /// The tables, past the door.
    pub(super) tables: Arc<dyn Store>,
    pub(super) reckoning: Arc<Mutex<Reckoning>>,
    _work: tempfile::TempDir,
}

/// What a soak has seen.
pub(super) struct Run {
    pub(super) samples: Vec<Sample>,
    pub(super) bands: Vec<Band>,
    pub(super) batch: Arc<Batch>,
    pub(super) reader: Arc<Reader>,
}

impl World {
    pub(super) async fn start(args: &Soak) -> io::Result<Self> {
        let work = tempfile::tempdir()?;
        let reckoning = Arc::default();
        let backends = [
            Backend::start(&reckoning).await?,
            Backend::start(&reckoning).await?,
            Backend::start(&reckoning).await?,
        ];
        let services = [
            Service::start(&args.azurite, "table", work.path()).await?,
            Service::start(&args.azurite, "blob", work.path()).await?,
        ];
        let endpoint = format!("http://{}", services[0].address);
        let endpoint = endpoint.parse().map_err(io::Error::other)?;
        let tables = AzureTables::emulator(&endpoint).map_err(io::Error::other)?;
        let (gateway, queues) = (free_address()?, free_address()?);
        let file = work.path().join("spillway.toml");
        std::fs::write(&file, config(&backends, &services, queues, work.path()))?;
        let launch = Launch::new(&args.spillway.canonicalize()?)
            .args(["local", "--config", &*file.to_string_lossy()])
            .args(["--port", &*gateway.port().to_string()])
            .env("RUST_LOG", "warn")
            .inside(work.path());
        let log = work.path().join("spillway.log");
        let mut process = Process::start(&[], &launch, &log)?;
        listens(gateway, &mut process).await?;
        Ok(Self {
            gateway,
            queues,
            process,
            backends,
            services,
            tables: Arc::new(tables),
            reckoning,
            _work: work,
        })
    }

    /// Traffic, faults and a look each second, for so long.
    pub(super) async fn run(
        &self,
        clients: &Arc<Clients>,
        rate: f64,
        seconds: u64,
        bands: Vec<Band>,
    ) -> io::Result<Run> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(seconds);
        let http = || {
            let client = reqwest::Client::builder().no_proxy().timeout(TO_ANSWER);
            client.build().map_err(io::Error::other)
        };
        let batch = Arc::new(Batch::new(http()?, self.queues));
        let reader = Arc::new(Reader::new(http()?, self.gateway, begin, bands.clone()));
        let calls = tokio::spawn(Arc::clone(clients).open_loop(rate, end));
        let sending = tokio::spawn(Arc::clone(&batch).send(rate * BATCH_SHARE, end));
        let receiving = tokio::spawn(Arc::clone(&batch).receive());
        let reading = tokio::spawn(Arc::clone(&reader).run(end));
        let (samples, ()) = tokio::try_join!(
            watch::run(self.process.id(), clients, begin, end),
            faults::run(&bands, begin, &self.backends, &self.services),
        )?;
        for task in [calls, sending, reading] {
            task.await?;
        }
        batch.settle(PATIENCE).await;
        batch.finish();
        receiving.await?;
        Ok(Run {
            samples,
            bands,
            batch,
            reader,
        })
    }

    /// Waits until the sums have these calls of the clients, `patience` at most; how long it took.
    pub(super) async fn wait_for_rows(
        &self,
        since: Timestamp,
        calls: u64,
        patience: Duration,
    ) -> io::Result<Duration> {
        let begun = Instant::now();
        while counted(self.tables.as_ref(), since).await? < calls && begun.elapsed() < patience {
            sleep(Duration::from_millis(500)).await;
        }
        Ok(begun.elapsed())
    }

    /// What the process holds once its descriptors are no more than this, or after `patience`.
    pub(super) async fn settled(&self, descriptors: f64, patience: Duration) -> io::Result<Vitals> {
        let begun = Instant::now();
        loop {
            let now = vitals(self.process.id())?;
            if now.descriptors <= descriptors || begun.elapsed() > patience {
                return Ok(now);
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Asks the gateway to end: `Err` where it does not, or not with 0.
    pub(super) fn end(&mut self) -> io::Result<Result<String, String>> {
        let begun = Instant::now();
        let status = self.process.ask_to_end(TO_END)?;
        let took = format!("after {:.1} s", begun.elapsed().as_secs_f64());
        Ok(match status {
            Some(status) if status.success() => Ok(took),
            Some(status) => Err(format!("{status} {took}")),
            None => Err(format!("it runs {took}")),
        })
    }

    /// What the gateway logged last.
    pub(super) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

fn config(
    backends: &[Backend; 3],
    services: &[Service; 2],
    queues: SocketAddr,
    work: &Path,
) -> String {
    let hash = |key: &str| -> String {
        let digest = Sha256::digest(key);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let [tables, blobs] = services;
    let [first, second, payg] = backends;
    let values = [
        ("tables", tables.door().to_string()),
        ("blobs", blobs.door().to_string()),
        ("queues", queues.to_string()),
        ("ptu-1", first.address.to_string()),
        ("ptu-2", second.address.to_string()),
        ("payg", payg.address.to_string()),
        ("admin", hash(ADMIN)),
        ("spool", work.join("spool").display().to_string()),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value));
    let keys = APPS.map(|app| (app.to_owned(), hash(app)));
    let values = values.iter().chain(&keys);
    values.fold(CONFIG.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}
