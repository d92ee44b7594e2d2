//! Configurations that change while the gateway runs: what goes on, what ends, and what is refused.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use spillway::gateway::event::Outcome;
use tokio::sync::Semaphore;

use crate::azurite::Azurite;
use crate::gateway::{OPEN, Running, app, backend, chat_body, header, start};
use crate::process::{BINARY, Process, free_port};
use crate::scripted::{Act, Scripted, full, good, stream};

/// The answer to a chat call of the app.
async fn call(gateway: &Running, app: &str) -> reqwest::Response {
    let key = format!("{app}-key");
    gateway.chat().header("api-key", key).send().await.unwrap()
}

/// The sum of the metrics of this name that have all these labels.
async fn sum(gateway: &Running, name: &str, labels: &[&str]) -> u64 {
    let text = gateway.get("/spillway/metrics").send().await.unwrap();
    let text = text.text().await.unwrap();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let meant = lines.filter(|(sample, _)| {
        sample.starts_with(name) && labels.iter().all(|label| sample.contains(label))
    });
    meant.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_stream_ends_under_the_configuration_that_it_began_with() {
    let gate = Arc::new(Semaphore::new(2));
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let parts = stream(&[event, event, "data: [DONE]\n\n"], true);
    let old = Scripted::start(vec![Act::Gated(parts, Arc::clone(&gate))]).await;
    let new = Scripted::start(vec![good()]).await;
    let config = |backend: String, more: &str| format!("{OPEN}{more}{backend}");
    let gateway = start(&config(backend("old", old.address, "payg", ""), "")).await;
    let running = gateway.stream().send().await.unwrap();
    assert_eq!(header(&running, "x-spillway-backend"), "old");

    gateway.swap(&config(
        backend("new", new.address, "payg", ""),
        "[gateway]\nanswer_headers = true\nmax_attempts = 1\n",
    ));
    assert_eq!(gateway.backends(2).await, ["new", "new"]);
    gate.add_permits(10);
    let text = running.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(text.matches("Hi").count(), 2);
    let events = gateway.events(3).await;
    let last = events.last().unwrap();
    assert_eq!((&*last.backend, last.outcome), ("old", Outcome::Completed));
    assert_eq!(old.calls(), 1);
}

#[tokio::test]
async fn a_mark_outlives_the_configuration_unless_its_backend_is_another_one() {
    let ptu = Scripted::start(vec![full(60_000), good()]).await;
    let payg = Scripted::start(vec![good()]).await;
    let config = |more: &str, ptu_more: &str| {
        let ptu = backend("ptu", ptu.address, "ptu", more);
        let ptu = ptu.replacen(
            "[[backend.deployment]]",
            &format!("{ptu_more}\n[[backend.deployment]]"),
            1,
        );
        format!("{OPEN}{ptu}{}", backend("payg", payg.address, "payg", ""))
    };
    let gateway = start(&config("", "")).await;
    assert_eq!(gateway.backends(2).await, ["payg", "payg"]);
    gateway.swap(&config("weight = 7", ""));
    assert_eq!(gateway.backends(1).await, ["payg"], "it is still full");
    assert_eq!(ptu.calls(), 1);
    gateway.swap(&config("weight = 7", "key = \"another\""));
    assert_eq!(
        gateway.backends(1).await,
        ["ptu"],
        "another key may be let in"
    );
}

#[tokio::test]
async fn apps_come_and_go_with_their_keys() {
    let payg = Scripted::start(vec![good()]).await;
    let payg = backend("payg", payg.address, "payg", "");
    let gateway = start(&(app("early", "") + &app("stays", "") + &payg)).await;
    assert_eq!(call(&gateway, "early").await.status(), 200);
    assert_eq!(call(&gateway, "late").await.status(), 401);
    gateway.swap(&(app("stays", "") + &app("late", "") + &payg));
    assert_eq!(
        call(&gateway, "early").await.status(),
        401,
        "its key is gone"
    );
    assert_eq!(call(&gateway, "late").await.status(), 200);
    assert_eq!(call(&gateway, "stays").await.status(), 200);
}

#[tokio::test]
async fn what_an_app_has_used_counts_against_its_next_limit() {
    let payg = Scripted::start(vec![good()]).await;
    let payg = backend("payg", payg.address, "payg", "");
    let config = |limit: &str| app("portal", limit) + &payg;
    let gateway = start(&config("requests_per_minute = 2")).await;
    for status in [200, 200, 429] {
        assert_eq!(call(&gateway, "portal").await.status(), status);
    }
    gateway.swap(&config("requests_per_minute = 3"));
    for status in [200, 429] {
        assert_eq!(call(&gateway, "portal").await.status(), status);
    }
    gateway.swap(&config(""));
    assert_eq!(
        call(&gateway, "portal").await.status(),
        200,
        "no limit is left"
    );
    gateway.swap(&config("requests_per_minute = 1"));
    assert_eq!(call(&gateway, "portal").await.status(), 200);
    assert_eq!(call(&gateway, "portal").await.status(), 429);
}

#[tokio::test]
async fn counters_go_on_where_their_names_do() {
    let payg = Scripted::start(vec![good()]).await;
    let of = |name: &str| backend(name, payg.address, "payg", "");
    let gateway = start(&(OPEN.to_owned() + &of("a"))).await;
    gateway.backends(3).await;
    let served = async |backend: &str| {
        let backend = format!("backend=\"{backend}\"");
        let labels = [&*backend, "result=\"served\""];
        sum(&gateway, "spillway_attempts_total{", &labels).await
    };
    let calls = async || sum(&gateway, "spillway_app_calls_total{", &["anonymous"]).await;
    assert_eq!((served("a").await, calls().await), (3, 3));
    gateway.swap(&(OPEN.to_owned() + &of("a") + &of("b") + &app("more", "")));
    gateway.backends(4).await;
    let each = (served("a").await, served("b").await);
    assert_eq!(each, (5, 2), "two of four went to the one that came");
    assert_eq!(calls().await, 7);
    gateway.swap(&(OPEN.to_owned() + &of("b")));
    gateway.backends(1).await;
    assert_eq!(served("a").await, 0, "it is gone");
    assert_eq!((served("b").await, calls().await), (3, 8));
}

/// Under load from this many clients, each with a connection of its own.
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_fail_no_call() {
    let (a, b) = (
        Scripted::start(vec![good()]).await,
        Scripted::start(vec![good()]).await,
    );
    let of = |name: &str, at: &Scripted, more: &str| backend(name, at.address, "payg", more);
    let configs = [
        app("portal", "") + &of("a", &a, ""),
        app("portal", "requests_per_minute = 1000000")
            + &of("a", &a, "weight = 3")
            + &of("b", &b, ""),
        app("portal", "") + &app("other", "") + &of("b", &b, ""),
    ];
    let gateway = Arc::new(start(&configs[0]).await);
    let (ends, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (gateway, ends, served) =
                (Arc::clone(&gateway), Arc::clone(&ends), Arc::clone(&served));
            tokio::spawn(async move {
                while !ends.load(Relaxed) {
                    let answer = call(&gateway, "portal").await;
                    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
                    answer.bytes().await.unwrap();
                    served.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for (number, config) in (1..=1000).zip(configs.iter().cycle().skip(1)) {
        // At least a call a swap, whatever the machine is like.
        while served.load(Relaxed) < number {
            tokio::task::yield_now().await;
            assert!(
                clients.iter().all(|client| !client.is_finished()),
                "a call failed"
            );
        }
        gateway.swap(config);
    }
    ends.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(a.calls() > 0 && b.calls() > 0);
    eprintln!("{} calls in 1,000 swaps", served.load(Relaxed));
}

/// A gateway in a process of its own, whose configuration is watched every second.
struct Watched {
    folder: tempfile::TempDir,
    port: u16,
    _process: Option<Process>,
}

impl Watched {
    /// Not started yet, with this configuration in its file.
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spillway.toml"), config).unwrap();
        Self {
            folder,
            port: free_port(),
            _process: None,
        }
    }

    fn start(mut self) -> Self {
        let mut command = self.command(&["serve", "--port", &self.port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self._process = Some(Process::start(command, self.port));
        self
    }

    /// The program, in the gateway's folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.folder.path());
        command
            .env_remove("SPILLWAY_CONFIG")
            .env_remove("SPILLWAY_CONFIG_TOML");
        command
    }

    /// What the program says, and its exit code.
    fn says(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            String::from_utf8(text).unwrap(),
            output.status.code().unwrap(),
        )
    }

    fn write(&self, file: &str, config: &str) {
        std::fs::write(self.folder.path().join(file), config).unwrap();
    }

    async fn get(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// How the configuration stands, as soon as it is as it should be.
    async fn standing(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..300 {
            let now: Value = serde_json::from_str(&self.get("/spillway/api/now").await).unwrap();
            last = now["configuration"].clone();
            if is_so(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not come to that: {last:#}");
    }

    /// The backend that answers a chat call.
    async fn backend(&self) -> String {
        let url = format!("http://127.0.0.1:{}/v1/chat/completions", self.port);
        let call = reqwest::Client::new().post(url).json(&chat_body(false));
        header(&call.send().await.unwrap(), "x-spillway-backend")
    }
}

fn generation(config: &str) -> impl Fn(&Value) -> bool {
    let hash = spillway::live::hash(config);
    move |standing| standing["generation"] == hash && standing["refused"].is_null()
}

#[tokio::test]
async fn a_file_is_watched_and_a_wrong_one_refused_while_the_old_one_serves() {
    let payg = Scripted::start(vec![good()]).await;
    let config = |name: &str| {
        let payg = backend(name, payg.address, "payg", "");
        format!("{OPEN}[live]\npoll_seconds = 1\n[gateway]\nworkers = 1\n{payg}")
    };
    let gateway = Watched::new(&config("a")).start();
    gateway.standing(generation(&config("a"))).await;
    assert_eq!(gateway.backend().await, "a");

    gateway.write("spillway.toml", &config("b"));
    gateway.standing(generation(&config("b"))).await;
    assert_eq!(gateway.backend().await, "b");

    let wrong = config("c").replacen("workers = 1", "workers = 2\nworkerz = 3", 1);
    gateway.write("spillway.toml", &wrong);
    let standing = gateway
        .standing(|standing| !standing["refused"].is_null())
        .await;
    assert_eq!(standing["generation"], spillway::live::hash(&config("b")));
    let mistakes = standing["refused"]["mistakes"].to_string();
    for said in ["workerz", "~ gateway.workers = 1 -> 2: it needs a restart"] {
        assert!(mistakes.contains(said), "{mistakes}");
    }
    assert_eq!(gateway.backend().await, "b");
    let metrics = gateway.get("/spillway/metrics").await;
    assert!(
        metrics.contains("spillway_configuration_refused 2\n"),
        "{metrics}"
    );
    let page = gateway.get("/spillway/").await;
    assert!(
        page.contains("was refused") && page.contains("workerz"),
        "{page}"
    );

    gateway.write("spillway.toml", &config("c"));
    gateway.standing(generation(&config("c"))).await;
    assert_eq!(gateway.backend().await, "c");
}

#[tokio::test]
async fn a_blob_is_watched_kept_and_rolled_back() {
    let azurite = Azurite::start_blobs();
    let blobs = format!("http://{}/devstoreaccount1", azurite.address);
    let payg = Scripted::start(vec![good()]).await;
    let config = |name: &str| {
        let payg = backend(name, payg.address, "payg", "");
        format!(
            "{OPEN}[live]\nblob = \"config/spillway.toml\"\npoll_seconds = 1\n[storage]\nblobs = \"{blobs}\"\n{payg}"
        )
    };
    let gateway = Watched::new(&config("packaged"));
    for name in ["a", "b"] {
        gateway.write(&format!("{name}.toml"), &config(name));
    }
    let (said, code) = gateway.says(&["config", "put", "a.toml"]);
    assert_eq!(code, 0, "{said}");

    let gateway = gateway.start();
    gateway.standing(generation(&config("a"))).await;
    assert_eq!(gateway.backend().await, "a", "from the first call on");

    let (said, code) = gateway.says(&["diff", "b.toml"]);
    assert!(
        code == 1 && said.contains("+ backend[b].name = \"b\""),
        "{said}"
    );
    gateway.says(&["config", "put", "b.toml"]);
    gateway.standing(generation(&config("b"))).await;
    assert_eq!(gateway.backend().await, "b");
    assert_eq!(gateway.says(&["diff", "b.toml"]), (String::new(), 0));

    gateway.write(
        "c.toml",
        &config("b").replacen("poll_seconds = 1", "poll_seconds = 2", 1),
    );
    gateway.says(&["config", "put", "c.toml"]);
    let standing = gateway
        .standing(|standing| !standing["refused"].is_null())
        .await;
    assert_eq!(standing["generation"], spillway::live::hash(&config("b")));

    let (listed, _) = gateway.says(&["config", "list"]);
    let first = spillway::live::hash(&config("a"));
    let kept: Vec<&str> = listed.lines().map(|line| line[2..].trim()).collect();
    assert_eq!(kept.len(), 2, "the refused one is not kept: {listed}");
    let first = kept.into_iter().find(|name| name.contains(&first)).unwrap();
    let (said, code) = gateway.says(&["config", "rollback", first]);
    assert_eq!(code, 0, "{said}");
    gateway.standing(generation(&config("a"))).await;
    assert_eq!(gateway.backend().await, "a");

    drop(azurite);
    let standing = gateway
        .standing(|standing| !standing["unreadable"].is_null())
        .await;
    assert_eq!(standing["generation"], spillway::live::hash(&config("a")));
    assert_eq!(gateway.backend().await, "a", "it goes on without the blob");
}

#[tokio::test]
async fn files_are_compared_key_by_key() {
    let config = format!(
        "{OPEN}[gateway]\nworkers = 1\n{}",
        backend("a", "127.0.0.1:9".parse().unwrap(), "payg", "weight = 1")
    );
    let gateway = Watched::new(&config);
    let other = config.replacen("weight = 1", "weight = 2", 1);
    gateway.write(
        "other.toml",
        &other.replacen("workers = 1", "workers = 4", 1),
    );
    let (said, code) = gateway.says(&["diff", "spillway.toml", "other.toml"]);
    assert_eq!(
        said,
        "~ backend[a].deployment[gpt-4o].weight = 1 -> 2\n~ gateway.workers = 1 -> 4   # needs a restart\n"
    );
    assert_eq!(code, 1);
    let same = gateway.says(&["diff", "spillway.toml", "spillway.toml"]);
    assert_eq!(same, (String::new(), 0));
    let (said, code) = gateway.says(&["diff", "spillway.toml", "nowhere.toml"]);
    assert!(code == 2 && said.contains("nowhere.toml"), "{said}");
}
