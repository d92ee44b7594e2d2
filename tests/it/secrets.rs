//! Nothing that is secret is written: not in logs at their most talkative, not in errors, events,
//! health or Debug output.

use std::time::Duration;

use serde_json::json;
use spillway::config::{Config, KeyHash};
use spillway::serve::Gateway;

use crate::identity_endpoint::{HEADER, IdentityEndpoint, Reply};
use crate::scripted::{Act, Scripted, answer, stream};
use crate::served::{Served, command};
use crate::tenant::{FIRST, PORTAL, SECOND, Tenant};

/// What all secrets of this test have in them; tokens of callers, which have not, are looked for
/// by their signature.
const CANARY: &str = "canary";

const CHUNK: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"canary-completion\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

struct Scene {
    gateway: Served,
    token: String,
    stranger: String,
    forged: String,
    /// All that clients got of the gateway's own making.
    answers: String,
}

impl Scene {
    async fn new() -> Self {
        let tenant = Tenant::start().await;
        let identity = IdentityEndpoint::start(&[Reply::Token(6), Reply::Status(500)]).await;
        let json = answer(
            "200 OK",
            "set-cookie: canary=1\r\n",
            r#"{"id":"canary-id","choices":[{"message":{"content":"canary-completion"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        );
        let refusal = answer("401 Unauthorized", "", r#"{"error":{"message":"canary"}}"#);
        let (own, keyed, refusing, broken) = (
            Scripted::start(vec![json.clone()]).await,
            Scripted::start(vec![
                Act::Drip(stream(&[CHUNK, DONE], true), Duration::ZERO),
                json,
            ])
            .await,
            Scripted::start(vec![refusal]).await,
            Scripted::start(vec![Act::SayAndReset(stream(&[CHUNK], false).concat())]).await,
        );
        let section = |name: &str, of: &Scripted, more: &str, model: &str| {
            format!(
                "[[backend]]\nname = \"{name}\"\nendpoint = \"http://{}\"\n{more}\n\
                 [[backend.deployment]]\nname = \"{model}\"\nkind = \"payg\"\n",
                of.address
            )
        };
        let hash = |key: &str| KeyHash::of(key);
        let config = tenant.auth(&format!(
            "admin_key_hashes = [\"{}\"]",
            hash("canary-admin-key")
        )) + &section(
            "own",
            &own,
            "scope = \"https://ai.azure.com/.default\"",
            "own",
        ) + &section("keyed", &keyed, "key = \"${BACKEND_KEY}\"", "keyed")
            + &section("refusing", &refusing, "key = \"${BACKEND_KEY}\"", "refused")
            + &section("broken", &broken, "", "broken")
            + &format!(
                "[[app]]\nname = \"portal\"\nentra_app_ids = [\"{PORTAL}\"]\nkey_hashes = [\"{}\"]\n",
                hash("canary-app-key")
            );
        let url = identity.url();
        let env = [
            ("IDENTITY_ENDPOINT", url.as_str()),
            ("IDENTITY_HEADER", HEADER),
            ("BACKEND_KEY", "canary-backend-key"),
            ("RUST_LOG", "trace"),
        ];
        let mut stranger = tenant.v2();
        stranger["azp"] = json!("bbbbbbbb-0000-0000-0000-000000000002");
        Self {
            gateway: Served::serve(&config, &env).await,
            token: FIRST.token(&tenant.v2()),
            stranger: FIRST.token(&stranger),
            forged: SECOND.sign(&json!({"alg": "RS256", "kid": "first"}), &tenant.v2()),
            answers: String::new(),
        }
    }

    /// Sends a call and keeps what came back, where the gateway itself made it.
    async fn call(&mut self, call: reqwest::RequestBuilder) {
        let call = call
            .header("x-functions-key", "canary-function-key")
            .header("cookie", "canary=1");
        let answer = call.send().await.unwrap();
        self.answers += &format!("{:?}\n", answer.headers());
        let passed_on = answer.headers().contains_key("x-spillway-backend");
        let body = answer.text().await.unwrap_or_default();
        if !passed_on {
            self.answers += &body;
        }
    }

    /// Calls of every sort and outcome.
    async fn traffic(&mut self) {
        let paths = [
            "/v1/chat/completions?code=canary-function-key",
            "/openai/v1/responses",
            "/low/v1/embeddings",
        ];
        for path in paths {
            for model in ["own", "keyed", "refused", "broken", "no-model"] {
                let body = json!({"model": model, "stream": true, "input": "canary-prompt",
                    "messages": [{"role": "user", "content": "canary-prompt"}]});
                let post = |gateway: &Served| gateway.post(path).json(&body);
                let (token, stranger) = (self.token.clone(), self.stranger.clone());
                self.call(post(&self.gateway).bearer_auth(token)).await;
                self.call(post(&self.gateway).bearer_auth(stranger)).await;
                self.call(post(&self.gateway).bearer_auth(self.forged.clone()))
                    .await;
                self.call(post(&self.gateway).bearer_auth("canary-app-key"))
                    .await;
                self.call(post(&self.gateway).header("api-key", "canary-wrong-key"))
                    .await;
            }
            let broken = "{\"model\": \"own\", \"input\": \"canary-prompt\" canary-prompt";
            let broken = self
                .gateway
                .post(path)
                .body(broken)
                .header("api-key", "canary-app-key");
            self.call(broken.header("content-type", "application/json"))
                .await;
        }
        for (key, path) in [
            ("canary-app-key", "/v1/models"),
            ("canary-app-key", "/openai/files/file-1"),
            ("canary-admin-key", "/spillway/health"),
            ("canary-wrong-key", "/spillway/health"),
        ] {
            self.call(self.gateway.get(path).header("api-key", key))
                .await;
        }
    }
}

#[tokio::test]
async fn no_secret_is_written_anywhere() {
    let mut scene = Scene::new().await;
    scene.traffic().await;
    // The token that can't be renewed is the last secret to be talked about.
    scene.gateway.writes("could not be refreshed").await;
    scene.traffic().await;
    let written = scene.gateway.written();
    for proof in [
        "\"level\":\"TRACE\"",
        "\"message\":\"call\"",
        "\"message\":\"marked",
    ] {
        assert!(
            written.contains(proof),
            "there was nothing to search: {proof}"
        );
    }
    let signatures = [&scene.token, &scene.stranger, &scene.forged]
        .map(|token| token.rsplit('.').next().unwrap());
    for (what, text) in [
        ("its streams", written.as_str()),
        ("its answers", scene.answers.as_str()),
    ] {
        for secret in signatures.iter().chain([&CANARY]) {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret} is in {what}");
        }
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let env = |name: &str| (name == "BACKEND_KEY").then(|| "canary-backend-key".to_owned());
    let config = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\nkey = \"${BACKEND_KEY}\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n";
    let config = Config::parse(config, "test", &env).unwrap();
    let (gateway, _events) = Gateway::new(&config, None).unwrap();
    let printed = format!("{config:?} {config:#?} {gateway:?} {gateway:#?}");
    assert!(
        printed.contains("127.0.0.1") && !printed.contains(CANARY),
        "{printed}"
    );
}

#[test]
fn a_new_key_is_shown_once_with_the_line_that_takes_it_in() {
    let output = command(&["key", "new", "portal"], &[]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let key = text.lines().next().unwrap();
    let line = format!("key_hashes = [\"{}\"]", KeyHash::of(key));
    assert!(text.contains(&line), "{text}");
    assert_eq!(text.matches(key).count(), 1);
    let again = command(&["key", "new", "portal"], &[]).output().unwrap();
    assert!(!String::from_utf8(again.stdout).unwrap().contains(key));
}

#[test]
fn an_open_gateway_listens_beyond_this_machine_only_when_told_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spillway.toml");
    let backend = "[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n";
    std::fs::write(&file, format!("[auth]\nmode = \"off\"\n{backend}")).unwrap();
    let file_name = file.to_str().unwrap();
    let arguments = ["serve", "--port", "0", "--config", file_name];
    let mut beyond = arguments.to_vec();
    beyond.extend(["--host", "0.0.0.0"]);
    for (arguments, env) in [
        (beyond.as_slice(), vec![]),
        (arguments.as_slice(), vec![("WEBSITE_SITE_NAME", "contoso")]),
    ] {
        let refused = command(arguments, &env).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains("allow_open = true"), "{error}");
    }
    let twice = format!("[auth]\nmode = \"off\"\nallow_open = true\n{backend}");
    std::fs::write(&file, twice).unwrap();
    let mut served = command(&beyond, &[("WEBSITE_SITE_NAME", "contoso")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(served.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(stdout).map(Result::unwrap);
    let listening = lines.find(|line| line.contains("listening"));
    served.kill().unwrap();
    served.wait().unwrap();
    assert!(listening.is_some_and(|line| line.contains("0.0.0.0")));
}
