//! Messages that can be neither answered nor put off, or not be taken on, and calls that are called
//! off: what becomes of them and of their senders.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use spillway::azure::service_bus::{SendError, Sends, Sent};
use spillway::batch::worker::{End, Worker};
use spillway::gateway::app::App;
use spillway::gateway::batch::message::{Message, Outgoing, Received};
use spillway::gateway::time::Timestamp;
use spillway::local::queue::broker::{Broker, Limits};
use spillway::store::blobs::{self, Blobs};
use spillway::store::requests::{self, Request, State};
use spillway::store::{Answer, Key, Page, Range, Row, Store, StoreError, Table, Write};
use spillway::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};
use tokio::task::spawn_local;

use super::chaos::{relay, replies, settings};
use super::late::delivery;
use super::world::{Bus, Rates, Relay, START, Tables, World, simulated};

const CALL: &str = "01KAS8J5T0ABCDEFGHJKMNPQRS";

fn fresh(rates: Rates, slots: usize) -> World {
    let queues = ["batch", "results"].map(|name| (name, Limits::default()));
    World::new(1, rates, Broker::new(queues), slots)
}

fn world(rates: Rates, slots: usize) -> Arc<World> {
    Arc::new(fresh(rates, slots))
}

fn worker(
    world: &Arc<World>,
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    bus: Arc<dyn Sends>,
) -> Worker {
    worker_over(world, Arc::new(relay(world)), store, blobs, bus)
}

/// A worker whose calls go this way.
fn worker_over(
    world: &Arc<World>,
    way: Arc<dyn Way>,
    store: Arc<dyn Store>,
    blobs: Option<Arc<dyn Blobs>>,
    bus: Arc<dyn Sends>,
) -> Worker {
    let clock = Arc::clone(world);
    let now = Arc::new(move || clock.now());
    Worker::new(settings(), way, store, blobs, bus, now)
}

/// Service Bus, which takes no copies that appear later.
#[derive(Debug)]
struct Narrow(Bus, SendError);

impl Sends for Narrow {
    fn send<'a>(&'a self, queue: &'a str, message: &'a Outgoing) -> Sent<'a> {
        if message.scheduled.is_some() {
            return Box::pin(std::future::ready(Err(self.1.clone())));
        }
        self.0.send(queue, message)
    }
}

fn too_large() -> SendError {
    SendError::TooLarge("413 Payload Too Large".into())
}

#[test]
fn the_sender_of_a_message_that_can_t_be_put_off_is_told_in_the_end() {
    let forbidden = SendError::Misconfigured("403 Forbidden".into());
    for (error, why) in [
        (too_large(), "at last: it is too large to be put off. The"),
        (forbidden, "at last: it could not be put off. The"),
    ] {
        simulated(1, async {
            let world = world(Rates::default(), 0);
            let tables = Arc::new(Tables(Arc::clone(&world)));
            let bus = Arc::new(Narrow(Bus(Arc::clone(&world)), error));
            let worker = worker(&world, tables, None, bus);
            let first = worker.handle(&delivery(&world, 1)).await;
            assert!(matches!(first, End::Failed(_)), "{first:?}");
            assert!(replies(&world).is_empty());
            let last_but_one = worker.handle(&delivery(&world, 9)).await;
            assert!(matches!(last_but_one, End::Failed(_)), "{last_but_one:?}");
            let line = only_reply(&world);
            assert_eq!(line["error"]["code"], "not_answered");
            let told = line["error"]["message"].as_str().unwrap();
            assert!(told.contains(why), "{told}");
        });
    }
}

/// The reply to the message, of which there is one.
fn only_reply(world: &World) -> Value {
    let replies = replies(world);
    let [own] = &*replies["message-0"] else {
        panic!("{replies:?}");
    };
    serde_json::from_slice(&own.message.body).unwrap()
}

/// A relay whose calls take two minutes.
#[derive(Debug)]
struct Slow(Relay);

impl Way for Slow {
    fn app(&self, name: &str) -> Option<Arc<App>> {
        self.0.app(name)
    }

    fn kinds(&self, app: &App, model: &str) -> Kinds {
        self.0.kinds(app, model)
    }

    fn slot<'a>(&'a self, model: &'a str, until: Timestamp) -> Later<'a, Result<Slot, NoSlot>> {
        self.0.slot(model, until)
    }

    fn call(&self, errand: Errand, slot: Option<Slot>) -> Later<'_, Result<Called, String>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(120)).await;
            self.0.call(errand, slot).await
        })
    }
}

/// The first delivery lost its lock during its call; the second one, which could give the message up, can
/// neither take it on nor put it off.
#[test]
fn a_message_is_not_given_up_while_another_delivery_works_on_it() {
    for store_is_down in [false, true] {
        simulated(1, async {
            let mut world = fresh(Rates::default(), 10);
            if store_is_down {
                // When it is held no longer, but not until the claim would have lapsed.
                world.outage("store", 2000, 23_500);
            }
            let world = Arc::new(world);
            let tables = Arc::new(Tables(Arc::clone(&world)));
            let bus = Arc::new(Narrow(Bus(Arc::clone(&world)), too_large()));
            let way = Arc::new(Slow(relay(&world)));
            let worker = Arc::new(worker_over(&world, way, tables, None, bus));
            let first = (Arc::clone(&worker), delivery(&world, 8));
            let first = spawn_local(async move { first.0.handle(&first.1).await });
            tokio::time::sleep(Duration::from_secs(1)).await;
            let second = worker.handle(&delivery(&world, 9)).await;
            assert!(matches!(second, End::Failed(_)), "{second:?}");
            assert!(replies(&world).is_empty(), "store down: {store_is_down}");
            assert_eq!(first.await.unwrap(), End::Done);
            assert!(only_reply(&world)["error"].is_null());
        });
    }
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
