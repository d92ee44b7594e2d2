//! The console from outside: who gets in and how, and what is counted of calls.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_parse::{Scrape, Value as Metric};
use reqwest::redirect::Policy;
use serde_json::Value;
use spillway::config::KeyHash;

use crate::gateway::{OPEN, Running, app, backend, header, start};
use crate::scripted::{Answer, Scripted, good};

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
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/spillway", "; Max-Age=28800"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("admin-key"));
    cookie.split(';').next().unwrap().clone_into(&mut person.cookie);
    for path in ["/spillway/", "/spillway/calls", "/spillway/api/now", "/spillway/metrics"] {
        assert_eq!(person.get(path).await.status(), 200, "{path}");
    }
    let page = person.get("/spillway/").await.text().await.unwrap();
    assert!(page.contains("Sign out"));

    let out = person.client.post(format!("{}/spillway/sign-out", person.root));
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
    let with_wrong_key = now().header("api-key", "portal-key").send().await;
    assert_eq!(with_wrong_key.unwrap().status(), 403);
    let call = gateway.chat().header("cookie", &cookie).send().await;
    assert_eq!(call.unwrap().status(), 401, "it opens the console only");
    let changed = cookie.replacen("spillway-session=1", "spillway-session=2", 1);
    let forged = gateway.get("/spillway/api/now").header("cookie", changed);
    assert_eq!(forged.send().await.unwrap().status(), 401);
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
    let with_key = with_key.header("accept", "text/html").header("api-key", "no");
    assert_eq!(with_key.send().await.unwrap().status(), 401);
    for open in ["/spillway/console.css", "/spillway/console.js"] {
        assert_eq!(person.get(open).await.status(), 200, "the form needs {open}");
    }
}

