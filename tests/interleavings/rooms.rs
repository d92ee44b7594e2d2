//! Rooms: the events that wait, the calls under way, the bytes of prompts, the sessions.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use loom::thread;

use crate::Model;
use crate::gateway::room::Room;

pub(crate) const MODELS: &[Model] = &[
    (
        "no more is taken at once than there is room for, and all is given back",
        bound,
    ),
    (
        "what is too much for some does not keep others out",
        too_much,
    ),
    (
        "who sees that all calls have ended sees what they left behind",
        left_behind,
    ),
];

/// Counts those that are inside, apart from the room.
fn comes_and_goes(room: &Room, inside: &AtomicUsize, most: usize) {
    if room.take(1) {
        assert!(inside.fetch_add(1, Relaxed) < most);
        inside.fetch_sub(1, Relaxed);
        room.give_back(1);
    }
}

fn bound() {
    const MOST: usize = 1;
    let room = Arc::new(Room::new(MOST));
    let inside = Arc::new(AtomicUsize::new(0));
    let others = [0; 2].map(|_| {
        let (room, inside) = (Arc::clone(&room), Arc::clone(&inside));
        thread::spawn(move || comes_and_goes(&room, &inside, MOST))
    });
    comes_and_goes(&room, &inside, MOST);
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(room.used(), 0);
}

/// Of a room for ten, one asks for eleven while another asks for ten.
fn too_much() {
    let room = Arc::new(Room::new(10));
    let greedy = {
        let room = Arc::clone(&room);
        thread::spawn(move || room.take(11))
    };
    assert!(room.take(10));
    assert!(!greedy.join().unwrap());
    assert_eq!(room.used(), 10);
}

/// A process that ends takes what waits in the queue once no call is under way.
fn left_behind() {
    let calls = Arc::new(Room::unbounded());
    let calls_that_end = [0; 2].map(|_| {
        assert!(calls.take(1));
        let calls = Arc::clone(&calls);
        let recorded = Arc::new(AtomicBool::new(false));
        let records = Arc::clone(&recorded);
        let call = thread::spawn(move || {
            records.store(true, Relaxed);
            calls.give_back(1);
        });
        (recorded, call)
    });
    if calls.used() == 0 {
        for (recorded, _) in &calls_that_end {
            assert!(recorded.load(Relaxed));
        }
    }
    for (_, call) in calls_that_end {
        call.join().unwrap();
    }
    assert_eq!(calls.used(), 0);
}
