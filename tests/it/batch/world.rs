//! A world for the batch worker in simulated time: queues, a store and backends that fail, and
//! handlers that are killed, as a seed says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use spillway::azure::service_bus::{SendError, Sends, Sent};
use spillway::gateway::app::App;
use spillway::gateway::batch::message::Outgoing;
use spillway::gateway::time::Timestamp;
use spillway::local::queue::broker::Broker;
use spillway::store::{Answer, Key, Page, Range, Row, Store, StoreError, Table, Write};
use spillway::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::memory::Memory;

tokio::task_local! {
    /// Tells the handler that runs this that it is dead.
    pub(crate) static KILL: Option<Arc<Notify>>;
}

/// How often what goes wrong, in 10,000 steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// The handler is killed, before or after the step.
    pub(crate) kill: u32,
    /// The step is not done, or done and its answer lost.
    pub(crate) lose: u32,
    /// The backend answers 500.
    pub(crate) broken: u32,
    /// The backend answers 429.
    pub(crate) full: u32,
    /// The backend's answer breaks off.
    pub(crate) cut: u32,
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct World {
    random: Mutex<fastrand::Rng>,
    rates: Rates,
    start: Instant,
    pub(crate) broker: Mutex<Broker>,
    outages: HashMap<&'static str, Vec<(Timestamp, Timestamp)>>,
    /// Calls that a backend worked on and charged for, by the request's own name.
    pub(crate) paid: Mutex<HashMap<String, u32>>,
    /// All calls, those that were refused too.
    pub(crate) calls: Mutex<u64>,
    /// Messages whose last delivery was killed.
    pub(crate) cut_off: Mutex<HashSet<String>>,
    slots: Arc<Semaphore>,
    pub(crate) store: Memory,
}

/// Runs a story in simulated time, whose chances are those of `seed`.
pub(crate) fn simulated<T>(seed: u64, story: impl Future<Output = T>) -> T {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, story)
}

pub(crate) const START: Timestamp = Timestamp::from_unix_ms(1_795_000_000_000);

impl World {
    pub(crate) fn new(seed: u64, rates: Rates, broker: Broker, slots: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut outages = HashMap::new();
        let mut window = |longest_ms| {
            let from = START.plus_ms(random.u64(..2_000_000));
            (from, from.plus_ms(random.u64(1000..longest_ms)))
        };
        for what in ["store", "bus", "backend"] {
            let mut windows = Vec::new();
            if rates.lose > 0 {
                windows.extend((0..6).map(|_| window(90_000)));
            }
            if rates.lose > 0 && what == "backend" {
                // Long enough that messages are given up.
                windows.push(window(600_000));
            }
            outages.insert(what, windows);
        }
        Self {
            random: Mutex::new(random),
            rates,
            start: Instant::now(),
            broker: Mutex::new(broker),
            outages,
            paid: Mutex::default(),
            calls: Mutex::default(),
            cut_off: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            store: Memory::default(),
        }
    }

    /// Lets `what` be down for a while, ms from the start.
    pub(crate) fn outage(&mut self, what: &'static str, from_ms: u64, to_ms: u64) {
        let window = (START.plus_ms(from_ms), START.plus_ms(to_ms));
        self.outages.entry(what).or_default().push(window);
    }

    pub(crate) fn now(&self) -> Timestamp {
        let ms = self.start.elapsed().as_millis();
        START.plus_ms(u64::try_from(ms).unwrap())
    }

    pub(crate) fn chance(&self, in_10_000: u32) -> bool {
        self.random.lock().unwrap().u32(..10_000) < in_10_000
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().u64(..end)
    }

    fn is_down(&self, what: &str) -> bool {
        let now = self.now();
        self.outages[what]
            .iter()
            .any(|(from, to)| *from <= now && now < *to)
    }

