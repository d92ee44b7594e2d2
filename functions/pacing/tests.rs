use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::meter::Meter;
use super::*;
use crate::config::Config;
use crate::gateway::event::{Kind, Tokens, UsageEvent, UsageSource};
use crate::gateway::pacing::figure::Warning;
use crate::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use crate::gateway::ptu::{ModelRate, Utilization};
use crate::store::embedded::Embedded;
use crate::store::{Answer, Key, Page, Range, Row, Table, Write, utilization};

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

/// A store that refuses to write to one partition for as long as it is told to.
#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn Store>,
    partition: String,
    refuses: AtomicBool,
}

impl Store for Refusing {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        self.inner.get(table, key)
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        self.inner.read(table, range)
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        if partition == self.partition && self.refuses.load(Ordering::SeqCst) {
            let error = StoreError::Unavailable("down".into());
            return Box::pin(std::future::ready(Err(error)));
        }
        self.inner.write(table, partition, writes)
    }
}

fn of_a(deployment: &str) -> DeploymentId {
    DeploymentId {
        backend: "a".into(),
        deployment: deployment.into(),
    }
}

#[tokio::test]
async fn a_warning_whose_write_fails_is_written_the_next_time_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let store = Refusing {
        inner: Arc::clone(&inner),
        partition: utilization::partition(&of_a("first")),
        refuses: AtomicBool::new(true),
    };
    let ptu = |name: &str| format!("[[backend.deployment]]\nname = \"{name}\"\nkind = \"ptu\"\n");
    let text = format!(
        "[auth]\nmode = \"off\"\n[pacing]\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n{}{}",
        ptu("first"),
        ptu("second")
    );
    let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let (gauge, now) = (Gauge::new(&config, None), Clock::new().now());
    let written = async |deployment: &str| {
        let since = Minute::of(now).before(1);
        let sheet = utilization::read(&*inner, &of_a(deployment), since).await;
        sheet.unwrap().known.warnings
    };
    for deployment in ["first", "second"] {
        gauge.saw(&"a".into(), &deployment.into(), Utilization::FULL, now);
    }
    let warning = Warning::header(Utilization::FULL, now);
    assert!(gauge.tell(&store, now).await.is_err());
    assert!(written("first").await.is_empty());
    assert_eq!(written("second").await, [warning]);
    store.refuses.store(false, Ordering::SeqCst);
    gauge.tell(&store, now).await.unwrap();
    assert_eq!(written("first").await, [warning]);
}

#[test]
fn what_could_not_be_written_is_no_warning_for_longer_than_one_lasts() {
    let meter = Meter::new(of_a(MODEL), None, ModelRate::ASSUMED);
    let (low, now) = (Utilization::of_tenths(100), Clock::new().now());
    let after = |s: u64| now.plus_ms(s * 1000);
    meter.was_said(Utilization::FULL, now);
    meter.was_said(low, after(20));
    let highest = meter.to_tell().unwrap();
    assert_eq!(
        (highest.utilization, highest.last),
        (Utilization::FULL, after(20))
    );
    meter.was_said(low, after(31));
    let newest = meter.to_tell().unwrap();
    assert_eq!((newest.utilization, newest.last), (low, after(31)));
    meter.told(highest);
    assert_eq!(meter.to_tell(), Some(newest), "that is not written yet");
    meter.told(newest);
    assert_eq!(meter.to_tell(), None);
}
