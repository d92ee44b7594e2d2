//! The gateway's own identity at its backends.

use std::time::Duration;

use serde_json::Value;

use crate::gateway::{OPEN, header};
use crate::identity_endpoint::{HEADER, IdentityEndpoint, Reply};
use crate::scripted::{Scripted, good};
use crate::served::{Served, wait_for};

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const HOUR: u64 = 3600;

/// A backend that is called with a token, and where that can't be had, another one.
struct Scene {
    gateway: Served,
    endpoint: IdentityEndpoint,
    own: Scripted,
    spare: Scripted,
}

impl Scene {
    async fn new(script: &[Reply]) -> Self {
        Self::with(script, "", "", &[]).await
    }

    /// With more sections, more in the backend's section, and more in the environment.
    async fn with(script: &[Reply], sections: &str, more: &str, env: &[(&str, &str)]) -> Self {
        let endpoint = IdentityEndpoint::start(script).await;
        let (own, spare) = (
            Scripted::start(vec![good()]).await,
            Scripted::start(vec![good()]).await,
        );
        let config = config(&own, &spare, sections, more);
        let url = endpoint.url();
        let mut all = vec![
            ("IDENTITY_ENDPOINT", url.as_str()),
            ("IDENTITY_HEADER", HEADER),
        ];
        all.extend(env);
        Self {
            gateway: Served::serve(&config, &all).await,
            endpoint,
            own,
            spare,
        }
    }

    /// The backend that answers a call.
    async fn call(&self) -> String {
        answered_by(&self.gateway).await
    }

    /// The token of the last call to the backend.
    fn token(&self) -> String {
        token(&self.own)
    }

    async fn mark(&self) -> Value {
        let health = self.gateway.get("/spillway/health").send().await.unwrap();
        let health: Value = health.json().await.unwrap();
        health["deployments"][0]["marked"]["reason"].clone()
    }
}

fn config(own: &Scripted, spare: &Scripted, sections: &str, more: &str) -> String {
    let deployment = "[[backend.deployment]]\nname = \"gpt-4o\"\nkind";
    let (own, spare) = (own.address, spare.address);
    format!(
        "{OPEN}{sections}[[backend]]\nname = \"own\"\nendpoint = \"http://{own}\"\nscope = \"{SCOPE}\"\n{more}\n\
         {deployment} = \"ptu\"\n\
         [[backend]]\nname = \"spare\"\nendpoint = \"http://{spare}\"\n{deployment} = \"payg\"\n"
    )
}

async fn answered_by(gateway: &Served) -> String {
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 200);
    header(&answer, "x-spillway-backend")
}

fn token(backend: &Scripted) -> String {
    let request = backend.last_request();
    let value = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    value.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_system_assigned_identity_is_asked_once_for_all_calls() {
    let scene = Scene::new(&[Reply::Token(HOUR)]).await;
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(scene.gateway.chat().send()))
        .collect();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!(header(&answer, "x-spillway-backend"), "own");
    }
    assert_eq!(scene.token(), "Bearer canary-token-1");
    assert!(!scene.own.last_request().to_lowercase().contains("api-key"));
    let requests = scene.endpoint.requests();
    let [query] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert!(query.contains("api-version=2019-08-01"), "{query}");
    let resource = "resource=https%3A%2F%2Fcognitiveservices.azure.com";
    assert!(query.split('&').any(|pair| pair == resource), "{query}");
    assert!(!query.contains("client_id"), "{query}");
    assert_eq!(scene.spare.calls(), 0);
}

