//! The utilization and alert functions: what Azure Monitor says becomes rows and one line each.

use std::net::SocketAddr;
use std::sync::Arc;

use spillway::azure::monitor::Monitor;
use spillway::config::Config;
use spillway::gateway::pacing::monitor::MonitorMinute;
use spillway::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use spillway::gateway::ptu::Utilization;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::utilization::{self, Alert, Sheet, hours};
use spillway::store::{Pages, Range, Store, Table, Write};
use spillway::utilization::outcome::Outcome;
use spillway::utilization::poll::Poller;

use crate::gateway::{OPEN, start_with};
use crate::scripted::{Act, Scripted, answer};

mod together;

/// 2026-11-23T10:10:20Z: not a minute of sweeping.
fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T10:11:20Z").unwrap()
}

fn id(backend: usize) -> DeploymentId {
    DeploymentId {
        backend: format!("swe{backend}").into(),
        deployment: "gpt-4o".into(),
    }
}

fn resource_id(backend: usize) -> String {
    format!(
        "/subscriptions/S/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/swe{backend}"
    )
}

fn backends(count: usize) -> String {
    let one = |i| {
        format!(
            "[[backend]]\nname = \"swe{i}\"\nendpoint = \"http://127.0.0.1:9\"\nregion = \"swedencentral\"\nresource_id = \"{}\"\n\
             [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\nptus = 100\n",
            resource_id(i)
        )
    };
    (0..count).map(one).collect()
}

/// Buckets of 2026-11-23 from 10:00 on, each with an average or none.
fn metrics(averages: &[Option<f64>]) -> String {
    let bucket = |(i, average): (usize, &Option<f64>)| {
        let value = average.map_or(String::new(), |v| {
            format!(",\"average\":{v},\"maximum\":{v}")
        });
        format!("{{\"timeStamp\":\"2026-11-23T10:{i:02}:00Z\"{value}}}")
    };
    let data: Vec<String> = averages.iter().enumerate().map(bucket).collect();
    format!(
        r#"{{"value":[{{"errorCode":"Success","timeseries":[{{"metadatavalues":[{{"name":{{"value":"modeldeploymentname"}},"value":"gpt-4o"}}],"data":[{}]}}]}}]}}"#,
        data.join(",")
    )
}

struct Scene {
    store: Arc<dyn Store>,
    monitor: Scripted,
    poller: Poller,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start(backends_count: usize, script: Vec<Act>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let monitor = Scripted::start(script).await;
        let text = format!("{OPEN}[pacing]\n{}", backends(backends_count));
        let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
        let url = format!("http://{}", monitor.address);
        let client = Monitor::on_this_machine(&url).unwrap();
        let poller = Poller::new(&config, client, Arc::clone(&store));
        Self {
            store,
            monitor,
            poller,
            _folder: folder,
        }
    }

    async fn poll(&self) -> Vec<Outcome> {
        let reports = self.poller.poll_at(now()).await;
        reports.into_iter().map(|report| report.outcome).collect()
    }

