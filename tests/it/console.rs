//! The console from outside: who gets in and how, and what is counted of calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::redirect::Policy;
use serde_json::Value;
use spillway::azure::service_bus::{CountError, Counts as _, ServiceBus};
use spillway::config::KeyHash;
use spillway::gateway::event::UsageEvent;
use spillway::gateway::pacing::calibration::Calibration;
use spillway::gateway::pacing::monitor::MonitorMinute;
use spillway::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use spillway::gateway::ptu::Utilization;
use spillway::gateway::time::Timestamp;
use spillway::host::clock::Clock;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;
use spillway::store::utilization::{self, Current, hours};
use spillway::store::{Store, slots};

use crate::gateway::{OPEN, Running, app, backend, header, start, start_with};
use crate::scripted::{Scripted, answer, full, good};
use crate::store::unpriced;

/// A gateway with the app `portal`, the admin key `admin-key` and a backend that is asked nothing.
async fn locked() -> Running {
    let admin = KeyHash::of("admin-key");
    let auth = format!("[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{admin}\"]\n");
    let nowhere = "127.0.0.1:9".parse().unwrap();
    start(&(auth + &app("portal", "") + &backend("a", nowhere, "payg", ""))).await
}

/// A browser's client: it says what it wants, and its redirects are looked at.
fn browser() -> reqwest::Client {
    let client = reqwest::Client::builder().redirect(Policy::none());
    client.build().unwrap()
}

struct Person {
    client: reqwest::Client,
    root: String,
    cookie: String,
}

impl Person {
    fn at(gateway: &Running) -> Self {
        Self {
            client: browser(),
            root: format!("http://{}", gateway.address),
            cookie: String::new(),
        }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let get = self.client.get(format!("{}{path}", self.root));
        let get = get.header("accept", "text/html,*/*;q=0.8");
        get.header("cookie", &self.cookie).send().await.unwrap()
    }

    async fn sign_in(&self, key: &str, site: &str) -> reqwest::Response {
        let post = self.client.post(format!("{}/spillway/sign-in", self.root));
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        let post = post.header("sec-fetch-site", site);
        let form = format!("to=%2Fspillway%2Fcalls%3Fapp%3Da&key={key}");
        post.body(form).send().await.unwrap()
    }
}

#[tokio::test]
async fn a_person_signs_in_with_the_admin_key_and_out_again() {
    let gateway = locked().await;
    let mut person = Person::at(&gateway);
    let turned_away = person.get("/spillway/calls?app=a").await;
    assert_eq!(turned_away.status(), 303);
    let form = header(&turned_away, "location");
    assert_eq!(form, "/spillway/sign-in?to=%2Fspillway%2Fcalls%3Fapp%3Da");
    let form = person.get(&form).await.text().await.unwrap();
    assert!(form.contains("value=\"/spillway/calls?app=a\""), "{form}");

    for wrong in ["nothing", "portal-key", ""] {
        let again = person.sign_in(wrong, "same-origin").await;
        assert_eq!(again.status(), 401, "{wrong}");
        assert_eq!(header(&again, "set-cookie"), "");
    }
    let forged = person.sign_in("admin-key", "cross-site").await;
    assert_eq!(forged.status(), 403, "from another site's page");

    let signed_in = person.sign_in("admin-key", "same-origin").await;
    assert_eq!(signed_in.status(), 303);
    assert_eq!(header(&signed_in, "location"), "/spillway/calls?app=a");
    let cookie = header(&signed_in, "set-cookie");
    for part in [
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/spillway",
        "; Max-Age=28800",
    ] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("admin-key"));
    cookie
        .split(';')
        .next()
        .unwrap()
        .clone_into(&mut person.cookie);
    for path in [
        "/spillway/",
        "/spillway/calls",
        "/spillway/api/now",
        "/spillway/metrics",
    ] {
        let answer = person.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(header(&answer, "cache-control"), "no-store", "{path}");
    }
    let page = person.get("/spillway/").await.text().await.unwrap();
    assert!(page.contains("Sign out"));

    let out = person
        .client
        .post(format!("{}/spillway/sign-out", person.root));
    let out = out.send().await.unwrap();
    assert_eq!(out.status(), 303);
    assert!(header(&out, "set-cookie").starts_with("spillway-session=; "));
}

