//! Entra tokens at the door, against a tenant of the tests' own.

use std::time::Duration;

use serde_json::{Value, json};
use spillway::config::KeyHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::{Running, backend, header, start};
use crate::scripted::{Scripted, good};
use crate::tenant::{FIRST, PORTAL, SECOND, TENANT, Tenant, now, unsigned};

/// A gateway that takes the tenant's tokens, with `more` in its section `[auth]`.
struct Scene {
    gateway: Running,
    tenant: Tenant,
    backend: Scripted,
}

impl Scene {
    async fn new(more: &str) -> Self {
        Self::of(Tenant::start().await, more).await
    }

    async fn of(tenant: Tenant, more: &str) -> Self {
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
    async fn call(&self, token: &str) -> Answer {
        Answer::of(self.gateway.chat().bearer_auth(token).send().await).await
    }

    /// As the v2 token of the tenant with one claim changed.
    async fn with(&self, claim: &str, value: Value) -> Answer {
        let mut claims = self.tenant.v2();
        claims[claim] = value;
        self.call(&FIRST.token(&claims)).await
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    challenge: String,
    retry_after: String,
    code: String,
    message: String,
}

impl Answer {
    async fn of(answer: reqwest::Result<reqwest::Response>) -> Self {
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
    fn is_401(&self, why: &str) {
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
        assert_eq!(
            (self.status, self.code.as_str(), &self.challenge),
            (401, "invalid_token", &challenge)
        );
        assert_eq!(self.message.to_lowercase(), format!("{why}."));
    }
}

#[tokio::test]
async fn a_v2_token_is_taken_and_its_user_recorded() {
    let scene = Scene::new("").await;
    assert_eq!(
        scene.call(&FIRST.token(&scene.tenant.v2())).await.status,
        200
    );
    let event = scene.gateway.event().await;
    assert_eq!(
        (&*event.app, &*event.user, &*event.subject),
        ("portal", "oid-of-ada", "sub-of-ada")
    );
    let request = scene.backend.last_request().to_lowercase();
    assert!(
        !request.contains("authorization"),
        "the token went on: {request}"
    );
    assert!(!request.contains("caller-objectid"), "{request}");
}

#[tokio::test]
async fn a_v1_token_is_taken() {
    let scene = Scene::new("").await;
    assert_eq!(
        scene.call(&FIRST.token(&scene.tenant.v1())).await.status,
        200
    );
    assert_eq!(&*scene.gateway.event().await.app, "portal");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let scene = Scene::new("").await;
    let within_leeway = scene.with("exp", json!(now() - 200)).await;
    assert_eq!(within_leeway.status, 200);
    let expired = scene.with("exp", json!(now() - 301)).await;
    expired.is_401("the token has expired");
}

#[tokio::test]
async fn a_token_that_expires_while_it_is_remembered_is_refused() {
    let scene = Scene::new("leeway_s = 0").await;
    let mut claims = scene.tenant.v2();
    claims["exp"] = json!(now() + 2);
    let token = FIRST.token(&claims);
    assert_eq!(scene.call(&token).await.status, 200);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    scene.call(&token).await.is_401("the token has expired");
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet_is_refused() {
    let scene = Scene::new("").await;
    let refused = scene.with("nbf", json!(now() + 400)).await;
    refused.is_401("the token is not valid yet");
}

#[tokio::test]
async fn a_token_for_another_api_is_refused() {
    let scene = Scene::new("").await;
    let refused = scene
        .with("aud", json!("https://graph.microsoft.com"))
        .await;
    refused.is_401("the token's audience is wrong");
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let scene = Scene::new("").await;
    let refused = scene.with("iss", json!("https://login.example.com/")).await;
    refused.is_401("the token's issuer is wrong");
}

/// Entra's tenants share their signing keys, so that the signature is good.
#[tokio::test]
async fn a_token_of_another_tenant_is_refused() {
    let scene = Scene::new("").await;
    let other = "99999999-2222-3333-4444-555555555555";
    let mut claims = scene.tenant.v1();
    claims["tid"] = json!(other);
    claims["iss"] = json!(format!("https://sts.windows.net/{other}/"));
    let refused = scene.call(&FIRST.token(&claims)).await;
    refused.is_401("the token's tenant is wrong");
    claims.as_object_mut().unwrap().remove("tid");
    let refused = scene.call(&FIRST.token(&claims)).await;
    refused.is_401("the token's issuer is wrong");
    assert!(!refused.message.contains(TENANT));
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let scene = Scene::new("").await;
    for alg in ["none", "None", "NONE"] {
        let text = unsigned(&json!({"alg": alg, "kid": "first"}), &scene.tenant.v2());
        let refused = scene.call(&format!("{text}.")).await;
        refused.is_401("the token's algorithm is not accepted");
    }
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let scene = Scene::new("").await;
    let forged = FIRST.sign_as_secret(&scene.tenant.v2());
    let refused = scene.call(&forged).await;
    refused.is_401("the token's algorithm is not accepted");
}

#[tokio::test]
async fn only_the_configured_algorithms_are_taken() {
    let rs512 = json!({"typ": "JWT", "alg": "RS512", "kid": "first"});
    let scene = Scene::new("").await;
    let refused = scene.call(&FIRST.sign(&rs512, &scene.tenant.v2())).await;
    refused.is_401("the token's algorithm is not accepted");
    let scene = Scene::new("algorithms = [\"RS512\"]").await;
    let taken = scene.call(&FIRST.sign(&rs512, &scene.tenant.v2())).await;
    assert_eq!(taken.status, 200);
    let refused = scene.call(&FIRST.token(&scene.tenant.v2())).await;
    refused.is_401("the token's algorithm is not accepted");
}

#[tokio::test]
async fn a_token_that_was_changed_is_refused() {
    let scene = Scene::new("").await;
    let token = FIRST.token(&scene.tenant.v2());
    assert_eq!(scene.call(&token).await.status, 200);
    let mut claims = scene.tenant.v2();
    claims["roles"] = json!(["Spillway.Admin"]);
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "first"});
    let signature = token.rsplit('.').next().unwrap();
    let changed = format!("{}.{signature}", unsigned(&header, &claims));
    scene
        .call(&changed)
        .await
        .is_401("the token's signature is wrong");
    let foreign = SECOND.sign(&header, &scene.tenant.v2());
    scene
        .call(&foreign)
        .await
        .is_401("the token's signature is wrong");
}

#[tokio::test]
async fn what_only_looks_like_a_token_is_refused() {
    let scene = Scene::new("").await;
    for text in ["eyJ.eyJ.x", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"] {
        scene.call(text).await.is_401("the token is malformed");
    }
    let critical = json!({"alg": "RS256", "kid": "first", "crit": ["exp"]});
    let token = FIRST.sign(&critical, &scene.tenant.v2());
    scene.call(&token).await.is_401("the token is malformed");
    let no_key = json!({"alg": "RS256"});
    let token = FIRST.sign(&no_key, &scene.tenant.v2());
    scene.call(&token).await.is_401("the token is malformed");
}

#[tokio::test]
async fn tokens_with_an_unknown_key_are_refused_and_have_the_keys_fetched_once_a_minute() {
    let scene = Scene::new("").await;
    assert_eq!(
        scene.call(&FIRST.token(&scene.tenant.v2())).await.status,
        200
    );
    assert_eq!(scene.tenant.fetches(), 1);
    let token = SECOND.token(&scene.tenant.v2());
    let call = || scene.gateway.chat().bearer_auth(&token).send();
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(call())).collect();
    for refused in calls {
        let refused = Answer::of(refused.await.unwrap()).await;
        refused.is_401("the token's signing key is unknown");
    }
    scene
        .call(&token)
        .await
        .is_401("the token's signing key is unknown");
    assert_eq!(scene.tenant.fetches(), 2, "20 calls at once and one later");
    assert_eq!(
        scene.call(&FIRST.token(&scene.tenant.v2())).await.status,
        200
    );
}

#[tokio::test]
async fn a_new_key_is_known_at_once_and_one_that_is_gone_no_more() {
    let scene = Scene::new("").await;
    let (old, new) = (
        FIRST.token(&scene.tenant.v2()),
        SECOND.token(&scene.tenant.v2()),
    );
    assert_eq!(scene.call(&old).await.status, 200);
    scene.tenant.publish(&[SECOND]);
    assert_eq!(
        scene.call(&old).await.status,
        200,
        "nothing was fetched yet"
    );
    assert_eq!(scene.call(&new).await.status, 200);
    scene
        .call(&old)
        .await
        .is_401("the token's signing key is unknown");
}

#[tokio::test]
async fn without_keys_at_the_start_calls_hear_when_to_come_back_and_are_served_later() {
    let tenant = Tenant::unreachable().await;
    let scene = Scene::of(tenant, "").await;
    let token = FIRST.token(&scene.tenant.v2());
    let early = scene.call(&token).await;
    assert_eq!(
        (early.status, early.code.as_str()),
        (503, "identity_unavailable")
    );
    assert!(early.retry_after.parse::<u64>().unwrap() >= 1);
    let by_key = scene.gateway.chat().header("api-key", "portal-key");
    assert_eq!(Answer::of(by_key.send().await).await.status, 200);
    scene.tenant.listen().await;
    for _ in 0..100 {
        if scene.call(&token).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the keys were never fetched");
}

#[tokio::test]
async fn the_keys_that_are_known_go_on_serving_while_entra_is_down() {
    let scene = Scene::new("").await;
    assert_eq!(
        scene.call(&FIRST.token(&scene.tenant.v2())).await.status,
        200
    );
    scene.tenant.set_down(true);
    let unknown = scene.call(&SECOND.token(&scene.tenant.v2())).await;
    assert_eq!(
        (unknown.status, unknown.code.as_str()),
        (503, "identity_unavailable")
    );
    let mut claims = scene.tenant.v2();
    claims["oid"] = json!("somebody else, so that the token is not remembered");
    assert_eq!(scene.call(&FIRST.token(&claims)).await.status, 200);
}

#[tokio::test]
async fn a_token_beyond_all_measure_is_refused_unread() {
    let scene = Scene::new("").await;
    let mut claims = scene.tenant.v2();
    claims["padding"] = json!("x".repeat(20_000));
    let refused = scene.call(&FIRST.token(&claims)).await;
    refused.is_401("the token is too long");
}

/// No head of that size is read to its end, so that the client has to be one that goes on to read
/// although it can't write any more.
#[tokio::test]
async fn a_token_of_a_megabyte_is_cut_off() {
    let scene = Scene::new("").await;
    let mut claims = scene.tenant.v2();
    claims["padding"] = json!("x".repeat(1 << 20));
    let token = FIRST.token(&claims);
    let head =
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(scene.gateway.address)
        .await
        .unwrap();
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let token = FIRST.token(&scene.tenant.v2());
    assert_eq!(scene.call(&token).await.status, 200, "others are served");
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
