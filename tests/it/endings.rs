//! Processes that are asked to end: calls under way finish, no others are taken, and no event is left.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway::store::embedded::Embedded;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::azurite::Azurite;
use crate::events::{Relay, Scene, call, rows};
use crate::gateway::{OPEN, backend, chat_body, header};
use crate::identity_endpoint::HEADER;
use crate::kills::{Answered, CLIENTS, load, summed};
use crate::scripted::{Act, Scripted, parts};
use crate::served::wait_long;

#[tokio::test]
async fn whoever_asks_a_process_to_end_waits_for_its_events() {
    let scene = Scene::new().await;
    // They would gather for longer than the test takes.
    let relay = scene.start(&scene.config("gather_ms = 10000\n"));
    let id = call(relay.address).await;
    assert_eq!(relay.terminate().await, 0);
    assert_eq!(scene.hub.ids(), [id].into());
}

/// Asks a gateway to end while it answers with a stream; the stream's id.
async fn ends_in_a_stream(scene: &mut Scene, config: impl Fn(&Scene) -> String) -> String {
    let gate = Arc::new(Semaphore::new(2));
    scene.backend = Scripted::start(vec![Act::Gated(parts(), Arc::clone(&gate))]).await;
    let relay = scene.start(&config(scene));
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
        // One that nobody had accepted yet is reset.
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
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
    assert_eq!(scene.backend.calls(), 1);
    bring_files(scene, &config(scene)).await;
    id
}

/// What can't be delivered within a second, as on a machine that is busy, is in files when a process has ended:
/// the next one brings it.
async fn bring_files(scene: &Scene, config: &str) {
    let waits = |(name, _): &(String, u64)| Path::new(name).extension() == Some("spool".as_ref());
    if scene.spooled().iter().any(waits) {
        let next = scene.start(config);
        wait_long(|| !scene.spooled().iter().any(waits)).await;
        assert_eq!(next.terminate().await, 0);
    }
}

#[tokio::test]
async fn a_process_that_is_asked_to_end_lets_calls_finish_and_takes_no_others() {
    let mut scene = Scene::new().await;
    let id = ends_in_a_stream(&mut scene, |scene| scene.config("")).await;
    assert_eq!(scene.hub.ids(), [id].into());
}

/// A gateway without a hub, whose tables are there.
fn with_tables(scene: &Scene, tables: &str) -> String {
    let backend = backend("a", scene.backend.address, "payg", "");
    let spool = scene.folder.path().join("spool");
    // Events would gather for longer than the test takes.
    format!(
        "{OPEN}{backend}[storage]\ntables = \"{tables}\"\n[chargeback]\ngather_ms = 10000\nspool = \"{}\"\n",
        spool.display()
    )
}

#[tokio::test]
async fn its_rows_are_in_the_file_when_it_has_ended() {
    let mut scene = Scene::new().await;
    let data = scene.folder.path().join("data");
    let tables = format!("embedded:{}", data.display());
    let id = ends_in_a_stream(&mut scene, |scene| with_tables(scene, &tables)).await;
    let store = Embedded::open(&data).unwrap();
    assert_eq!(rows(&store).await, [id].into());
}

#[tokio::test]
async fn its_rows_are_in_table_storage_when_it_has_ended() {
    let azurite = Azurite::start();
    let mut scene = Scene::new().await;
    let tables = format!("http://{}/devstoreaccount1", azurite.address);
    let id = ends_in_a_stream(&mut scene, |scene| with_tables(scene, &tables)).await;
    assert_eq!(rows(&azurite.store()).await, [id].into());
}

/// As in an upgrade: some processes come and others go, all on one store, while calls go on.
#[tokio::test]
async fn processes_that_relieve_each_other_lose_no_call_and_count_none_twice() {
    let azurite = Azurite::start();
    let scene = Scene::new().await;
    let tables = format!("http://{}/devstoreaccount1", azurite.address);
    let config = with_tables(&scene, &tables).replace("10000", "50");
    let mut answered = HashSet::new();
    let mut before: Option<(Relay, Answered)> = None;
    let folders = [0; 3].map(|_| tempfile::tempdir().unwrap());
    for folder in &folders {
        let relay = Relay::start(folder.path(), &config, &[]);
        let load = load(relay.address, CLIENTS, false);
        answers(&load).await;
        if let Some((relay, load)) = before.replace((relay, load)) {
            answers(&load).await;
            assert_eq!(relay.terminate().await, 0);
            answered.extend(load.lock().unwrap().keys().cloned());
        }
    }
    let (relay, load) = before.unwrap();
    assert_eq!(relay.terminate().await, 0);
    answered.extend(load.lock().unwrap().keys().cloned());
    bring_files(&scene, &config).await;
    let store = azurite.store();
    let kept = rows(&store).await;
    assert!(
        answered.is_subset(&kept),
        "{:?}",
        answered.difference(&kept)
    );
    assert_eq!(kept.len(), scene.backend.calls(), "each call once");
    assert_eq!(summed(&store).await, kept.len());
}

/// Waits for 40 more answers.
async fn answers(load: &Answered) {
    let wanted = load.lock().unwrap().len() + 40;
    wait_long(|| load.lock().unwrap().len() >= wanted).await;
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
