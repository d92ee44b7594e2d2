//! Two deliveries of one message at the same time: the first one lost its lock while the store was
//! down, so that neither knows of the other.

use std::sync::Arc;
use std::time::Duration;

use spillway::batch::worker::{End, Worker};
use spillway::gateway::batch::message::Received;
use spillway::local::queue::broker::{Broker, Limits};
use tokio::task::JoinHandle;

use super::chaos::{message, replies, worker};
use super::world::{Rates, World, simulated};

/// The message as its `deliveries`th delivery.
pub(super) fn delivery(world: &World, deliveries: u64) -> Received {
    Received {
        message: message(0).message,
        sequence: 1,
        deliveries,
        enqueued: world.now(),
        expires: None,
    }
}

fn start(worker: &Arc<Worker>, received: Received) -> JoinHandle<End> {
    let worker = Arc::clone(worker);
    tokio::task::spawn_local(async move { worker.handle(&received).await })
}

/// The first delivery is answered just as the store goes down; backends go down after it, and the
/// second delivery comes `after_ms` after the store came back at `store_ms`. The ways in which the
/// deliveries ended, and how many replies there are.
fn run(seed: u64, store_ms: u64, bus_ms: u64, after_ms: u64) -> ([End; 2], usize) {
    simulated(seed, async {
        let queues = ["batch", "results"].map(|name| (name, Limits::default()));
        let mut world = World::new(seed, Rates::default(), Broker::new(queues), 10);
        world.outage("store", 150, store_ms);
        world.outage("bus", 0, bus_ms);
        world.outage("backend", 5000, 3_600_000);
        let world = Arc::new(world);
        let worker = worker(&world);
        let first = start(&worker, delivery(&world, 1));
        tokio::time::sleep(Duration::from_millis(store_ms + after_ms)).await;
        // The one that gives a message up which nobody can answer.
        let second = start(&worker, delivery(&world, 9));
        let ends = [first.await.unwrap(), second.await.unwrap()];
        assert_eq!(
            *world.paid.lock().unwrap(),
            [("message-0".into(), 1)].into()
        );
        let replies = replies(&world);
        (ends, replies.get("message-0").map_or(0, Vec::len))
    })
}

#[test]
fn an_answer_that_can_be_neither_kept_nor_sent_is_kept_once_the_store_is_back() {
    for seed in 0..50 {
        let (ends, replies) = run(seed, 90_000, 110_000, 8000);
        assert_eq!((ends, replies), ([End::Done, End::Done], 1), "seed {seed}");
    }
}

#[test]
fn a_delivery_that_was_overtaken_writes_over_nothing() {
    for seed in 0..200 {
        let (ends, replies) = run(seed, 40_000 + seed * 7, 0, seed * 29);
        assert_eq!(replies, 1, "seed {seed}: {ends:?}");
    }
}
