//! Usage events on their way out of the gateway, while hubs and tables fail.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spillway::store::embedded::Embedded;
use spillway::store::{Pages, Range, Store, Table};

use crate::azurite::{Azurite, emulator};
use crate::event_hub::EventHub;
use crate::gateway::{OPEN, backend, chat_body, header};
use crate::identity_endpoint::{HEADER, IdentityEndpoint, Reply};
use crate::process::free_port;
use crate::scripted::{Scripted, good};
use crate::served::{command, wait_for};

/// A gateway as a process that can be killed, or asked to end, and started again.
pub(crate) struct Relay {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Relay {
    pub(crate) fn start(folder: &Path, config: &str, env: &[(&str, &str)]) -> Self {
        let port = free_port();
        let file = folder.join("spillway.toml");
        std::fs::write(&file, config).unwrap();
        let port_text = port.to_string();
        let arguments = [
            "serve",
            "--port",
            &port_text,
            "--config",
            file.to_str().unwrap(),
        ];
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command: Command = command(&arguments, env);
        let child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        let relay = Self {
            child: child.spawn().unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect(relay.address).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "it does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        relay
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits; its exit code.
    pub(crate) async fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                let code = status.code();
                return code
                    .unwrap_or_else(|| panic!("it was killed, and has not ended: {status}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway whose events go to a hub.
pub(crate) struct Scene {
    pub(crate) hub: EventHub,
    pub(crate) identity: IdentityEndpoint,
    pub(crate) backend: Scripted,
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self {
            hub: EventHub::start().await,
            identity: IdentityEndpoint::start(&[Reply::Token(3600)]).await,
            backend: Scripted::start(vec![good()]).await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A configuration with the hub, and this in `[chargeback]`.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "{OPEN}{}[chargeback]\n{}spool = \"{}\"\n{more}",
            backend("a", self.backend.address, "payg", ""),
            self.hub.key(),
            self.folder.path().join("spool").display(),
        )
    }

    pub(crate) fn start(&self, config: &str) -> Relay {
        let url = self.identity.url();
        let env = [
            ("IDENTITY_ENDPOINT", url.as_str()),
            ("IDENTITY_HEADER", HEADER),
        ];
        Relay::start(self.folder.path(), config, &env)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The files that events wait in, and their bytes.
    pub(crate) fn spooled(&self) -> Vec<(String, u64)> {
        let files = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        let file = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, entry.metadata().ok()?.len()))
        };
        files.filter_map(file).collect()
    }
}

pub(crate) async fn call(address: SocketAddr) -> String {
    let client = reqwest::Client::new();
    let url = format!("http://{address}/v1/chat/completions");
    let answer = client
        .post(&url)
        .json(&chat_body(false))
        .send()
        .await
        .unwrap();
    let id = header(&answer, "x-spillway-request-id");
    assert_eq!(
        answer.bytes().await.map(|bytes| bytes.is_empty()).ok(),
        Some(false)
    );
    id
}

/// The ids of the calls that have a row.
pub(crate) async fn rows(store: &dyn Store) -> HashSet<String> {
    let rows = Pages::new(store, Table::Chargeback, Range::all())
        .rest()
        .await
        .unwrap();
    let calls = rows
        .iter()
        .filter_map(|row| row.key.row.strip_prefix("call|"));
    calls.map(str::to_owned).collect()
}

#[tokio::test]
async fn events_go_to_the_hub_in_batches_and_with_the_gateways_token() {
    let scene = Scene::new().await;
    let relay = scene.start(&scene.config(""));
    let mut ids = HashSet::new();
    for _ in 0..20 {
        ids.insert(call(relay.address).await);
    }
    wait_for(|| (scene.hub.ids() == ids).then_some(())).await;
    assert!(
        scene.hub.requests().len() < 20,
        "{:?}",
        scene.hub.requests()
    );
}

#[tokio::test]
async fn without_the_hub_the_rows_are_written_straight() {
    let scene = Scene::new().await;
    scene.hub.be_down(true);
    let data = scene.folder.path().join("data");
    let tables = format!("[storage]\ntables = \"embedded:{}\"\n", data.display());
    let relay = scene.start(&(scene.config("") + &tables));
    let ids: HashSet<String> = [call(relay.address).await, call(relay.address).await].into();
    assert_eq!(relay.terminate().await, 0);
    let store = Embedded::open(&data).unwrap();
    assert_eq!(rows(&store).await, ids);
    assert!(scene.hub.ids().is_empty());
}

#[tokio::test]
async fn without_hub_and_table_events_wait_in_files_until_one_is_back() {
    let scene = Scene::new().await;
    scene.hub.be_down(true);
    let table: SocketAddr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let tables = format!("[storage]\ntables = \"http://{table}/devstoreaccount1\"\n");
    let config = scene.config("") + &tables;
    let relay = scene.start(&config);
    let mut ids: HashSet<String> = [call(relay.address).await].into();
    wait_for(|| scene.log().contains("wait in a file").then_some(())).await;
    // Nothing of it is in memory any more.
    relay.kill();
    let relay = scene.start(&config);
    ids.insert(call(relay.address).await);
    wait_for(|| scene.log().contains("go on waiting in files").then_some(())).await;
    let azurite = Azurite::start();
    let proxy = crate::table_faults::relay_to(azurite.address, table).await;
    let store = emulator(azurite.address);
    let mut found = HashSet::new();
    for _ in 0..300 {
        found = rows(&store).await;
        if found == ids {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(found, ids);
    proxy.abort();
}
