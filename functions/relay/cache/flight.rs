//! Calls for the same answer at the same time: one leads, and makes the call; the others wait for it.
//!
//! Where the leader's client leaves, one of those that wait leads in its place. Where the leader's answer
//! can't be theirs too, all of them make their own call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::gateway::cache::Key;
use crate::gateway::cache::kept::Kept;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// The flights under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, State>>);

#[derive(Debug)]
struct State {
    flight: Arc<Flight>,
    has_leader: bool,
    waiting: u64,
}

/// What the calls of one answer have in common.
#[derive(Debug)]
struct Flight {
    key: Key,
    /// Has a permit when the next of those that wait is to lead; closed when it has ended.
    lead: Semaphore,
    end: OnceLock<Option<Shared>>,
    /// The parts of the bill that have been taken; the leader's is the first.
    taken: AtomicU64,
}

/// An answer that those who waited get too.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) answer: Arc<Kept>,
    /// How many calls share its bill; 0 where it had been kept, and there is none.
    calls: u64,
}

/// A place among the calls of a flight.
pub(super) enum Place {
    Lead(Lead),
    Seat(Seat),
}

/// The leader's place. One that is dropped passes it on.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Arc<Flights>,
    /// Taken when the flight has ended.
    flight: Option<Arc<Flight>>,
}

/// The place of one that waits.
#[derive(Debug)]
pub(in crate::relay) struct Seat {
    flights: Arc<Flights>,
    /// Taken by what it turns into.
    flight: Option<Arc<Flight>>,
}

/// Waits for a flight.
pub(super) struct Waiting(Option<Arc<Flight>>);

/// A call's part of an answer's bill.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Part {
    pub(super) answer: Arc<Kept>,
    /// How many calls share it; 0: there is none.
    pub(super) calls: u64,
    pub(super) index: u64,
}

