//! `spillway discover`, against answers in Azure Resource Manager's documented form.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

const ID: &str = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/ai/providers/Microsoft.CognitiveServices/accounts/contoso-swe";

#[derive(Clone)]
struct Manager {
    address: SocketAddr,
    /// Where the first page says that the next one is; a path is one here.
    next: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    async fn start(next: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manager = Self {
            address: listener.local_addr().unwrap(),
            next: next.to_owned(),
            asked: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(manager.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        manager
    }

    async fn discover(&self, id: &str) -> Output {
        let manager = format!("http://{}", self.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
        command.args(["discover", "--manager", &manager, id]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }
}

async fn answer(State(manager): State<Manager>, request: Request) -> axum::response::Response {
    let asked = request.uri().to_string();
    manager.asked.lock().unwrap().push(asked.clone());
    let (path, query) = asked.split_once('?').unwrap_or((&asked, ""));
    assert!(query.contains("api-version=2024-10-01"), "{asked}");
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let body = match path.strip_prefix(ID) {
        Some("") => read(include_str!("../fixtures/resource-manager/account.json")),
        Some("/deployments") if query.contains("skiptoken") => read(include_str!(
            "../fixtures/resource-manager/deployments-2.json"
        )),
        Some("/deployments") => {
            let mut page = read(include_str!(
                "../fixtures/resource-manager/deployments-1.json"
            ));
            let next = match manager.next.strip_prefix('/') {
                Some(_) => format!("http://{}{}", manager.address, manager.next),
                None => manager.next.clone(),
            };
            page["nextLink"] = next.into();
            page
        }
        _ if path.contains("forbidden") => return StatusCode::FORBIDDEN.into_response(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    Json(body).into_response()
}

fn next() -> String {
    format!("{ID}/deployments?api-version=2024-10-01&$skiptoken=x")
}

#[tokio::test]
async fn check_accepts_what_is_proposed() {
    let manager = Manager::start(&next()).await;
    let done = manager.discover(ID).await;
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spillway.toml");
    std::fs::write(&file, &text).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_spillway"))
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&check.stderr)
    );
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("1 backends, 3 deployments"), "{said}");
    for line in [
        "endpoint = \"https://contoso-swe.openai.azure.com\"",
        "ptus = 100",
        "since = \"2026-03-04\"",
        "# gpt-4o-ptu spills over by itself",
        "# nightly is left out",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(manager.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_can_not_be_read_is_said_and_nothing_is_proposed() {
    let manager = Manager::start(&next()).await;
    let other = |name: &str| ID.replace("contoso-swe", name);
    for (id, says) in [
        (other("nobody"), "does not exist"),
        (other("forbidden"), "the role Reader"),
        ("contoso-swe".into(), "must be /subscriptions/"),
    ] {
        let done = manager.discover(&id).await;
        let error = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && error.contains(says), "{error}");
        assert_eq!(done.stdout, b"");
    }
}

#[tokio::test]
async fn a_next_page_at_another_host_is_not_asked_for() {
    for next in [
        "https://example.com/x?api-version=2024-10-01",
        "http://127.0.0.1:1/x",
    ] {
        let manager = Manager::start(next).await;
        let done = manager.discover(ID).await;
        let error = String::from_utf8(done.stderr).unwrap();
        assert!(
            !done.status.success() && error.contains("another host"),
            "{error}"
        );
    }
}
