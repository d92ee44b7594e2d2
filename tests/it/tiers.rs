//! The service tier that an answer says its call was processed in, and what the call costs there.

use std::sync::Arc;

use serde_json::{Value, json};
use spillway::config::{Config, KeyHash};
use spillway::gateway::event::{Cache, UsageEvent};
use spillway::gateway::service_tier::ServiceTier;
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;

use crate::gateway::{Running, app, backend, start_with};
use crate::scripted::{Act, Scripted, answer, good, stream};

fn json_answer(tier: &str) -> Act {
    let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "service_tier": tier,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "service_tier"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}});
    answer("200 OK", "", &body.to_string())
}

fn chat_stream(tier: &str) -> Act {
    let event = |rest: Value| {
        let mut event = json!({"id": "c", "object": "chat.completion.chunk", "service_tier": tier});
        let object = event.as_object_mut().unwrap();
        object.extend(rest.as_object().unwrap().clone());
        format!("data: {event}\n\n")
    };
    let text = event(json!({"choices": [{"index": 0, "delta": {"content": "Hello"}}]}));
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7});
    let usage = event(json!({"choices": [], "usage": usage}));
    Act::Say(stream(&[&text, &usage, "data: [DONE]\n\n"], true).concat())
}

/// A response that begins with the tier that was asked for, and ends with that which processed it.
fn response_stream(asked: &str, tier: &str) -> Act {
    let event = |kind: &str, tier: &str, usage: Value| {
        let response = json!({"id": "resp_1", "service_tier": tier, "usage": usage});
        let event = json!({"type": kind, "response": response});
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let begun = event("response.created", asked, Value::Null);
    let usage = json!({"input_tokens": 5, "output_tokens": 2, "total_tokens": 7});
    let ended = event("response.completed", tier, usage);
    Act::Say(stream(&[&begun, &ended], true).concat())
}

struct Scene {
    gateway: Running,
    _backend: Scripted,
    text: String,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start(script: Vec<Act>, more: &str) -> Self {
        let backend_x = Scripted::start(script).await;
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let admin = KeyHash::of("admin-key");
        let text = format!(
            "[auth]\nadmin_key_hashes = [\"{admin}\"]\n{more}{}{}",
            app("a", ""),
            backend("x", backend_x.address, "payg", ""),
        );
        Self {
            gateway: start_with(&text, Arc::clone(&store)).await,
            _backend: backend_x,
            text,
            store,
            _folder: folder,
        }
    }

    /// The events of these calls, by path and body.
    async fn events(&self, calls: &[(&str, Value)]) -> Vec<UsageEvent> {
        for (path, body) in calls {
            let call = self.gateway.post(path).header("api-key", "a-key");
            let answer = call.json(body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
        self.gateway.events(calls.len()).await
    }

    /// The bill of these events' day, of the sums and of the calls one by one.
    async fn bills(&self, events: &[UsageEvent]) -> [Value; 2] {
        let config = Config::parse(&self.text, "test", &|_| None).unwrap();
        let prices = config.prices();
        let charging = |event: &UsageEvent| prices.charge(event);
        let all: Vec<&UsageEvent> = events.iter().collect();
        let ledger = Ledger::new(Arc::clone(&self.store));
        ledger.record(&all, &charging).await.unwrap();
        [
            self.bill(events, "app").await,
            self.bill(events, "app,user").await,
        ]
    }

    async fn bill(&self, events: &[UsageEvent], by: &str) -> Value {
        let day = events[0].time.day();
        let path = format!("/spillway/chargeback?from={day}&to={day}&by={by}");
        let bill = self.gateway.get(&path).header("api-key", "admin-key");
        let mut bill: Value = bill.send().await.unwrap().json().await.unwrap();
        bill["total"].take()
    }
}

const CHAT: &str = "/v1/chat/completions";

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-4o", "stream": stream, "service_tier": "priority", "temperature": 0,
        "messages": [{"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn the_tier_that_processed_a_call_is_read_from_each_form_of_answer() {
    let script = vec![
        json_answer("priority"),
        json_answer("default"),
        good(),
        chat_stream("priority"),
        response_stream("auto", "priority"),
        response_stream("priority", "default"),
    ];
    let scene = Scene::start(script, "").await;
    let response = json!({"model": "gpt-4o", "stream": true, "input": "Hi"});
    let events = scene
        .events(&[
            (CHAT, chat(false)),
            (CHAT, chat(false)),
            (CHAT, chat(false)),
            (CHAT, chat(true)),
            ("/v1/responses", response.clone()),
            ("/v1/responses", response),
        ])
        .await;
    let tiers: Vec<ServiceTier> = events.iter().map(|event| event.service_tier).collect();
    let (standard, priority) = (ServiceTier::Standard, ServiceTier::Priority);
    let expected = [priority, standard, standard, priority, priority, standard];
    assert_eq!(tiers, expected);
    assert!(events.iter().all(|event| event.tokens.total() == 7));
}

#[tokio::test]
async fn a_priority_call_is_charged_by_its_own_price_and_flagged_where_there_is_none() {
    let own = "[[price]]\nservice_tier = \"priority\"\ninput = \"4.25\"\noutput = \"17\"\n";
    for (more, cost, unpriced) in [(own, "0.00005525", 0), ("", "0.0000325", 1)] {
        let scene = Scene::start(vec![json_answer("priority")], more).await;
        let events = scene.events(&[(CHAT, chat(false))]).await;
        for total in scene.bills(&events).await {
            assert_eq!(
                (&total["cost"], &total["unpriced_calls"]),
                (&cost.into(), &unpriced.into())
            );
        }
    }
}

#[tokio::test]
async fn an_answer_of_the_cache_is_of_the_tier_that_made_it() {
    let more = "[[price]]\nservice_tier = \"priority\"\ninput = \"4.25\"\noutput = \"17\"\n\
                [cache]\nscope = \"app\"\n";
    let scene = Scene::start(vec![json_answer("priority")], more).await;
    let events = scene
        .events(&[(CHAT, chat(false)), (CHAT, chat(false))])
        .await;
    assert_eq!(events[1].cache, Some(Cache::Hit));
    for total in scene.bills(&events).await {
        assert_eq!(total["cost"], "0.00005525");
        assert_eq!(
            (&total["saved_cost"], &total["unpriced_calls"]),
            (&"0.00005525".into(), &0.into())
        );
    }
}
