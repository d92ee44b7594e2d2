//! How much of something there is at once, and how much there may be: calls under way, sessions, events that
//! wait, bytes that are held. Many threads take and give back without a lock.

use crate::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Room for so much at once.
///
/// What was done before a part is given back is seen by whoever takes it, and by whoever sees
/// ([`Self::used`]) that it was given back.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    most: usize,
}

impl Room {
    /// Room for `most`, none of it used.
    pub fn new(most: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            most,
        }
    }

    /// Room without a bound: what is taken is only counted.
    pub fn unbounded() -> Self {
        Self::new(usize::MAX)
    }

    /// Takes so much, if there is room for it; whether there was.
    pub fn take(&self, much: usize) -> bool {
        let more = |used: usize| used.checked_add(much).filter(|used| *used <= self.most);
        self.used.fetch_update(Acquire, Relaxed, more).is_ok()
    }

    /// Gives back so much of what was taken.
    pub fn give_back(&self, much: usize) {
        self.used.fetch_sub(much, Release);
    }

    /// How much is used now.
    pub fn used(&self) -> usize {
        self.used.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let room = Room::new(10);
        assert!(room.take(7) && room.take(3) && room.take(0));
        assert!(!room.take(1) && !room.take(usize::MAX));
        assert_eq!(room.used(), 10);
        room.give_back(3);
        assert!(!room.take(4) && room.take(2));
        assert_eq!(room.used(), 9);
    }

    #[test]
    fn what_has_no_bound_is_counted() {
        let room = Room::unbounded();
        assert!(room.take(1 << 40) && room.take(1));
        room.give_back(1 << 40);
        assert_eq!(room.used(), 1);
    }
}
