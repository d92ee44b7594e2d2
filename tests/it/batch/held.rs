//! Messages that can be neither answered nor put off, or not be taken on, and calls that are called
//! off: what becomes of them and of their senders.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use spillway::azure::service_bus::{SendError, Sends, Sent};
use spillway::batch::worker::{End, Worker};
use spillway::gateway::batch::message::{Message, Outgoing, Received};
use spillway::local::queue::broker::{Broker, Limits};
use spillway::store::blobs::{self, Blobs};
use spillway::store::requests::{self, Request, State};
use spillway::store::{Answer, Key, Page, Range, Row, Store, StoreError, Table, Write};

use super::chaos::{relay, replies, settings};
use super::late::delivery;
use super::world::{Bus, Rates, START, Tables, World, simulated};

const CALL: &str = "01KAS8J5T0ABCDEFGHJKMNPQRS";

fn world(rates: Rates, slots: usize) -> Arc<World> {
    let queues = ["batch", "results"].map(|name| (name, Limits::default()));
    Arc::new(World::new(1, rates, Broker::new(queues), slots))
}

fn worker(
    world: &Arc<World>,
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    bus: Arc<dyn Sends>,
) -> Worker {
    let way = Arc::new(relay(world));
    let clock = Arc::clone(world);
    let now = Arc::new(move || clock.now());
    Worker::new(settings(), way, store, blobs, bus, now)
}

/// Service Bus, to which a copy of a message is too large with what it says beside.
#[derive(Debug)]
struct Narrow(Bus);

impl Sends for Narrow {
    fn send<'a>(&'a self, queue: &'a str, message: &'a Outgoing) -> Sent<'a> {
        if message.scheduled.is_some() {
            let error = SendError::TooLarge("413 Payload Too Large".into());
            return Box::pin(std::future::ready(Err(error)));
        }
        self.0.send(queue, message)
    }
}

#[test]
fn the_sender_of_a_message_that_can_t_be_put_off_is_told_in_the_end() {
    simulated(1, async {
        let world = world(Rates::default(), 0);
        let tables = Arc::new(Tables(Arc::clone(&world)));
        let bus = Arc::new(Narrow(Bus(Arc::clone(&world))));
        let worker = worker(&world, tables, None, bus);
        let first = worker.handle(&delivery(&world, 1)).await;
        assert!(matches!(first, End::Failed(_)), "{first:?}");
        assert!(replies(&world).is_empty());
        let last_but_one = worker.handle(&delivery(&world, 9)).await;
        assert!(matches!(last_but_one, End::Failed(_)), "{last_but_one:?}");
        let replies = replies(&world);
        let own = &replies["message-0"];
        assert_eq!(own.len(), 1);
        let line: Value = serde_json::from_slice(&own[0].message.body).unwrap();
        assert_eq!(line["error"]["code"], "not_answered");
        let why = line["error"]["message"].as_str().unwrap();
        assert!(why.contains("put off: too large"), "{why}");
    });
}

/// Tables that can be read but not written, and how often that was tried.
#[derive(Debug)]
struct ReadOnly {
    world: Arc<World>,
    writes: Mutex<u32>,
}

impl Store for ReadOnly {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        self.world.store.get(table, key)
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        self.world.store.read(table, range)
    }

    fn write<'a>(&'a self, _: Table, _: &'a str, _: Vec<Write>) -> Answer<'a, ()> {
        *self.writes.lock().unwrap() += 1;
        let error = StoreError::Unavailable("full".into());
        Box::pin(std::future::ready(Err(error)))
    }
}

#[test]
fn a_message_that_can_t_be_taken_on_is_put_off_after_few_tries() {
    simulated(1, async {
        let world = world(Rates::default(), 10);
        let tables = Arc::new(ReadOnly {
            world: Arc::clone(&world),
            writes: Mutex::default(),
        });
        let store: Arc<dyn Store> = Arc::<ReadOnly>::clone(&tables);
        let bus = Arc::new(Bus(Arc::clone(&world)));
        let worker = worker(&world, store, None, bus);
        let end = worker.handle(&delivery(&world, 1)).await;
        assert_eq!(end, End::Done);
        let held_ms = world.now().ms_since(START);
        assert!((20_000..30_000).contains(&held_ms), "{held_ms} ms");
        let writes = *tables.writes.lock().unwrap();
        assert!((2..15).contains(&writes), "{writes} writes");
        assert_eq!(world.broker.lock().unwrap().length("batch"), 1);
    });
}

fn request() -> String {
    let request = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]});
    request.to_string()
}

/// The message of a call that is answered later.
fn call(is_in_blob: bool) -> Received {
    let mut properties = json!({
        "app": "nightly", "url": "/v1/chat/completions", "spillway-fetched": true,
    });
    if is_in_blob {
        properties["spillway-in-blob"] = true.into();
    }
    Received {
        message: Message {
            id: Some(CALL.into()),
            body: request().into(),
            properties: properties.as_object().unwrap().clone(),
            ..Message::default()
        },
        sequence: 1,
        deliveries: 1,
        enqueued: START,
        expires: None,
    }
}

#[tokio::test]
async fn the_message_of_a_call_that_was_called_off_deletes_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(blobs::embedded::Embedded::open(folder.path()).unwrap());
    let blob = requests::request_blob("nightly", CALL);
    let put = files.put(&blob, request().into(), blobs::When::Always);
    put.await.unwrap();
    let world = world(Rates::default(), 10);
    let cancelled = Request {
        state: State::Cancelled,
        custom_id: CALL.into(),
        created: START,
        expires: START.plus_ms(1000),
    };
    let key = requests::key("nightly", CALL);
    requests::write(&world.store, &key, &cancelled, requests::When::New)
        .await
        .unwrap();
    let tables = Arc::new(Tables(Arc::clone(&world)));
    let bus = Arc::new(Bus(Arc::clone(&world)));
    let blobs: Arc<dyn Blobs> = Arc::<blobs::embedded::Embedded>::clone(&files);
    let worker = worker(&world, tables, Some(blobs), bus);
    assert_eq!(worker.handle(&call(true)).await, End::Done);
    assert_eq!(files.length(&blob).await, Ok(None));
    assert_eq!(*world.calls.lock().unwrap(), 0);
}

/// The sweep deletes a call's request with its row.
#[test]
fn the_row_of_a_call_that_waits_is_there_all_its_life() {
    simulated(1, async {
        let full = Rates {
            full: 10_000,
            ..Rates::default()
        };
        let world = world(full, 10);
        let tables = Arc::new(Tables(Arc::clone(&world)));
        let bus = Arc::new(Bus(Arc::clone(&world)));
        let worker = worker(&world, tables, None, bus);
        assert_eq!(worker.handle(&call(false)).await, End::Done);
        let key = requests::key("nightly", CALL);
        let found = requests::read(&world.store, &key).await.unwrap().unwrap();
        assert_eq!(found.request.state, State::Queued);
        let settings = settings();
        let life_end = START.plus_ms(settings.rules.life_ms);
        assert!(found.request.expires >= life_end.plus_ms(settings.keep_ms));
    });
}