#[tokio::test]
async fn a_session_is_no_key_and_a_wrong_key_is_not_saved_by_one() {
    let gateway = locked().await;
    let person = Person::at(&gateway);
    let cookie = header(&person.sign_in("admin-key", "none").await, "set-cookie");
    let now = || gateway.get("/spillway/api/now").header("cookie", &cookie);
    assert_eq!(now().send().await.unwrap().status(), 200);
    for name in ["api-key", "ocp-apim-subscription-key"] {
        let with_wrong_key = now().header(name, "portal-key").send().await;
        assert_eq!(with_wrong_key.unwrap().status(), 403, "{name}");
    }
    let call = gateway.chat().header("cookie", &cookie).send().await;
    assert_eq!(call.unwrap().status(), 401, "it opens the console only");
    let changed = cookie.replacen("spillway-session=1", "spillway-session=2", 1);
    let forged = gateway.get("/spillway/api/now").header("cookie", changed);
    assert_eq!(forged.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_bill_that_is_asked_for_wrongly_is_not_another_months() {
    let gateway = locked().await;
    for path in ["/spillway/money.csv", "/spillway/api/money"] {
        let ask = |query: &str| gateway.get(&format!("{path}?{query}"));
        let ask = |query| ask(query).header("api-key", "admin-key").send();
        assert_eq!(ask("month=2026-10").await.unwrap().status(), 200, "{path}");
        for wrong in ["mnth=2026-10", "month=2026-13", "month=october"] {
            assert_eq!(ask(wrong).await.unwrap().status(), 400, "{path} {wrong}");
        }
    }
}

#[tokio::test]
async fn only_people_are_sent_to_the_form() {
    let gateway = locked().await;
    let person = Person::at(&gateway);
    for path in ["/spillway/api/now", "/spillway/metrics", "/spillway/live"] {
        let answer = gateway.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "key_missing");
    }
    let with_key = person.client.get(format!("{}/spillway/", person.root));
    let with_key = with_key
        .header("accept", "text/html")
        .header("api-key", "no");
    assert_eq!(with_key.send().await.unwrap().status(), 401);
    for open in ["/spillway/console.css", "/spillway/console.js"] {
        assert_eq!(
            person.get(open).await.status(),
            200,
            "the form needs {open}"
        );
    }
}

/// The samples of a gateway's metrics: each once, each of a family that has its type. (That a real
/// parser takes the text is shown in tests/console.)
async fn samples(gateway: &Running) -> BTreeMap<String, String> {
    let answer = gateway.get("/spillway/metrics").send().await.unwrap();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(header(&answer, "content-type"), kind);
    let text = answer.text().await.unwrap();
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, sort) = of_type.split_once(' ').unwrap();
            assert_eq!(types.insert(name, sort), None, "{name}");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let ends = ["_bucket", "_sum", "_count"];
            let mut families = ends.iter().filter_map(|end| name.strip_suffix(end));
            let is_typed = match types.get(name) {
                Some(sort) => (*sort == "counter") == name.ends_with("_total"),
                None => families.any(|family| types.get(family) == Some(&"histogram")),
            };
            assert!(is_typed, "{name}");
            let twice = samples.insert(sample.to_owned(), value.to_owned());
            assert_eq!(twice, None, "{sample}");
        }
    }
    samples
}

