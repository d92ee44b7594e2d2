use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::gateway::event::{Kind, Tokens, UsageEvent, UsageSource};
use crate::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use crate::store::embedded::Embedded;
use crate::store::utilization;

const MODEL: &str = "gpt-4o";

fn gauge(slots: u32, store: &Arc<dyn Store>) -> Arc<Gauge> {
    let text = format!(
        "[auth]\nmode = \"off\"\n[pacing]\nslots = {slots}\n\
         [[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n\
         [[backend.deployment]]\nname = \"{MODEL}\"\nkind = \"ptu\"\nptus = 100\n\
         [[backend.deployment]]\nname = \"other\"\nkind = \"payg\"\n"
    );
    let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(Gauge::new(&config, Some(Arc::clone(store))))
}

/// The last minutes' calls, by which all slots are open: next to none, and a slot adds next to nothing.
async fn idle(store: &dyn Store, now: Timestamp) {
    let id = DeploymentId {
        backend: "a".into(),
        deployment: MODEL.into(),
    };
    let used = Use {
        all: 10,
        low: 10,
        low_ms: 60_000,
    };
    for minute in [Minute::of(now).before(1), Minute::of(now)] {
        let counts = Counts {
            minute,
            used,
            seen: now,
        };
        let write = utilization::counts(&counts, "test", None);
        utilization::write(store, &id, vec![write]).await.unwrap();
    }
}

/// Instances that share a store: each has slots of its own and a task that keeps them.
struct Instances {
    all: Vec<Arc<Slots>>,
    clock: Clock,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Instances {
    async fn start(instances: usize, slots: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
        let (clock, gauge) = (Clock::new(), gauge(slots, &store));
        idle(&*store, clock.now()).await;
        let mut tasks = JoinSet::new();
        let all: Vec<Arc<Slots>> = (0..instances)
            .map(|_| Arc::new(Slots::new(&gauge, Some(&store), clock)))
            .collect();
        for slots in &all {
            tasks.spawn(Arc::clone(slots).keep());
        }
        Self {
            all,
            clock,
            _tasks: tasks,
            _folder: folder,
        }
    }

    fn in_ms(&self, ms: u64) -> Timestamp {
        self.clock.now().plus_ms(ms)
    }
}

#[tokio::test]
async fn a_model_without_provisioned_deployments_needs_no_slots() {
    let instances = Instances::start(1, 1).await;
    let slots = &instances.all[0];
    assert!(slots.are_needed_for(MODEL) && !slots.are_needed_for("other"));
    let now = instances.in_ms(0);
    let first = slots.acquire("other", now).await.unwrap();
    let second = slots.acquire("other", now).await.unwrap();
    assert_eq!((first.number(), second.number()), (None, None));
}

#[tokio::test]
async fn a_slot_that_is_given_back_is_the_next_calls() {
    let instances = Instances::start(1, 1).await;
    let slots = &instances.all[0];
    let first = slots.acquire(MODEL, instances.in_ms(5_000)).await.unwrap();
    assert_eq!(first.number(), Some(0));
    let none = slots
        .acquire(MODEL, instances.in_ms(500))
        .await
        .unwrap_err();
    assert!(none.retry_after_ms >= 1_000, "{none:?}");
    drop(first);
    let second = slots.acquire(MODEL, instances.in_ms(5_000)).await;
    assert_eq!(second.unwrap().number(), Some(0));
}

#[tokio::test]
async fn a_call_that_goes_away_leaves_its_slot_to_the_others() {
    let instances = Instances::start(1, 1).await;
    let slots = &instances.all[0];
    let first = slots.acquire(MODEL, instances.in_ms(5_000)).await.unwrap();
    let gone = slots.acquire(MODEL, instances.in_ms(60_000));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), gone)
            .await
            .is_err()
    );
    let next = slots.acquire(MODEL, instances.in_ms(5_000));
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(first);
    };
    let (next, ()) = tokio::join!(next, later);
    assert!(next.is_ok());
}

#[tokio::test]
async fn many_calls_of_three_instances_never_run_more_than_are_open_and_all_get_their_turn() {
    const OPEN: u32 = 5;
    const CALLS: usize = 40;
    let instances = Instances::start(3, OPEN).await;
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut calls = JoinSet::new();
    for slots in &instances.all {
        for _ in 0..CALLS {
            let (slots, until) = (Arc::clone(slots), instances.in_ms(60_000));
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            calls.spawn(async move {
                let slot = slots.acquire(MODEL, until).await.unwrap();
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                drop(slot);
            });
        }
    }
    calls.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), OPEN);
}

#[tokio::test]
async fn what_another_model_served_counts_by_that_models_rate() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let (gauge, now) = (gauge(1, &store), Clock::new().now());
    // A token that gpt-5 makes counts as eight, one of gpt-4o as four.
    let event = UsageEvent {
        time: now,
        model: "gpt-5".into(),
        backend: "a".into(),
        deployment: MODEL.into(),
        kind: Some(Kind::Ptu),
        usage: UsageSource::Reported,
        tokens: Tokens {
            input: 100,
            output: 10,
            ..Tokens::default()
        },
        ..UsageEvent::default()
    };
    gauge.note([&event], now);
    gauge.tell(&*store, now).await.unwrap();
    let id = DeploymentId {
        backend: "a".into(),
        deployment: MODEL.into(),
    };
    let minute = Minute::of(now).before(1);
    let sheet = utilization::read(&*store, &id, minute).await.unwrap();
    assert_eq!(sheet.known.counts[0].used.all, 140);
}

#[tokio::test]
async fn slots_come_and_go_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let clock = Clock::new();
    let config = |model: &str, pacing: &str| {
        let text = format!(
            "[auth]\nmode = \"off\"\n{pacing}[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n\
             [[backend.deployment]]\nname = \"{model}\"\nkind = \"ptu\"\nptus = 100\n"
        );
        Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"))
    };
    let gauge = Arc::new(Gauge::new(
        &config("new", "[pacing]\n"),
        Some(Arc::clone(&store)),
    ));
    let slots = Slots::new(&gauge, Some(&store), clock);
    assert!(slots.are_needed_for("new") && !slots.are_needed_for(MODEL));
    gauge.adopt(&config(MODEL, "[pacing]\n"));
    slots.adopt();
    assert!(slots.are_needed_for(MODEL) && !slots.are_needed_for("new"));
    // Nobody keeps the slots here: the call waits until it needs none.
    let waiting = slots.acquire(MODEL, clock.now().plus_ms(60_000));
    let freed = async {
        while slots.waiting(MODEL) == 0 {
            tokio::task::yield_now().await;
        }
        gauge.adopt(&config(MODEL, ""));
        slots.adopt();
    };
    let (slot, ()) = tokio::join!(waiting, freed);
    assert_eq!(slot.unwrap().number(), None);
    assert!(!slots.are_needed_for(MODEL));
}