    /// Perhaps the end of the handler that this runs in.
    async fn may_be_killed(&self) {
        let killer = KILL.try_with(Clone::clone).ok().flatten();
        if let Some(killer) = killer
            && self.chance(self.rates.kill / 2)
        {
            killer.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// A step of `what`: `Err` where its answer is lost, whether or not it was done.
    async fn step<T>(&self, what: &str, act: impl FnOnce() -> T) -> Result<T, ()> {
        self.may_be_killed().await;
        tokio::time::sleep(Duration::from_millis(1 + self.below(20))).await;
        if self.is_down(what) {
            tokio::time::sleep(Duration::from_millis(self.below(2000))).await;
            return Err(());
        }
        let is_lost = self.chance(self.rates.lose);
        if is_lost && self.chance(5000) {
            return Err(());
        }
        let done = act();
        self.may_be_killed().await;
        if is_lost { Err(()) } else { Ok(done) }
    }
}

/// The store, as the worker sees it.
#[derive(Debug)]
pub(crate) struct Tables(pub(crate) Arc<World>);

fn down() -> StoreError {
    StoreError::Unavailable("down".into())
}

impl Store for Tables {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        Box::pin(async move {
            let read = self.0.step("store", || self.0.store.get(table, key)).await;
            read.map_err(|()| down())?.await
        })
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        self.0.store.read(table, range)
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        Box::pin(async move {
            let write = || self.0.store.write(table, partition, writes);
            self.0
                .step("store", write)
                .await
                .map_err(|()| down())?
                .await
        })
    }
}

/// Service Bus, as the worker sees it.
#[derive(Debug)]
pub(crate) struct Bus(pub(crate) Arc<World>);

impl Sends for Bus {
    fn send<'a>(&'a self, queue: &'a str, message: &'a Outgoing) -> Sent<'a> {
        Box::pin(async move {
            let send = || {
                let mut broker = self.0.broker.lock().unwrap();
                broker.send(queue, message.clone(), self.0.now())
            };
            match self.0.step("bus", send).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(SendError::Misconfigured("no such queue".into())),
                Err(()) => Err(SendError::Unavailable {
                    why: "down".into(),
                    retry_after_ms: None,
                }),
            }
        })
    }
}

/// The relay, as the worker sees it.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) world: Arc<World>,
    pub(crate) kinds: Kinds,
}

#[derive(Debug)]
struct Held {
    _permit: OwnedSemaphorePermit,
}

impl Way for Relay {
    fn app(&self, name: &str) -> Option<Arc<App>> {
        (name == "nightly").then(|| Arc::new(App::unrestricted(name)))
    }

    fn kinds(&self, _: &App, _: &str) -> Kinds {
        self.kinds
    }

    fn slot<'a>(&'a self, _: &'a str, until: Timestamp) -> Later<'a, Result<Slot, NoSlot>> {
        Box::pin(async move {
            self.world.may_be_killed().await;
            let left = until.since(self.world.now());
            let slots = Arc::clone(&self.world.slots);
            match tokio::time::timeout(left, slots.acquire_owned()).await {
                Ok(permit) => Ok(Box::new(Held {
                    _permit: permit.unwrap(),
                }) as Slot),
                Err(_) => Err(NoSlot {
                    retry_after_ms: 1000 + self.world.below(10_000),
                }),
            }
        })
    }

    fn call(&self, errand: Errand, slot: Option<Slot>) -> Later<'_, Result<Called, String>> {
        Box::pin(async move {
            let called = self.answer(&errand).await;
            drop(slot);
            called
        })
    }
}

impl Relay {
    async fn answer(&self, errand: &Errand) -> Result<Called, String> {
        let world = &self.world;
        *world.calls.lock().unwrap() += 1;
        world.may_be_killed().await;
        if world.is_down("backend") || world.chance(world.rates.broken) {
            tokio::time::sleep(Duration::from_millis(world.below(3000))).await;
            return Ok(failed(503, "all_deployments_failed", None));
        }
        if world.chance(world.rates.full) {
            return Ok(failed(
                429,
                "all_deployments_full",
                Some(world.below(20_000)),
            ));
        }
        let request: Value = serde_json::from_slice(&errand.body).unwrap();
        let name = request["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        *world.paid.lock().unwrap().entry(name.clone()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(200 + world.below(4000))).await;
        world.may_be_killed().await;
        if world.chance(world.rates.cut) {
            return Err("the answer broke off".into());
        }
        let body = json!({"id": "chatcmpl-1", "choices": [{"message": {"content": name}}]});
        Ok(Called {
            status: 200,
            request_id: "01J".into(),
            retry_after_ms: None,
            code: None,
            body: body.to_string().into(),
            beyond: None,
        })
    }
}

fn failed(status: u16, code: &str, retry_after_ms: Option<u64>) -> Called {
    let body = json!({"error": {"code": code, "message": code}});
    Called {
        status,
        request_id: "01J".into(),
        retry_after_ms,
        code: Some(code.to_owned()),
        body: Bytes::from(body.to_string()),
        beyond: None,
    }
}
