//! Who gets in: by key, by token, by both; and who gets to the console.

use serde_json::{Value, json};
use spillway::config::KeyHash;

use crate::gateway::{Running, backend, header, start};
use crate::scripted::{Scripted, good};
use crate::tenant::{FIRST, PORTAL, Tenant};

/// A gateway that takes the tenant's tokens, with `more` in its section `[auth]`.
pub(crate) struct Scene {
    pub(crate) gateway: Running,
    pub(crate) tenant: Tenant,
    pub(crate) backend: Scripted,
}

impl Scene {
    pub(crate) async fn new(more: &str) -> Self {
        Self::of(Tenant::start().await, more).await
    }

    pub(crate) async fn of(tenant: Tenant, more: &str) -> Self {
        let backend_of_scene = Scripted::start(vec![good()]).await;
        let config = tenant.auth(more)
            + &backend("a", backend_of_scene.address, "payg", "")
            + &format!(
                "[[app]]\nname = \"portal\"\nentra_app_ids = [\"{PORTAL}\"]\nkey_hashes = [\"{}\"]\n",
                KeyHash::of("portal-key")
            )
            + &format!(
                "[[app]]\nname = \"other\"\nkey_hashes = [\"{}\"]\n",
                KeyHash::of("other-key")
            );
        Self {
            gateway: start(&config).await,
            tenant,
            backend: backend_of_scene,
        }
    }

    /// What a call with this token gets.
    pub(crate) async fn call(&self, token: &str) -> Answer {
        Answer::of(self.gateway.chat().bearer_auth(token).send().await).await
    }

    /// As the v2 token of the tenant with one claim changed.
    pub(crate) async fn with(&self, claim: &str, value: Value) -> Answer {
        let mut claims = self.tenant.v2();
        claims[claim] = value;
        self.call(&FIRST.token(&claims)).await
    }
}

/// What a call got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    challenge: String,
    pub(crate) retry_after: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) async fn of(answer: reqwest::Result<reqwest::Response>) -> Self {
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        let (challenge, retry_after) = (
            header(&answer, "www-authenticate"),
            header(&answer, "retry-after"),
        );
        assert!(!header(&answer, "x-spillway-request-id").is_empty());
        let body: Value = answer.json().await.unwrap();
        let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        Self {
            status,
            challenge,
            retry_after,
            code: text("code"),
            message: text("message"),
        }
    }

    /// It is a 401 that says this of the token.
    pub(crate) fn is_401(&self, why: &str) {
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
        assert_eq!(
            (self.status, self.code.as_str(), &self.challenge),
            (401, "invalid_token", &challenge)
        );
        assert_eq!(self.message.to_lowercase(), format!("{why}."));
    }
}

#[tokio::test]
async fn an_app_that_is_not_registered_is_named() {
    let scene = Scene::new("").await;
    let stranger = "bbbbbbbb-0000-0000-0000-000000000002";
    let refused = scene.with("azp", json!(stranger)).await;
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (403, "unknown_app")
    );
    assert!(refused.message.contains(stranger), "{}", refused.message);
    assert!(!refused.message.contains(PORTAL));
}

#[tokio::test]
async fn a_call_that_shows_nothing_is_told_what_to_show() {
    for (mode, code, word) in [
        ("required", "key_missing", "token"),
        ("token", "token_missing", "token"),
        ("key", "key_missing", "key"),
        ("both", "key_missing", "key"),
    ] {
        let scene = Scene::new(&format!("mode = \"{mode}\"")).await;
        let refused = Answer::of(scene.gateway.chat().send().await).await;
        assert_eq!(
            (
                refused.status,
                refused.code.as_str(),
                refused.challenge.as_str()
            ),
            (401, code, "Bearer"),
            "{mode}"
        );
        assert!(refused.message.contains(word), "{}", refused.message);
    }
}

#[tokio::test]
async fn each_mode_takes_what_it_says() {
    // Mode, and the status with key, token, key as bearer, both of one app, both of two apps.
    for (mode, expected) in [
        ("required", [200, 200, 200, 200, 200]),
        ("key", [200, 401, 200, 200, 200]),
        ("token", [401, 200, 401, 200, 200]),
        ("both", [401, 401, 401, 200, 403]),
    ] {
        let scene = Scene::new(&format!("mode = \"{mode}\"")).await;
        let token = FIRST.token(&scene.tenant.v2());
        let chat = || scene.gateway.chat();
        let calls = [
            chat().header("api-key", "portal-key"),
            chat().bearer_auth(&token),
            chat().bearer_auth("portal-key"),
            chat().header("api-key", "portal-key").bearer_auth(&token),
            chat()
                .header("ocp-apim-subscription-key", "other-key")
                .bearer_auth(&token),
        ];
        let mut got = Vec::new();
        for call in calls {
            got.push(call.send().await.unwrap().status().as_u16());
        }
        assert_eq!(got, expected, "{mode}");
    }
}

#[tokio::test]
async fn a_backend_hears_who_called_only_from_the_gateway() {
    let scene = Scene::new("pass_caller_object_id = true").await;
    let token = FIRST.token(&scene.tenant.v2());
    let forged = scene.gateway.chat().header("caller-objectid", "forged");
    assert_eq!(
        forged.bearer_auth(&token).send().await.unwrap().status(),
        200
    );
    let request = scene.backend.last_request().to_lowercase();
    assert!(request.contains("caller-objectid: oid-of-ada"), "{request}");
    let by_key = scene.gateway.chat().header("caller-objectid", "forged");
    let by_key = by_key.header("api-key", "portal-key").send().await;
    assert_eq!(by_key.unwrap().status(), 200);
    let request = scene.backend.last_request().to_lowercase();
    assert!(!request.contains("caller-objectid"), "{request}");
}

#[tokio::test]
async fn the_console_opens_to_the_admin_role_and_to_admin_keys_only() {
    let hash = KeyHash::of("admin-key");
    let scene = Scene::new(&format!(
        "admin_role = \"Ops\"\nadmin_key_hashes = [\"{hash}\"]"
    ))
    .await;
    let mut claims = scene.tenant.v2();
    claims["azp"] = json!("cccccccc-0000-0000-0000-000000000003");
    claims["roles"] = json!(["Reader", "Ops"]);
    let admin = FIRST.token(&claims);
    let reader = FIRST.token(&scene.tenant.v2());
    let health = || scene.gateway.get("/spillway/health");
    for (call, status, code) in [
        (health().bearer_auth(&admin), 200, ""),
        (health().header("api-key", "admin-key"), 200, ""),
        (health().bearer_auth(&reader), 403, "not_admin"),
        (health().header("api-key", "portal-key"), 403, "not_admin"),
        (health().header("api-key", "no-key"), 401, "invalid_api_key"),
        (health(), 401, "key_missing"),
    ] {
        let answer = call.send().await.unwrap();
        let got = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        let said = body["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((got, said), (status, code));
    }
    let status = scene.gateway.get("/status-0123456789abcdef").send().await;
    assert_eq!(status.unwrap().status(), 200, "the probe's path is open");
    let as_app = scene.gateway.chat().header("api-key", "admin-key");
    assert_eq!(as_app.send().await.unwrap().status(), 401, "and no app's");
}
