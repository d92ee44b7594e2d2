//! Answers that are kept and given again.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use spillway::config::{Config, KeyHash};
use spillway::gateway::event::{Cache, Tokens, UsageEvent, UsageSource};
use spillway::store::Store;
use spillway::store::blobs::embedded::Embedded;
use spillway::store::blobs::{Blobs, Container};
use spillway::store::embedded::Embedded as Tables;
use spillway::store::ledger::Ledger;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gateway::{Running, app, backend, header, start, start_over, start_with};
use crate::scripted::{Act, Scripted, answer, good, stream};

/// A gateway with the apps `a` and `b`, which have `own`, over one backend.
async fn over(script: Vec<Act>, cache: &str, own: &str) -> (Running, Scripted) {
    let scripted = Scripted::start(script).await;
    let config = format!(
        "[cache]\n{cache}\n{}{}{}",
        app("a", own),
        app("b", own),
        backend("x", scripted.address, "payg", ""),
    );
    (start(&config).await, scripted)
}

const APP: &str = "cache = \"app\"";

fn body(temperature: f64) -> Value {
    json!({"model": "gpt-4o", "temperature": temperature, "messages": [{"role": "user", "content": "Hi"}]})
}

fn call(gateway: &Running, app: &str, body: &Value) -> RequestBuilder {
    let call = gateway.post("/v1/chat/completions").json(body);
    call.header("api-key", format!("{app}-key"))
}

async fn send(gateway: &Running, app: &str) -> Response {
    call(gateway, app, &body(0.0)).send().await.unwrap()
}

async fn with(gateway: &Running, control: &str) -> Response {
    let call = call(gateway, "a", &body(0.0));
    call.header("cache-control", control).send().await.unwrap()
}

fn said(answer: &Response) -> String {
    header(answer, "x-spillway-cache")
}

/// What `count` of the app's calls, one after the other, say of the cache.
async fn outcomes(gateway: &Running, app: &str, count: usize) -> Vec<String> {
    let mut outcomes = Vec::new();
    for _ in 0..count {
        outcomes.push(said(&send(gateway, app).await));
    }
    outcomes
}

/// The parts that a gate lets through when it has as many permits.
fn gated(act: Act) -> (Act, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let Act::Say(bytes) = act else {
        panic!("only what is said has a gate")
    };
    (Act::Gated(vec![bytes], Arc::clone(&gate)), gate)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

fn all(events: &[UsageEvent], of: impl Fn(&UsageEvent) -> u64) -> u64 {
    events.iter().map(of).sum()
}

#[tokio::test]
async fn nothing_is_kept_unless_it_is_asked_for() {
    let (gateway, x) = over(vec![good()], "", "").await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["", ""]);
    assert_eq!(x.calls(), 2);
    for event in gateway.events(2).await {
        assert_eq!((event.cache, event.saving), (None, None));
    }
}

#[tokio::test]
async fn the_same_call_is_given_the_same_answer_for_nothing() {
    let (gateway, x) = over(vec![good()], "", APP).await;
    let miss = send(&gateway, "a").await;
    assert_eq!(
        (said(&miss), header(&miss, "age")),
        ("miss".into(), String::new())
    );
    let first = miss.bytes().await.unwrap();
    let other_form = r#"{ "messages":[{"content":"Hi","role":"user"}], "temperature":0, "model":"gpt-4o", "user":"u" }"#;
    let hit = gateway
        .post("/v1/chat/completions")
        .header("api-key", "a-key")
        .header("content-type", "application/json")
        .body(other_form)
        .send()
        .await
        .unwrap();
    assert_eq!((hit.status().as_u16(), said(&hit)), (200, "hit".into()));
    assert_eq!(header(&hit, "age"), "0");
    assert_eq!(header(&hit, "content-type"), "application/json");
    assert_eq!(header(&hit, "x-spillway-backend"), "");
    let id = header(&hit, "x-spillway-request-id");
    assert_eq!(hit.bytes().await.unwrap(), first);
    assert_eq!(x.calls(), 1);
    let events = gateway.events(2).await;
    assert_eq!(
        (events[0].cache, &events[0].saving),
        (Some(Cache::Miss), &None)
    );
    let hit = &events[1];
    assert_eq!((hit.cache, &hit.id), (Some(Cache::Hit), &id));
    assert_eq!(
        (hit.status, hit.tokens, hit.usage),
        (200, Tokens::default(), UsageSource::None)
    );
    assert_eq!((&*hit.backend, hit.kind, hit.attempts.len()), ("", None, 0));
    let saving = hit.saving.as_ref().unwrap();
    assert_eq!(saving.tokens, events[0].tokens);
    assert_eq!(&*saving.backend, "x");
}