    async fn sheet(&self) -> Sheet {
        let since = Minute::of(now()).before(60);
        utilization::read(&*self.store, &id(0), since)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_run_writes_the_minutes_that_count_and_the_newest_and_again_changes_nothing() {
    // 10:09 and 10:10 have not settled, 10:07 is empty and 10:08 a zero that may not have arrived.
    let averages = [
        Some(40.0),
        Some(50.5),
        None,
        Some(61.2),
        None,
        None,
        Some(70.0),
        None,
        Some(0.0),
        Some(90.0),
        Some(1.0),
    ];
    let say = answer("200 OK", "", &metrics(&averages));
    let scene = Scene::start(1, vec![say]).await;
    let first = scene.poll().await;
    let Outcome::Written {
        newest,
        age_ms,
        minutes,
    } = &first[0]
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        (newest.average.tenths(), *age_ms, *minutes),
        (700, 260_000, 4)
    );
    let request = scene.monitor.last_request();
    let asked = format!(
        "GET {}/providers/Microsoft.Insights/metrics?",
        resource_id(0)
    );
    assert!(request.starts_with(&asked), "{request}");
    assert!(
        request.contains("timespan=2026-11-23T10:01:00Z%2F2026-11-23T10:11:20Z"),
        "{request}"
    );
    let sheet = scene.sheet().await;
    assert_eq!(sheet.known.monitor.len(), 4);
    let again = scene.poll().await;
    assert!(
        matches!(again[0], Outcome::Written { minutes: 0, .. }),
        "{again:?}"
    );
    assert_eq!(scene.sheet().await, sheet);
}

#[tokio::test]
async fn estimates_learn_from_monitor_once_a_minute() {
    let averages = vec![Some(60.0); 9];
    let scene = Scene::start(1, vec![answer("200 OK", "", &metrics(&averages))]).await;
    // 250,000 tokens a minute are all: 40 % of them.
    let start = Minute::of(Timestamp::parse("2026-11-23T10:00:00Z").unwrap());
    let used = Use {
        all: 100_000,
        ..Use::default()
    };
    for shard in ["a", "b"] {
        let counts = Counts {
            minute: start,
            used: Use {
                all: used.all / 2,
                ..used
            },
            seen: now(),
        };
        let write = utilization::counts(&counts, shard, None);
        utilization::write(&*scene.store, &id(0), vec![write])
            .await
            .unwrap();
    }
    scene.poll().await;
    let learnt = scene.sheet().await.known.calibration;
    assert_eq!(learnt.thousandths(), 1_063, "an eighth of the way to 1.5");
    scene.poll().await;
    assert_eq!(scene.sheet().await.known.calibration, learnt);
}

#[tokio::test]
async fn each_way_to_fail_is_a_line_that_says_what_to_do() {
    let error = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"x"}}}}"#);
    for (act, line) in [
        (
            answer("429 Too Many Requests", "retry-after: 17\r\n", ""),
            "throttled for 17 s",
        ),
        (
            answer("403 Forbidden", "", &error("AuthorizationFailed")),
            "Monitoring Reader",
        ),
        (
            answer("404 Not Found", "", &error("ResourceNotFound")),
            "resource_id",
        ),
        (
            answer("503 Service Unavailable", "", ""),
            "unavailable (503",
        ),
        (answer("200 OK", "", "<html>"), "unreadable answer"),
        (
            answer("200 OK", "", &metrics(&[None; 10])),
            "unknown is not idle",
        ),
    ] {
        let scene = Scene::start(1, vec![act]).await;
        let outcome = scene.poll().await.remove(0).to_string();
        assert!(
            outcome.contains(line) && !outcome.contains('\n'),
            "{outcome}"
        );
        assert_eq!(scene.sheet().await, Sheet::default());
    }
}

#[tokio::test]
async fn a_monitor_that_throttles_is_left_alone_for_as_long_as_it_says() {
    let throttled = answer("429 Too Many Requests", "retry-after: 90\r\n", "");
    let good = answer("200 OK", "", &metrics(&[Some(5.0)]));
    let scene = Scene::start(1, vec![throttled, good]).await;
    assert!(matches!(scene.poll().await[0], Outcome::Failed(_)));
    let in_s = |s: u64| now().plus_ms(s * 1000);
    let waits = scene.poller.poll_at(in_s(60)).await.remove(0).outcome;
    assert_eq!(waits, Outcome::Waits { ms: 30_000 });
    assert_eq!(scene.monitor.calls(), 1);
    let then = scene.poller.poll_at(in_s(91)).await.remove(0).outcome;
    assert!(matches!(then, Outcome::Written { .. }), "{then}");
}

