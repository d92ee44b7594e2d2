//! Thousands of messages through a world in which everything fails now and then: each is answered
//! exactly once, and hardly any is paid twice.
//!
//! What goes wrong is random, by a seed that a failure prints. SPILLWAY_FAULT_SEED names one,
//! SPILLWAY_FAULT_MESSAGES how many messages there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spillway::batch::settings::Settings;
use spillway::batch::worker::{End, Worker};
use spillway::gateway::batch::message::{Message, Outgoing, Received};
use spillway::gateway::batch::order::Rules;
use spillway::gateway::batch::patience::Patience;
use spillway::local::queue::broker::{Broker, Delivery, Limits};
use spillway::way::{Kinds, Way};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::world::{Bus, KILL, Rates, Relay, Tables, World, simulated};

/// Deliveries at the same time: host.json's maxConcurrentCalls.
const CONCURRENCY: usize = 16;

pub(super) fn settings() -> Settings {
    Settings {
        rules: Rules {
            reply_queues: vec!["results".into()],
            max_request: 1 << 20,
            life_ms: 48 * 3_600_000,
        },
        patience: Patience {
            hold_ms: 20_000,
            spill_before_ms: 60_000,
            defer_ms: 30_000,
            max_defer_ms: 900_000,
        },
        queue: "batch".into(),
        max_message: 256 * 1024,
        max_deliveries: 10,
        keep_ms: 48 * 3_600_000,
    }
}

pub(super) fn worker(world: &Arc<World>) -> Arc<Worker> {
    worker_over(world, Arc::new(relay(world)))
}

pub(super) fn relay(world: &Arc<World>) -> Relay {
    Relay {
        world: Arc::clone(world),
        kinds: Kinds {
            ptu: true,
            payg: false,
        },
    }
}

/// A worker whose calls go this way.
pub(super) fn worker_over(world: &Arc<World>, way: Arc<dyn Way>) -> Arc<Worker> {
    let now = Arc::clone(world);
    Arc::new(Worker::new(
        settings(),
        way,
        Arc::new(Tables(Arc::clone(world))),
        None,
        Arc::new(Bus(Arc::clone(world))),
        Arc::new(move || now.now()),
    ))
}

pub(super) fn message(i: usize) -> Outgoing {
    let name = format!("message-{i}");
    let request = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": name}]});
    let line = json!({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": request});
    Outgoing {
        message: Message {
            id: Some(name),
            body: line.to_string().into(),
            properties: json!({"app": "nightly"}).as_object().unwrap().clone(),
            ..Message::default()
        },
        ..Outgoing::default()
    }
}

/// A last delivery under way. Nobody is left to reply where it is killed: the broker dead-letters the
/// message.
struct CutOff(Option<(Arc<World>, Received)>);

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Some((world, received)) = self.0.take() {
            let name = received.message.id.unwrap();
            world.cut_off.lock().unwrap().insert(name);
        }
    }
}

/// Hands a delivery to the worker as the host does: renews its lock meanwhile, completes or
/// abandons it after. A handler that is killed does neither.
async fn deliver(world: Arc<World>, worker: Arc<Worker>, delivery: Delivery) {
    let Delivery { token, received } = delivery;
    let is_last = received.deliveries >= settings().max_deliveries;
    let mut cut_off = CutOff(is_last.then(|| (Arc::clone(&world), received.clone())));
    let killer = Arc::new(Notify::new());
    let handle = KILL.scope(Some(Arc::clone(&killer)), worker.handle(&received));
    // A lock is lost now and then, and the message delivered to somebody else too.
    let keeps_lock = !world.chance(50);
    let renew = async {
        loop {
            tokio::time::sleep(Duration::from_secs(20)).await;
            if keeps_lock {
                world
                    .broker
                    .lock()
                    .unwrap()
                    .renew("batch", token, world.now());
            }
        }
    };
    let end = tokio::select! {
        end = handle => end,
        () = killer.notified() => return,
        () = renew => return,
    };
    cut_off.0 = None;
    let mut broker = world.broker.lock().unwrap();
    match end {
        End::Done => drop(broker.complete("batch", token, world.now())),
        End::Failed(_) => broker.abandon("batch", token, world.now()),
    }
}

/// Delivers until the queue is empty. Now and then the whole process is killed.
async fn drain(world: &Arc<World>, process_kills: u32) {
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut kills = process_kills;
    let mut process = worker(world);
    let mut handlers = JoinSet::new();
    while world.broker.lock().unwrap().length("batch") > 0 {
        assert!(
            world.now() < super::world::START.plus_ms(72 * 3_600_000),
            "it never ends"
        );
        if kills > 0 && world.chance(3) {
            kills -= 1;
            handlers.abort_all();
            while handlers.join_next().await.is_some() {}
            process = worker(world);
        }
        while handlers.try_join_next().is_some() {}
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let next = world
            .broker
            .lock()
            .unwrap()
            .receive("batch", world.now())
            .unwrap();
        world.broker.lock().unwrap().take_changes();
        let Some(delivery) = next else {
            drop(permit);
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        };
        let handler = deliver(Arc::clone(world), Arc::clone(&process), delivery);
        handlers.spawn_local(async move {
            handler.await;
            drop(permit);
        });
    }
    // Deliveries whose locks were lost may still be under way.
    while handlers.join_next().await.is_some() {}
}