/// The metrics of a gateway, as the parser has them, each name once with its type.
async fn scrape(gateway: &Running) -> Scrape {
    let answer = gateway.get("/spillway/metrics").send().await.unwrap();
    assert_eq!(
        header(&answer, "content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text().await.unwrap();
    let mut types = BTreeMap::new();
    let mut samples = BTreeSet::new();
    for line in text.lines() {
        if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, sort) = of_type.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), sort.to_owned()).is_none(), "{name}");
        } else if !line.starts_with('#') {
            let (sample, _) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(sample.to_owned()), "twice: {sample}");
            let name = sample.split('{').next().unwrap();
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| name.strip_suffix(end));
            let is_typed = types.contains_key(name)
                || family.is_some_and(|family| types.get(family).is_some_and(|t| t == "histogram"));
            assert!(is_typed, "no type of {name}");
            assert!(types.get(name).is_none_or(|sort| (sort == "counter") == name.ends_with("_total")));
        }
    }
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut found = scrape.samples.iter().filter(|sample| {
        let has = |(name, value): &(&str, &str)| sample.labels.get(name) == Some(*value);
        sample.metric == name && labels.iter().all(has)
    });
    let one = found.next().unwrap_or_else(|| panic!("no {name} {labels:?}"));
    assert!(found.next().is_none(), "{name} {labels:?} is not one sample");
    match &one.value {
        Metric::Counter(value) | Metric::Gauge(value) | Metric::Untyped(value) => *value,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_are_counted_in_metrics_that_a_parser_takes() {
    let ptu = Scripted::start(vec![Answer::Status(429, vec![("retry-after-ms", "60000")], "{}")]).await;
    let payg = Scripted::start(vec![good()]).await;
    let odd = "a \\ \" {x}, 🚰 <b>";
    let config = OPEN.to_owned()
        + &backend("ptu", ptu.address, "ptu", "")
        + &backend("payg", payg.address, "payg", "")
        + &format!("[[app]]\nname = '{odd}'\n");
    let gateway = start(&config).await;
    for _ in 0..3 {
        assert_eq!(gateway.chat().send().await.unwrap().status(), 200);
    }
    let unknown = gateway.post("/v1/chat/completions").body("{\"model\":\"evil\"}");
    assert_eq!(unknown.send().await.unwrap().status(), 404);
    gateway.events(4).await;

    let scrape = scrape(&gateway).await;
    let calls = |labels: &[(&str, &str)]| value(&scrape, "spillway_calls_total", labels);
    let model = ("gen_ai_request_model", "gpt-4o");
    assert_eq!(calls(&[model, ("class", "good")]), 3.0);
    let none = ("gen_ai_request_model", "");
    assert_eq!(calls(&[none, ("class", "client_error")]), 1.0);
    assert_eq!(value(&scrape, "spillway_spilled_calls_total", &[model]), 3.0);
    let attempts = |labels: &[(&str, &str)]| value(&scrape, "spillway_attempts_total", labels);
    assert_eq!(attempts(&[("backend", "ptu"), ("result", "throttled")]), 1.0);
    assert_eq!(attempts(&[("backend", "payg"), ("result", "served")]), 3.0);
    let marked = [("backend", "ptu"), ("reason", "throttled")];
    assert_eq!(value(&scrape, "spillway_deployment_marked", &marked), 1.0);
    let of_app = [("app", "anonymous"), ("class", "good")];
    assert_eq!(value(&scrape, "spillway_app_calls_total", &of_app), 3.0);
    assert_eq!(value(&scrape, "spillway_app_calls_total", &[("app", odd), ("class", "good")]), 0.0);

    let tokens = [("backend", "payg"), ("gen_ai_token_type", "input")];
    let mut usage = scrape.samples.iter().filter(|sample| {
        sample.metric == "gen_ai_client_token_usage"
            && tokens.iter().all(|(name, value)| sample.labels.get(name) == Some(value))
    });
    let Some(Metric::Histogram(buckets)) = usage.next().map(|sample| &sample.value) else {
        panic!("no histogram of tokens");
    };
    assert_eq!(buckets.len(), 15);
    assert!(buckets.is_sorted_by(|a, b| a.less_than < b.less_than && a.count <= b.count));
    assert_eq!(buckets.last().unwrap().count, 3.0);
    let text: Vec<_> = scrape.samples.iter().flat_map(|sample| sample.labels.values()).collect();
    assert!(!text.iter().any(|value| *value == "evil"), "no caller makes a label");
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
    for path in ["/spillway/", "/spillway/history", "/spillway/calls?app=%3Cb%3E"] {
        let page = gateway.get(path).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(header(&page, "content-security-policy").starts_with("default-src 'none'"));
        let page = page.text().await.unwrap();
        assert!(!page.contains("<img") && !page.contains("<b>"), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_call_is_found_by_its_id_and_its_app() {
    let folder = tempfile::tempdir().unwrap();
    let answers = vec![good(), Answer::Status(400, vec![], "{}")];
    let backend_of_scene = Scripted::start(answers).await;
    let config = format!(
        "[storage]\ntables = \"embedded:{}\"\n[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{}\"]\n",
        folder.path().display(),
        KeyHash::of("admin-key")
    ) + &app("portal", "")
        + &app("other", "")
        + &backend("a", backend_of_scene.address, "payg", "");
    let gateway = start(&config).await;
    let mut ids = Vec::new();
    for app in ["portal", "other"] {
        let call = gateway.chat().header("api-key", format!("{app}-key"));
        ids.push(header(&call.send().await.unwrap(), "x-spillway-request-id"));
    }
    let events = gateway.events(2).await;
    for event in &events {
        gateway.keep(event).await;
    }
    let find = async |query: &str| -> Vec<String> {
        let path = format!("/spillway/api/calls?{query}");
        let answer = gateway.get(&path).header("api-key", "admin-key").send();
        let found: Value = answer.await.unwrap().json().await.unwrap();
        let calls = found["calls"].as_array().unwrap().iter();
        calls.map(|call| call["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(find(&format!("id={}", ids[0])).await, [ids[0].clone()]);
    assert_eq!(find(&format!("id={}&app=portal", ids[0])).await, [ids[0].clone()]);
    assert!(find(&format!("id={}&app=other", ids[0])).await.is_empty());
    assert_eq!(find("app=other").await, [ids[1].clone()]);
    assert_eq!(find("app=other&status=client").await, [ids[1].clone()]);
    assert!(find("app=portal&status=client").await.is_empty());
    assert!(find("").await.is_empty(), "neither failed nor was slow");
}
