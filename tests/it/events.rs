//! Usage events on their way out of the gateway, while hubs and tables fail and processes are killed.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spillway::store::embedded::Embedded;
use spillway::store::{Pages, Range, Store, Table};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::azurite::{Azurite, emulator};
use crate::event_hub::EventHub;
use crate::gateway::{OPEN, backend, chat_body, header};
use crate::identity_endpoint::{HEADER, IdentityEndpoint, Reply};
use crate::process::free_port;
use crate::scripted::{Act, Scripted, good, stream};
use crate::served::{command, wait_for};

/// A gateway as a process that can be killed, or asked to end, and started again.
struct Relay {
    child: Child,
    address: SocketAddr,
}

impl Relay {
    fn start(folder: &Path, config: &str, env: &[(&str, &str)]) -> Self {
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

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits; its exit code.
    async fn terminate(mut self) -> i32 {
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

/// Calls that got their whole answer, and when: by id.
type Answered = Arc<Mutex<HashMap<String, Instant>>>;

/// Calls again and again, from several clients, until the gateway is gone.
fn load(address: SocketAddr, clients: usize, streamed: bool) -> Answered {
    let answered = Answered::default();
    let client = reqwest::Client::new();
    for _ in 0..clients {
        let (answered, client) = (Arc::clone(&answered), client.clone());
        tokio::spawn(async move {
            let url = format!("http://{address}/v1/chat/completions");
            loop {
                let call = client.post(&url).json(&chat_body(streamed)).send().await;
                let Ok(answer) = call else { return };
                let id = header(&answer, "x-spillway-request-id");
                assert_eq!(answer.status(), 200);
                if answer.bytes().await.is_ok() {
                    answered.lock().unwrap().insert(id, Instant::now());
                }
            }
        });
    }
    answered
}

/// Waits until calls have come for a while, more than the gateway takes to bring their events out.
async fn under_load(answered: &Answered) {
    wait_for(|| (answered.lock().unwrap().len() > 20).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

const CLIENTS: usize = 8;

struct Scene {
    hub: EventHub,
    identity: IdentityEndpoint,
    backend: Scripted,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self {
            hub: EventHub::start().await,
            identity: IdentityEndpoint::start(&[Reply::Token(3600)]).await,
            backend: Scripted::start(vec![good()]).await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A configuration with the hub, and this in `[chargeback]`.
    fn config(&self, more: &str) -> String {
        format!(
            "{OPEN}{}[chargeback]\n{}spool = \"{}\"\n{more}",
            backend("a", self.backend.address, "payg", ""),
            self.hub.key(),
            self.folder.path().join("spool").display(),
        )
    }

    fn start(&self, config: &str) -> Relay {
        let url = self.identity.url();
        let env = [
            ("IDENTITY_ENDPOINT", url.as_str()),
            ("IDENTITY_HEADER", HEADER),
        ];
        Relay::start(self.folder.path(), config, &env)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The files that events wait in, and their bytes.
    fn spooled(&self) -> Vec<(String, u64)> {
        let files = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        let file = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, entry.metadata().ok()?.len()))
        };
        files.filter_map(file).collect()
    }
}

async fn call(address: SocketAddr) -> String {
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

async fn rows(store: &dyn Store) -> HashSet<String> {
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

/// What a killed process loses without `durable`: what gathered in memory, and was being sent.
#[tokio::test]
async fn a_killed_process_loses_at_most_what_came_in_its_last_moments() {
    let scene = Scene::new().await;
    let relay = scene.start(&scene.config("gather_ms = 200\n"));
    let answered = load(relay.address, CLIENTS, false);
    under_load(&answered).await;
    let killed = Instant::now();
    relay.kill();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answered = answered.lock().unwrap().clone();
    let arrived = scene.hub.ids();
    let lost: Vec<Duration> = answered
        .iter()
        .filter(|(id, _)| !arrived.contains(*id))
        .map(|(_, at)| killed.saturating_duration_since(*at))
        .collect();
    let oldest = lost.iter().max().copied().unwrap_or_default();
    let at_backend = scene.backend.calls();
    eprintln!(
        "{at_backend} calls at the backend, {} answered whole, {} at the hub, {} lost, the oldest {oldest:?} before the kill",
        answered.len(),
        arrived.len(),
        lost.len()
    );
    assert!(arrived.len() > 20, "there was no load");
    // Gathering, and the send that was under way, with room for a machine that is busy.
    assert!(oldest < Duration::from_millis(1200), "{oldest:?}");
    // What only the backend saw were the calls under way.
    assert!(at_backend - answered.len() <= CLIENTS);
}

async fn durable_loses_nothing(backend: Scripted, streamed: bool) {
    let mut scene = Scene::new().await;
    scene.backend = backend;
    let config = scene.config("durable = true\n");
    let relay = scene.start(&config);
    let answered = load(relay.address, CLIENTS, streamed);
    under_load(&answered).await;
    let killed = Instant::now();
    relay.kill();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answered = answered.lock().unwrap().clone();
    let before = scene.hub.ids();
    let at_backend = scene.backend.calls();
    let log = scene.log();
    let relay = scene.start(&config);
    // As long as a hub that could not be reached is left alone, and longer.
    let mut missing = Vec::new();
    for _ in 0..3000 {
        let arrived = scene.hub.ids();
        missing = answered
            .iter()
            .filter(|(id, _)| !arrived.contains(*id))
            .collect();
        if missing.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let after = scene.hub.ids();
    let counts = format!(
        "{at_backend} calls at the backend, {} answered whole, {} at the hub when killed, {} after the restart",
        answered.len(),
        before.len(),
        after.len()
    );
    eprintln!("{counts}");
    assert!(answered.len() > 20, "there was no load: {counts}");
    let ages = missing
        .iter()
        .map(|(id, at)| (id, killed.saturating_duration_since(**at)));
    assert!(
        missing.is_empty(),
        "answered, and lost: {:?} (how long before the kill)\n{counts}\nin the spool: {:?}\nbefore: {log}\nafter: {}",
        ages.collect::<Vec<_>>(),
        scene.spooled(),
        scene.log()
    );
    // A client has one call at a time: what only the backend saw were those under way.
    let unseen = at_backend.saturating_sub(after.len());
    assert!(
        unseen <= CLIENTS,
        "{unseen} calls made no event: {counts}\n{log}"
    );
    assert_eq!(relay.terminate().await, 0, "{}", scene.log());
}

/// A stream of two chunks and its usage, in parts.
fn parts() -> Vec<Vec<u8>> {
    let chunks = [
        "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n",
        "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\n\n",
        "data: [DONE]\n\n",
    ];
    stream(&chunks, true)
}

#[tokio::test]
async fn a_killed_process_loses_nothing_where_events_are_durable() {
    durable_loses_nothing(Scripted::start(vec![good()]).await, false).await;
}

#[tokio::test]
async fn a_killed_process_loses_no_stream_where_events_are_durable() {
    let backend = Scripted::start(vec![Act::Say(parts().concat())]).await;
    durable_loses_nothing(backend, true).await;
}

#[tokio::test]
async fn whoever_asks_a_process_to_end_waits_for_its_events() {
    let scene = Scene::new().await;
    // They would gather for longer than the test takes.
    let relay = scene.start(&scene.config("gather_ms = 10000\n"));
    let id = call(relay.address).await;
    assert_eq!(relay.terminate().await, 0);
    assert_eq!(scene.hub.ids(), [id].into());
}

#[tokio::test]
async fn a_process_that_is_asked_to_end_lets_calls_finish_and_takes_no_others() {
    let gate = Arc::new(Semaphore::new(2));
    let mut scene = Scene::new().await;
    scene.backend = Scripted::start(vec![Act::Gated(parts(), Arc::clone(&gate))]).await;
    let relay = scene.start(&scene.config(""));
    let address = relay.address;
    let url = format!("http://{address}/v1/chat/completions");
    let client = reqwest::Client::new();
    let call = client.post(&url).json(&chat_body(true));
    let mut answer = call.send().await.unwrap();
    let id = header(&answer, "x-spillway-request-id");
    let mut text = answer.chunk().await.unwrap().unwrap().to_vec();
    // A connection without a call is closed; new ones find nobody.
    let mut idle = TcpStream::connect(address).await.unwrap();
    let rest = async {
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        let refused = async || TcpStream::connect(address).await.is_err().then_some(());
        while refused().await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gate.add_permits(100);
        while let Some(chunk) = answer.chunk().await.unwrap() {
            text.extend_from_slice(&chunk);
        }
    };
    let (code, ()) = tokio::join!(relay.terminate(), rest);
    assert_eq!(code, 0, "{}", scene.log());
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(scene.hub.ids(), [id].into());
}

#[tokio::test]
async fn whoever_asks_a_process_to_end_that_has_just_begun_is_heard() {
    let scene = Scene::new().await;
    for _ in 0..5 {
        let relay = scene.start(&scene.config(""));
        assert_eq!(relay.terminate().await, 0, "{}", scene.log());
    }
}

#[tokio::test]
async fn below_the_functions_host_the_end_is_no_success() {
    let scene = Scene::new().await;
    let url = scene.identity.url();
    let env = [
        ("IDENTITY_ENDPOINT", url.as_str()),
        ("IDENTITY_HEADER", HEADER),
        ("FUNCTIONS_CUSTOMHANDLER_PORT", "1"),
    ];
    let relay = Relay::start(scene.folder.path(), &scene.config(""), &env);
    let id = call(relay.address).await;
    assert_eq!(relay.terminate().await, 1);
    assert_eq!(scene.hub.ids(), [id].into());
}