impl Flights {
    /// A place in the flight of a key: in the one under way, or at the head of a new one.
    pub(super) fn join(self: &Arc<Self>, key: Key) -> Place {
        let mut all = self.lock();
        match all.entry(key) {
            Entry::Occupied(mut state) => {
                let state = state.get_mut();
                state.waiting += 1;
                Place::Seat(Seat {
                    flights: Arc::clone(self),
                    flight: Some(Arc::clone(&state.flight)),
                })
            }
            Entry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    key,
                    lead: Semaphore::new(0),
                    end: OnceLock::new(),
                    taken: AtomicU64::new(1),
                });
                place.insert(State {
                    flight: Arc::clone(&flight),
                    has_leader: true,
                    waiting: 0,
                });
                Place::Lead(Lead {
                    flights: Arc::clone(self),
                    flight: Some(flight),
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Ends the flight with an answer that was kept: nobody is charged for it.
    pub(super) fn found(mut self, answer: Arc<Kept>) {
        self.end(|_| Some(Shared { answer, calls: 0 }));
    }

    /// Ends the flight with the answer. How many calls share its bill, this one included.
    pub(super) fn answered(mut self, answer: Arc<Kept>) -> u64 {
        self.end(|waiting| {
            let calls = waiting + 1;
            Some(Shared { answer, calls })
        })
    }

    /// Ends the flight without an answer for those who wait.
    pub(super) fn give_up(mut self) {
        self.end(|_| None);
    }

    /// How many calls got its end.
    fn end(&mut self, with: impl FnOnce(u64) -> Option<Shared>) -> u64 {
        let Some(flight) = self.flight.take() else {
            return 1;
        };
        let mut all = self.flights.lock();
        let waiting = all.remove(&flight.key).map_or(0, |state| state.waiting);
        // It is the only one that ends it.
        let _ = flight.end.set(with(waiting));
        flight.lead.close();
        waiting + 1
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let mut all = self.flights.lock();
        if let Entry::Occupied(mut state) = all.entry(flight.key) {
            state.get_mut().has_leader = false;
            if state.get().waiting == 0 {
                state.remove();
            } else {
                flight.lead.add_permits(1);
            }
        }
    }
}

impl Waiting {
    /// Waits until the flight has ended, or this call is to lead. Whether it is to lead: it has to, then,
    /// at once.
    pub(super) async fn leads(self) -> bool {
        let Some(flight) = self.0 else {
            return false;
        };
        flight
            .lead
            .acquire()
            .await
            .map(SemaphorePermit::forget)
            .is_ok()
    }
}

impl Seat {
    /// Waits for the flight, while the seat is kept.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting(self.flight.clone())
    }

    /// Leads, when it has been told to.
    pub(super) fn lead(mut self) -> Lead {
        let flight = self.flight.take();
        if let Some(flight) = &flight
            && let Some(state) = self.flights.lock().get_mut(&flight.key)
        {
            state.has_leader = true;
            state.waiting -= 1;
        }
        Lead {
            flights: Arc::clone(&self.flights),
            flight,
        }
    }

    /// Leaves. Where the flight has ended with an answer, this call has a part of it, whether or not its
    /// client is still there.
    pub(super) fn part(mut self) -> Option<Part> {
        self.leave()
    }

    fn leave(&mut self) -> Option<Part> {
        let flight = self.flight.take()?;
        let mut all = self.flights.lock();
        if let Some(end) = flight.end.get() {
            let shared = end.clone()?;
            return Some(Part {
                answer: shared.answer,
                calls: shared.calls,
                index: flight.taken.fetch_add(1, Relaxed),
            });
        }
        if let Entry::Occupied(mut state) = all.entry(flight.key) {
            state.get_mut().waiting -= 1;
            if state.get().waiting == 0 && !state.get().has_leader {
                state.remove();
            }
        }
        None
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever has an answer takes its part before.
        let _ = self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::event::UsageEvent;

    fn answer() -> Arc<Kept> {
        let event = UsageEvent::default();
        Arc::new(Kept::new(&event, String::new(), "x".into()))
    }

    fn lead(flights: &Arc<Flights>) -> Lead {
        match flights.join(Key::test(1)) {
            Place::Lead(lead) => lead,
            Place::Seat(_) => panic!("another leads"),
        }
    }

    fn seat(flights: &Arc<Flights>) -> Seat {
        match flights.join(Key::test(1)) {
            Place::Seat(seat) => seat,
            Place::Lead(_) => panic!("nobody leads"),
        }
    }

    /// Whether it leads, where that is known at once.
    async fn turn(seat: &Seat) -> Option<bool> {
        let turn = tokio::time::timeout(Duration::ZERO, seat.waiting().leads());
        turn.await.ok()
    }

    #[tokio::test]
    async fn those_that_wait_each_have_a_part_of_the_answer() {
        let flights = Arc::default();
        let leader = lead(&flights);
        let seats = [seat(&flights), seat(&flights), seat(&flights)];
        assert_eq!(turn(&seats[0]).await, None);
        let [one, other, gone] = seats;
        drop(gone);
        assert_eq!(leader.answered(answer()), 3);
        assert_eq!(turn(&one).await, Some(false));
        let parts = [one.part().unwrap(), other.part().unwrap()];
        assert_eq!(parts.map(|part| (part.calls, part.index)), [(3, 1), (3, 2)]);
        assert!(flights.lock().is_empty());
        lead(&flights);
    }

    #[tokio::test]
    async fn one_takes_the_place_of_a_leader_that_leaves() {
        let flights = Arc::default();
        let leader = lead(&flights);
        let (one, other) = (seat(&flights), seat(&flights));
        drop(leader);
        assert_eq!(turn(&one).await, Some(true));
        assert_eq!(turn(&other).await, None, "only one");
        let leader = one.lead();
        assert_eq!(leader.answered(answer()), 2);
        assert_eq!(other.part().map(|part| part.index), Some(1));
    }

    #[tokio::test]
    async fn the_lead_is_passed_on_past_those_that_leave() {
        let flights = Arc::default();
        let leader = lead(&flights);
        let (one, other) = (seat(&flights), seat(&flights));
        drop(leader);
        drop(one);
        assert_eq!(turn(&other).await, Some(true));
        drop(other.lead());
        assert!(flights.lock().is_empty(), "nobody is left");
        let leader = lead(&flights);
        let last = seat(&flights);
        drop(leader);
        drop(last);
        assert!(flights.lock().is_empty(), "nobody is left");
    }

    #[tokio::test]
    async fn without_an_answer_each_is_on_its_own() {
        let flights = Arc::default();
        let leader = lead(&flights);
        let seat = seat(&flights);
        leader.give_up();
        assert_eq!(turn(&seat).await, Some(false));
        assert!(seat.part().is_none());
    }

    #[tokio::test]
    async fn nobody_pays_for_an_answer_that_was_kept() {
        let flights = Arc::default();
        let leader = lead(&flights);
        let seat = seat(&flights);
        leader.found(answer());
        assert_eq!(seat.part().map(|part| part.calls), Some(0));
    }
}
