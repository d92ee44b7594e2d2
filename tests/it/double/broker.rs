//! What stands behind triggers: a Service Bus queue that abandons, an Event Hub whose checkpoint moves
//! on, a timer. Bodies are the fixtures', with what a test says put in.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Host, Outcome, read, text};

/// How long messages live in the double.
const WEEK_MS: u64 = 7 * 24 * 3_600_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Done, at the so-many-th delivery.
    Completed(u32),
    /// Given up after so many deliveries.
    DeadLettered(u32),
}

/// A queue whose trigger is a function of the app.
pub(crate) struct Queue<'a> {
    pub(crate) host: &'a Host,
    pub(crate) function: &'a str,
    pub(crate) max_delivery_count: u32,
}

impl Queue<'_> {
    /// Delivers a message until it is completed or dead-lettered: an invocation that fails is
    /// abandoned, and the message comes again at once.
    pub(crate) async fn deliver(&self, body: &[u8], properties: &Map<String, Value>) -> Delivered {
        for delivery in 1..=self.max_delivery_count {
            let invocation = self.invocation(body, properties, delivery);
            if let Outcome::Succeeded(_) = self.host.invoke(self.function, &invocation).await {
                return Delivered::Completed(delivery);
            }
        }
        Delivered::DeadLettered(self.max_delivery_count)
    }

    /// `properties` are the broker's (MessageId, ReplyTo, ...), and ApplicationProperties.
    fn invocation(&self, body: &[u8], properties: &Map<String, Value>, delivery: u32) -> Value {
        let trigger = self.host.function(self.function).trigger();
        assert_eq!(text(trigger, "type"), "serviceBusTrigger");
        assert_eq!(
            text(trigger, "dataType"),
            "binary",
            "else a sender can forge metadata"
        );
        let mut invocation = fixture("servicebus_single_json_binary");
        invocation["Data"] = json!({ text(trigger, "name"): STANDARD.encode(body) });
        let metadata = &mut invocation["Metadata"];
        metadata["DeliveryCount"] = delivery.to_string().into();
        metadata["sys"]["MethodName"] = self.function.into();
        // Whole seconds, and no zone where it is UTC.
        let now = spillway::host::clock::Clock::new().now();
        for (name, moment) in [("EnqueuedTime", now), ("ExpiresAt", now.plus_ms(WEEK_MS))] {
            let seconds = moment.rfc3339().chars().take(19).collect::<String>();
            metadata[format!("{name}Utc")] = seconds.clone().into();
            metadata[name] = format!("{seconds}+00:00").into();
        }
        for (name, value) in properties {
            // Objects are objects; everything else is JSON in a string.
            metadata[name] = match value {
                Value::Object(_) => value.clone(),
                value => value.to_string().into(),
            };
        }
        invocation
    }
}

/// An Event Hub's partition whose trigger is a function of the app.
pub(crate) struct Stream<'a> {
    pub(crate) host: &'a Host,
    pub(crate) function: &'a str,
    /// What a policy's delays are shortened to.
    pub(crate) longest_delay: Duration,
}

impl Stream<'_> {
    /// Delivers a batch: a failing one again, as often as function.json's retry policy says. Then the
    /// checkpoint moves on, whatever became of it. Returns the attempts, and whether one succeeded.
    pub(crate) async fn deliver(&self, events: &[Vec<u8>], give_up_after: u32) -> (u32, bool) {
        let policy =
            read(&self.host.0.folder.join(self.function).join("function.json"))["retry"].clone();
        let most = match policy["maxRetryCount"].as_i64() {
            None => 0,
            Some(-1) => give_up_after,
            Some(count) => u32::try_from(count).unwrap().min(give_up_after),
        };
        for attempt in 0..=most {
            let invocation = self.invocation(events, attempt, most);
            if let Outcome::Succeeded(_) = self.host.invoke(self.function, &invocation).await {
                return (attempt + 1, true);
            }
            tokio::time::sleep(self.longest_delay).await;
        }
        (most + 1, false)
    }

    fn invocation(&self, events: &[Vec<u8>], attempt: u32, most: u32) -> Value {
        let trigger = self.host.function(self.function).trigger();
        assert_eq!(text(trigger, "type"), "eventHubTrigger");
        assert_eq!(
            text(trigger, "dataType"),
            "binary",
            "else one bad event fails its batch"
        );
        assert_eq!(text(trigger, "cardinality"), "many");
        let mut invocation = fixture("eventhub_batch3_binary");
        let events: Vec<String> = events.iter().map(|event| STANDARD.encode(event)).collect();
        let list = serde_json::to_string(&events).unwrap();
        invocation["Data"] = json!({ text(trigger, "name"): list });
        invocation["Metadata"]["sys"]["MethodName"] = self.function.into();
        if attempt > 0 {
            let context = json!({"RetryCount": attempt, "MaxRetryCount": most});
            invocation["Metadata"]["RetryContext"] = context;
        }
        invocation
    }
}

impl Host {
    /// A tick of a timer. When it fails nothing happens but the next tick.
    pub(crate) async fn tick(&self, function: &str) -> Outcome {
        let trigger = self.function(function).trigger();
        assert_eq!(text(trigger, "type"), "timerTrigger");
        let mut invocation = fixture("timer");
        let timer = invocation["Data"]
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .clone();
        invocation["Data"] = json!({ text(trigger, "name"): timer });
        invocation["Metadata"]["sys"]["MethodName"] = function.into();
        self.invoke(function, &invocation).await
    }
}

fn fixture(name: &str) -> Value {
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/fixtures/functions-host/{name}.json")),
    )
}
