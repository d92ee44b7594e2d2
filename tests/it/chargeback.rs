//! The Event Hub function, invoked in the Functions host's form.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spillway::chargeback::Consumer;
use spillway::config::Config;
use spillway::gateway::event::UsageEvent;
use spillway::serve::Gateway;
use spillway::store::ledger::Ledger;
use spillway::store::sums::{SUM, Sum};
use spillway::store::{Pages, Range, Row, Store, Table};
use tokio::net::TcpListener;

use crate::azurite::emulator;
use crate::gateway::{OPEN, app, backend};
use crate::process::free_port;
use crate::raw::{Raw, RawAnswer, chunked};
use crate::store::event;

/// Whose application ids the apps' are.
const TENANT: &str =
    "[auth]\ntenant = \"11111111-2222-3333-4444-555555555555\"\naudience = \"api://spillway\"\n";

/// A gateway with the function, and its store.
struct Function {
    host: Raw,
    store: Arc<dyn Store>,
}

impl Function {
    async fn start(store: Arc<dyn Store>) -> Self {
        let nobody = "127.0.0.1:9".parse().unwrap();
        let known = app(
            "portal",
            "entra_app_ids = [\"11111111-aaaa-0000-0000-000000000000\"]",
        );
        let backend = backend("a", nobody, "payg", "");
        let parse = |text: &str| Config::parse(text, "test", &|_| None).unwrap();
        // The gateway itself would ask the tenant for its keys.
        let gateway = parse(&format!("{OPEN}{backend}"));
        let (gateway, _inbox) = Gateway::new(&gateway, Some(Arc::clone(&store))).unwrap();
        let config = parse(&format!("{TENANT}{known}{backend}"));
        let ledger = Arc::new(Ledger::new(Arc::clone(&store)));
        let gateway = gateway.with_consumer(Consumer::new(&config, ledger));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Raw::connect(listener.local_addr().unwrap()).await;
        tokio::spawn(gateway.serve(listener));
        Self { host, store }
    }

    /// Invokes the function with the host's head and this body.
    async fn invoke(&mut self, body: &[u8]) -> RawAnswer {
        let head = include_str!("../fixtures/functions-host/eventhub_batch3_binary.http");
        let head = head.split("\n\n").next().unwrap().replace('\n', "\r\n");
        let head = head.replacen("/eventhub_usage", "/chargeback", 1) + "\r\n\r\n";
        self.host.write(head.as_bytes()).await;
        self.host.write(&chunked(body, 16 * 1024)).await;
        self.host.answer().await
    }

