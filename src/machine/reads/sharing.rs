//! Reads that ask the same at the same time: one on its way to etcd, and one that waits for it to come
//! back, for all who came meanwhile (R1). Nobody joins what is on its way: it may have been answered
//! before he asked.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::quality::RandomState;

/// By what is asked. `R` is what those who wait for the next read have in common.
#[derive(Debug)]
pub struct Sharing<K, R> {
    /// For each question that is on its way: who waits for the next.
    waiting: HashMap<K, Option<R>, RandomState>,
}

impl<K: Hash + Eq, R> Sharing<K, R> {
    /// With nothing on its way.
    pub fn new() -> Sharing<K, R> {
        Sharing {
            waiting: HashMap::default(),
        }
    }

    /// Somebody asks. `None`: nothing of this is on its way, and his read goes now; he says when it
    /// has come back. Else he waits with the others.
    pub fn ask(&mut self, key: K, next: impl FnOnce() -> R) -> Option<&mut R> {
        match self.waiting.entry(key) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(None);
                None
            }
            std::collections::hash_map::Entry::Occupied(place) => {
                Some(place.into_mut().get_or_insert_with(next))
            }
        }
    }

    /// The read that was on its way has come back, or will not. Those who wait go now, and their read
    /// is on its way; `None` when there are none, and then nothing is.
    pub fn returned(&mut self, key: &K) -> Option<R> {
        // Mostly nobody waits, and the question is looked up once.
        let (key, waiting) = self.waiting.remove_entry(key)?;
        if waiting.is_some() {
            self.waiting.insert(key, None);
        }
        waiting
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<K: Hash + Eq, R> Default for Sharing<K, R> {
    fn default() -> Sharing<K, R> {
        Sharing::new()
    }
}
