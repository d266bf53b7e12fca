//! Invalidation floors: the highest value recorded for any key of a range (R3).
//!
//! Values are revisions (a cached response about the range must be at least that new) or times (its
//! request must have been sent later).
//!
//! The structure is a map from disjoint intervals to values: a treap in which each node stores the
//! highest value of its subtree. Recording and querying cost the logarithm of its size. If it has
//! too many intervals, or keys of too many bytes, the lower half of its values becomes one value
//! for all keys. That value may be higher than necessary, never lower.

use bytes::Bytes;

use crate::wire::range::KeyRange;

const NONE: u32 = u32::MAX;

/// Map from key ranges to their floors.
#[derive(Debug)]
pub struct InvalidationFloors<T> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    root: u32,
    count: usize,
    /// Bytes of the keys in `nodes`.
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
    /// Floor of every key.
    all: Option<T>,
    /// State of the generator of node priorities.
    seed: u64,
}

#[derive(Debug)]
struct Node<T> {
    range: KeyRange,
    value: T,
    /// Highest value of this subtree.
    highest: T,
    priority: u64,
    left: u32,
    right: u32,
}

impl<T: Copy + Ord> InvalidationFloors<T> {
    /// Creates an empty map, bounded in intervals and in bytes of keys.
    ///
    /// `seed` is a random number, so that no choice of keys makes the tree deep.
    pub fn new(max_count: usize, max_bytes: usize, seed: u64) -> InvalidationFloors<T> {
        InvalidationFloors {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
            count: 0,
            bytes: 0,
            max_count,
            max_bytes,
            all: None,
            seed: seed | 1,
        }
    }

    /// Returns the highest value recorded for any key of the range.
    pub fn highest(&self, range: &KeyRange) -> Option<T> {
        self.all.max(self.highest_overlapping(self.root, range))
    }

    /// Records a value for every key of the range.
    pub fn raise(&mut self, range: &KeyRange, value: T) {
        if range.is_empty() || self.all.is_some_and(|all| value <= all) {
            return;
        }
        let (before, rest) = self.split(self.root, Some(range.start()));
        let (inside, after) = self.split(rest, range.end());
        // All intervals inside become one, with the highest of their values.
        let value = match inside {
            NONE => value,
            inside => value.max(self.nodes[inside as usize].highest),
        };
        self.discard(inside);
        let node = self.insert_node(range.clone(), value);
        let root = self.merge(before, node);
        self.root = self.merge(root, after);
        if self.count > self.max_count || self.bytes > self.max_bytes {
            self.collapse();
        }
    }

    /// Records a value for every key.
    pub fn raise_all(&mut self, value: T) {
        self.all = self.all.max(Some(value));
        if self.root != NONE && self.nodes[self.root as usize].highest <= value {
            self.discard(self.root);
            self.root = NONE;
        }
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        *self = InvalidationFloors::new(self.max_count, self.max_bytes, self.seed);
    }