#[tokio::test]
async fn what_is_meant_to_differ_is_kept_only_where_the_configuration_says_so() {
    let (gateway, x) = over(vec![good()], "", APP).await;
    for _ in 0..2 {
        let answer = call(&gateway, "a", &body(1.0)).send().await.unwrap();
        assert_eq!(said(&answer), "");
    }
    assert_eq!(x.calls(), 2);
    let (gateway, x) = over(vec![good()], "generated = \"any\"", APP).await;
    for said_ in ["miss", "hit"] {
        let answer = call(&gateway, "a", &body(1.0)).send().await.unwrap();
        assert_eq!(said(&answer), said_);
    }
    assert_eq!(x.calls(), 1);
}

#[tokio::test]
async fn embeddings_are_kept() {
    let vector = r#"{"object":"list","data":[{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let (gateway, x) = over(vec![answer("200 OK", "", vector)], "", APP).await;
    for outcome in ["miss", "hit"] {
        let answer = gateway
            .post("/v1/embeddings")
            .header("api-key", "a-key")
            .json(&json!({"model": "gpt-4o", "input": "x"}))
            .send()
            .await
            .unwrap();
        assert_eq!(said(&answer), outcome);
        assert_eq!(answer.text().await.unwrap(), vector);
    }
    assert_eq!(x.calls(), 1);
}

#[tokio::test]
async fn streams_are_given_again_as_streams_with_usage_for_who_asks() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
    let done = "data: [DONE]\n\n";
    let script = Act::Drip(
        stream(&[chunk, usage, done], true),
        Duration::from_millis(5),
    );
    let (gateway, x) = over(vec![script], "", APP).await;
    let plain = json!({"model": "gpt-4o", "seed": 1, "stream": true, "messages": []});
    let mut asks = plain.clone();
    asks["stream_options"] = json!({"include_usage": true});
    let without = format!("{chunk}{done}");
    let whole = format!("{chunk}{usage}{done}");
    for (body, outcome, text) in [
        (&plain, "miss", &without),
        (&plain, "hit", &without),
        (&asks, "hit", &whole),
    ] {
        let answer = call(&gateway, "a", body).send().await.unwrap();
        assert_eq!(said(&answer), outcome);
        assert_eq!(header(&answer, "content-type"), "text/event-stream");
        assert_eq!(&answer.text().await.unwrap(), text);
    }
    assert_eq!(x.calls(), 1);
    for event in gateway.events(3).await {
        let saved = if event.cache == Some(Cache::Hit) {
            7
        } else {
            0
        };
        assert!(event.streamed);
        assert_eq!(
            (event.saved_tokens(), event.tokens.total()),
            (saved, 7 - saved)
        );
    }
    let mut whole = plain;
    whole["stream"] = json!(false);
    let answer = call(&gateway, "a", &whole).send().await.unwrap();
    assert_eq!(said(&answer), "miss", "a stream is none of it");
}

#[tokio::test]
async fn a_hundred_calls_at_once_make_one_and_share_its_bill() {
    let (act, gate) = gated(good());
    let (gateway, x) = over(vec![act], "", APP).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let call = call(&gateway, "a", &body(0.0));
        calls.spawn(async move {
            let answer = call.send().await.unwrap();
            (
                answer.status().as_u16(),
                said(&answer),
                answer.text().await.unwrap(),
            )
        });
    }
    until("the call is there", || x.calls() == 1).await;
    // Those that come later are given what is kept.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.add_permits(1);
    let answers = calls.join_all().await;
    assert_eq!(x.calls(), 1);
    assert!(
        answers
            .iter()
            .all(|(status, _, text)| *status == 200 && *text == answers[0].2)
    );
    let count = |outcome: &str| {
        answers
            .iter()
            .filter(|(_, said, _)| said == outcome)
            .count()
    };
    assert_eq!(count("miss"), 1);
    assert!(count("coalesced") > 0 && count("coalesced") + count("hit") == 99);
    let events = gateway.events(100).await;
    assert_eq!(all(&events, |event| event.tokens.input), 5);
    assert_eq!(all(&events, |event| event.tokens.output), 2);
    assert_eq!(all(&events, UsageEvent::saved_tokens), 99 * 7);
    for event in events
        .iter()
        .filter(|event| event.cache == Some(Cache::Coalesced))
    {
        assert_eq!((&*event.backend, event.usage), ("x", UsageSource::Reported));
        assert!(event.tokens.total() <= 2, "{:?}", event.tokens);
    }
}

