//! Marks of a deployment, and its calls in flight.

use std::sync::Arc;

use loom::thread;

use crate::Model;
use crate::gateway::deployment::{Deployment, DeploymentSpec, Mark, MarkReason};
use crate::gateway::event::Kind;
use crate::gateway::time::Timestamp;

pub(crate) const MODELS: &[Model] = &[
    (
        "of two marks that are set at once the longer is in force, with its reason",
        two_marks,
    ),
    ("three marks at once", three_marks),
    (
        "whoever looks sees a mark that was set, whole, and none that ends earlier later",
        looks,
    ),
    (
        "a failure that ended and a new throttle: the deployment is back at once or gradually, as the last says",
        back,
    ),
    ("calls in flight are counted out as often as in", in_flight),
];

const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

fn deployment() -> Arc<Deployment> {
    Arc::new(Deployment::new(DeploymentSpec {
        backend: "ptu-sweden".into(),
        name: "gpt-4o-ptu".into(),
        kind: Kind::Ptu,
        tier: 1,
        weight: 1,
        region: None,
        apps: Vec::new(),
    }))
}

fn mark(ms: u64, reason: MarkReason) -> Mark {
    Mark {
        until: NOW.plus_ms(ms),
        reason,
    }
}

/// A thread that sets a mark; the mark that it was told is in force.
fn sets(of: &Arc<Deployment>, ms: u64, reason: MarkReason) -> thread::JoinHandle<Mark> {
    let of = Arc::clone(of);
    thread::spawn(move || of.set_mark(reason, ms, NOW))
}

fn two_marks() {
    let of = deployment();
    let short = sets(&of, 10, MarkReason::Throttled);
    let told = of.set_mark(MarkReason::Failed, 10_000, NOW);
    let long = mark(10_000, MarkReason::Failed);
    assert_eq!(told, long);
    assert!(short.join().unwrap().until >= NOW.plus_ms(10));
    assert_eq!(of.mark(NOW), Some(long));
}

fn three_marks() {
    let of = deployment();
    let short = sets(&of, 10, MarkReason::Throttled);
    let long = sets(&of, 10_000, MarkReason::Misconfigured);
    of.set_mark(MarkReason::Failed, 1_000, NOW);
    short.join().unwrap();
    long.join().unwrap();
    assert_eq!(of.mark(NOW), Some(mark(10_000, MarkReason::Misconfigured)));
}

/// Who looks is started last: loom forgets that a value was read once another thread has read it, and
/// would leave out the orders in which that one goes on before.
fn looks() {
    let of = deployment();
    let all = [
        mark(10, MarkReason::Throttled),
        mark(10_000, MarkReason::Failed),
    ];
    let setting = all.map(|mark| sets(&of, mark.until.ms_since(NOW), mark.reason));
    let looking = thread::spawn(move || {
        let seen = [of.mark(NOW), of.mark(NOW)];
        for mark in seen.into_iter().flatten() {
            assert!(all.contains(&mark), "{mark:?}");
            assert!(!of.admits(NOW, 0, 0));
        }
        let [first, second] = seen.map(|mark| mark.map(|mark| mark.until));
        assert!(first <= second, "it was shortened");
    });
    for thread in setting {
        thread.join().unwrap();
    }
    looking.join().unwrap();
}

fn back() {
    let of = deployment();
    of.set_mark(MarkReason::Failed, 10, NOW);
    let later = NOW.plus_ms(20);
    let looking = {
        let of = Arc::clone(&of);
        thread::spawn(move || {
            let few = of.admits(later, 1_000, 0);
            // Before the throttle a tenth of the calls are let through, from then on none.
            assert!(!of.admits(later, 1_000, 999));
            assert!(
                few || !of.admits(later, 1_000, 0),
                "it came back in between"
            );
        })
    };
    of.set_mark(MarkReason::Throttled, 100, later);
    looking.join().unwrap();
    assert!(of.admits(later.plus_ms(100), 1_000, 999));
}

fn in_flight() {
    let of = deployment();
    let calls = [0; 2].map(|_| {
        let of = Arc::clone(&of);
        thread::spawn(move || {
            let call = of.enter();
            assert!((1..=2).contains(&call.deployment().in_flight()));
        })
    });
    assert!(of.in_flight() <= 2);
    for call in calls {
        call.join().unwrap();
    }
    assert_eq!(of.in_flight(), 0);
}
