//! Configurations that change while the gateway runs: what goes on, what ends, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use spillway::gateway::event::Outcome;
use tokio::sync::Semaphore;

use crate::gateway::{OPEN, Running, app, backend, header, start};
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
