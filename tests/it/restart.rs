//! What outlasts a process that is killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use spillway::store::embedded::Embedded;
use spillway::store::{Pages, Range, Table};

use crate::gateway::{OPEN, backend, header};
use crate::process::{BINARY, Process, free_port};
use crate::scripted::{Scripted, answer};

fn serve(folder: &Path) -> Process {
    let port = free_port();
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--port", &port.to_string(), "--config"])
        .arg(folder.join("spillway.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Process::start(command, port)
}

/// Waits until the store has so many calls: what is on its way to it may be lost with a process that is killed.
async fn written(client: &reqwest::Client, process: &Process, calls: u64) {
    for _ in 0..200 {
        let bill = client.get(format!("http://{}/spillway/chargeback", process.address));
        let bill: serde_json::Value = bill.send().await.unwrap().json().await.unwrap();
        if bill["total"]["calls"] == calls {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 20 s: {calls} calls in the store");
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

    let client = reqwest::Client::new();
    let first = serve(folder.path());
    let made = client
        .post(format!("http://{}/v1/responses", first.address))
        .json(&serde_json::json!({"model": "gpt-4o", "input": "Hi"}));
    let made = made.send().await.unwrap();
    assert_eq!(made.status(), 200);
    let owner = header(&made, "x-spillway-backend");
    written(&client, &first, 1).await;
    // The owner has a way of its own to the store.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill();

    let second = serve(folder.path());
    for _ in 0..6 {
        let read = client.get(format!("http://{}/v1/responses/resp_1", second.address));
        let read = read.send().await.unwrap();
        assert_eq!(header(&read, "x-spillway-backend"), owner);
    }
    written(&client, &second, 7).await;
    second.kill();

    let store = Embedded::open(&data).unwrap();
    let rows = Pages::new(&store, Table::Chargeback, Range::all());
    let mut rows = rows.rest().await.unwrap();
    rows.retain(|row| row.key.row.starts_with("call|"));
    assert_eq!(rows.len(), 7, "a row a call, of both processes");
    let operations = rows.iter().map(|row| row.fields.get_text("operation"));
    assert_eq!(operations.filter(|o| *o == "responses").count(), 1);
}
