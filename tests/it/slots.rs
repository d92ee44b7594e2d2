//! Low-priority slots among instances that are processes, over Azurite. The backend counts how many
//! calls it has at once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::routing::post;
use serde_json::json;
use spillway::gateway::pacing::monitor::MonitorMinute;
use spillway::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use spillway::gateway::ptu::Utilization;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::{Store, slots, utilization};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::azurite::Azurite;
use crate::gateway::{OPEN, Running, backend, chat_body, header, start_with};
use crate::process::{BINARY, Process, free_port};

/// A backend that takes its time and notes how many calls it had at once.
#[derive(Clone, Default)]
struct Busy {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Whoever has this to write keeps all calls from ending.
    gate: Arc<RwLock<()>>,
}

impl Busy {
    async fn start(&self, takes: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let busy = self.clone();
        let answer = move || async move {
            let running = busy.running.fetch_add(1, SeqCst) + 1;
            busy.most.fetch_max(running, SeqCst);
            drop(busy.gate.read().await);
            tokio::time::sleep(takes).await;
            busy.running.fetch_sub(1, SeqCst);
            Json(json!({
                "object": "chat.completion",
                "choices": [],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }))
        };
        let router = axum::Router::new().fallback(post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Waits until it has so many calls at once.
    async fn has(&self, calls: usize, within: Duration) {
        let begun = Instant::now();
        while self.running.load(SeqCst) < calls {
            let running = self.running.load(SeqCst);
            assert!(begun.elapsed() < within, "{running} of {calls} run");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn now() -> Timestamp {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(ms.as_millis().try_into().unwrap())
}

/// The rows of a deployment that is next to idle, and of which a slot takes next to nothing: all slots
/// are open.
async fn idle(azurite: &Azurite) {
    let store = azurite.store();
    let id = DeploymentId {
        backend: "swe".into(),
        deployment: "gpt-4o".into(),
    };
    let minute = Minute::of(now());
    for minute in [minute.before(1), minute] {
        let counts = Counts {
            minute,
            used: Use {
                all: 10,
                low: 10,
                low_ms: 60_000,
            },
            seen: now(),
        };
        let write = utilization::counts(&counts, "test", None);
        utilization::write(&store, &id, vec![write]).await.unwrap();
    }
}

fn config(azurite: &Azurite, busy: SocketAddr, slots: usize) -> String {
    format!(
        "{OPEN}[gateway]\nwait_budget_ms = 110000\nworkers = 1\n[pacing]\nslots = {slots}\n\
         [storage]\ntables = \"http://{}/devstoreaccount1\"\n{}",
        azurite.address,
        backend("swe", busy, "ptu", "ptus = 100000\n"),
    )
}

fn serve(folder: &Path, config: &str) -> Process {
    let port = free_port();
    let file = folder.join(format!("{port}.toml"));
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--port", &port.to_string(), "--config"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::start(command, port)
}

async fn low_call(client: reqwest::Client, address: SocketAddr) -> u16 {
    let call = client
        .post(format!("http://{address}/low/v1/chat/completions"))
        .json(&json!({"model": "gpt-4o", "messages": []}));
    // A process that was killed does not answer.
    call.send()
        .await
        .map_or(0, |answer| answer.status().as_u16())
}

/// Calls of all instances at once; by the order in which they ended, the instance of each.
async fn all_at_once(addresses: &[SocketAddr], calls: usize) -> Vec<usize> {
    let client = reqwest::Client::new();
    let mut tasks = JoinSet::new();
    for (instance, address) in addresses.iter().enumerate() {
        for _ in 0..calls {
            let call = low_call(client.clone(), *address);
            tasks.spawn(async move { (instance, call.await) });
        }
    }
    let mut ended = Vec::new();
    while let Some(one) = tasks.join_next().await {
        let (instance, status) = one.unwrap();
        assert_eq!(status, 200, "instance {instance}");
        ended.push(instance);
    }
    ended
}

/// Waits until so many instances wait for slots at the same time.
async fn all_ask(azurite: &Azurite, instances: usize) {
    let store = azurite.store();
    let begun = Instant::now();
    loop {
        let board = slots::read(&store, "gpt-4o").await.unwrap().board;
        let wishes = board.wishes.iter();
        let waiting = wishes.filter(|wish| wish.waiting > 0 && wish.expires > now());
        let waiting: HashSet<&str> = waiting.map(|wish| &*wish.instance).collect();
        if waiting.len() == instances {
            return;
        }
        let within = begun.elapsed() < Duration::from_secs(60);
        assert!(within, "{waiting:?} of {instances} ask");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_three_and_ten_instances_never_use_more_slots_than_are_open_and_share_them() {
    const SLOTS: usize = 4;
    for (instances, calls) in [(1, 24), (3, 24), (10, 9)] {
        let (azurite, folder) = (Azurite::start(), tempfile::tempdir().unwrap());
        azurite.store().make_tables().await.unwrap();
        idle(&azurite).await;
        let busy = Busy::default();
        let address = busy.start(Duration::from_millis(400)).await;
        let config = config(&azurite, address, SLOTS);
        let processes: Vec<Process> = (0..instances)
            .map(|_| serve(folder.path(), &config))
            .collect();
        let addresses: Vec<SocketAddr> = processes.iter().map(|p| p.address).collect();
        // The first calls end only when each instance has asked for its part: what follows is shared.
        let gate = busy.gate.clone().write_owned().await;
        let ended = tokio::spawn(async move { all_at_once(&addresses, calls).await });
        all_ask(&azurite, instances).await;
        drop(gate);
        let ended = ended.await.unwrap();
        assert_eq!(busy.most.load(SeqCst), SLOTS, "{instances} instances");
        // By when half of the calls have ended every instance has had a part of them.
        let first_half = &ended[..ended.len() / 2];
        for instance in 0..instances {
            let had = first_half.iter().filter(|one| **one == instance).count();
            assert!(
                had * 4 >= calls / 2,
                "instance {instance} of {instances}: {had}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_takes_no_slot_with_it() {
    const SLOTS: usize = 3;
    let (azurite, folder) = (Azurite::start(), tempfile::tempdir().unwrap());
    azurite.store().make_tables().await.unwrap();
    idle(&azurite).await;
    let (first, second) = (Busy::default(), Busy::default());
    let hour = Duration::from_secs(3600);
    let doomed = config(&azurite, first.start(hour).await, SLOTS);
    let other = config(&azurite, second.start(hour).await, SLOTS);
    let doomed = serve(folder.path(), &doomed);
    let other = serve(folder.path(), &other);
    let client = reqwest::Client::new();
    let mut calls = JoinSet::new();
    for _ in 0..SLOTS {
        calls.spawn(low_call(client.clone(), doomed.address));
    }
    first.has(SLOTS, Duration::from_secs(20)).await;
    for _ in 0..SLOTS {
        calls.spawn(low_call(client.clone(), other.address));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(second.running.load(SeqCst), 0, "all slots are held");
    drop(doomed);
    // A lease lasts 30 s, and two more for clocks that differ.
    second.has(SLOTS, Duration::from_secs(60)).await;
}

/// A gateway before one PTU deployment that Azure Monitor says is so full.
async fn gateway_at(percent: u64, more: &str) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let minute = MonitorMinute {
        minute: Minute::of(now()).before(3),
        average: Utilization::of_percent(percent),
        maximum: Utilization::of_percent(percent),
    };
    let id = DeploymentId {
        backend: "swe".into(),
        deployment: "gpt-4o".into(),
    };
    let write = utilization::monitor(&minute, now());
    utilization::write(&*store, &id, vec![write]).await.unwrap();
    let ptu = Busy::default().start(Duration::ZERO).await;
    let config = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 1500\n[pacing]\n{}{more}",
        backend("swe", ptu, "ptu", "ptus = 100\n")
    );
    (start_with(&config, store).await, folder)
}

#[tokio::test]
async fn a_low_priority_call_that_gets_no_slot_is_told_when_to_come_back_and_others_are_not_held_up()
 {
    let (gateway, _folder) = gateway_at(95, "").await;
    let low = gateway
        .post("/low/v1/chat/completions")
        .json(&chat_body(false));
    let refused = low.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let retry_after: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "no_slot");
    assert_eq!(gateway.chat().send().await.unwrap().status(), 200);
    let models = gateway.get("/low/v1/models").send().await.unwrap();
    assert_eq!(models.status(), 200, "it uses no tokens");
}

#[tokio::test]
async fn a_low_priority_call_runs_while_the_deployment_has_room() {
    let (gateway, _folder) = gateway_at(50, "").await;
    for _ in 0..3 {
        let low = gateway
            .post("/low/v1/chat/completions")
            .json(&chat_body(false));
        assert_eq!(low.send().await.unwrap().status(), 200);
    }
}
