//! Calls for the same answer: one leads, the others wait. The semaphore by which they wait is tokio's own, and
//! each of its operations is one step here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::future::block_on;
use loom::thread;

use super::flight::{Flights, Lead, Place, Seat};
use crate::Model;
use crate::gateway::app::App;
use crate::gateway::cache::kept::Kept;
use crate::gateway::cache::{Asked, Generated, Key, Rules, Scope, VARYING, key};
use crate::gateway::event::UsageEvent;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::Route;
use crate::gateway::strategy::Selection;

pub(crate) const MODELS: &[Model] = &[
    (
        "a leader that has an answer wakes those that wait, and each has a part of its own",
        answered,
    ),
    (
        "a leader that leaves is followed by one of those that wait, until one has an answer",
        left,
    ),
    (
        "a leader that gives up lets those that wait go on",
        given_up,
    ),
];

fn request() -> Key {
    let rules = Rules {
        scope: Scope::App,
        generated: Generated::Any,
        embeddings: true,
        ttl_ms: 1000,
    };
    let asked = Asked {
        app: &App::unrestricted("a"),
        route: &Route::parse("/v1/embeddings", "").unwrap(),
        model: &ModelPool::new("m".into(), [], Selection::default()),
        is_stream: false,
        headers: [b""; VARYING.len()],
        body: b"{}",
    };
    key(&rules, &asked).unwrap()
}

fn answers(lead: Lead) {
    lead.answered(answer());
}

fn answer() -> Arc<Kept> {
    Arc::new(Kept::new(&UsageEvent::default(), String::new(), "x".into()))
}

/// What became of calls. They say it, and share nothing by it: the standard library's atomics are no steps here.
#[derive(Default)]
struct Ends {
    made: AtomicUsize,
    shared: AtomicUsize,
    alone: AtomicUsize,
    /// The parts that were given, a bit each. At most one flight of a world is shared.
    parts: AtomicUsize,
}

impl Ends {
    fn all(&self) -> [usize; 3] {
        [&self.made, &self.shared, &self.alone].map(|count| count.load(SeqCst))
    }
}

/// A call as the cache has it go: who leads ends the flight by `ends`, who waits leads if it comes to that.
fn calls(flights: &Arc<Flights>, key: Key, ends: &Ends, end: fn(Lead)) {
    match flights.join(key) {
        Place::Lead(lead) => {
            ends.made.fetch_add(1, SeqCst);
            end(lead);
        }
        Place::Seat(seat) => waits(seat, ends),
    }
}

fn waits(seat: Seat, ends: &Ends) {
    if block_on(seat.waiting().leads()) {
        ends.made.fetch_add(1, SeqCst);
        seat.lead().answered(answer());
    } else if let Some(part) = seat.part() {
        ends.shared.fetch_add(1, SeqCst);
        assert!(part.index < part.calls);
        let bit = 1 << part.index;
        assert_eq!(ends.parts.fetch_or(bit, SeqCst) & bit, 0, "given twice");
    } else {
        ends.alone.fetch_add(1, SeqCst);
    }
}

/// Two calls, and a leader that is there before and ends by `end`. What became of the two.
fn two_calls(end: fn(Lead)) -> [usize; 3] {
    let (flights, ends) = (Arc::new(Flights::default()), Arc::new(Ends::default()));
    let key = request();
    let Place::Lead(lead) = flights.join(key) else {
        unreachable!("nobody else is there");
    };
    let two = [0; 2].map(|_| {
        let (flights, ends) = (Arc::clone(&flights), Arc::clone(&ends));
        thread::spawn(move || calls(&flights, key, &ends, answers))
    });
    end(lead);
    for call in two {
        call.join().unwrap();
    }
    assert!(
        matches!(flights.join(key), Place::Lead(_)),
        "nothing is left of the flight"
    );
    ends.all()
}

fn answered() {
    let [made, shared, alone] = two_calls(answers);
    assert_eq!((made + shared, alone), (2, 0));
}

fn left() {
    let [made, shared, alone] = two_calls(drop);
    assert!(made >= 1, "nobody led");
    assert_eq!((made + shared, alone), (2, 0));
}

fn given_up() {
    let [made, shared, alone] = two_calls(Lead::give_up);
    assert_eq!(made + shared + alone, 2);
}
