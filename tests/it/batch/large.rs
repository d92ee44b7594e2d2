//! Answers that are larger than what is kept.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use spillway::batch::worker::End;
use spillway::gateway::app::App;
use spillway::gateway::time::Timestamp;
use spillway::local::queue::broker::{Broker, Limits};
use spillway::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};

use super::chaos::{relay, replies, worker_over};
use super::late::delivery;
use super::world::{Rates, Relay, World, simulated};

/// A relay all of whose answers are too large.
#[derive(Debug)]
struct Large(Relay);

impl Way for Large {
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
            let called = self.0.call(errand, slot).await?;
            Ok(Called {
                body: Bytes::new(),
                beyond: Some(64 << 20),
                ..called
            })
        })
    }
}

#[test]
fn an_answer_that_is_too_large_is_told_and_not_asked_for_again() {
    simulated(1, async {
        let queues = ["batch", "results"].map(|name| (name, Limits::default()));
        let world = Arc::new(World::new(1, Rates::default(), Broker::new(queues), 10));
        let worker = worker_over(&world, Arc::new(Large(relay(&world))));
        let received = delivery(&world, 1);
        for _ in 0..2 {
            assert_eq!(worker.handle(&received).await, End::Done);
        }
        assert_eq!(*world.calls.lock().unwrap(), 1);
        let replies = replies(&world);
        assert_eq!(replies["message-0"].len(), 1);
        let line: Value = serde_json::from_slice(&replies["message-0"][0].message.body).unwrap();
        assert_eq!(line["error"]["code"], "answer_too_large", "{line}");
    });
}