#[tokio::test]
async fn old_rows_are_deleted_and_the_newest_figure_stays() {
    let scene = Scene::start(1, vec![answer("200 OK", "", &metrics(&[Some(5.0); 9]))]).await;
    scene.poll().await;
    let rows = async || {
        let range = Range::of(utilization::partition(&id(0)), "");
        let rows = Pages::new(&*scene.store, Table::Utilization, range);
        rows.rest().await.unwrap().len()
    };
    assert_eq!(rows().await, 10);
    let before = Minute::of(Timestamp::parse("2026-11-23T10:05:00Z").unwrap());
    let deleted = utilization::sweep(&*scene.store, &id(0), before)
        .await
        .unwrap();
    assert_eq!((deleted, rows().await), (5, 5));
    let later = Minute::of(now());
    utilization::sweep(&*scene.store, &id(0), later)
        .await
        .unwrap();
    assert_eq!(rows().await, 1);
    let hour = hours::read(&*scene.store, &id(0), now()).await.unwrap();
    assert_eq!(hour.len(), 9, "hours are kept for longer");
    let percents = hour.iter().map(|(_, percent)| percent.tenths());
    assert!(percents.eq([50; 9]));
}

/// More minutes than a page of the table has, none of them old.
async fn fill(store: &dyn Store) {
    let minute = |i| MonitorMinute {
        minute: Minute::of(now()).before(i),
        average: Utilization::of_tenths(500),
        maximum: Utilization::of_tenths(500),
    };
    let minutes = (0..1200).map(|i| utilization::monitor(&minute(i), now()));
    let minutes: Vec<Write> = minutes.collect();
    for some in minutes.chunks(100) {
        utilization::write(store, &id(0), some.to_vec())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn alerts_that_ended_long_ago_are_deleted_behind_a_page_of_minutes_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    fill(&store).await;
    for (name, minutes) in [("over", 2000), ("recent", 10)] {
        let alert = Alert {
            id: name.into(),
            utilization: Utilization::of_tenths(970),
            fired: Minute::of(now()).before(minutes + 30).start(),
            expires: Minute::of(now()).before(minutes).start(),
            is_over: true,
        };
        utilization::record_alert(&store, &id(0), &alert)
            .await
            .unwrap();
    }
    let before = Minute::of(now()).before(1200);
    let swept = utilization::sweep(&store, &id(0), before).await;
    assert_eq!(swept, Ok(1));
    let left = utilization::alerts(&store, &id(0)).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id, "recent");
}

#[tokio::test]
async fn old_rows_of_a_deployment_that_monitor_does_not_know_are_deleted_too() {
    rows_are_swept(&backends(1).replace("resource_id", "# resource_id")).await;
}

#[tokio::test]
async fn old_rows_of_a_deployment_that_was_deleted_are_deleted_too() {
    let gone = backends(1).replace("ptus = 100", "ptus = 100\ndeleted = \"2026-11-20\"");
    let other = "[[backend.deployment]]\nname = \"other\"\nkind = \"payg\"\n";
    rows_are_swept(&(gone + other)).await;
}

/// Of these backends' deployment the old rows are deleted, although Monitor is asked for none.
async fn rows_are_swept(backends: &str) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let text = format!("{OPEN}[pacing]\n{backends}");
    let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let monitor = Monitor::on_this_machine("http://127.0.0.1:9").unwrap();
    let poller = Poller::new(&config, monitor, Arc::clone(&store));
    let of_day = |days: u64| Counts {
        minute: Minute::of(now()).before(days * 24 * 60),
        used: Use::default(),
        seen: now(),
    };
    let writes = [0, 8].map(|days| utilization::counts(&of_day(days), "a", None));
    utilization::write(&*store, &id(0), writes.into())
        .await
        .unwrap();
    let sweeping = Timestamp::parse("2026-11-23T10:20:20Z").unwrap();
    let reports = poller.poll_at(sweeping).await;
    assert!(reports.is_empty(), "nobody is asked: {reports:?}");
    let range = Range::of(utilization::partition(&id(0)), "");
    let rows = Pages::new(&*store, Table::Utilization, range);
    let rows = rows.rest().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].key.row.starts_with("2026-11-23T"), "{rows:?}");
}

/// The shape of Microsoft's sample of a metric alert.
fn alert(condition: &str, resource: &str) -> String {
    format!(
        r#"{{"schemaId":"azureMonitorCommonAlertSchema","data":{{"essentials":{{"alertId":"/subscriptions/S/providers/Microsoft.AlertsManagement/alerts/G","monitorCondition":"{condition}","alertTargetIDs":["{resource}"],"firedDateTime":"2026-11-23T10:00:24.3713213Z"}},"alertContext":{{"condition":{{"allOf":[{{"metricName":"AzureOpenAIProvisionedManagedUtilizationV2","operator":"GreaterThan","threshold":"90","dimensions":[{{"name":"ModelDeploymentName","value":"gpt-4o"}}],"metricValue":97.3}}]}}}}}}}}"#
    )
}