    /// Returns the number of intervals.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there is no interval.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn highest_overlapping(&self, at: u32, range: &KeyRange) -> Option<T> {
        let node = self.nodes.get(at as usize)?;
        let ends_before = |end: Option<&Bytes>, start: &Bytes| end.is_some_and(|end| end <= start);
        if ends_before(node.range.end(), range.start()) {
            return self.highest_overlapping(node.right, range);
        }
        if ends_before(range.end(), node.range.start()) {
            return self.highest_overlapping(node.left, range);
        }
        // The node overlaps the range, and so do all nodes between it and the ends of the range.
        let below = self.highest_from(node.left, range.start());
        let above = self.highest_until(node.right, range.end());
        Some(node.value).max(below).max(above)
    }

    /// Returns the highest value of the intervals of a tree that extend beyond `start`.
    fn highest_from(&self, at: u32, start: &Bytes) -> Option<T> {
        let node = self.nodes.get(at as usize)?;
        if node.range.end().is_some_and(|end| end <= start) {
            return self.highest_from(node.right, start);
        }
        let right = self
            .nodes
            .get(node.right as usize)
            .map(|right| right.highest);
        Some(node.value)
            .max(right)
            .max(self.highest_from(node.left, start))
    }

    /// Returns the highest value of the intervals of a tree that begin before `end`.
    fn highest_until(&self, at: u32, end: Option<&Bytes>) -> Option<T> {
        let node = self.nodes.get(at as usize)?;
        if end.is_some_and(|end| end <= node.range.start()) {
            return self.highest_until(node.left, end);
        }
        let left = self.nodes.get(node.left as usize).map(|left| left.highest);
        Some(node.value)
            .max(left)
            .max(self.highest_until(node.right, end))
    }

    /// Splits a tree at a key into the part before it and the rest. `None` is after all keys.
    fn split(&mut self, at: u32, key: Option<&Bytes>) -> (u32, u32) {
        let Some(node) = self.nodes.get(at as usize) else {
            return (NONE, NONE);
        };
        let Some(cut) = key else {
            return (at, NONE);
        };
        if cut <= node.range.start() {
            let (before, rest) = self.split(node.left, key);
            self.nodes[at as usize].left = rest;
            self.update(at);
            return (before, at);
        }
        if node.range.end().is_some_and(|end| end <= cut) {
            let (before, rest) = self.split(node.right, key);
            self.nodes[at as usize].right = before;
            self.update(at);
            return (at, rest);
        }
        // The key is inside the interval, which becomes two.
        let (value, right) = (node.value, node.right);
        let behind = KeyRange::between(cut.clone(), node.range.end().cloned());
        let front = KeyRange::between(node.range.start().clone(), Some(cut.clone()));
        self.bytes -= size(&node.range);
        self.bytes += size(&front);
        let node = &mut self.nodes[at as usize];
        node.range = front;
        node.right = NONE;
        self.update(at);
        let behind = self.insert_node(behind, value);
        (at, self.merge(behind, right))
    }

    /// Joins two trees; all keys of `before` are lower than those of `after`.
    fn merge(&mut self, before: u32, after: u32) -> u32 {
        let (Some(first), Some(last)) = (
            self.nodes.get(before as usize),
            self.nodes.get(after as usize),
        ) else {
            return before.min(after);
        };
        if first.priority >= last.priority {
            let right = self.merge(first.right, after);
            self.nodes[before as usize].right = right;
            self.update(before);
            before
        } else {
            let left = self.merge(before, last.left);
            self.nodes[after as usize].left = left;
            self.update(after);
            after
        }
    }

    fn update(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let highest = |at: u32| self.nodes.get(at as usize).map(|node| node.highest);
        let below = highest(node.left).max(highest(node.right));
        let value = node.value;
        self.nodes[at as usize].highest = below.map_or(value, |below| below.max(value));
    }

    fn insert_node(&mut self, range: KeyRange, value: T) -> u32 {
        self.count += 1;
        self.bytes += size(&range);
        // xorshift: a state that is not 0 never becomes 0.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let node = Node {
            range,
            value,
            highest: value,
            priority: self.seed,
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
                // At most `max_count` + 2.
                (self.nodes.len() - 1) as u32
            }
        }
    }

    /// Frees the nodes of a tree.
    fn discard(&mut self, at: u32) {
        let mut trees = vec![at];
        while let Some(at) = trees.pop() {
            let Some(node) = self.nodes.get_mut(at as usize) else {
                continue;
            };
            trees.extend([node.left, node.right]);
            let empty = KeyRange::between(Bytes::new(), Some(Bytes::new()));
            let range = std::mem::replace(&mut node.range, empty);
            self.bytes -= size(&range);
            self.count -= 1;
            self.free.push(at);
        }
    }

    /// Replaces the lower half of the values with one value for all keys.
    fn collapse(&mut self) {
        let mut intervals = Vec::with_capacity(self.count);
        self.collect(self.root, &mut intervals);
        let mut values: Vec<T> = intervals.iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        let all = values[values.len() / 2];
        self.discard(self.root);
        self.root = NONE;
        self.all = self.all.max(Some(all));
        for (range, value) in intervals.into_iter().filter(|(_, value)| *value > all) {
            let node = self.insert_node(range, value);
            self.root = self.merge(self.root, node);
        }
    }

    /// Appends the intervals of a tree in their order.
    fn collect(&self, at: u32, into: &mut Vec<(KeyRange, T)>) {
        if let Some(node) = self.nodes.get(at as usize) {
            self.collect(node.left, into);
            into.push((node.range.clone(), node.value));
            self.collect(node.right, into);
        }
    }
}