#[tokio::test]
async fn a_user_assigned_identity_is_named_by_the_backend_or_by_the_environment() {
    const MINE: &str = "00000000-0000-0000-0000-0000000000aa";
    const OTHER: &str = "00000000-0000-0000-0000-0000000000bb";
    let in_file = format!("client_id = \"{MINE}\"");
    for (more, env, expected) in [
        (in_file.as_str(), vec![], MINE),
        ("", vec![("AZURE_CLIENT_ID", OTHER)], OTHER),
        (in_file.as_str(), vec![("AZURE_CLIENT_ID", OTHER)], MINE),
    ] {
        let scene = Scene::with(&[Reply::Token(HOUR)], "", more, &env).await;
        assert_eq!(scene.call().await, "own");
        let query = scene.endpoint.requests().remove(0);
        let client_id = format!("client_id={expected}");
        assert!(query.split('&').any(|pair| pair == client_id), "{query}");
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_no_call_notices() {
    let scene = Scene::new(&[Reply::Token(6)]).await;
    while scene.endpoint.requests().len() < 3 {
        assert_eq!(scene.call().await, "own");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.call().await, "own");
    assert_ne!(scene.token(), "Bearer canary-token-1");
    assert_eq!(scene.spare.calls(), 0);
}

#[tokio::test]
async fn an_old_token_goes_on_serving_while_it_can_not_be_renewed() {
    let scene = Scene::new(&[Reply::Token(6), Reply::Status(500)]).await;
    assert_eq!(scene.call().await, "own");
    wait_for(|| (scene.endpoint.requests().len() >= 2).then_some(())).await;
    assert_eq!(scene.call().await, "own");
    assert_eq!(scene.token(), "Bearer canary-token-1");
    scene.gateway.writes("could not be refreshed").await;
    for _ in 0..100 {
        if scene.call().await == "spare" {
            assert_eq!(scene.mark().await, "failed");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("an expired token was sent");
}

#[tokio::test]
async fn without_a_token_the_backend_is_marked_and_another_one_serves() {
    let scene = Scene::new(&[Reply::Status(500)]).await;
    for _ in 0..5 {
        assert_eq!(scene.call().await, "spare");
    }
    assert_eq!(scene.own.calls(), 0, "nothing goes out without a token");
    assert_eq!(scene.mark().await, "failed");
    scene.gateway.writes("the gateway has no token").await;
    let written = scene.gateway.written();
    let line = written.lines().find(|line| line.contains("no token"));
    let line: Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["scope"], SCOPE);
    assert_eq!(line["source"], "managed identity");
    assert!(
        line["reason"]
            .as_str()
            .unwrap()
            .contains("as the test wants it")
    );
}

#[tokio::test]
async fn an_endpoint_that_recovers_is_asked_again_soon() {
    let script = [Reply::Status(500), Reply::Status(503), Reply::Token(HOUR)];
    let scene = Scene::new(&script).await;
    for _ in 0..100 {
        if scene.call().await == "own" {
            assert_eq!(scene.token(), "Bearer canary-token-3");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the backend was never called again");
}

#[tokio::test]
async fn an_identity_that_does_not_exist_is_a_misconfiguration() {
    let scene = Scene::new(&[Reply::Status(400)]).await;
    assert_eq!(scene.call().await, "spare");
    assert_eq!(scene.mark().await, "misconfigured");
    scene.gateway.writes("has not been assigned").await;
}

#[tokio::test]
async fn the_first_calls_wait_for_a_slow_endpoint() {
    let slow = Reply::Slow(Duration::from_millis(700), HOUR);
    let scene = Scene::new(&[slow]).await;
    assert_eq!(scene.call().await, "own");
    assert_eq!(scene.endpoint.requests().len(), 1);
}

#[tokio::test]
async fn calls_wait_no_longer_for_a_token_than_for_a_connection() {
    let slow = Reply::Slow(Duration::from_secs(60), HOUR);
    let gateway = "[gateway]\nconnect_timeout_ms = 300\n";
    let scene = Scene::with(&[slow], gateway, "", &[]).await;
    let begun = std::time::Instant::now();
    assert_eq!(scene.call().await, "spare");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(scene.own.calls(), 0);
}

#[tokio::test]
async fn alone_without_a_token_a_backend_leaves_the_client_a_503_that_says_so() {
    let endpoint = IdentityEndpoint::start(&[Reply::Status(500)]).await;
    let own = Scripted::start(vec![good()]).await;
    let config = format!(
        "{OPEN}[[backend]]\nname = \"own\"\nendpoint = \"http://{}\"\nscope = \"{SCOPE}\"\n\
         [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n",
        own.address
    );
    let url = endpoint.url();
    let env = [
        ("IDENTITY_ENDPOINT", url.as_str()),
        ("IDENTITY_HEADER", HEADER),
    ];
    let gateway = Served::serve(&config, &env).await;
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("own (no_token)"), "{message}");
}

/// The Azure CLI's place is taken by a script that prints what `az account get-access-token` does.
#[tokio::test]
async fn locally_the_azure_clis_login_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let az = folder.path().join("az");
    let calls = folder.path().join("calls");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\necho '{{\"accessToken\":\"canary-cli-token\",\"expires_on\":{},\"expiresOn\":\"2099-01-01 00:00:00.000000\",\"tenant\":\"t\",\"tokenType\":\"Bearer\"}}'\n",
        calls.display(),
        crate::tenant::now() + HOUR
    );
    std::fs::write(&az, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&az, executable).unwrap();
    let (own, spare) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let gateway = Served::local(&config(&own, &spare, "", ""), &[("PATH", &path)]).await;
    for _ in 0..3 {
        assert_eq!(answered_by(&gateway).await, "own");
    }
    assert_eq!(token(&own), "Bearer canary-cli-token");
    let calls = std::fs::read_to_string(calls).unwrap();
    assert!(calls.contains(SCOPE), "{calls}");
    assert_eq!(calls.lines().count(), 1, "{calls}");
}
