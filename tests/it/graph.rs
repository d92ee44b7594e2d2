//! Display names of apps, from a Microsoft Graph of this machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use spillway::azure::graph::{Graph, GraphError};
use spillway::billing::Names;
use spillway::billing::names::{NamesError, once};
use spillway::config::KeyHash;
use spillway::gateway::event::{Kind, UsageEvent};
use spillway::gateway::time::Timestamp;
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;
use tokio::net::TcpListener;

use crate::gateway::{backend, start_with};
use crate::store::unpriced;

/// The tenant knows one of these, and has never heard of the other.
const KNOWN: &str = "11111111-2222-3333-4444-555555555555";
const UNKNOWN: &str = "99999999-8888-7777-6666-555555555555";

const DAY: u64 = 24 * 3_600_000;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

/// A double of Graph: it has the names of service principals by their applications' ids.
#[derive(Clone, Default)]
struct FakeGraph {
    names: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
    is_forbidden: Arc<Mutex<bool>>,
}

impl FakeGraph {
    async fn start() -> (Self, Graph) {
        let fake = Self::default();
        fake.call(KNOWN, "Invoice bot");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/v1.0/{object}", get(answer))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, Graph::new(&service, None).unwrap())
    }

    fn call(&self, app: &str, name: &str) {
        self.names.lock().unwrap().insert(app.into(), name.into());
    }

    /// The applications that it was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(
    State(fake): State<FakeGraph>,
    Path(object): Path<String>,
    RawQuery(query): RawQuery,
) -> (StatusCode, Json<Value>) {
    let error = |status, code: &str| (status, Json(json!({"error": {"code": code}})));
    assert_eq!(query.as_deref(), Some("$select=displayName"));
    let app = object.strip_prefix("servicePrincipals(appId='").unwrap();
    let app = app.strip_suffix("')").unwrap();
    fake.asked.lock().unwrap().push(app.to_owned());
    if *fake.is_forbidden.lock().unwrap() {
        return error(StatusCode::FORBIDDEN, "Authorization_RequestDenied");
    }
    match fake.names.lock().unwrap().get(app) {
        Some(name) => (StatusCode::OK, Json(json!({"displayName": name}))),
        None => error(StatusCode::NOT_FOUND, "Request_ResourceNotFound"),
    }
}

/// A store with a call of each of these apps.
async fn store(apps: &[&str]) -> (tempfile::TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let events = apps.iter().map(|app| UsageEvent {
        id: format!("call-of-{app}"),
        time: NOW,
        app: (*app).into(),
        kind: Some(Kind::Payg),
        ..UsageEvent::default()
    });
    let events: Vec<UsageEvent> = events.collect();
    let ledger = Ledger::new(Arc::clone(&store));
    let all: Vec<&UsageEvent> = events.iter().collect();
    ledger.record(&all, &unpriced).await.unwrap();
    (folder, store)
}

#[tokio::test]
async fn an_application_is_asked_for_once_until_its_answer_is_old() {
    let (fake, graph) = FakeGraph::start().await;
    let (_folder, store) = store(&[KNOWN, UNKNOWN, "portal"]).await;
    once(store.as_ref(), &graph, NOW).await.unwrap();
    assert_eq!(
        fake.asked(),
        [KNOWN, UNKNOWN],
        "an app that has a name is not"
    );
    let names = Names::read(store.as_ref()).await;
    assert_eq!(names.of(KNOWN), Some("Invoice bot"));
    assert_eq!(names.shown(KNOWN), format!("Invoice bot ({KNOWN})"));
    assert_eq!(
        (names.shown(UNKNOWN), names.shown("portal")),
        (UNKNOWN.into(), "portal".into())
    );

    let later = |ms: u64| NOW.plus_ms(ms);
    once(store.as_ref(), &graph, later(DAY - 1)).await.unwrap();
    assert_eq!(
        fake.asked(),
        [""; 0],
        "that there is none is remembered, too"
    );
    fake.call(UNKNOWN, "Late comer");
    once(store.as_ref(), &graph, later(DAY)).await.unwrap();
    assert_eq!(fake.asked(), [UNKNOWN]);
    fake.call(KNOWN, "Invoice robot");
    once(store.as_ref(), &graph, later(7 * DAY)).await.unwrap();
    assert_eq!(fake.asked(), [KNOWN]);
    let names = Names::read(store.as_ref()).await;
    assert_eq!(names.of(KNOWN), Some("Invoice robot"));
    assert_eq!(names.of(UNKNOWN), Some("Late comer"));
}

