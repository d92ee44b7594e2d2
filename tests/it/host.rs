//! The Functions host's form.

use std::path::Path;
use std::process::Command;

use crate::gateway::{OPEN, backend, header, start};
use crate::process::BINARY;
use crate::scripted::{Scripted, full, good};

#[tokio::test]
async fn the_probe_is_answered_at_once_and_reaches_no_backend() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    assert_eq!(gateway.get("/").send().await.unwrap().status(), 200);
    let proxied = gateway
        .get("/")
        .header("x-azure-functions-invocationid", "1")
        .send()
        .await
        .unwrap();
    assert_eq!(proxied.status(), 404);
    assert_eq!(
        gateway
            .get("/status-0123456789abcdef")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn the_console_shows_each_deployment_and_its_mark() {
    let full = Scripted::start(vec![full(60_000)]).await;
    let free = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned()
        + &backend("full", full.address, "ptu", "")
        + &backend("free", free.address, "payg", "");
    let gateway = start(&config.replace("\"gpt-4o\"", "\"<b>&\"")).await;
    let chat = serde_json::json!({"model": "<b>&", "messages": []});
    let answer = gateway.post("/v1/chat/completions").json(&chat).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    let page = gateway.get("/spillway/").send().await.unwrap();
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(
        page.contains("&lt;b&gt;&amp;") && !page.contains("<b>"),
        "{page}"
    );
    assert!(page.contains(">throttled<") && page.contains("until <time datetime=\"20"));
    assert!(page.contains(">serving<"));
}

#[tokio::test]
async fn a_forged_trigger_gets_404() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    for path in [
        "/batch",
        "/utilization",
        "/chargeback",
        "/relay",
        "/servicebus_process",
        "/openai",
        "/admin/host",
    ] {
        let forged = gateway
            .post(path)
            .header("x-ms-invocation-id", "1")
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(forged.status(), 404, "{path}");
        assert_eq!(header(&forged, "content-type"), "application/json");
        assert_eq!(header(&forged, "x-spillway-request-id").len(), 26);
    }
}

#[tokio::test]
async fn a_call_as_the_host_proxies_it_is_served() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let call = gateway
        .chat()
        .header("x-azure-functions-hostversion", "4.1052.200")
        .header("x-azure-functions-invocationid", "0f0e")
        .header("x-ms-invocation-id", "0f0e")
        .header("x-forwarded-host", "contoso.azurewebsites.net");
    assert_eq!(call.send().await.unwrap().status(), 200);
    assert!(!a.last_request().contains("0f0e"));
}

#[test]
fn a_package_has_what_the_host_needs_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("my.toml");
    std::fs::write(&config, "# the configuration\n").unwrap();
    let out = folder.path().join("package");
    let package = || {
        let arguments = [
            "package",
            "--out",
            out.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ];
        Command::new(BINARY).args(arguments).output().unwrap()
    };
    assert!(package().status.success());
    let mut files = Vec::new();
    list(&out, &out, &mut files);
    files.sort();
    let expected = [
        "alert/function.json",
        "batch/function.json",
        "chargeback/function.json",
        "console/function.json",
        "host.json",
        "relay/function.json",
        "relay_low/function.json",
        "relay_v1/function.json",
        "spillway",
        "spillway.toml",
        "status/function.json",
        "utilization/function.json",
    ];
    assert_eq!(files, expected);
    let host = json(&out.join("host.json"));
    assert_eq!(host["customHandler"]["enableProxyingHttpRequest"], true);
    assert_eq!(
        host["customHandler"]["description"]["defaultExecutablePath"],
        "spillway"
    );
    assert_eq!(host["extensions"]["http"]["routePrefix"], "");
    for file in files.iter().filter(|file| file.ends_with("function.json")) {
        let function = json(&out.join(file));
        match function["bindings"][0]["type"].as_str().unwrap() {
            "httpTrigger" => check_http_function(&function, file),
            other => check_trigger(&function, other),
        }
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(out.join("spillway"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o111, 0o111, "the host needs to execute it");
    let again = package();
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not empty")
    );
}

/// The host proxies a function only with exactly one httpTrigger and one http output, and a route
/// with a prefix of its own.
fn check_http_function(function: &serde_json::Value, file: &str) {
    let bindings = function["bindings"].as_array().unwrap();
    let types: Vec<&str> = bindings
        .iter()
        .map(|b| b["type"].as_str().unwrap())
        .collect();
    if types != ["httpTrigger", "http"] {
        // The trigger of another service, which the host calls by itself.
        let [trigger] = types.as_slice() else {
            panic!("{file}: {types:?}")
        };
        assert!(trigger.ends_with("Trigger"), "{file}: {trigger}");
        return;
    }
    let route = bindings[0]["route"].as_str().unwrap();
    assert!(!route.starts_with('{'), "{file}: {route}");
    // Azure Monitor posts; what apps call is for the relay to say.
    assert!(
        file.starts_with("alert") || bindings[0].get("methods").is_none(),
        "{file} serves all methods"
    );
    // Azure Monitor only posts; apps and operators do all sorts of things.
    let all = bindings[0].get("methods").is_none();
    assert!(all || route == "alerts", "{file} serves all methods");
}

/// A trigger's binding has the name that its function reads it by. Messages and events come as bytes:
/// a text that is JSON would overwrite what the broker says of it.
fn check_trigger(function: &serde_json::Value, trigger: &str) {
    let bindings = function["bindings"].as_array().unwrap();
    assert_eq!(bindings.len(), 1, "{trigger}");
    let (name, data) = match trigger {
        "serviceBusTrigger" => ("message", Some("binary")),
        "eventHubTrigger" => ("events", Some("binary")),
        "timerTrigger" => ("timer", None),
        other => panic!("{other}"),
    };
    assert_eq!(bindings[0]["name"], name);
    assert_eq!(bindings[0]["dataType"].as_str(), data, "{trigger}");
}

fn json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn list(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, files);
        } else {
            files.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
}

/// Whoever speaks no HTTP, or too much of it, hears so before the connection ends.
#[tokio::test]
async fn a_head_that_is_none_is_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let long = format!(
        "GET /v1/models HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    for (head, status) in [("no HTTP at all\r\n\r\n", "400"), (long.as_str(), "431")] {
        let mut stream = tokio::net::TcpStream::connect(gateway.address)
            .await
            .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[test]
fn check_says_every_mistake_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spillway.toml");
    std::fs::write(&file, "[gatway]\n[auth]\nmode = 1\n").unwrap();
    let checked = Command::new(BINARY)
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&checked.stderr).to_string();
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        text.contains(":1:2: gatway") && text.contains(":3:8: auth.mode"),
        "{text}"
    );
    let schema = Command::new(BINARY)
        .args(["check", "--schema"])
        .output()
        .unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["title"], "Spillway");
}
