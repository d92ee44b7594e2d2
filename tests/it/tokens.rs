//! Entra tokens at the door, against a tenant of the tests' own.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::door::{Answer, Scene};
use crate::tenant::{FIRST, SECOND, TENANT, Tenant, now, unsigned};

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