#[tokio::test]
async fn the_bill_has_the_one_call_and_what_the_others_were_spared() {
    let (act, gate) = gated(good());
    let x = Scripted::start(vec![act]).await;
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Tables::open(folder.path()).unwrap());
    let admin = KeyHash::of("admin-key");
    let text = format!(
        "[auth]\nadmin_key_hashes = [\"{admin}\"]\n[cache]\nscope = \"shared\"\n{}{}{}",
        app("a", ""),
        app("b", ""),
        backend("x", x.address, "payg", ""),
    );
    let gateway = start_with(&text, Arc::clone(&store)).await;
    let leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || x.calls() == 1).await;
    let waits = ["a", "b"].map(|app| tokio::spawn(call(&gateway, app, &body(0.0)).send()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.add_permits(1);
    for call in std::iter::once(leader).chain(waits) {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(outcomes(&gateway, "b", 1).await, ["hit"]);
    let events = gateway.events(4).await;
    let prices = Config::parse(&text, "test", &|_| None).unwrap().prices();
    let charging = |event: &UsageEvent| prices.charge(event);
    let all: Vec<&UsageEvent> = events.iter().collect();
    let ledger = Ledger::new(store);
    ledger.record(&all, &charging).await.unwrap();
    let day = events[0].time.day();
    for by in ["app", "app,user"] {
        let path = format!("/spillway/chargeback?from={day}&to={day}&by={by}");
        let bill = gateway.get(&path).header("api-key", "admin-key");
        let bill: Value = bill.send().await.unwrap().json().await.unwrap();
        let total = &bill["total"];
        // Five tokens at 2.50 and two at 10.00 a million, once; and three times saved.
        assert_eq!(total["cost"], "0.0000325", "{bill}");
        assert_eq!(total["saved_cost"], "0.0000975");
        let counts = ["calls", "hit_calls", "coalesced_calls", "unpriced_calls"];
        assert_eq!(
            counts.map(|name| total[name].as_u64().unwrap()),
            [4, 1, 2, 0]
        );
        let tokens = ["input_tokens", "output_tokens", "saved_tokens"];
        assert_eq!(tokens.map(|name| total[name].as_u64().unwrap()), [5, 2, 21]);
    }
}

#[tokio::test]
async fn when_the_first_client_leaves_another_call_takes_its_place() {
    let (gateway, x) = over(vec![Act::Hang, good()], "", APP).await;
    let leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the first call is there", || x.calls() == 1).await;
    let followers: Vec<_> = (0..5)
        .map(|_| tokio::spawn(call(&gateway, "a", &body(0.0)).send()))
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(x.calls(), 1);
    leader.abort();
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(x.calls(), 2, "one leads, and the others wait for it");
    let events = gateway.events(6).await;
    let good: Vec<UsageEvent> = events.into_iter().filter(|e| e.status == 200).collect();
    assert_eq!(
        (good.len(), all(&good, |event| event.tokens.total())),
        (5, 7)
    );
}

#[tokio::test]
async fn who_leaves_while_waiting_costs_nobody_anything() {
    let (act, gate) = gated(good());
    let (gateway, x) = over(vec![act], "", APP).await;
    let leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || x.calls() == 1).await;
    let leaves = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    leaves.abort();
    let gone = gateway.event().await;
    assert_eq!(
        (gone.status, gone.tokens.total(), gone.usage),
        (499, 0, UsageSource::None)
    );
    gate.add_permits(1);
    assert_eq!(leader.await.unwrap().unwrap().status(), 200);
    let made = gateway.event().await;
    assert_eq!((made.tokens.total(), made.saved_tokens()), (7, 0));
}

#[tokio::test]
async fn an_answer_that_can_not_be_shared_sends_each_call_on_its_way() {
    let refused = answer(
        "400 Bad Request",
        "",
        r#"{"error":{"code":"x","message":"no"}}"#,
    );
    let (act, gate) = gated(refused);
    let (gateway, x) = over(vec![act, good()], "", APP).await;
    let leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || x.calls() == 1).await;
    let follower = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.add_permits(1);
    assert_eq!(leader.await.unwrap().unwrap().status(), 400);
    let answer = follower.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), said(&answer)),
        (200, "miss".into())
    );
    assert_eq!(outcomes(&gateway, "a", 1).await, ["hit"]);
}

