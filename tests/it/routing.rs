//! Which deployments an app's calls go to, and how urgent they are.

use serde_json::{Value, json};
use spillway::config::KeyHash;
use spillway::gateway::priority::Priority;

use crate::gateway::{OPEN, Running, app, backend, header, start};
use crate::scripted::{Scripted, full, good};

/// The backend that answers a call of the app, or the status where none does.
async fn call(gateway: &Running, app: &str, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    let call = gateway.post("/v1/chat/completions").json(&body);
    let answer = call.header("api-key", format!("{app}-key")).send().await;
    let answer = answer.unwrap();
    match answer.status().as_u16() {
        200 => header(&answer, "x-spillway-backend"),
        status => status.to_string(),
    }
}

async fn models(gateway: &Running, app: &str) -> Vec<String> {
    let list = gateway.get("/v1/models");
    let list = list.header("api-key", format!("{app}-key")).send().await;
    let list: Value = list.unwrap().json().await.unwrap();
    let models = list["data"].as_array().unwrap().iter();
    models
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_app_has_its_own_deployment_and_shares_what_is_shared() {
    let (own, shared, payg) = (
        Scripted::start(vec![good(), full(60_000)]).await,
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = backend("own", own.address, "ptu", "apps = [\"portal\"]")
        + &backend("shared", shared.address, "ptu", "")
        + &backend("payg", payg.address, "payg", "")
        + &app("portal", "")
        + &app("batch", "");
    let gateway = start(&config).await;
    assert_eq!(call(&gateway, "portal", "gpt-4o").await, "own");
    for _ in 0..4 {
        assert_eq!(call(&gateway, "batch", "gpt-4o").await, "shared");
    }
    assert_eq!(
        call(&gateway, "portal", "gpt-4o").await,
        "shared",
        "its own is full"
    );
}

#[tokio::test]
async fn an_app_keeps_to_its_tiers_backends_and_models() {
    let (ptu, payg) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = backend("ptu", ptu.address, "ptu", "")
        + &backend("payg", payg.address, "payg", "")
        + "[[backend.deployment]]\nname = \"mini\"\nkind = \"payg\"\n"
        + &app("cheap", "tiers = [2]")
        + &app("paid", "tiers = [1]")
        + &app("tied", "backends = [\"payg\"]\nmodels = [\"mini\"]");
    let gateway = start(&config).await;
    assert_eq!(call(&gateway, "cheap", "gpt-4o").await, "payg");
    assert_eq!(call(&gateway, "paid", "gpt-4o").await, "ptu");
    assert_eq!(
        call(&gateway, "paid", "mini").await,
        "403",
        "a tier out of reach"
    );
    assert_eq!(call(&gateway, "tied", "mini").await, "payg");
    assert_eq!(call(&gateway, "tied", "gpt-4o").await, "403");
    assert_eq!(models(&gateway, "cheap").await, ["gpt-4o", "mini"]);
    assert_eq!(models(&gateway, "paid").await, ["gpt-4o"]);
    assert_eq!(models(&gateway, "tied").await, ["mini"]);
}

#[tokio::test]
async fn calls_that_name_no_model_stay_away_from_what_is_others_own() {
    let (own, shared) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let config = backend("own", own.address, "ptu", "apps = [\"portal\"]")
        + &backend("shared", shared.address, "payg", "")
        + &app("portal", "tiers = [1]")
        + &app("batch", "tiers = [1]");
    let gateway = start(&config).await;
    let files = |app: &str| {
        gateway
            .get("/v1/files")
            .header("api-key", format!("{app}-key"))
    };
    for (app, expected) in [("portal", "own"), ("batch", "shared")] {
        let answer = files(app).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-spillway-backend"), expected);
    }
}

#[tokio::test]
async fn a_call_lowers_its_priority_by_header_or_path_and_its_app_by_configuration() {
    use Priority::{High, Low};
    let a = Scripted::start(vec![good()]).await;
    let config = backend("a", a.address, "payg", "")
        + &app("portal", "")
        + &app("batch", "priority = \"low\"");
    let gateway = start(&config).await;
    let body = crate::gateway::chat_body(false);
    for (app, path, wish, expected) in [
        ("portal", "/v1/chat/completions", None, High),
        ("portal", "/v1/chat/completions", Some("low"), Low),
        ("portal", "/low/v1/chat/completions", None, Low),
        (
            "portal",
            "/low/openai/v1/chat/completions",
            Some("high"),
            Low,
        ),
        (
            "portal",
            "/low/openai/deployments/gpt-4o/chat/completions",
            None,
            Low,
        ),
        ("batch", "/v1/chat/completions", None, Low),
        ("batch", "/v1/chat/completions", Some("high"), Low),
    ] {
        let call = gateway.post(path).header("api-key", format!("{app}-key"));
        let call = wish
            .iter()
            .fold(call, |call, wish| call.header("x-spillway-priority", *wish));
        assert_eq!(
            call.json(&body).send().await.unwrap().status(),
            200,
            "{path}"
        );
        assert_eq!(
            gateway.event().await.priority,
            expected,
            "{app} {path} {wish:?}"
        );
        let request = a.last_request().to_lowercase();
        assert!(
            !request.contains("x-spillway") && !request.contains("/low/"),
            "{request}"
        );
    }
    let urgent = gateway.chat().header("api-key", "portal-key");
    let urgent = urgent
        .header("x-spillway-priority", "urgent")
        .send()
        .await
        .unwrap();
    assert_eq!(urgent.status(), 400);
    let error: Value = urgent.json().await.unwrap();
    assert_eq!(error["error"]["code"], "invalid_priority");
}

#[tokio::test]
async fn with_mode_off_the_console_is_open_unless_it_has_keys() {
    let a = Scripted::start(vec![good()]).await;
    let hash = KeyHash::of("admin-key");
    let backend = backend("a", a.address, "payg", "");
    let gateway = start(&format!("{OPEN}{backend}")).await;
    let health = gateway.get("/spillway/health").send().await.unwrap();
    assert_eq!(health.status(), 200);
    let gateway = start(&format!("{OPEN}admin_key_hashes = [\"{hash}\"]\n{backend}")).await;
    let health = || gateway.get("/spillway/health");
    assert_eq!(health().send().await.unwrap().status(), 401);
    let with_key = health().header("api-key", "admin-key").send().await;
    assert_eq!(with_key.unwrap().status(), 200);
    assert_eq!(gateway.chat().send().await.unwrap().status(), 200);
}