    /// Invokes it, and expects what the host takes for success.
    async fn takes(&mut self, body: &[u8]) {
        let answer = self.invoke(body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let done = json!({"Outputs": {}, "Logs": [], "ReturnValue": null});
        assert_eq!(answer.json(), done);
    }

    async fn rows(&self, table: Table) -> Vec<Row> {
        Pages::new(self.store.as_ref(), table, Range::all())
            .rest()
            .await
            .unwrap()
    }

    async fn calls(&self) -> Vec<Row> {
        let mut rows = self.rows(Table::Chargeback).await;
        rows.retain(|row| row.key.row.starts_with("call|"));
        rows
    }

    async fn sum(&self) -> Sum {
        let rows = self.rows(Table::Chargeback).await;
        let sums = rows.iter().filter(|row| row.key.row.starts_with(SUM));
        sums.fold(Sum::default(), |all, row| {
            all.plus(&Sum::read(row).unwrap()).unwrap()
        })
    }
}

async fn embedded() -> (Function, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = spillway::store::embedded::Embedded::open(folder.path()).unwrap();
    (Function::start(Arc::new(store)).await, folder)
}

/// An invocation with events of partition 2, as the host writes one: arrays as texts, all in base64.
fn invocation(events: &[Vec<u8>], first: usize) -> Vec<u8> {
    let fixture = include_str!("../fixtures/functions-host/eventhub_batch3_binary.json");
    let mut envelope: Value = serde_json::from_str(fixture).unwrap();
    let bodies: Vec<String> = events.iter().map(|event| STANDARD.encode(event)).collect();
    let count = events.len();
    let numbers: Vec<usize> = (first..first + count).collect();
    envelope["Data"]["events"] = json!(bodies).to_string().into();
    let metadata = &mut envelope["Metadata"];
    metadata["SequenceNumberArray"] = json!(numbers).to_string().into();
    metadata["OffsetArray"] = json!(vec!["616008"; count]).to_string().into();
    metadata["OffsetStringArray"] = json!(vec!["616008"; count]).to_string().into();
    metadata["PartitionKeyArray"] = json!(vec![Value::Null; count]).to_string().into();
    metadata["EnqueuedTimeUtcArray"] = json!(vec!["2026-11-23T08:15:30.25"; count])
        .to_string()
        .into();
    let properties = json!({"source": "relay", "attempt": 1});
    metadata["PropertiesArray"] = json!(vec![properties; count]).to_string().into();
    let system = json!({"x-opt-sequence-number": 60, "x-opt-offset": "616136"});
    metadata["SystemPropertiesArray"] = json!(vec![system; count]).to_string().into();
    envelope.to_string().into_bytes()
}

fn body(event: &UsageEvent) -> Vec<u8> {
    serde_json::to_vec(event).unwrap()
}

#[tokio::test]
async fn the_hosts_own_batches_are_taken_and_what_is_no_event_is_kept_whole() {
    let (mut function, _folder) = embedded().await;
    let binary = include_bytes!("../fixtures/functions-host/eventhub_batch3_binary.json");
    let again = include_bytes!("../fixtures/functions-host/eventhub_batch3_binary_retry.json");
    let string = include_bytes!("../fixtures/functions-host/eventhub_batch3_string.json");
    // Their events have ids, but nobody who pays.
    for batch in [binary.as_slice(), again, string] {
        function.takes(batch).await;
        let rejects = function.rows(Table::Rejects).await;
        let bodies: HashSet<&str> = rejects
            .iter()
            .map(|row| row.fields.get_text("body_00"))
            .collect();
        let sent = [
            "{\"id\":\"e1\",\"tokens\":12,\"at\":\"2026-10-02T08:15:00.1230000Z\"}",
            "{\"id\":\"e2\",\"tokens\":7}",
            "{\"id\":\"e3\"}",
        ];
        assert_eq!(bodies, sent.into());
        assert_eq!(rejects.len(), 3, "each once, however often it comes");
        assert!(rejects.iter().all(|row| row.key.partition == "2026-10-02"));
        assert!(rejects[0].fields.get_text("reason").contains("no tokens"));
    }
    assert!(function.calls().await.is_empty());
}

#[tokio::test]
async fn batches_of_one_a_hundred_and_a_thousand_become_as_many_rows() {
    for count in [1, 100, 1000] {
        let (mut function, _folder) = embedded().await;
        let events: Vec<Vec<u8>> = (0..count)
            .map(|i| body(&event(&format!("{i:026}"))))
            .collect();
        let batch = invocation(&events, 0);
        function.takes(&batch).await;
        function.takes(&batch).await;
        assert_eq!(function.calls().await.len(), count);
        let sum = function.sum().await;
        let count = u64::try_from(count).unwrap();
        assert_eq!((sum.calls, sum.tokens.input), (count, 5 * count));
        assert!(function.rows(Table::Rejects).await.is_empty());
    }
}

#[tokio::test]
async fn the_api_management_policys_events_are_charged_to_the_app_by_its_id() {
    let (mut function, _folder) = embedded().await;
    let one = json!({"event-time": "11/23/2026 5:06:30 PM",
        "appid": "11111111-AAAA-0000-0000-000000000000", "operation": "chat.completion",
        "model": "gpt-4o", "modeltime": "412", "completion_tokens": "6", "prompt_tokens": "14",
        "total_tokens": "20"});
    let one = one.to_string().into_bytes();
    // Twice the same text is two calls, where the hub has it twice.
    let batch = invocation(&[one.clone(), one], 7);
    function.takes(&batch).await;
    function.takes(&batch).await;
    let calls = function.calls().await;
    assert_eq!(calls.len(), 2);
    assert!(
        calls
            .iter()
            .all(|row| row.key.partition == "portal|2026-11-23")
    );
    let sum = function.sum().await;
    // At 2.50 and 10 dollars a million, the list's prices for gpt-4o.
    assert_eq!((sum.tokens.input, sum.tokens.output), (28, 12));
    assert_eq!(sum.cost, rust_decimal::Decimal::new(19, 5));
}

#[tokio::test]
async fn one_bad_event_holds_up_no_other() {
    let (mut function, _folder) = embedded().await;
    let good = |i: u64| body(&event(&format!("{i:026}")));
    let too_long = UsageEvent {
        id: "/".repeat(128),
        backend: "/".repeat(64).into(),
        model: "/".repeat(64).into(),
        deployment: "/".repeat(64).into(),
        ..event("")
    };
    let events = [good(1), vec![0xFF, 0], Vec::new(), body(&too_long), good(2)];
    function.takes(&invocation(&events, 0)).await;
    assert_eq!(function.calls().await.len(), 2);
    assert_eq!(function.rows(Table::Rejects).await.len(), 3);
    assert_eq!(function.sum().await.calls, 2);
}

#[tokio::test]
async fn a_null_among_the_hosts_bodies_is_a_reject() {
    let (mut function, _folder) = embedded().await;
    let mut batch: Value = serde_json::from_slice(&invocation(&[body(&event("x"))], 0)).unwrap();
    let bodies = json!([null, STANDARD.encode(body(&event("x")))]);
    batch["Data"]["events"] = bodies.to_string().into();
    function.takes(batch.to_string().as_bytes()).await;
    assert_eq!(function.calls().await.len(), 1);
    assert_eq!(function.rows(Table::Rejects).await.len(), 1);
}

/// The host then brings the batch again, as function.json says.
#[tokio::test]
async fn a_table_that_is_down_fails_the_invocation() {
    let store = emulator(std::net::SocketAddr::from(([127, 0, 0, 1], free_port())));
    let mut function = Function::start(Arc::new(store)).await;
    let answer = function.invoke(&invocation(&[body(&event("x"))], 0)).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
    let answer = function.invoke(b"{}").await;
    assert_eq!(answer.status, 500, "{}", answer.body);
}

#[test]
fn the_function_retries_for_ever_and_takes_bytes() {
    let text = include_str!("../../functions/chargeback/function.json");
    let json: Value = serde_json::from_str(text).unwrap();
    let binding = &json["bindings"][0];
    assert_eq!(binding["dataType"], "binary");
    assert_eq!(binding["cardinality"], "many");
    assert_eq!(binding["name"], "events");
    assert_eq!(json["retry"]["maxRetryCount"], -1);
}
