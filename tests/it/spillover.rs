//! Answers of a provisioned deployment that its resource's standard deployment gave in its place.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use spillway::billing::Billing;
use spillway::billing::period::{Period, Span};
use spillway::config::Config;
use spillway::gateway::bill::By;
use spillway::gateway::event::{Kind, UsageEvent, UsageSource};
use spillway::gateway::pacing::window::use_of;
use spillway::gateway::ptu::ModelRate;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;
use spillway::store::{Pages, Range, Store, Table};

use crate::gateway::{OPEN, Running, header, start};
use crate::scripted::{Act, Scripted, answer, full, good, stream};

const SPILLED: &str = "x-ms-spillover-from-deployment: chat-ptu\r\nx-ms-deployment-name: chat\r\n";

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":1000000,"completion_tokens":0,"total_tokens":1000000}}"#;

/// A PTU of gpt-4o of class regional in Sweden, whose list price is not that of class global.
fn config(address: std::net::SocketAddr, more: &str) -> String {
    format!(
        "{OPEN}[[backend]]\nname = \"swe\"\nendpoint = \"http://{address}\"\nregion = \"swedencentral\"\n\
         [[backend.deployment]]\nname = \"chat-ptu\"\nmodel = \"gpt-4o\"\nbase_model = \"gpt-4o-2024-11-20\"\n\
         kind = \"ptu\"\nregion_class = \"regional\"\nptus = 50\nsince = \"2026-01-01\"\n{more}"
    )
}

async fn over(script: Vec<Act>) -> (Running, Scripted, String) {
    let backend = Scripted::start(script).await;
    let config = config(backend.address, "");
    (start(&config).await, backend, config)
}

