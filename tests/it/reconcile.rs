//! The daily look at what Azure Monitor counts beside what is charged: one store, a Monitor that plays a
//! script.

use std::sync::Arc;

use serde_json::Value;
use spillway::azure::monitor::Monitor;
use spillway::billing::command::{self, Request, What};
use spillway::billing::period::{Period, Span};
use spillway::billing::reconcile::{Reconciler, read};
use spillway::billing::render::Format;
use spillway::billing::{Billing, reconcile};
use spillway::config::{Config, KeyHash};
use spillway::gateway::bill::By;
use spillway::gateway::event::{Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::reconcile::{Note, Reconciled};
use spillway::gateway::time::{DAY_MS, Timestamp};
use spillway::host::clock::Clock;
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;

use crate::gateway::{app, start_with};
use crate::scripted::{Act, Scripted, answer};

const HOUR: u64 = 60 * 60 * 1000;

/// The beginning of today, of yesterday for 1, and so on.
fn day(ago: u64) -> Timestamp {
    let now = Clock::new().now().unix_ms();
    Timestamp::from_unix_ms(now - now % DAY_MS - ago * DAY_MS)
}

fn config(more: &str) -> String {
    let admin = KeyHash::of("admin-key");
    let resource =
        "/subscriptions/S/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts";
    format!(
        "[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{admin}\"]\n\
         [storage]\ntables = \"embedded:unused\"\n[chargeback]\nreconcile = true\n{}\
         [[backend]]\nname = \"swe\"\nendpoint = \"http://127.0.0.1:9\"\nresource_id = \"{resource}/swe\"\n\
         [[backend.deployment]]\nname = \"chat-ptu\"\nmodel = \"gpt-4o\"\nkind = \"ptu\"\n\
         [[backend.deployment]]\nname = \"idle\"\nkind = \"payg\"\n{more}\
         [[backend]]\nname = \"unnamed\"\nendpoint = \"http://127.0.0.1:9\"\n\
         [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n",
        app("portal", "")
    )
}

fn call(
    id: &str,
    at: Timestamp,
    backend: &str,
    deployment: &str,
    tokens: (u64, u64),
) -> UsageEvent {
    UsageEvent {
        id: id.into(),
        time: at,
        app: if id.ends_with('1') {
            "portal"
        } else {
            "nightly"
        }
        .into(),
        model: "gpt-4o".into(),
        backend: backend.into(),
        deployment: deployment.into(),
        kind: Some(if deployment == "chat-ptu" {
            Kind::Ptu
        } else {
            Kind::Payg
        }),
        status: 200,
        outcome: Outcome::Completed,
        tokens: Tokens {
            input: tokens.0,
            output: tokens.1,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

/// A metric of a deployment in each of some hours of a day.
fn metric(name: &str, start: Timestamp, deployments: &[(&str, &str, &[u64])]) -> String {
    let series = deployments.iter().map(|(deployment, status, hours)| {
        let data = hours.iter().enumerate().map(|(hour, total)| {
            let at = start.plus_ms(u64::try_from(hour).unwrap() * HOUR).rfc3339();
            format!(r#"{{"timeStamp":"{at}","total":{total}}}"#)
        });
        let data: Vec<String> = data.collect();
        let status = if status.is_empty() {
            String::new()
        } else {
            format!(r#",{{"name":{{"value":"statuscode"}},"value":"{status}"}}"#)
        };
        format!(
            r#"{{"metadatavalues":[{{"name":{{"value":"modeldeploymentname"}},"value":"{deployment}"}}{status}],"data":[{}]}}"#,
            data.join(",")
        )
    });
    let series: Vec<String> = series.collect();
    format!(
        r#"{{"name":{{"value":"{name}"}},"errorCode":"Success","timeseries":[{}]}}"#,
        series.join(",")
    )
}

fn said(metrics: &[String]) -> Act {
    answer(
        "200 OK",
        "",
        &format!(r#"{{"value":[{}]}}"#, metrics.join(",")),
    )
}

/// What Monitor says of a day on which the PTU had these prompt and generated tokens and calls.
fn of_day(start: Timestamp, prompt: &[u64], generated: u64, calls: u64) -> [Act; 2] {
    let tokens = said(&[
        metric("ProcessedPromptTokens", start, &[("chat-ptu", "", prompt)]),
        metric("GeneratedTokens", start, &[("chat-ptu", "", &[generated])]),
    ]);
    let statuses: [(&str, &str, &[u64]); 2] =
        [("chat-ptu", "200", &[calls]), ("chat-ptu", "429", &[99])];
    [
        tokens,
        said(&[metric("AzureOpenAIRequests", start, &statuses)]),
    ]
}

struct Scene {
    store: Arc<dyn Store>,
    monitor: Scripted,
    reconciler: Reconciler,
    config: Config,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Of a store with these calls.
    async fn start(text: &str, events: &[UsageEvent], script: Vec<Act>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let monitor = Scripted::start(script).await;
        let config = Config::parse(text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let prices = config.prices();
        let events: Vec<&UsageEvent> = events.iter().collect();
        let ledger = Ledger::new(Arc::clone(&store));
        ledger
            .record(&events, &|event| prices.charge(event))
            .await
            .unwrap();
        let client = Monitor::on_this_machine(&format!("http://{}", monitor.address)).unwrap();
        let reconciler = Reconciler::new(&config, client, Arc::clone(&store));
        Self {
            store,
            monitor,
            reconciler,
            config,
            _folder: folder,
        }
    }

    /// What is known of the day so many days ago.
    async fn found(&self, ago: u64) -> Vec<Reconciled> {
        read(&*self.store, period(ago)).await.unwrap()
    }
}

fn period(ago: u64) -> Period {
    let day = day(ago).day();
    let span = Span {
        from: Some(&day),
        to: Some(&day),
        month: None,
    };
    Period::read(span, Timestamp::default()).unwrap()
}

/// Two apps' calls of yesterday: 1,000 prompt and 300 generated tokens at the PTU, and one elsewhere.
fn yesterdays() -> Vec<UsageEvent> {
    let noon = day(1).plus_ms(12 * HOUR);
    let mut estimated = call("02", noon, "swe", "chat-ptu", (400, 100));
    estimated.usage = UsageSource::Estimated;
    let mut failed = call("03", noon, "swe", "chat-ptu", (0, 0));
    failed.status = 500;
    vec![
        call("01", noon, "swe", "chat-ptu", (600, 200)),
        estimated,
        failed,
        call("04", noon, "unnamed", "gpt-4o", (5, 5)),
    ]
}

#[tokio::test]
async fn a_day_is_compared_once_and_the_day_before_it_again() {
    let mut script = of_day(day(1), &[500, 470], 300, 2).to_vec();
    script.extend(of_day(day(2), &[0], 0, 0));
    let scene = Scene::start(&config(""), &yesterdays(), script).await;
    scene
        .reconciler
        .once(day(0).plus_ms(HOUR - 1))
        .await
        .unwrap();
    assert_eq!(scene.monitor.calls(), 0, "figures may be on their way");
    let now = day(0).plus_ms(2 * HOUR);
    scene.reconciler.once(now).await.unwrap();
    scene.reconciler.once(now.plus_ms(HOUR)).await.unwrap();
    assert_eq!(
        scene.monitor.calls(),
        4,
        "two queries a day of the one resource that is named"
    );
    let request = scene.monitor.last_request();
    for part in [
        "/accounts/swe/providers/Microsoft.Insights/metrics?",
        "metricnames=AzureOpenAIRequests",
        "interval=PT1H&aggregation=total",
        "ModelDeploymentName%20eq%20%27*%27%20and%20StatusCode%20eq%20%27*%27",
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
    assert_eq!(scene.found(2).await, [], "nobody called anything");
    let found = scene.found(1).await;
    let [ptu] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&*ptu.backend, &*ptu.deployment), ("swe", "chat-ptu"));
    assert_eq!((ptu.prompt.ours, ptu.prompt.metered), (1000, Some(970)));
    assert_eq!(
        (ptu.generated.ours, ptu.generated.metered),
        (300, Some(300))
    );
    assert_eq!((ptu.requests.ours, ptu.requests.metered), (2, Some(2)));
    assert_eq!(ptu.percent(), Some(3.09));
    assert_eq!(ptu.notes(), [Note::Hours(2), Note::Estimated(500)]);
}

#[tokio::test]
async fn what_came_late_is_seen_by_the_next_days_look() {
    let mut script = of_day(day(2), &[500], 300, 2).to_vec();
    script.extend(of_day(day(3), &[], 0, 0));
    script.extend(of_day(day(1), &[], 0, 0));
    script.extend(of_day(day(2), &[500, 500], 300, 2));
    let calls: Vec<UsageEvent> = yesterdays()
        .into_iter()
        .map(|call| UsageEvent {
            time: Timestamp::from_unix_ms(call.time.unix_ms() - DAY_MS),
            ..call
        })
        .collect();
    let scene = Scene::start(&config(""), &calls, script).await;
    scene
        .reconciler
        .once(day(1).plus_ms(2 * HOUR))
        .await
        .unwrap();
    assert_eq!(scene.found(2).await[0].percent(), Some(100.0));
    scene
        .reconciler
        .once(day(0).plus_ms(2 * HOUR))
        .await
        .unwrap();
    assert_eq!(scene.found(2).await[0].percent(), Some(0.0));
    assert_eq!(scene.monitor.calls(), 8);
}

#[tokio::test]
async fn a_resource_that_can_not_be_asked_is_asked_an_hour_later_and_holds_up_no_other() {
    let other = "[[backend]]\nname = \"nor\"\nendpoint = \"http://127.0.0.1:9\"\n\
                 resource_id = \"/subscriptions/S/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/nor\"\n\
                 [[backend.deployment]]\nname = \"chat-ptu\"\nmodel = \"gpt-4o\"\nkind = \"ptu\"\n";
    let refused = answer(
        "403 Forbidden",
        "",
        r#"{"error":{"code":"AuthorizationFailed","message":"x"}}"#,
    );
    let mut script = vec![refused.clone()];
    script.extend(of_day(day(1), &[970], 300, 2));
    script.extend([refused]);
    script.extend(of_day(day(2), &[], 0, 0));
    for ago in [1, 1, 2, 2] {
        script.extend(of_day(day(ago), &[970], 300, 2));
    }
    let scene = Scene::start(&config(other), &yesterdays(), script).await;
    let now = day(0).plus_ms(2 * HOUR);
    let error = scene.reconciler.once(now).await.unwrap_err();
    assert!(error.contains("swe: Azure Monitor: forbidden"), "{error}");
    assert!(error.contains("Monitoring Reader"), "{error}");
    let found = scene.found(1).await;
    let [nor] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(&*nor.backend, "nor");
    assert_eq!((nor.prompt.ours, nor.notes()), (0, vec![Note::NotOurs(2)]));
    scene.reconciler.once(now.plus_ms(HOUR)).await.unwrap();
    assert_eq!(scene.found(1).await.len(), 2);
}

#[tokio::test]
async fn a_spillover_deployment_that_is_not_configured_is_compared_too() {
    let start = day(1);
    let prompt = metric(
        "ProcessedPromptTokens",
        start,
        &[("chat", "", &[50]), ("of-others", "", &[7])],
    );
    let calls = metric("AzureOpenAIRequests", start, &[("chat", "200", &[1])]);
    let mut script = vec![said(&[prompt]), said(&[calls])];
    script.extend(of_day(day(2), &[], 0, 0));
    let spilled = call("01", start.plus_ms(HOUR), "swe", "chat", (50, 0));
    let scene = Scene::start(&config(""), &[spilled], script).await;
    scene
        .reconciler
        .once(day(0).plus_ms(2 * HOUR))
        .await
        .unwrap();
    let found = scene.found(1).await;
    let [one] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&*one.deployment, one.percent()), ("chat", Some(0.0)));
    assert_eq!(one.generated.metered, None, "no metric is no zero");
}

#[tokio::test]
async fn the_drift_is_on_the_console_in_the_metrics_and_on_the_bill() {
    let mut script = of_day(day(1), &[970], 300, 2).to_vec();
    script.extend(of_day(day(2), &[], 0, 0));
    let text = config("");
    let scene = Scene::start(&text, &yesterdays(), script).await;
    scene
        .reconciler
        .once(day(0).plus_ms(2 * HOUR))
        .await
        .unwrap();

    let gateway = start_with(&text, Arc::clone(&scene.store)).await;
    let get = async |path: String, key: &str| {
        let answer = gateway
            .get(&path)
            .header("api-key", key)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    let yesterday = day(1).day();
    let month = &yesterday[..7];
    let money = get(format!("/spillway/api/money?month={month}"), "admin-key").await;
    let money: Value = serde_json::from_str(&money).unwrap();
    let drift = &money["reconciliation"][0];
    assert_eq!(drift["day"], *yesterday);
    assert_eq!(
        (&drift["prompt_tokens"], &drift["azure_prompt_tokens"]),
        (&1000.into(), &970.into())
    );
    assert_eq!(
        (&drift["drift_percent"], &drift["is_beyond"]),
        (&3.09.into(), &true.into())
    );
    let page = get(format!("/spillway/money?month={month}"), "admin-key").await;
    for shown in [
        "Beside Azure Monitor's count",
        "swe/chat-ptu",
        "+3.09 %",
        "500 tokens are estimated",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    let metrics = get("/spillway/metrics".into(), "admin-key").await;
    for sample in [
        "spillway_reconciliation_drift_percent{backend=\"swe\",deployment=\"chat-ptu\",gen_ai_token_type=\"input\"} 3.09",
        "spillway_reconciliation_drift_percent{backend=\"swe\",deployment=\"chat-ptu\",gen_ai_token_type=\"output\"} 0",
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }

    let bill = format!("/spillway/chargeback?from={yesterday}&to={yesterday}");
    let of_all: Value = serde_json::from_str(&get(bill.clone(), "admin-key").await).unwrap();
    let drift = &of_all["reconciliation"][0];
    assert_eq!(
        (&drift["deployment"], &drift["drift_percent"]),
        (&"chat-ptu".into(), &3.09.into())
    );
    let own: Value = serde_json::from_str(&get(bill, "portal-key").await).unwrap();
    assert_eq!(
        own.get("reconciliation"),
        None,
        "it is of all apps together"
    );

    let billing = Billing::new(&scene.config, Arc::clone(&scene.store));
    let request = Request {
        period: period(1),
        app: None,
        by: vec![By::App],
        format: Format::Table,
        decimals: 2,
        what: What::Bill,
    };
    let mut table = Vec::new();
    command::run(&billing, request, day(0), &mut table)
        .await
        .unwrap();
    let table = String::from_utf8(table).unwrap();
    let line = table
        .lines()
        .find(|line| line.starts_with("swe/chat-ptu"))
        .unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "swe/chat-ptu",
            "1",
            "of",
            "1",
            "2",
            "2",
            "1000",
            "970",
            "300",
            "300",
            "+3.09",
            "%"
        ]
    );
    assert_eq!(reconcile::to_text(&[]), "");
}
