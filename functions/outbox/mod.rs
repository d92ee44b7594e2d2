//! Brings usage events out of the relay: to the Event Hub, or into the chargeback table.
//!
//! Events gather for a moment and go to the hub, where there is one. While it can't be reached they
//! are written to the table, by the same code as the hub's consumer, which counts each once whichever
//! way it comes, and also where it comes both ways. While that can't be reached either, they wait in
//! files ([`spool`]). Where `[chargeback] durable` is set, they go to the files first, before the end
//! of the call's answer.

pub mod recorder;
pub mod spool;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::recorder::{Events, Queued};
use self::spool::Spool;
use crate::azure::event_hub::{EventHub, MAX_BYTES, MAX_EVENTS, NotSent};
use crate::config::{Config, StoragePlace};
use crate::current::Current;
use crate::gateway::event::UsageEvent;
use crate::gateway::price::Prices;
use crate::host::clock::Clock;
use crate::store::StoreError;
use crate::store::ledger::Ledger;
use crate::store::rejects::{self, Reject, digest};
use crate::telemetry::Queue;

/// Most events that are taken from the queue at once.
const MAX_BATCH: usize = 5000;

/// Longest that events wait in memory for their delivery, after they gathered; then they wait in a
/// file. With the time of gathering it is what a process that is killed may lose.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pauses between attempts to send to the hub; after the last the table is next.
const HUB_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

/// How long a hub that could not be reached is left alone.
const HUB_REST: Duration = Duration::from_secs(5);

/// The shortest and longest pause before files are delivered again.
const DRAIN_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Longest that one attempt to deliver a file's events may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// How the outbox goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long events gather.
    pub gather: Duration,
    /// Whether events go to a file first.
    pub is_durable: bool,
    /// The folder of the files; `None`: events wait in memory only.
    pub spool: Option<PathBuf>,
    /// Most bytes of the files.
    pub spool_bytes: u64,
}

impl Settings {
    /// What a configuration says.
    pub fn new(config: &Config) -> Self {
        let chargeback = &config.chargeback;
        Self {
            gather: Duration::from_millis(chargeback.gather_ms),
            is_durable: chargeback.durable,
            spool: folder(config),
            spool_bytes: chargeback.spool_mb.saturating_mul(1 << 20),
        }
    }
}

/// The files' folder. Without one of the configuration's own it depends on where events go, so that
/// no other gateway on this machine delivers them elsewhere.
fn folder(config: &Config) -> Option<PathBuf> {
    let chargeback = &config.chargeback;
    if chargeback.spool.is_some() {
        return chargeback.spool.clone();
    }
    let tables = match (&config.storage.tables, &chargeback.event_hub) {
        (Some(StoragePlace::Embedded(folder)), _) => return Some(folder.join("spool")),
        (None, None) => return None,
        (Some(StoragePlace::Account(endpoint) | StoragePlace::Emulator(endpoint)), _) => {
            endpoint.to_string()
        }
        (None, Some(_)) => String::new(),
    };
    let hub = chargeback.event_hub.as_ref().map(ToString::to_string);
    let name = digest(&[tables.as_bytes(), hub.unwrap_or_default().as_bytes()]);
    Some(std::env::temp_dir().join(format!("spillway-{name}")))
}

/// The files in `folder`. Where they can't be used that is said and done without, unless events are to be
/// in a file before anything else.
fn open_spool(folder: &Path, settings: &Settings) -> io::Result<Option<Mutex<Spool>>> {
    let error = match Spool::open(folder, settings.spool_bytes) {
        Ok(spool) => return Ok(Some(Mutex::new(spool))),
        Err(error) => error,
    };
    let folder = folder.display();
    if settings.is_durable {
        return Err(io::Error::other(format!(
            "[chargeback] durable = true, and the folder for usage events, {folder}, can't be used: {error}; name one that can be written to in [chargeback] spool"
        )));
    }
    tracing::error!(
        %error,
        %folder,
        "no files for usage events: those that can't be delivered wait in memory"
    );
    Ok(None)
}

/// Where events go.
#[derive(Debug)]
pub struct Ways {
    /// The hub.
    pub hub: Option<EventHub>,
    /// The table.
    pub ledger: Option<Arc<Ledger>>,
    /// What calls cost, where the table is written.
    pub prices: Current<Prices>,
    /// Where they are traced, after that.
    pub traces: Option<Queue>,
}

/// Why events were not delivered.
#[derive(Debug)]
enum Undelivered {
    Hub(NotSent),
    Table(StoreError),
}

impl std::fmt::Display for Undelivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub(error) => write!(f, "the hub: {error}"),
            Self::Table(error) => write!(f, "the table: {error}"),
        }
    }
}

