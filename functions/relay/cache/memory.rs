//! The kept answers that are in memory: the ones used last, within their bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gateway::cache::Key;
use crate::gateway::cache::kept::Kept;

/// What an answer takes beside its body, bytes: its fields, its place in the map, their allocations.
const OVERHEAD: usize = 512;

/// Answers by key, in two generations. What is put in or found goes into the new one; when that has half
/// of what there may be, it becomes the old one, and the old one is forgotten. So what was used lately
/// stays, and no list has to be kept in order.
#[derive(Debug)]
pub(super) struct Memory {
    generations: Mutex<Generations>,
    /// Most bytes of a generation.
    bytes: usize,
    /// Most answers of a generation.
    entries: usize,
}

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Key, Arc<Kept>>,
    new_bytes: usize,
    old: HashMap<Key, Arc<Kept>>,
}

impl Memory {
    /// Room for so many bytes and answers.
    pub(super) fn new(bytes: usize, entries: usize) -> Self {
        Self {
            generations: Mutex::default(),
            bytes: bytes / 2,
            entries: (entries / 2).max(1),
        }
    }

    /// The answer of a key.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        let mut generations = self.lock();
        if let Some(kept) = generations.new.get(key) {
            return Some(Arc::clone(kept));
        }
        let kept = generations.old.remove(key)?;
        let forgotten = self.insert(&mut generations, *key, Arc::clone(&kept));
        drop(generations);
        // Outside the lock: there may be thousands.
        drop(forgotten);
        Some(kept)
    }

    /// Puts an answer in, in the place of one that is there. One that is larger than a generation is not
    /// taken.
    pub(super) fn put(&self, key: Key, kept: Arc<Kept>) {
        if size(&kept) > self.bytes {
            return;
        }
        let mut generations = self.lock();
        let stale = generations.old.remove(&key);
        let forgotten = self.insert(&mut generations, key, kept);
        drop(generations);
        drop((stale, forgotten));
    }

    /// Puts an answer into the new generation; what is forgotten for it.
    fn insert(
        &self,
        generations: &mut Generations,
        key: Key,
        kept: Arc<Kept>,
    ) -> HashMap<Key, Arc<Kept>> {
        let added = size(&kept);
        let is_full = generations.new_bytes + added > self.bytes
            || generations.new.len() >= self.entries && !generations.new.contains_key(&key);
        let mut forgotten = HashMap::new();
        if is_full {
            let grown = std::mem::take(&mut generations.new);
            forgotten = std::mem::replace(&mut generations.old, grown);
            generations.old.remove(&key);
            generations.new_bytes = 0;
        }
        generations.new_bytes += added;
        if let Some(replaced) = generations.new.insert(key, kept) {
            generations.new_bytes -= size(&replaced);
        }
        forgotten
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(kept: &Kept) -> usize {
    kept.body.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::event::UsageEvent;

    fn kept(bytes: usize) -> Arc<Kept> {
        let event = UsageEvent::default();
        Arc::new(Kept::new(&event, String::new(), vec![b'x'; bytes].into()))
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let memory = Memory::new(1 << 20, 8);
        for number in 0..40 {
            memory.put(Key::test(number), kept(1));
            assert!(memory.get(&Key::test(0)).is_some(), "{number}");
        }
        assert!(memory.get(&Key::test(1)).is_none() && memory.get(&Key::test(39)).is_some());
    }

    #[test]
    fn what_is_larger_than_half_of_all_is_not_taken() {
        let memory = Memory::new(4000, 8);
        memory.put(Key::test(1), kept(2000));
        assert!(memory.get(&Key::test(1)).is_none());
        memory.put(Key::test(1), kept(1400));
        assert!(memory.get(&Key::test(1)).is_some());
    }

    #[test]
    fn the_newer_of_two_answers_is_found() {
        let memory = Memory::new(1 << 20, 8);
        memory.put(Key::test(1), kept(1));
        for number in 2..7 {
            memory.put(Key::test(number), kept(1));
        }
        memory.put(Key::test(1), kept(2));
        assert_eq!(memory.get(&Key::test(1)).unwrap().body.len(), 2);
    }

    proptest! {
        #[test]
        fn bounds_are_kept(puts in prop::collection::vec((0..20u8, 0..3000usize), 0..60)) {
            let memory = Memory::new(10_000, 10);
            for (number, bytes) in puts {
                memory.put(Key::test(number), kept(bytes));
                memory.get(&Key::test(number / 2));
                let generations = memory.lock();
                let all = || generations.new.values().chain(generations.old.values());
                prop_assert!(all().map(|kept| size(kept)).sum::<usize>() <= 10_000);
                prop_assert!(all().count() <= 10);
                let new = generations.new.values().map(|kept| size(kept)).sum::<usize>();
                prop_assert_eq!(generations.new_bytes, new);
            }
        }
    }
}
