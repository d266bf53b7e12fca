//! Range index: finds the ranges that contain a key, at a cost that grows with the number of hits.
//!
//! Ranges of one key are in a map. All others are in a treap, ordered by range start. Each node
//! stores the largest range end of its subtree. Priorities are hashes under a random key, so
//! clients cannot choose ranges that make the tree deep.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use crate::wire::range::KeyRange;

const NONE: u32 = u32::MAX;

/// Values by range. A range may have several values, each of them once.
#[derive(Debug)]
pub(super) struct RangeIndex<T> {
    singles: HashMap<Bytes, Vec<T>>,
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    root: u32,
    hasher: RandomState,
}

#[derive(Debug)]
struct Node<T> {
    range: KeyRange,
    values: Vec<T>,
    priority: u64,
    left: u32,
    right: u32,
    /// The largest range end in this subtree. `None` is an open end.
    last: Option<Bytes>,
}

impl<T: Copy + PartialEq> RangeIndex<T> {
    pub(super) fn new() -> RangeIndex<T> {
        RangeIndex {
            singles: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn insert(&mut self, range: &KeyRange, value: T) {
        if let Some(key) = range.single() {
            match self.singles.get_mut(key) {
                Some(values) => values.push(value),
                None => drop(self.singles.insert(key.clone(), vec![value])),
            }
            return;
        }
        if let Some(node) = self.find(range) {
            self.nodes[node as usize].values.push(value);
            return;
        }
        let node = self.new_node(range.clone(), value);
        let (before, after) = self.split(self.root, range);
        let root = self.merge(before, node);
        self.root = self.merge(root, after);
    }

    /// Removes a value of a range. Does nothing if it is absent.
    pub(super) fn remove(&mut self, range: &KeyRange, value: T) {
        if let Some(key) = range.single() {
            if let Some(values) = self.singles.get_mut(key) {
                values.retain(|other| *other != value);
                if values.is_empty() {
                    self.singles.remove(key);
                }
            }
            return;
        }
        let Some(found) = self.find(range) else {
            return;
        };
        let values = &mut self.nodes[found as usize].values;
        values.retain(|other| *other != value);
        if values.is_empty() {
            self.root = self.remove_node(self.root, range);
            self.free.push(found);
        }
    }

    /// Returns the values of exactly this range.
    pub(super) fn at(&self, range: &KeyRange) -> &[T] {
        match range.single() {
            Some(key) => self.singles.get(key).map_or(&[], Vec::as_slice),
            None => match self.find(range) {
                Some(node) => &self.nodes[node as usize].values,
                None => &[],
            },
        }
    }

    /// Calls `found` with the values of every range that contains the key.
    pub(super) fn for_each_containing(&self, key: &[u8], mut found: impl FnMut(T)) {
        if !self.singles.is_empty()
            && let Some(values) = self.singles.get(key)
        {
            values.iter().copied().for_each(&mut found);
        }
        self.search(self.root, key, &mut found);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.root == NONE
    }

    fn search(&self, at: u32, key: &[u8], found: &mut impl FnMut(T)) {
        if at == NONE {
            return;
        }
        let node = &self.nodes[at as usize];
        if node.last.as_ref().is_some_and(|last| &last[..] <= key) {
            return;
        }
        self.search(node.left, key, found);
        if node.range.start() <= key {
            if node.range.contains(key) {
                node.values.iter().copied().for_each(&mut *found);
            }
            self.search(node.right, key, found);
        }
    }

    fn find(&self, range: &KeyRange) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at as usize];
            at = match order(range, &node.range) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(at),
            };
        }
        None
    }

    fn new_node(&mut self, range: KeyRange, value: T) -> u32 {
        let node = Node {
            priority: self.hasher.hash_one(&range),
            last: range.end().cloned(),
            range,
            values: vec![value],
            left: NONE,
            right: NONE,
        };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// Splits a subtree into the nodes ordered before `range` and the other nodes.
    fn split(&mut self, at: u32, range: &KeyRange) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let node = &self.nodes[at as usize];
        let (left, right) = (node.left, node.right);
        if order(&node.range, range) == Ordering::Less {
            let (before, after) = self.split(right, range);
            self.nodes[at as usize].right = before;
            self.refresh(at);
            (at, after)
        } else {
            let (before, after) = self.split(left, range);
            self.nodes[at as usize].left = after;
            self.refresh(at);
            (before, at)
        }
    }

    /// Merges two trees, where every node of the first is ordered before every node of the second.
    fn merge(&mut self, first: u32, second: u32) -> u32 {
        if first == NONE || second == NONE {
            return first.min(second);
        }
        let (a, b) = (&self.nodes[first as usize], &self.nodes[second as usize]);
        if a.priority >= b.priority {
            let right = a.right;
            self.nodes[first as usize].right = self.merge(right, second);
            self.refresh(first);
            first
        } else {
            let left = b.left;
            self.nodes[second as usize].left = self.merge(first, left);
            self.refresh(second);
            second
        }
    }

    /// Returns the subtree without the node of this range, which must be in it.
    fn remove_node(&mut self, at: u32, range: &KeyRange) -> u32 {
        if at == NONE {
            return NONE;
        }
        let node = &self.nodes[at as usize];
        let (left, right) = (node.left, node.right);
        match order(range, &node.range) {
            Ordering::Equal => return self.merge(left, right),
            Ordering::Less => self.nodes[at as usize].left = self.remove_node(left, range),
            Ordering::Greater => self.nodes[at as usize].right = self.remove_node(right, range),
        }
        self.refresh(at);
        at
    }

    fn refresh(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let mut last = node.range.end();
        for child in [node.left, node.right] {
            if child != NONE {
                let end = self.nodes[child as usize].last.as_ref();
                last = match (last, end) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
        }
        self.nodes[at as usize].last = last.cloned();
    }
}