/// Delivers events until it is asked to stop.
#[derive(Debug)]
pub struct Outbox {
    ways: Ways,
    settings: Settings,
    spool: Option<Mutex<Spool>>,
    /// When the hub is asked again.
    hub_rests: Mutex<Option<Instant>>,
    clock: Clock,
}

impl Outbox {
    /// An outbox. A spool that can't be opened is said and done without.
    ///
    /// # Errors
    /// When it can't be opened, and events are to be in a file before anything else.
    pub fn new(ways: Ways, settings: Settings) -> io::Result<Self> {
        let has_way = ways.hub.is_some() || ways.ledger.is_some();
        let folder = settings.spool.as_deref().filter(|_| has_way);
        let spool = match folder {
            Some(folder) => open_spool(folder, &settings)?,
            None => None,
        };
        Ok(Self {
            spool,
            ways,
            settings,
            hub_rests: Mutex::new(None),
            clock: Clock::new(),
        })
    }

    /// Delivers events until the last recorder is gone, or `stop` says so. Then all that has come
    /// is delivered, or in a file, when this returns; it takes some seconds at most.
    pub async fn run(self, mut events: Events, mut stop: watch::Receiver<bool>) {
        let pump = async {
            self.pump(&mut events, &mut stop).await;
            self.finish(&mut events).await;
        };
        tokio::select! {
            () = pump => {}
            () = self.drain() => {}
        }
    }

    async fn pump(&self, events: &mut Events, stop: &mut watch::Receiver<bool>) {
        let is_first = self.settings.is_durable && self.spool.is_some();
        let gather = if is_first {
            Duration::ZERO
        } else {
            self.settings.gather
        };
        let mut batch = Vec::new();
        loop {
            let goes_on = tokio::select! {
                goes_on = events.next_batch(&mut batch, MAX_BATCH, gather) => goes_on,
                // An error: nobody is left who could ask.
                _ = stop.wait_for(|stop| *stop) => false,
            };
            self.take(&mut batch, events).await;
            if !goes_on {
                return;
            }
        }
    }

    async fn finish(&self, events: &mut Events) {
        let mut batch = Vec::new();
        events.take(&mut batch, usize::MAX);
        self.take(&mut batch, events).await;
        if let Some(spool) = &self.spool {
            // What can't be delivered now stays in its files.
            let _ = timeout(PATIENCE, self.deliver_files(spool, &mut 0)).await;
        }
    }

    /// Delivers a batch, or puts it into a file.
    async fn take(&self, batch: &mut Vec<Queued>, events: &Events) {
        batch.iter().for_each(|queued| log(&queued.event));
        let all: Vec<&UsageEvent> = batch.iter().map(|queued| &*queued.event).collect();
        if all.is_empty() {
            return;
        }
        match &self.spool {
            None => self.insist(&all).await,
            Some(spool) => self.deliver_or_spool(spool, &all, events).await,
        }
        for queued in batch.drain(..) {
            if let Some(lasts) = queued.lasts {
                // The call may have lost its client.
                let _ = lasts.send(());
            }
            if let Some(traces) = &self.ways.traces {
                traces.offer(queued.event);
            }
        }
    }