fn read(config: &str) -> Config {
    Config::parse(config, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

/// What the gateway would keep of these calls, and the day that they are of.
async fn kept(config: &Config, events: &[UsageEvent]) -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let prices = config.prices();
    let events: Vec<&UsageEvent> = events.iter().collect();
    let ledger = Ledger::new(Arc::clone(&store));
    let recorded = ledger.record(&events, &|event| prices.charge(event)).await;
    assert_eq!(recorded.unwrap().counted.len(), events.len());
    (store, folder)
}

#[tokio::test]
async fn it_is_a_call_of_pay_as_you_go_that_spilled() {
    let (gateway, _backend, config) = over(vec![answer("200 OK", SPILLED, CHAT)]).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(header(&answer, "x-spillway-kind"), "payg");
    assert_eq!(header(&answer, "x-spillway-backend"), "swe");
    answer.text().await.unwrap();
    let event = gateway.event().await;
    assert_eq!((&*event.deployment, event.kind), ("chat", Some(Kind::Payg)));
    assert!(event.spilled);
    let [refused, served] = &event.attempts[..] else {
        panic!("{:?}", event.attempts)
    };
    assert_eq!(
        (&*refused.deployment, refused.status),
        ("chat-ptu", Some(429))
    );
    assert_eq!(refused.error.as_deref(), Some("spillover"));
    assert!(!refused.billed && served.billed);
    assert_eq!((&*served.deployment, served.kind), ("chat", Kind::Payg));
    assert_eq!(
        use_of(&event, ModelRate::ASSUMED),
        None,
        "it says nothing of how full the PTU is"
    );

    // The deployment that served is in no configuration: its price is that of its PTU's model, class and
    // region.
    let config = read(&config);
    let charge = config.prices().charge(&event);
    assert_eq!(charge.cost, Some("3.025".parse().unwrap()));
    assert_eq!(charge.weighted, 0);

    let (store, _folder) = kept(&config, std::slice::from_ref(&event)).await;
    let rows = Pages::new(&*store, Table::Chargeback, Range::all());
    let rows = rows.rest().await.unwrap();
    assert!(
        rows.iter().all(|row| !row.key.row.starts_with("ptu|")),
        "it is of no PTU hour"
    );
    let day = event.time.day();
    let span = Span {
        from: Some(&day),
        to: Some(&day),
        month: None,
    };
    let period = Period::read(span, event.time).unwrap();
    let billing = Billing::new(&config, Arc::clone(&store));
    let bill = billing
        .bill(period, vec![By::App, By::Kind], None, event.time.plus_ms(1))
        .await;
    let bill = bill.unwrap();
    let line = bill.lines.iter().find(|line| !line.is_idle).unwrap();
    assert_eq!(&*line.of[1], "payg");
    assert_eq!((line.figures.calls, line.figures.spilled_calls), (1, 1));
    assert_eq!(line.figures.spilled_cost, "3.025".parse().unwrap());
    assert_eq!((line.weighted, line.figures.unpriced_calls), (0, 0));
}

#[tokio::test]
async fn a_deployment_of_the_configuration_has_its_own_price() {
    let backend = Scripted::start(vec![answer("200 OK", SPILLED, CHAT)]).await;
    let payg = "[[backend.deployment]]\nname = \"chat\"\nmodel = \"gpt-4o\"\nkind = \"payg\"\n\
                [[price]]\nbackend = \"swe\"\nregion_class = \"global\"\ninput = \"1.5\"\noutput = \"1\"\n";
    let config = config(backend.address, payg);
    let gateway = start(&config).await;
    gateway.chat().send().await.unwrap().text().await.unwrap();
    let charge = read(&config).prices().charge(&gateway.event().await);
    assert_eq!(charge.cost, Some("1.5".parse().unwrap()));
}

#[tokio::test]
async fn a_spilled_stream_is_counted_alike_and_so_is_one_whose_client_leaves() {
    let chunk =
        "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let usage = "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\ndata: [DONE]\n\n";
    let mut whole = stream(&[chunk, usage], true);
    let head = String::from_utf8(whole[0].clone()).unwrap();
    let head = head.replace("\r\n\r\n", &format!("\r\n{SPILLED}\r\n"));
    whole[0] = head.clone().into_bytes();
    let mut endless = stream(&[chunk], false);
    endless[0] = head.into_bytes();
    let script = vec![
        Act::Drip(whole, Duration::ZERO),
        Act::Drip(endless, Duration::ZERO),
    ];
    let (gateway, _backend, _) = over(script).await;
    gateway.stream().send().await.unwrap().text().await.unwrap();
    let event = gateway.event().await;
    assert_eq!((&*event.deployment, event.kind), ("chat", Some(Kind::Payg)));
    assert_eq!(
        (event.tokens.input, event.usage),
        (5, UsageSource::Reported)
    );

    let mut left = gateway.stream().send().await.unwrap();
    left.chunk().await.unwrap();
    drop(left);
    let event = gateway.event().await;
    assert_eq!(event.usage, UsageSource::Estimated);
    assert_eq!((&*event.deployment, event.kind), ("chat", Some(Kind::Payg)));
    assert!(event.spilled);
}

#[tokio::test]
async fn the_deployment_is_asked_again_at_once_and_shown_as_throttled_then() {
    let own = good();
    let script = vec![answer("200 OK", SPILLED, CHAT), own];
    let (gateway, backend, _) = over(script).await;
    for kind in ["payg", "ptu"] {
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!(header(&answer, "x-spillway-kind"), kind);
        answer.text().await.unwrap();
    }
    assert_eq!(backend.calls(), 2);
    let health: Value = gateway
        .get("/spillway/health")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["deployments"][0]["marked"], Value::Null);
    let metrics = gateway
        .get("/spillway/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let of = |result: &str| {
        let result = format!("result=\"{result}\"");
        let mut lines = metrics
            .lines()
            .filter(|line| line.starts_with("spillway_attempts_total"));
        let line = lines.find(|line| line.contains(&result) && line.contains("chat-ptu"));
        line.unwrap_or_else(|| panic!("{metrics}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!((of("throttled"), of("served")), ("1".into(), "1".into()));
    assert!(
        metrics.contains("spillway_spilled_calls_total{gen_ai_request_model=\"gpt-4o\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn where_the_standard_deployment_failed_too_it_is_a_throttle_as_any() {
    let mut refusal = match full(5000) {
        Act::Say(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    refusal = refusal.replacen(
        "\r\n",
        &format!("\r\n{SPILLED}x-ms-spillover-error: 500\r\n"),
        1,
    );
    let backend = Scripted::start(vec![Act::Say(refusal.into_bytes())]).await;
    let other = Scripted::start(vec![good()]).await;
    let payg = crate::gateway::backend("other", other.address, "payg", "");
    let gateway = start(&config(backend.address, &payg)).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(header(&answer, "x-spillway-backend"), "other");
    answer.text().await.unwrap();
    let event = gateway.event().await;
    assert_eq!(event.attempts.len(), 2);
    assert_eq!(
        (event.attempts[0].status, &event.attempts[0].error),
        (Some(429), &None)
    );
    assert!(event.spilled);
}

#[tokio::test]
async fn a_pay_as_you_go_deployment_spills_to_nobody_and_no_client_asks_for_it() {
    let backend = Scripted::start(vec![answer("200 OK", SPILLED, CHAT)]).await;
    let config = format!(
        "{OPEN}{}",
        crate::gateway::backend("a", backend.address, "payg", "")
    );
    let gateway = start(&config).await;
    let call = gateway.chat().header("x-ms-spillover-deployment", "dear");
    call.send().await.unwrap().text().await.unwrap();
    assert!(!backend.last_request().contains("x-ms-spillover-deployment"));
    let event = gateway.event().await;
    assert_eq!((&*event.deployment, event.spilled), ("gpt-4o", false));
    assert_eq!(event.attempts.len(), 1);
}

/// Rows of before have no such attempts, and are what they were.
#[test]
fn an_event_of_before_is_priced_as_it_was() {
    let json = r#"{"id":"1","time":1795453590000,"app":"a","model":"gpt-4o","operation":"chat/completions","backend":"swe","deployment":"chat-ptu","kind":"ptu","status":200,"streamed":false,"spilled":false,"outcome":"completed","tokens":{"input":100,"output":10},"usage":"reported","first_byte_ms":1,"total_ms":2,"attempts":[{"backend":"swe","deployment":"chat-ptu","kind":"ptu","status":200,"ms":1,"billed":true}]}"#;
    let event: UsageEvent = serde_json::from_str(json).unwrap();
    assert_eq!(event.time, Timestamp::from_unix_ms(1_795_453_590_000));
    let config = read(&config("127.0.0.1:9".parse().unwrap(), ""));
    assert_eq!(config.prices().charge(&event).weighted, 140);
}