fn order(a: &KeyRange, b: &KeyRange) -> Ordering {
    let ends = || match (a.end(), b.end()) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    a.start().cmp(b.start()).then_with(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = KeyRange> {
        let key = prop::collection::vec(0u8..3, 0..3);
        let end = prop_oneof![
            2 => prop::collection::vec(0u8..3, 0..3),
            1 => Just(vec![0u8]),
        ];
        (key, end)
            .prop_map(|(key, end)| KeyRange::of(key.into(), end.into()))
            .prop_filter("contains no key", |range| !range.is_empty())
    }

    proptest! {
        /// Compares the index with a plain list.
        #[test]
        fn finds_the_same_as_a_list(
            ops in prop::collection::vec((any::<bool>(), ranges(), 0u8..3), 0..80),
            keys in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 1..9),
        ) {
            let mut index = RangeIndex::new();
            let mut list: Vec<(KeyRange, u8)> = Vec::new();
            for (add, range, value) in ops {
                let entry = (range.clone(), value);
                if add && !list.contains(&entry) {
                    index.insert(&range, value);
                    list.push(entry.clone());
                } else if !add {
                    index.remove(&range, value);
                    list.retain(|other| *other != entry);
                }
                let mut found_at: Vec<u8> = index.at(&range).to_vec();
                let mut expected_at: Vec<u8> =
                    list.iter().filter(|e| e.0 == range).map(|e| e.1).collect();
                found_at.sort_unstable();
                expected_at.sort_unstable();
                prop_assert_eq!(found_at, expected_at);
                prop_assert_eq!(index.is_empty(), list.is_empty());
                for key in &keys {
                    let mut found = Vec::new();
                    index.for_each_containing(key, |value| found.push(value));
                    let mut expected: Vec<u8> =
                        list.iter().filter(|e| e.0.contains(key)).map(|e| e.1).collect();
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn ordered_ranges_do_not_make_a_deep_tree() {
        let mut index = RangeIndex::new();
        let range = |n: u32| {
            KeyRange::of(
                Bytes::copy_from_slice(&n.to_be_bytes()),
                Bytes::copy_from_slice(&(n + 2).to_be_bytes()),
            )
        };
        (0..50_000).for_each(|n| index.insert(&range(n), n));
        fn depth(index: &RangeIndex<u32>, at: u32) -> usize {
            if at == NONE {
                return 0;
            }
            let node = &index.nodes[at as usize];
            1 + depth(index, node.left).max(depth(index, node.right))
        }
        assert!(depth(&index, index.root) < 100);
        (0..50_000).for_each(|n| index.remove(&range(n), n));
        assert!(index.is_empty());
    }
}