#[tokio::test]
async fn without_the_permission_nothing_is_forgotten_and_it_is_said_which_is_missing() {
    let (fake, graph) = FakeGraph::start().await;
    let (_folder, store) = store(&[KNOWN, UNKNOWN]).await;
    once(store.as_ref(), &graph, NOW).await.unwrap();
    fake.asked();
    *fake.is_forbidden.lock().unwrap() = true;
    let refused = once(store.as_ref(), &graph, NOW.plus_ms(8 * DAY)).await;
    let error = refused.unwrap_err();
    assert_eq!(error, NamesError::Graph(GraphError::Forbidden));
    assert!(
        error.to_string().contains("Application.Read.All"),
        "{error}"
    );
    assert_eq!(fake.asked().len(), 1, "the others would be refused, too");
    let names = Names::read(store.as_ref()).await;
    assert_eq!(
        names.of(KNOWN),
        Some("Invoice bot"),
        "an old name is better than none"
    );
}

#[tokio::test]
async fn what_is_no_applications_id_is_not_asked_for() {
    let (fake, graph) = FakeGraph::start().await;
    for odd in ["portal", "", "x')/owners?", &format!("{KNOWN}/owners")] {
        assert_eq!(graph.display_name(odd).await, Ok(None));
    }
    assert_eq!(fake.asked(), [""; 0]);
    let nowhere = Graph::new("http://127.0.0.1:1", None).unwrap();
    let error = nowhere.display_name(KNOWN).await.unwrap_err();
    assert!(matches!(error, GraphError::Unreadable(_)), "{error}");
}

#[tokio::test]
async fn bill_and_console_show_the_name_beside_the_id_and_the_same_figures() {
    let (_fake, graph) = FakeGraph::start().await;
    let (_folder, store) = store(&[KNOWN, UNKNOWN]).await;
    once(store.as_ref(), &graph, NOW).await.unwrap();
    let admin = KeyHash::of("admin-key");
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let shown = async |names: bool| {
        let config = format!(
            "[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{admin}\"]\n[chargeback]\ngraph_names = {names}\n{}{}",
            crate::gateway::app("portal", ""),
            backend("a", nowhere, "payg", "")
        );
        let gateway = start_with(&config, Arc::clone(&store)).await;
        let get = async |path: &str| {
            let answer = gateway
                .get(path)
                .header("api-key", "admin-key")
                .send()
                .await;
            answer.unwrap().text().await.unwrap()
        };
        let bill = get("/spillway/chargeback?month=2026-11").await;
        let csv = get("/spillway/chargeback?month=2026-11&format=csv").await;
        let page = get("/spillway/money?month=2026-11").await;
        let bill: Value = serde_json::from_str(&bill).unwrap();
        (bill, csv, page)
    };
    let (mut with, csv, page) = shown(true).await;
    let (without, plain_csv, plain_page) = shown(false).await;
    assert!(
        page.contains("Invoice bot") && page.contains(KNOWN),
        "{page}"
    );
    assert!(!plain_page.contains("Invoice bot") && plain_page.contains(KNOWN));
    assert!(
        csv.lines().nth(1).unwrap().ends_with(",USD,Invoice bot"),
        "{csv}"
    );
    assert_eq!(csv.replace("Invoice bot", ""), plain_csv);
    let first = &mut with["lines"][0];
    assert_eq!(
        (&first["app"], &first["app_name"]),
        (&KNOWN.into(), &"Invoice bot".into())
    );
    first.as_object_mut().unwrap().remove("app_name");
    assert_eq!(with, without, "figures do not depend on names");
}