#[tokio::test]
async fn a_call_waits_for_another_as_long_as_the_configuration_says() {
    let (gateway, x) = over(vec![Act::Hang, good()], "wait_ms = 50", APP).await;
    let _leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || x.calls() == 1).await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["miss", "hit"]);
    let (gateway, x) = over(vec![Act::Hang, good()], "wait_ms = 0", APP).await;
    let _leader = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || x.calls() == 1).await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["miss", "hit"]);
}

#[tokio::test]
async fn what_is_no_whole_good_answer_is_not_kept() {
    let filtered = r#"{"choices":[{"finish_reason":"content_filter"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let without_usage = r#"{"choices":[]}"#;
    let failed = r#"{"error":{"message":"x"},"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let long = format!(
        r#"{{"x":"{}","usage":{{"prompt_tokens":5,"completion_tokens":2}}}}"#,
        "y".repeat(1024)
    );
    for (headers, text) in [
        ("", filtered),
        ("", without_usage),
        ("", failed),
        ("", &long),
        (
            "cache-control: private, No-Store\r\n",
            r#"{"usage":{"prompt_tokens":5}}"#,
        ),
        (
            "content-encoding: gzip\r\n",
            r#"{"usage":{"prompt_tokens":5}}"#,
        ),
    ] {
        let act = answer("200 OK", headers, text);
        let (gateway, x) = over(vec![act], "max_answer_kb = 1", APP).await;
        let raw = |gateway: &Running| {
            call(gateway, "a", &body(0.0)).header("accept-encoding", "identity")
        };
        for _ in 0..2 {
            let answer = raw(&gateway).send().await.unwrap();
            assert_eq!(said(&answer), "miss", "{text}");
            // The event comes when the answer has ended.
            gateway.event().await;
        }
        assert_eq!(x.calls(), 2, "{headers}{text}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_kept() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
    let parts = stream(&[chunk, usage], false).concat();
    let (gateway, x) = over(vec![Act::SayAndReset(parts)], "", APP).await;
    let body = json!({"model": "gpt-4o", "seed": 1, "stream": true, "messages": []});
    for _ in 0..2 {
        let answer = call(&gateway, "a", &body).send().await.unwrap();
        assert_eq!(said(&answer), "miss");
        answer.text().await.unwrap();
    }
    assert_eq!(x.calls(), 2);
}

#[tokio::test]
async fn apps_are_given_each_others_answers_by_choice_only() {
    let (gateway, _x) = over(vec![good()], "", APP).await;
    let own = [
        outcomes(&gateway, "a", 2).await,
        outcomes(&gateway, "b", 1).await,
    ];
    assert_eq!(own, [vec!["miss", "hit"], vec!["miss"]]);
    let (gateway, x) = over(vec![good()], "scope = \"shared\"", "").await;
    assert_eq!(outcomes(&gateway, "a", 1).await, ["miss"]);
    assert_eq!(outcomes(&gateway, "b", 1).await, ["hit"]);
    assert_eq!(x.calls(), 1);
    let events = gateway.events(2).await;
    assert_eq!((&*events[1].app, events[1].saved_tokens()), ("b", 7));
}

#[tokio::test]
async fn answers_of_an_apps_own_deployment_are_given_to_no_other_app() {
    let (act, gate) = gated(good());
    let own = Scripted::start(vec![act]).await;
    let open = Scripted::start(vec![good()]).await;
    let config = format!(
        "[cache]\nscope = \"shared\"\n{}{}{}{}{}",
        app("a", ""),
        app("b", ""),
        app("c", ""),
        backend("own", own.address, "ptu", "apps = [\"a\"]"),
        backend("open", open.address, "payg", ""),
    );
    let gateway = start(&config).await;
    let first = tokio::spawn(call(&gateway, "a", &body(0.0)).send());
    until("the call is there", || own.calls() == 1).await;
    let other = tokio::time::timeout(Duration::from_secs(10), send(&gateway, "b")).await;
    assert_eq!(said(&other.unwrap()), "miss", "it waits for no such answer");
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    for app in ["a", "b", "c"] {
        assert_eq!(outcomes(&gateway, app, 1).await, ["hit"], "{app}");
    }
    assert_eq!((own.calls(), open.calls()), (1, 1));
}

#[tokio::test]
async fn the_client_says_what_will_do() {
    let (gateway, x) = over(vec![good()], "", APP).await;
    let none = with(&gateway, "only-if-cached").await;
    assert_eq!(none.status(), 504);
    let error: Value = none.json().await.unwrap();
    assert_eq!(error["error"]["code"], "not_cached");
    assert_eq!(said(&with(&gateway, "no-store").await), "");
    assert_eq!(
        said(&with(&gateway, "only-if-cached").await),
        "",
        "no-store kept nothing"
    );
    assert_eq!(said(&with(&gateway, "no-cache").await), "miss");
    assert_eq!(said(&with(&gateway, "only-if-cached").await), "hit");
    assert_eq!(said(&with(&gateway, "max-age=60").await), "hit");
    assert_eq!(said(&with(&gateway, "min-fresh=7200").await), "miss");
    assert_eq!(said(&with(&gateway, "no-store").await), "");
    assert_eq!(x.calls(), 4);
    let uncommon = call(&gateway, "a", &body(1.0)).header("cache-control", "only-if-cached");
    assert_eq!(uncommon.send().await.unwrap().status(), 504);
}

#[tokio::test]
async fn an_answer_is_given_until_its_time_is_up() {
    let (gateway, x) = over(vec![good()], "ttl_seconds = 1", APP).await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["miss", "hit"]);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["miss", "hit"]);
    assert_eq!(x.calls(), 2);
}