    async fn deliver_or_spool(&self, spool: &Mutex<Spool>, all: &[&UsageEvent], events: &Events) {
        let mut why = None;
        // Where others wait already, something is wrong that need not be found out again.
        if !self.settings.is_durable && lock(spool).is_empty() {
            why = match timeout(PATIENCE, self.deliver(all)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("their delivery is slow".to_owned()),
            };
        }
        let appended = lock(spool).append(all.iter().copied());
        if let Some(why) = why {
            tracing::error!(why, "usage events wait in a file");
        }
        let left = match appended {
            Ok(fitted) => all.get(fitted..).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "usage events can't be put into a file");
                all
            }
        };
        if !left.is_empty() && !matches!(timeout(PATIENCE, self.deliver(left)).await, Ok(Ok(()))) {
            events.lost(left.len());
        }
    }

    /// Tries until it works: there are no files to wait in.
    async fn insist(&self, all: &[&UsageEvent]) {
        let (mut pause, longest) = DRAIN_PAUSE;
        while let Err(error) = self.deliver(all).await {
            tracing::error!(%error, "usage events can't be delivered; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Delivers what is in files, again and again.
    async fn drain(&self) {
        let Some(spool) = &self.spool else {
            return std::future::pending().await;
        };
        let (shortest, longest) = DRAIN_PAUSE;
        let mut pause = shortest;
        loop {
            tokio::time::sleep(pause).await;
            let mut delivered = 0;
            pause = match self.deliver_files(spool, &mut delivered).await {
                Ok(()) => shortest,
                Err(why) => {
                    tracing::error!(why, "usage events go on waiting in files");
                    if delivered > 0 {
                        shortest
                    } else {
                        (pause * 2).min(longest)
                    }
                }
            };
        }
    }

    /// Delivers what is in files, counting the events in `delivered`, until that fails.
    async fn deliver_files(
        &self,
        spool: &Mutex<Spool>,
        delivered: &mut usize,
    ) -> Result<(), String> {
        loop {
            let oldest = lock(spool).oldest().map_err(|error| error.to_string())?;
            let Some((path, batch)) = oldest else {
                return Ok(());
            };
            if batch.torn > 0 {
                let (torn, file) = (batch.torn, path.display());
                tracing::error!(torn, %file, "usage events were torn, by a crash while they were written");
            }
            let mut so_far = batch.delivered;
            let left: Vec<&UsageEvent> = batch.events.iter().skip(so_far).collect();
            for part in left.chunks(MAX_EVENTS) {
                let done = timeout(DRAIN_PATIENCE, self.deliver(part)).await;
                let done = done.map_err(|_| "their delivery is slow".to_owned())?;
                done.map_err(|error| error.to_string())?;
                so_far += part.len();
                *delivered += part.len();
                lock(spool).note(&path, so_far);
            }
            lock(spool)
                .delivered(&path)
                .map_err(|error| error.to_string())?;
        }
    }

    /// Delivers events by one of the ways. Without any, nothing is to be done.
    async fn deliver(&self, events: &[&UsageEvent]) -> Result<(), Undelivered> {
        let mut failed = None;
        if let Some(hub) = &self.ways.hub
            && !self.hub_rests()
        {
            match send(hub, events).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(%error, "usage events can't be sent to the hub");
                    *lock(&self.hub_rests) = Some(Instant::now() + HUB_REST);
                    failed = Some(error);
                }
            }
        }
        if let Some(ledger) = &self.ways.ledger {
            return self.write(ledger, events).await.map_err(Undelivered::Table);
        }
        match (&self.ways.hub, failed) {
            (None, _) => Ok(()),
            (Some(_), Some(error)) => Err(Undelivered::Hub(error)),
            (Some(_), None) => Err(Undelivered::Hub(NotSent::resting())),
        }
    }

    fn hub_rests(&self) -> bool {
        lock(&self.hub_rests).is_some_and(|until| Instant::now() < until)
    }

    async fn write(&self, ledger: &Ledger, events: &[&UsageEvent]) -> Result<(), StoreError> {
        let prices = self.ways.prices.get();
        let charging = |event: &UsageEvent| prices.charge(event);
        let recorded = ledger.record(events, &charging).await?;
        let rejected: Vec<Reject> = recorded
            .refused
            .into_iter()
            .filter_map(|(index, reason)| {
                let event = events.get(index)?;
                Some(Reject {
                    came: self.clock.now(),
                    place: "relay".into(),
                    reason,
                    body: serde_json::to_vec(event).ok()?,
                })
            })
            .collect();
        if !rejected.is_empty() {
            tracing::error!(
                rejected = rejected.len(),
                "the table can't take usage events; they are in table chargebackrejects"
            );
        }
        rejects::write(ledger.store().as_ref(), &rejected).await
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log(event: &UsageEvent) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        match serde_json::to_string(event) {
            Ok(json) => tracing::debug!(
                request_id = event.id,
                trace_id = event.trace_digits(),
                event = json,
                "call"
            ),
            Err(error) => tracing::error!(%error, "a usage event could not be written"),
        }
    }
}

/// Sends events to the hub, as many at a time as it takes.
async fn send(hub: &EventHub, events: &[&UsageEvent]) -> Result<(), NotSent> {
    let texts = events
        .iter()
        .filter_map(|event| serde_json::to_string(event).ok());
    let mut batch = Vec::new();
    let mut bytes = 0;
    for text in texts {
        // Each quote of it becomes two bytes.
        let size = text.len() + text.matches(['"', '\\']).count() + 16;
        if !batch.is_empty() && (bytes + size > MAX_BYTES || batch.len() == MAX_EVENTS) {
            send_batch(hub, &batch).await?;
            batch.clear();
            bytes = 0;
        }
        bytes += size;
        batch.push(text);
    }
    send_batch(hub, &batch).await
}

async fn send_batch(hub: &EventHub, batch: &[String]) -> Result<(), NotSent> {
    for pause in HUB_PAUSES {
        if hub.send(batch).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
    hub.send(batch).await
}