#[tokio::test]
async fn an_alert_counts_until_it_is_over_and_never_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let config = format!(
        "[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{}\"]\n{}{}",
        spillway::config::KeyHash::of("admin"),
        crate::gateway::app("portal", ""),
        backends(1)
    );
    let gateway = start_with(&config, Arc::clone(&store)).await;
    let send = async |key: &str, body: String| {
        let call = gateway.post("/alerts").header("api-key", key).body(body);
        call.send().await.unwrap().status().as_u16()
    };
    let warning = async || {
        let sheet = utilization::read(&*store, &id(0), Minute::of(now()))
            .await
            .unwrap();
        let far = |until: &Timestamp| *until > Timestamp::from_unix_ms(0);
        sheet
            .known
            .warnings
            .first()
            .map(|w| (w.utilization, w.until))
            .filter(|(_, until)| far(until))
    };
    let resource = resource_id(0).to_lowercase();
    assert_eq!(send("portal-key", alert("Fired", &resource)).await, 403);
    assert_eq!(send("wrong", alert("Fired", &resource)).await, 401);
    assert_eq!(warning().await, None);
    assert_eq!(send("admin", alert("Fired", &resource)).await, 200);
    let first = warning().await.unwrap();
    assert_eq!(first.0, Utilization::of_tenths(973));
    assert_eq!(send("admin", alert("Fired", &resource)).await, 200);
    assert_eq!(warning().await, Some(first), "twice is once");
    assert_eq!(send("admin", alert("Resolved", &resource)).await, 200);
    let over = warning().await.unwrap();
    assert!(over.1 < first.1);
    assert_eq!(send("admin", alert("Fired", &resource)).await, 200);
    assert_eq!(warning().await, Some(over), "it came late");
    assert_eq!(send("admin", alert("Fired", "/other")).await, 200);
    assert_eq!(send("admin", "{}".into()).await, 400);
    let other = alert("Fired", &resource).replace("GreaterThan", "LessThan");
    assert_eq!(send("admin", other).await, 422);
}

#[tokio::test]
async fn the_simulated_monitor_answers_late_and_in_azures_form() {
    use spillway::local::monitor::{self, Watched};
    use spillway::local::simulation::{
        Latency, Limit, SimulatedBackend, SimulatedDeployment, metered, serve,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (router, metered) = metered(SimulatedBackend {
        name: "swe0".into(),
        region: "swedencentral".into(),
        key: None,
        deployments: vec![SimulatedDeployment {
            name: "gpt-4o".into(),
            model: "gpt-4o".into(),
            limit: Limit::Ptu { ptus: 1 },
        }],
        latency: Latency::default(),
    });
    tokio::spawn(serve(listener, router));
    let call = reqwest::Client::new()
        .post(format!(
            "http://{address}/openai/deployments/gpt-4o/chat/completions?api-version=1"
        ))
        .json(&crate::gateway::chat_body(false));
    assert_eq!(call.send().await.unwrap().status(), 200);
    let ask = async |late| {
        let watched = Watched {
            resource_id: resource_id(0),
            metered: metered.clone(),
        };
        let url = format!(
            "http://{}",
            monitor::start(vec![watched], late).await.unwrap()
        );
        let client = Monitor::on_this_machine(&url).unwrap();
        let resource = resource_id(0).parse().unwrap();
        let now = metered.now();
        let from = Minute::of(now).before(9).start();
        let all = client.one(&resource, from, now.plus_ms(1)).await.unwrap();
        all[0].minutes.clone()
    };
    assert!(ask(3).await.is_empty(), "three minutes late");
    let minutes = metered.minutes();
    assert!(
        minutes[0]
            .1
            .values()
            .all(|utilization| utilization.tenths() > 0),
        "{minutes:?}"
    );
}