#[tokio::test]
async fn calls_are_counted_and_no_caller_makes_a_label() {
    let ptu = Scripted::start(vec![full(60_000)]).await;
    let payg = Scripted::start(vec![good()]).await;
    let odd = "a \\ \" {x}, 🚰 <b>";
    let config = OPEN.to_owned()
        + &backend("ptu", ptu.address, "ptu", "")
        + &backend("payg", payg.address, "payg", "")
        + &format!("[[backend.deployment]]\nname = \"d\"\nmodel = '{odd}'\nkind = \"payg\"\n");
    let gateway = start(&config).await;
    for _ in 0..3 {
        assert_eq!(gateway.chat().send().await.unwrap().status(), 200);
    }
    let unknown = gateway.post("/v1/chat/completions");
    let unknown = unknown.body("{\"model\":\"evil\"}").send().await;
    assert_eq!(unknown.unwrap().status(), 404);
    gateway.events(4).await;

    let samples = samples(&gateway).await;
    let ptu = "backend=\"ptu\",deployment=\"gpt-4o\",gen_ai_request_model=\"gpt-4o\",kind=\"ptu\"";
    let payg = &ptu.replace("\"ptu\"", "\"payg\"");
    let provider = "gen_ai_provider_name=\"azure.ai.openai\"";
    for (sample, value) in [
        (
            "spillway_calls_total{gen_ai_request_model=\"gpt-4o\",class=\"good\"}",
            "3",
        ),
        (
            "spillway_calls_total{gen_ai_request_model=\"\",class=\"client_error\"}",
            "1",
        ),
        (
            "spillway_spilled_calls_total{gen_ai_request_model=\"gpt-4o\"}",
            "3",
        ),
        (
            "spillway_app_calls_total{app=\"anonymous\",class=\"good\"}",
            "3",
        ),
        (
            &format!("spillway_attempts_total{{{ptu},result=\"throttled\"}}"),
            "1",
        ),
        (
            &format!("spillway_attempts_total{{{payg},result=\"served\"}}"),
            "3",
        ),
        (
            &format!("spillway_deployment_marked{{{ptu},reason=\"throttled\"}}"),
            "1",
        ),
        (
            &format!("spillway_tokens_total{{{payg},gen_ai_token_type=\"input\"}}"),
            "15",
        ),
        (
            &format!(
                "gen_ai_client_token_usage_bucket{{{payg},{provider},gen_ai_token_type=\"input\",le=\"4\"}}"
            ),
            "0",
        ),
        (
            &format!(
                "gen_ai_client_token_usage_bucket{{{payg},{provider},gen_ai_token_type=\"input\",le=\"16\"}}"
            ),
            "3",
        ),
        (
            &format!("gen_ai_client_operation_duration_seconds_count{{{payg},{provider}}}"),
            "3",
        ),
        (
            "spillway_calls_total{gen_ai_request_model=\"a \\\\ \\\" {x}, 🚰 <b>\",class=\"good\"}",
            "0",
        ),
    ] {
        assert_eq!(
            samples.get(sample).map(String::as_str),
            Some(value),
            "{sample}"
        );
    }
    assert!(samples.keys().all(|sample| !sample.contains("evil")));
}

/// What is known of a PTU deployment: Monitor's minute, calls, an answer's header, and two slots in use.
async fn known(store: &dyn Store, now: Timestamp) {
    let id = DeploymentId {
        backend: "ptu".into(),
        deployment: "gpt-4o".into(),
    };
    let minute = MonitorMinute {
        minute: Minute::of(now).before(5),
        average: Utilization::of_percent(60),
        maximum: Utilization::FULL,
    };
    let current = Current {
        newest: minute,
        asked: now,
        calibration: Calibration::of_thousandths(1_250),
        learnt: minute.minute,
    };
    // 100 PTUs do 250,000 tokens in a minute: 40 %, and 50 % corrected.
    let counts = Counts {
        minute: Minute::of(now).before(1),
        used: Use {
            all: 100_000,
            low: 20_000,
            low_ms: 120_000,
        },
        seen: Minute::of(now).start(),
    };
    let header = Utilization::of_percent(55);
    let writes = vec![
        utilization::monitor(&minute, now),
        utilization::current(&current),
        utilization::counts(&counts, "other", None),
        utilization::header(header, now, "other"),
    ];
    utilization::write(store, &id, writes).await.unwrap();
    hours::write(store, &id, &[minute]).await.unwrap();
    let rows = slots::read(store, "gpt-4o").await.unwrap();
    let leases = (0..2).map(|slot| rows.lease(slot, "other", now.plus_ms(60_000)));
    let written = slots::write(store, "gpt-4o", leases.collect()).await;
    written.unwrap();
}

