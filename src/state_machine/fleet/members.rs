//! Which proxies are registered, from what is found under the prefix and what happens to it.
//!
//! Whatever is there: others may write there too. What is not understood is left out, and so is what
//! comes to more than [`limits::FLEET_MEMBERS`] keys or is larger than [`limits::FLEET_VALUE_BYTES`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::limits;
use crate::wire::naming::Registered;

/// The proxies under the prefix.
#[derive(Debug)]
pub struct Members {
    by_key: BTreeMap<Bytes, Registered>,
    /// The key of this proxy.
    own: Bytes,
    /// It is there, and names a proxy.
    own_is_there: bool,
    /// Some were left out because there are too many.
    cut: bool,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It names a proxy.
    Yes,
    /// It does not.
    NotUnderstood,
    /// There are too many already.
    TooMany,
}

impl Members {
    /// None yet; `own` is the key of this proxy.
    pub fn new(own: Bytes) -> Members {
        Members {
            by_key: BTreeMap::new(),
            own,
            own_is_there: false,
            cut: false,
        }
    }

    /// A key has this value.
    pub fn put(&mut self, key: &Bytes, value: &[u8]) -> Taken {
        // A value too large to be a proxy's is not even read.
        let fits =
            key.len() <= limits::FLEET_VALUE_BYTES && value.len() <= limits::FLEET_VALUE_BYTES;
        let found = fits.then(|| Registered::parse(value)).flatten();
        if *key == self.own {
            self.own_is_there = found.is_some();
        }
        let Some(found) = found else {
            self.by_key.remove(key);
            return Taken::NotUnderstood;
        };
        if self.by_key.len() >= limits::FLEET_MEMBERS && !self.by_key.contains_key(key) {
            self.cut = true;
            return Taken::TooMany;
        }
        // Memory of its own: the key is part of a whole answer.
        let key = Bytes::copy_from_slice(key);
        self.by_key.insert(key, found);
        Taken::Yes
    }

    /// A key is gone.
    pub fn delete(&mut self, key: &[u8]) {
        self.own_is_there &= self.own != key;
        self.by_key.remove(key);
    }

    /// Whether a key has been left out for which there is room now: only who asks anew learns of it.
    pub fn is_short(&self) -> bool {
        self.cut && self.by_key.len() < limits::FLEET_MEMBERS
    }

    /// Whether this proxy's own key is known not to be there as it should.
    pub fn lacks_own(&self) -> bool {
        // Of those that are too many nobody has told.
        !self.own_is_there && !self.cut
    }

    /// Each address once, in their order, whatever the number of keys that name it.
    pub fn list(&self) -> Vec<Registered> {
        let mut addresses = BTreeSet::new();
        let all = self.by_key.values();
        let once = all.filter(|each| addresses.insert(&each.address));
        let mut list: Vec<_> = once.cloned().collect();
        list.sort();
        list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn registered(address: u8) -> Registered {
        Registered {
            address: format!("127.0.0.1:{address}"),
            name: "vm".to_owned(),
        }
    }

    fn key(n: usize) -> Bytes {
        Bytes::from(format!("p/{n}"))
    }

    #[derive(Debug, Clone)]
    enum Op {
        Put(usize, u8),
        Junk(usize),
        Delete(usize),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0usize..6, 0u8..4).prop_map(|(key, address)| Op::Put(key, address)),
            1 => (0usize..6).prop_map(Op::Junk),
            2 => (0usize..6).prop_map(Op::Delete),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #[test]
        fn are_those_of_the_keys_that_are_there(ops in prop::collection::vec(op(), 0..60)) {
            let mut members = Members::new(key(0));
            let mut model: BTreeMap<usize, u8> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Put(n, address) => {
                        let taken = members.put(&key(n), &registered(address).value());
                        prop_assert_eq!(taken, Taken::Yes);
                        model.insert(n, address);
                    }
                    Op::Junk(n) => {
                        prop_assert_eq!(members.put(&key(n), b"junk"), Taken::NotUnderstood);
                        model.remove(&n);
                    }
                    Op::Delete(n) => {
                        members.delete(&key(n));
                        model.remove(&n);
                    }
                    Op::Clear => {
                        members = Members::new(key(0));
                        model.clear();
                    }
                }
                let mut addresses: Vec<u8> = model.values().copied().collect();
                addresses.sort_unstable();
                addresses.dedup();
                let expected: Vec<_> = addresses.into_iter().map(registered).collect();
                prop_assert_eq!(members.list(), expected);
                prop_assert_eq!(members.lacks_own(), !model.contains_key(&0));
            }
        }
    }

    #[test]
    fn are_bounded_in_number_and_size() {
        let mut members = Members::new(Bytes::from_static(b"p/own"));
        let value = registered(1).value();
        for n in 0..limits::FLEET_MEMBERS {
            assert_eq!(members.put(&key(n), &value), Taken::Yes);
        }
        assert!(!members.is_short());
        let one_more = key(limits::FLEET_MEMBERS);
        assert_eq!(members.put(&one_more, &value), Taken::TooMany);
        assert_eq!(members.list(), [registered(1)]);
        assert!(!members.is_short() && !members.lacks_own());
        assert_eq!(members.put(&key(0), &value), Taken::Yes);
        members.delete(&key(5));
        assert!(members.is_short());
        let large = Registered {
            name: "x".repeat(limits::FLEET_VALUE_BYTES),
            ..registered(1)
        };
        assert_eq!(members.put(&key(1), &large.value()), Taken::NotUnderstood);
        for n in 0..limits::FLEET_MEMBERS {
            members.delete(&key(n));
        }
        assert_eq!(members.list(), []);
    }
}
