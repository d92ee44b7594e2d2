//! What a resource remembers: the newest things, bounded in number and bytes.

use std::collections::VecDeque;

/// Things by id, the oldest forgotten first. A look-up walks the list: it is short, and reads are
/// rare beside calls.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    entries: VecDeque<Entry<V>>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    id: String,
    bytes: usize,
    value: V,
}

impl<V> Shelf<V> {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    /// Keeps `value`, which weighs `bytes`, and forgets the oldest while there is too much.
    pub(super) fn put(&mut self, id: String, bytes: usize, value: V) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push_back(Entry { id, bytes, value });
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&V> {
        self.entries
            .iter()
            .rev()
            .find(|e| e.id == id)
            .map(|e| &e.value)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut V> {
        self.entries
            .iter_mut()
            .rev()
            .find(|e| e.id == id)
            .map(|e| &mut e.value)
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<V> {
        let at = self.entries.iter().position(|e| e.id == id)?;
        let entry = self.entries.remove(at)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry.value)
    }

    /// Everything, newest first.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().rev().map(|e| &e.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(shelf: &Shelf<u32>) -> Vec<u32> {
        shelf.values().copied().collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_too_much() {
        let mut shelf = Shelf::new(3, 100);
        for n in 0..4u32 {
            shelf.put(n.to_string(), 10, n);
        }
        assert_eq!(kept(&shelf), [3, 2, 1]);
        shelf.put("big".to_owned(), 85, 9);
        assert_eq!(kept(&shelf), [9, 3]);
        shelf.put("too big".to_owned(), 101, 10);
        assert_eq!(kept(&shelf), [] as [u32; 0]);
    }

    #[test]
    fn what_is_removed_frees_its_bytes() {
        let mut shelf = Shelf::new(9, 100);
        shelf.put("a".to_owned(), 60, 1);
        assert_eq!(shelf.remove("a"), Some(1));
        assert_eq!(shelf.remove("a"), None);
        shelf.put("b".to_owned(), 60, 2);
        *shelf.get_mut("b").unwrap() = 3;
        assert_eq!(shelf.get("b"), Some(&3));
    }
}