#[tokio::test]
async fn the_figures_say_what_each_source_says_and_how_slots_stand() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path()).unwrap());
    known(&*store, Clock::new().now()).await;
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let config = OPEN.to_owned()
        + "[pacing]\n"
        + &backend("ptu", nowhere, "ptu", "ptus = 100")
        + &backend("payg", nowhere, "payg", "");
    let gateway = start_with(&config, store).await;
    let answer = gateway.get("/spillway/api/now").send().await.unwrap();
    let now: Value = answer.json().await.unwrap();
    let model = &now["models"][0];
    let sources = &model["deployments"][0]["sources"];
    let percents = ["monitor", "events", "header"].map(|source| &sources[source]["percent"]);
    assert_eq!(percents, [60.0, 50.0, 55.0], "{sources}");
    let age = sources["monitor"]["age_s"].as_f64().unwrap();
    assert!((240.0..310.0).contains(&age), "{age}");
    assert_eq!(sources["alert"], Value::Null);
    assert_eq!(sources["factor"], 1.25);
    let together = sources["together_percent"].as_f64().unwrap();
    assert!((50.0..90.0).contains(&together), "{together}");
    let slots = &model["slots"];
    assert_eq!((&slots["in_use"], &slots["most"]), (&2.into(), &10.into()));
    assert_eq!(slots["upper_percent"], 90.0);
    assert_eq!(slots["utilization_percent"], together);
    assert_eq!(
        model["deployments"][1]["sources"],
        Value::Null,
        "it is no PTU"
    );
    assert_eq!(now["queue"], Value::Null);

    let samples = samples(&gateway).await;
    let ptu = "backend=\"ptu\",deployment=\"gpt-4o\",gen_ai_request_model=\"gpt-4o\",kind=\"ptu\"";
    let value = |sample: &str| samples.get(sample).map(String::as_str);
    let monitor = format!("spillway_ptu_utilization_ratio{{{ptu},source=\"monitor\"}}");
    assert_eq!(value(&monitor), Some("0.6"));
    let factor = format!("spillway_ptu_calibration_factor{{{ptu}}}");
    assert_eq!(value(&factor), Some("1.25"));
    let in_use = "spillway_slots{gen_ai_request_model=\"gpt-4o\",state=\"in_use\"}";
    assert_eq!(value(in_use), Some("2"));
    assert_eq!(value("spillway_dropped_prompts_total"), Some("0"));
    let is_unknown = |sample: &String| !sample.contains("source=\"alert\"");
    assert!(
        samples.keys().all(is_unknown),
        "what is not known has no sample"
    );

    let past = gateway.get("/spillway/api/history?reach=hour");
    let past: Value = past.send().await.unwrap().json().await.unwrap();
    let monitored = past["points"].as_array().unwrap().iter();
    let monitored: Vec<f64> = monitored
        .filter_map(|point| point["monitor_percent"].as_f64())
        .collect();
    assert_eq!(monitored, [60.0]);
}

