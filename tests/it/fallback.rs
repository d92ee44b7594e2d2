//! Other models in the place of one that can't serve.

use serde_json::{Value, json};
use spillway::config::Fallback;
use spillway::gateway::fallback::Reason;

use crate::gateway::{OPEN, Running, backend, header, start, start_changed};
use crate::scripted::{Act, Scripted, answer, full, good};

/// Two deployments of one resource: `gpt-4o` at `a`, `gpt-4.1` at `b`.
async fn over(first: Vec<Act>, second: Vec<Act>, more: &str) -> (Running, Scripted, Scripted) {
    let (a, b) = (Scripted::start(first).await, Scripted::start(second).await);
    let backend = |name: &str, one: &Scripted, model: &str, kind: &str| {
        format!(
            "[[backend]]\nname = \"{name}\"\nendpoint = \"http://{}\"\n[[backend.deployment]]\nname = \"{model}\"\nkind = \"{kind}\"\n",
            one.address
        )
    };
    let config = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 0\n{}{}{more}",
        backend("a", &a, "gpt-4o", "ptu"),
        backend("b", &b, "gpt-4.1", "payg")
    );
    (start(&config).await, a, b)
}

const CHAIN: &str = "[[model]]\nname = \"gpt-4o\"\n[[model.fallback]]\nmodel = \"gpt-4.1\"\n";
const ALL: &str = "[[model]]\nname = \"gpt-4o\"\n[[model.fallback]]\nmodel = \"gpt-4.1\"\non = [\"exhausted\", \"context-length\", \"content-filter\"]\n";

fn refusal(code: &str) -> Act {
    let body = format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"no\"}}}}");
    answer("400 Bad Request", "", &body)
}

#[tokio::test]
async fn another_model_serves_when_the_one_asked_for_is_full_and_the_answer_says_so() {
    let (gateway, a, b) = over(vec![full(60_000)], vec![good()], CHAIN).await;
    for _ in 0..2 {
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-spillway-model"), "gpt-4.1");
        assert_eq!(header(&answer, "x-spillway-backend"), "b");
        let sent = b.last_request();
        assert!(sent.contains("\"model\":\"gpt-4.1\""), "{sent}");
        let event = gateway.event().await;
        assert_eq!((&*event.model, &*event.deployment), ("gpt-4o", "gpt-4.1"));
        assert!(event.spilled);
    }
    assert_eq!(
        (a.calls(), b.calls()),
        (1, 2),
        "the mark holds for the second call"
    );
}

#[tokio::test]
async fn without_a_chain_a_full_model_is_full() {
    let (gateway, _a, b) = over(vec![full(60_000)], vec![good()], "").await;
    assert_eq!(gateway.chat().send().await.unwrap().status(), 429);
    assert_eq!(b.calls(), 0);
}

#[tokio::test]
async fn a_refusal_leads_on_only_where_the_chain_says_so() {
    for code in ["context_length_exceeded", "content_filter"] {
        let (gateway, _a, b) = over(vec![refusal(code)], vec![good()], CHAIN).await;
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!((answer.status().as_u16(), b.calls()), (400, 0), "{code}");
        let (gateway, _a, b) = over(vec![refusal(code)], vec![good()], ALL).await;
        let answer = gateway.chat().send().await.unwrap();
        assert_eq!((answer.status().as_u16(), b.calls()), (200, 1), "{code}");
        assert_eq!(gateway.event().await.attempts.len(), 2);
    }
}

#[tokio::test]
async fn any_other_refusal_goes_back_untouched() {
    let (gateway, _a, b) = over(vec![refusal("invalid_value")], vec![good()], ALL).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!((answer.status().as_u16(), b.calls()), (400, 0));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(
        body,
        json!({"error": {"code": "invalid_value", "message": "no"}})
    );
}

#[tokio::test]
async fn where_no_other_can_serve_either_the_client_hears_of_its_own_model() {
    let second = vec![full(60_000)];
    let (gateway, _a, b) = over(vec![refusal("content_filter")], second, ALL).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!((answer.status().as_u16(), b.calls()), (400, 1));
    assert_eq!(header(&answer, "x-spillway-model"), "");
    assert!(answer.text().await.unwrap().contains("content_filter"));
    let (gateway, _a, _b) = over(vec![full(7000)], vec![full(60_000)], CHAIN).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let ms: u64 = header(&answer, "retry-after-ms").parse().unwrap();
    assert!(ms <= 7000, "{ms}");
}

#[tokio::test]
async fn a_stateful_conversation_stays_with_its_model() {
    let (gateway, _a, b) = over(vec![full(60_000)], vec![good()], CHAIN).await;
    for body in [
        json!({"model": "gpt-4o", "input": "x"}),
        json!({"model": "gpt-4o", "input": "x", "store": false, "previous_response_id": "resp_1"}),
    ] {
        let answer = gateway
            .post("/v1/responses")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!((answer.status().as_u16(), b.calls()), (429, 0), "{body}");
    }
    let free = json!({"model": "gpt-4o", "input": "x", "store": false});
    let answer = gateway
        .post("/v1/responses")
        .json(&free)
        .send()
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), b.calls()), (200, 1));
}

#[tokio::test]
async fn an_app_falls_back_only_to_what_it_may_ask_for() {
    let app = crate::gateway::app("portal", "models = [\"gpt-4o\"]");
    let closed = format!("{CHAIN}{app}");
    let (a, b) = (
        Scripted::start(vec![full(60_000)]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = format!(
        "[gateway]\nwait_budget_ms = 0\n{}[[backend]]\nname = \"b\"\nendpoint = \"http://{}\"\n[[backend.deployment]]\nname = \"gpt-4.1\"\nkind = \"payg\"\n{closed}",
        backend("a", a.address, "ptu", ""),
        b.address
    );
    let gateway = start(&config).await;
    let answer = gateway
        .chat()
        .header("api-key", "portal-key")
        .send()
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), b.calls()), (429, 0));
}

#[tokio::test]
async fn a_chain_goes_on_past_a_model_that_has_no_deployment() {
    let (a, b) = (
        Scripted::start(vec![full(60_000)]).await,
        Scripted::start(vec![good()]).await,
    );
    let last = backend("b", b.address, "payg", "").replace("gpt-4o", "gpt-4.1");
    let config = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 0\n{}{last}{CHAIN}",
        backend("a", a.address, "ptu", "")
    );
    let gateway = start_changed(&config, |config| {
        let gone = Fallback {
            model: "gone".into(),
            on: vec![Reason::Exhausted],
        };
        config.models[0].fallbacks.insert(0, gone);
    })
    .await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!((answer.status().as_u16(), b.calls()), (200, 1));
    assert_eq!(header(&answer, "x-spillway-model"), "gpt-4.1");
}