#[tokio::test]
async fn a_hit_takes_nothing_from_the_apps_limits() {
    let own = format!("{APP}\nrequests_per_minute = 1");
    let (gateway, x) = over(vec![good()], "", &own).await;
    assert_eq!(outcomes(&gateway, "a", 3).await, ["miss", "hit", "hit"]);
    let other = call(&gateway, "a", &body(0.5)).send().await.unwrap();
    assert_eq!(other.status(), 429, "what has to be made is limited");
    assert_eq!(x.calls(), 1);
}

#[tokio::test]
async fn an_answer_of_another_model_is_not_kept() {
    let full = crate::scripted::full(1);
    let (a, b) = (
        Scripted::start(vec![full, good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = format!(
        "[auth]\nmode = \"off\"\n[gateway]\nwait_budget_ms = 0\n[cache]\nscope = \"app\"\n{}{}[[model]]\nname = \"gpt-4o\"\n[[model.fallback]]\nmodel = \"small\"\n",
        backend("a", a.address, "payg", ""),
        backend("b", b.address, "payg", "model = \"small\""),
    );
    let gateway = start(&config).await;
    let substitute = send(&gateway, "nobody").await;
    assert_eq!(header(&substitute, "x-spillway-model"), "small");
    gateway.event().await;
    until("the mark has ended", || b.calls() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let own = send(&gateway, "nobody").await;
    assert_eq!(
        (said(&own), header(&own, "x-spillway-model")),
        ("miss".into(), String::new())
    );
}

#[tokio::test]
async fn instances_give_each_others_answers() {
    let folder = tempfile::tempdir().unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(Embedded::open(folder.path()).unwrap());
    let x = Scripted::start(vec![good()]).await;
    let config = format!(
        "[storage]\nblobs = \"embedded:unused\"\n[cache]\nblobs = true\n{}{}",
        app("a", APP),
        backend("x", x.address, "payg", ""),
    );
    let one = start_over(&config, Arc::clone(&blobs)).await;
    let other = start_over(&config, Arc::clone(&blobs)).await;
    let made = send(&one, "a").await.bytes().await.unwrap();
    for _ in 0..500 {
        let there = blobs.list(Container::Answers, "", None).await.unwrap();
        if !there.blobs.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hit = send(&other, "a").await;
    assert_eq!(said(&hit), "hit");
    assert_eq!(hit.bytes().await.unwrap(), made);
    let event = other.event().await;
    assert_eq!((event.cache, event.saved_tokens()), (Some(Cache::Hit), 7));
    assert_eq!(outcomes(&other, "a", 1).await, ["hit"], "from memory");
    assert_eq!(x.calls(), 1);
}

#[tokio::test]
async fn hits_are_logged_where_prompts_are() {
    let folder = tempfile::tempdir().unwrap();
    let x = Scripted::start(vec![good()]).await;
    let config = format!(
        "[storage]\nblobs = \"embedded:{}\"\n{}{}",
        folder.path().display(),
        app("a", &format!("{APP}\nlog_prompts = true")),
        backend("x", x.address, "payg", ""),
    );
    let gateway = start(&config).await;
    assert_eq!(outcomes(&gateway, "a", 2).await, ["miss", "hit"]);
    let hit = gateway.events(2).await.remove(1);
    let file = folder.path().join(format!("blobs/{},blob", hit.prompt_log));
    until("the prompt is kept", || file.exists()).await;
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(kept.to_string().contains("Hi"), "{kept}");
}
