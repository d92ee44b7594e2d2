//! What the Functions host, Service Bus, the Event Hub and Azure Monitor hand over.

use std::sync::{Arc, LazyLock};

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use spillway::batch::received;
use spillway::chargeback::{Consumer, Delivered};
use spillway::gateway::batch::order::{Order, Rules, Sender};
use spillway::gateway::batch::reply::{self, Answer};
use spillway::gateway::batches::mistake;
use spillway::gateway::pacing::{alert, monitor};
use spillway::gateway::request::Head;
use spillway::host::invocation::Invocation;
use spillway::store::ledger::Ledger;
use spillway::store::{self, Key, Page, Range, Row, Store, Table, Write};

use crate::CONFIG;

/// An invocation of any trigger, and the message and the order in one of the batch function.
pub(crate) fn invocation(data: &[u8]) {
    let Ok(invocation) = Invocation::read(&HeaderMap::new(), data) else {
        return;
    };
    for name in [
        "DeliveryCount",
        "SequenceNumber",
        "EnqueuedTimeUtc",
        "PropertiesArray",
        "PartitionContext",
    ] {
        let _ = (
            invocation.text(name),
            invocation.number(name),
            invocation.moment(name),
        );
        let _ = (invocation.value(name), invocation.array(name));
    }
    let _ = (invocation.binaries("events"), invocation.object("timer"));
    let Ok(received) = received::read(&invocation) else {
        return;
    };
    let rules = Rules {
        reply_queues: vec!["replies".into()],
        max_request: 1 << 20,
        life_ms: 86_400_000,
    };
    let sender = Sender::of(&received, &rules);
    if let Ok(order) = Order::read(&received, &received.message.body, &sender, &rules) {
        assert!(order.path.starts_with("/v1/"), "{}", order.path);
        is_answered(&order.custom_id, &order.request, &order.model);
    }
}

/// A line of a batch.
pub(crate) fn batch_line(data: &[u8]) {
    let line = Bytes::copy_from_slice(data);
    match mistake::read(7, &line, "/v1/chat/completions") {
        Ok((id, read)) => {
            assert_eq!(read.path, "/v1/chat/completions");
            is_answered(&id, &read.request, &read.model);
        }
        Err(mistake) => assert!(mistake.object()["message"].as_str() > Some("")),
    }
}

/// What is asked for is a request of this model, and its answer, whatever it is, one line of JSON.
fn is_answered(custom_id: &str, request: &[u8], model: &str) {
    let head = Head::parse(request).expect("a request is JSON");
    assert_eq!(head.model().ok().flatten().as_deref(), Some(model));
    assert!(!head.stream());
    let answer = Answer::Response {
        status: 200,
        request_id: "r\"".into(),
        body: Bytes::copy_from_slice(request),
    };
    let line = reply::line_of("id\n", custom_id, &answer);
    assert!(!line.contains(&b'\n'));
    if let Ok(line) = serde_json::from_slice::<Value>(&line) {
        assert_eq!(line["custom_id"], custom_id);
    } else {
        // Only what is nested too deeply for a tree.
        assert!(serde_json::from_slice::<Value>(request).is_err());
    }
}

/// A store that knows nothing and takes everything.
#[derive(Debug)]
struct Empty;

impl Store for Empty {
    fn get<'a>(&'a self, _: Table, _: &'a Key) -> store::Answer<'a, Option<Row>> {
        Box::pin(async { Ok(None) })
    }

    fn read<'a>(&'a self, _: Table, _: &'a Range) -> store::Answer<'a, Page> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn write<'a>(
        &'a self,
        table: Table,
        partition: &'a str,
        writes: Vec<Write>,
    ) -> store::Answer<'a, ()> {
        // As Table Storage would refuse it.
        let fits = store::bounds::transaction(partition, &writes);
        assert!(fits.is_ok(), "{table:?}: {fits:?}");
        Box::pin(async { Ok(()) })
    }
}

static CONSUMER: LazyLock<Consumer> =
    LazyLock::new(|| Consumer::new(&CONFIG, Arc::new(Ledger::new(Arc::new(Empty)))));

/// A batch of events, a line each: each is counted or rejected, and the store can take what comes of it.
pub(crate) fn chargeback(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').take(20);
    let batch: Vec<Delivered> = lines
        .enumerate()
        .map(|(number, line)| Delivered {
            body: line.to_vec(),
            place: format!("hub/0/{number}"),
            enqueued: None,
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let taken = runtime
        .expect("a runtime without I/O")
        .block_on(CONSUMER.take(&batch));
    let taken = taken.expect("the store fails at nothing");
    assert_eq!(
        taken.counted + taken.duplicates + taken.rejected,
        batch.len()
    );
}

/// An alert, which says of whole resources or of one deployment how full they are.
pub(crate) fn alert(data: &[u8]) {
    if let Ok(notice) = alert::read(data) {
        assert!(!notice.id.is_empty());
        let _ = format!("{notice:?}");
    }
}

/// Answers of Azure Monitor, and the header of an answer.
pub(crate) fn monitor(data: &[u8]) {
    let one = monitor::read_one(data).ok();
    let many = monitor::read_batch(data).ok();
    let many = many
        .into_iter()
        .flatten()
        .filter_map(|part| part.series.ok());
    for resource in one.into_iter().chain(many) {
        for series in resource {
            let minutes = series.minutes.iter().map(|minute| minute.minute);
            assert!(
                minutes
                    .clone()
                    .zip(minutes.skip(1))
                    .all(|(one, next)| one < next),
                "by time, each once"
            );
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(said) = monitor::read_header(text)
    {
        assert!(said.tenths() <= 1_000_000);
    }
}
