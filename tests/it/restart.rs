//! What outlasts a process that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Response};
use spillway::store::embedded::Embedded;
use spillway::store::{Range, Store, Table};

use crate::gateway::{OPEN, backend, header};
use crate::scripted::{Scripted, answer};

/// A gateway in a process of its own.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spillway"))
            .args(["serve", "--port", "0", "--config"])
            .arg(folder.join("spillway.toml"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
            .find_map(|line| line["address"].as_str().map(|a| format!("http://{a}")))
            .unwrap();
        Self { child, url }
    }

    /// As the Functions host ends it: SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Response {
        let request = Client::new().post(format!("{}{path}", self.url)).json(body);
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        let request = Client::new().get(format!("{}{path}", self.url));
        request.send().await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn owners_and_usage_outlast_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let response = answer("200 OK", "", r#"{"id":"resp_1","object":"response"}"#);
    let a = Scripted::start(vec![response.clone()]).await;
    let b = Scripted::start(vec![response]).await;
    let data = folder.path().join("data");
    let config = format!(
        "{OPEN}{}{}[storage]\ntables = \"embedded:{}\"\n",
        backend("a", a.address, "payg", ""),
        backend("b", b.address, "payg", ""),
        data.display(),
    );
    std::fs::write(folder.path().join("spillway.toml"), config).unwrap();

    let first = Process::start(folder.path());
    let made = first
        .post(
            "/v1/responses",
            &serde_json::json!({"model": "gpt-4o", "input": "Hi"}),
        )
        .await;
    assert_eq!(made.status(), 200);
    let owner = header(&made, "x-spillway-backend");
    // What was on its way to the store when the process is killed may be lost.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill();

    let second = Process::start(folder.path());
    for _ in 0..6 {
        let read = second.get("/v1/responses/resp_1").await;
        assert_eq!(header(&read, "x-spillway-backend"), owner);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    second.kill();

    let store = Embedded::open(&data).unwrap();
    let page = store.read(Table::Chargeback, &Range::all()).await.unwrap();
    assert_eq!(page.rows.len(), 7, "a row a call, of both processes");
    let operations = page.rows.iter().map(|row| row.fields.get_text("operation"));
    assert_eq!(operations.filter(|o| *o == "responses").count(), 1);
}