/// All replies, by the name of what they answer.
pub(super) fn replies(world: &World) -> HashMap<String, Vec<Received>> {
    let mut all: HashMap<String, Vec<Received>> = HashMap::new();
    let mut broker = world.broker.lock().unwrap();
    while let Some(reply) = broker.take("results", world.now()).unwrap() {
        let line: Value = serde_json::from_slice(&reply.message.body).unwrap();
        let name = line["custom_id"].as_str().unwrap().to_owned();
        all.entry(name).or_default().push(reply);
    }
    all
}

struct Counts {
    answered: usize,
    given_up: usize,
    cut_off: usize,
    paid: u32,
    calls: u64,
    hours: u64,
}

/// Each message has one reply, which is its own, or the word that it was given up; then it is a
/// dead letter. It may have none where its last delivery was killed.
fn check(world: &World, messages: usize) -> Counts {
    let replies = replies(world);
    let (mut answered, mut given_up, mut cut_off) = (0, 0, 0);
    let last_was_killed = world.cut_off.lock().unwrap();
    for i in 0..messages {
        let name = format!("message-{i}");
        let own = replies.get(&name).map_or(&[][..], Vec::as_slice);
        if own.is_empty() && last_was_killed.contains(&name) {
            cut_off += 1;
            continue;
        }
        assert_eq!(own.len(), 1, "{name}: {own:?}");
        let message = &own[0].message;
        assert_eq!(message.correlation_id.as_deref(), Some(&*name));
        let line: Value = serde_json::from_slice(&message.body).unwrap();
        if line["error"].is_null() {
            let content = &line["response"]["body"]["choices"][0]["message"]["content"];
            assert_eq!(*content, *name);
            answered += 1;
        } else {
            assert_eq!(line["error"]["code"], "not_answered", "{line}");
            given_up += 1;
        }
    }
    assert_eq!(replies.len() + cut_off, messages);
    let dead = world.broker.lock().unwrap().dead("batch");
    let lost = given_up + cut_off;
    assert!(dead >= lost, "{dead} dead letters of {lost}");
    Counts {
        answered,
        given_up,
        cut_off,
        paid: world.paid.lock().unwrap().values().sum(),
        calls: *world.calls.lock().unwrap(),
        hours: world.now().ms_since(super::world::START) / 3_600_000,
    }
}

fn run(
    seed: u64,
    messages: usize,
    rates: Rates,
    process_kills: u32,
    detects_duplicates: bool,
) -> Counts {
    simulated(seed, async {
        let input = Limits {
            duplicates_ms: if detects_duplicates {
                Limits::default().duplicates_ms
            } else {
                0
            },
            ..Limits::default()
        };
        let results = Limits {
            duplicates_ms: 7 * 86_400_000,
            ..Limits::default()
        };
        let broker = Broker::new([("batch", input), ("results", results)]);
        let world = Arc::new(World::new(seed, rates, broker, 10));
        for i in 0..messages {
            let copies = if world.chance(200) { 2 } else { 1 };
            for _ in 0..copies {
                let mut broker = world.broker.lock().unwrap();
                broker.send("batch", message(i), world.now()).unwrap();
            }
        }
        drain(&world, process_kills).await;
        check(&world, messages)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

const FAULTS: Rates = Rates {
    kill: 15,
    lose: 100,
    broken: 200,
    full: 500,
    cut: 10,
};

/// Says which seed it was when a run fails.
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "a failed run has to be repeatable")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SPILLWAY_FAULT_SEED={}", self.0);
        }
    }
}

#[test]
fn each_of_10000_messages_is_answered_once_whatever_fails() {
    let seed = Seed(number("SPILLWAY_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let messages = number("SPILLWAY_FAULT_MESSAGES").unwrap_or(10_000);
    let messages = usize::try_from(messages).unwrap();
    let counts = run(seed.0, messages, FAULTS, 3, seed.0.is_multiple_of(2));
    let Counts {
        answered,
        given_up,
        cut_off,
        paid,
        calls,
        hours,
    } = counts;
    let said = format!(
        "{answered} answered, {given_up} given up, {cut_off} killed in their last delivery, {paid} paid, {calls} calls, {hours} h"
    );
    assert_eq!(answered + given_up + cut_off, messages, "{said}");
    let most = messages + messages / 100;
    assert!(usize::try_from(paid).unwrap() <= most, "{said}");
    if number("SPILLWAY_FAULT_SEED").is_some() {
        #[expect(clippy::print_stderr, reason = "somebody asked for this run")]
        {
            eprintln!("{said}");
        }
    }
}

#[test]
fn without_faults_each_message_is_called_once() {
    let counts = run(1, 500, Rates::default(), 0, true);
    assert_eq!(
        (counts.answered, counts.paid, counts.calls),
        (500, 500, 500)
    );
}