fn size(range: &KeyRange) -> usize {
    range.start().len() + range.end().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        let key = || prop::collection::vec(0u8..4, 0..3).prop_map(Bytes::from);
        (key(), key()).prop_map(|(key, end)| KeyRange::of(key, end))
    }

    /// Returns every key of up to three small bytes, and one key after all of them.
    fn keys() -> Vec<Vec<u8>> {
        let mut keys = vec![vec![]];
        for a in 0..4 {
            keys.push(vec![a]);
            for b in 0..4 {
                keys.push(vec![a, b]);
                keys.extend((0..4).map(|c| vec![a, b, c]));
            }
        }
        keys.push(vec![255]);
        keys
    }

    #[derive(Debug, Clone)]
    enum Op {
        Raise(KeyRange, u32),
        RaiseAll(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            20 => (range(), 0u32..1000).prop_map(|(range, value)| Op::Raise(range, value)),
            1 => (0u32..1000).prop_map(Op::RaiseAll),
        ]
    }

    proptest! {
        /// Compared with one value per key, the result is never lower.
        #[test]
        fn is_never_below_a_recorded_value(
            ops in prop::collection::vec(op(), 0..60), queried in range(), max_count in 4usize..100,
        ) {
            let keys = keys();
            let mut floors = InvalidationFloors::new(max_count, 10_000, 7);
            let mut naive: Vec<Option<u32>> = vec![None; keys.len()];
            for op in &ops {
                match op {
                    Op::Raise(range, value) => {
                        floors.raise(range, *value);
                        for (key, recorded) in keys.iter().zip(&mut naive) {
                            if range.contains(key) {
                                *recorded = (*recorded).max(Some(*value));
                            }
                        }
                    }
                    Op::RaiseAll(value) => {
                        floors.raise_all(*value);
                        naive.iter_mut().for_each(|recorded| *recorded = (*recorded).max(Some(*value)));
                    }
                }
                prop_assert!(floors.len() <= max_count);
            }
            let recorded = keys.iter().zip(&naive).filter(|(key, _)| queried.contains(key));
            let highest = recorded.map(|(_, value)| *value).max().flatten();
            if !queried.is_empty() {
                prop_assert!(floors.highest(&queried) >= highest);
            }
        }

        /// Compared with one value per key, the result for single keys is equal.
        #[test]
        fn is_exact_for_single_keys(
            writes in prop::collection::vec((0usize..86, 0u32..1000), 0..200), index in 0usize..86,
        ) {
            let keys = keys();
            let one = |n: usize| KeyRange::of(Bytes::from(keys[n].clone()), Bytes::new());
            let mut floors = InvalidationFloors::new(1000, 10_000, 99);
            for (key, value) in &writes {
                floors.raise(&one(*key), *value);
            }
            let of = writes.iter().filter(|(key, _)| *key == index).map(|(_, value)| *value).max();
            prop_assert_eq!(floors.highest(&one(index)), of);
            let all = KeyRange::of(Bytes::from_static(&[0]), Bytes::from_static(&[0]));
            let without_empty = writes.iter().filter(|(key, _)| *key != 0).map(|(_, v)| *v).max();
            prop_assert_eq!(floors.highest(&all), without_empty);
        }
    }

    #[test]
    fn excess_intervals_become_one_value_for_all_keys() {
        let mut floors = InvalidationFloors::new(100, 1_000_000, 3);
        let key = |n: u32| KeyRange::of(n.to_be_bytes().to_vec().into(), Bytes::new());
        for n in 0..10_000u32 {
            floors.raise(&key(n), n);
            assert!(floors.len() <= 100);
        }
        assert_eq!(floors.highest(&key(9_999)), Some(9_999));
        let other = floors.highest(&key(20_000)).unwrap();
        assert!((9_800..9_999).contains(&other), "{other}");
        // The bytes of the keys are bounded as well.
        let mut floors = InvalidationFloors::new(100, 10_000, 3);
        for n in 0..50u32 {
            let long = [n.to_be_bytes().to_vec(), vec![0; 1_000]].concat();
            floors.raise(&KeyRange::of(long.into(), Bytes::new()), n);
            assert!(floors.bytes <= 10_000);
        }
        assert!(floors.len() < 5 && floors.all.is_some());
    }
}