#[tokio::test]
async fn service_bus_is_asked_for_a_queues_counts() {
    let counts = "<CountDetails xmlns:d=\"urn:x\"><d:ActiveMessageCount>5</d:ActiveMessageCount>\
        <d:DeadLetterMessageCount>1</d:DeadLetterMessageCount>\
        <d:ScheduledMessageCount>2</d:ScheduledMessageCount></CountDetails>";
    let script = vec![
        answer("200 OK", "", counts),
        answer("200 OK", "", "<feed></feed>"),
        answer("401 Unauthorized", "", "<Error/>"),
    ];
    let scripted = Scripted::start(script).await;
    let namespace = format!("http://{}", scripted.address).parse().unwrap();
    let bus = ServiceBus::new(namespace, None).unwrap();
    let messages = bus.count("team/batch").await.unwrap();
    assert_eq!(
        (messages.waiting, messages.scheduled, messages.dead),
        (5, 2, 1)
    );
    let asked = scripted.last_request();
    assert!(asked.starts_with("GET /team/batch?api-version="), "{asked}");
    let missing = bus.count("batch").await.unwrap_err();
    assert!(missing.to_string().contains("no such queue"), "{missing}");
    assert_eq!(bus.count("batch").await, Err(CountError::Forbidden));
}

#[tokio::test]
async fn the_page_shows_names_as_text() {
    let good = Scripted::start(vec![good()]).await;
    let name = "<img src=x onerror=alert(1)>&\\\"🚰";
    let config = OPEN.to_owned()
        + &format!(
            "[[backend]]\nname = \"a\"\nendpoint = \"http://{}\"\n[[backend.deployment]]\nname = \"d\"\nmodel = \"{name}\"\nkind = \"payg\"\n",
            good.address
        );
    let gateway = start(&config).await;
    for path in [
        "/spillway/",
        "/spillway/history",
        "/spillway/calls?app=%3Cb%3E",
    ] {
        let page = gateway.get(path).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(header(&page, "content-security-policy").starts_with("default-src 'none'"));
        let page = page.text().await.unwrap();
        assert!(
            !page.contains("<img") && !page.contains("<b>"),
            "{path}: {page}"
        );
    }
}

#[tokio::test]
async fn a_call_is_found_by_its_id_and_its_app() {
    let folder = tempfile::tempdir().unwrap();
    let answers = vec![good(), answer("400 Bad Request", "", "{}")];
    let backend_of_scene = Scripted::start(answers).await;
    let config = format!(
        "[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{}\"]\n",
        KeyHash::of("admin-key")
    ) + &app("portal", "")
        + &app("other", "")
        + &backend("a", backend_of_scene.address, "payg", "");
    let store = Arc::new(Embedded::open(folder.path()).unwrap());
    let gateway = start_with(&config, Arc::clone(&store) as _).await;
    let mut ids = Vec::new();
    for app in ["portal", "other"] {
        let call = gateway.chat().header("api-key", format!("{app}-key"));
        ids.push(header(&call.send().await.unwrap(), "x-spillway-request-id"));
    }
    let events = gateway.events(2).await;
    let ledger = Ledger::new(Arc::clone(&store) as _);
    let events: Vec<&UsageEvent> = events.iter().collect();
    ledger.record(&events, &unpriced).await.unwrap();
    let find = async |query: &str| -> Vec<String> {
        let path = format!("/spillway/api/calls?{query}");
        let answer = gateway.get(&path).header("api-key", "admin-key").send();
        let found: Value = answer.await.unwrap().json().await.unwrap();
        let calls = found["calls"].as_array().unwrap().iter();
        calls
            .map(|call| call["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(find(&format!("id={}", ids[0])).await, [ids[0].clone()]);
    assert_eq!(
        find(&format!("id={}&app=portal", ids[0])).await,
        [ids[0].clone()]
    );
    assert!(find(&format!("id={}&app=other", ids[0])).await.is_empty());
    assert_eq!(find("app=other").await, [ids[1].clone()]);
    assert_eq!(find("app=other&status=client").await, [ids[1].clone()]);
    assert!(find("app=portal&status=client").await.is_empty());
    assert!(find("").await.is_empty(), "neither failed nor was slow");
}
