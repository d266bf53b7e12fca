//! List of registered proxies, from the keys under the registration prefix and their events.
//!
//! Others may write under the prefix too. Values that do not parse are ignored, and so are keys
//! beyond [`limits::FLEET_MEMBERS`] and values larger than [`limits::FLEET_VALUE_BYTES`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::limits;
use crate::wire::naming::RegisteredProxy;

/// Registered proxies by key.
#[derive(Debug)]
pub struct Members {
    by_key: BTreeMap<Bytes, RegisteredProxy>,
    /// Key of this proxy.
    own: Bytes,
    /// The own key exists and its value is valid.
    own_key_valid: bool,
    /// Keys were ignored because there are too many.
    truncated: bool,
}

/// Result of [`Members::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The value is a registration.
    Stored,
    /// The value is not a registration.
    Invalid,
    /// There are already [`limits::FLEET_MEMBERS`] keys.
    TooMany,
}

impl Members {
    /// Creates an empty list; `own` is the key of this proxy.
    pub fn new(own: Bytes) -> Members {
        Members {
            by_key: BTreeMap::new(),
            own,
            own_key_valid: false,
            truncated: false,
        }
    }

    /// Records the value of a key.
    pub fn put(&mut self, key: &Bytes, value: &[u8]) -> PutOutcome {
        // A value that is too large for a registration is not parsed.
        let fits =
            key.len() <= limits::FLEET_VALUE_BYTES && value.len() <= limits::FLEET_VALUE_BYTES;
        let found = fits.then(|| RegisteredProxy::parse(value)).flatten();
        if *key == self.own {
            self.own_key_valid = found.is_some();
        }
        let Some(found) = found else {
            self.by_key.remove(key);
            return PutOutcome::Invalid;
        };
        if self.by_key.len() >= limits::FLEET_MEMBERS && !self.by_key.contains_key(key) {
            self.truncated = true;
            return PutOutcome::TooMany;
        }
        // Copied: the key shares the memory of a whole response.
        let key = Bytes::copy_from_slice(key);
        self.by_key.insert(key, found);
        PutOutcome::Stored
    }

    /// Records the deletion of a key.
    pub fn delete(&mut self, key: &[u8]) {
        self.own_key_valid &= self.own != key;
        self.by_key.remove(key);
    }

    /// Returns whether a key was ignored that would fit now. Only reading the prefix again finds
    /// it.
    pub fn needs_reread(&self) -> bool {
        self.truncated && self.by_key.len() < limits::FLEET_MEMBERS
    }

    /// Returns whether the key of this proxy is known to be absent or invalid.
    pub fn lacks_own_key(&self) -> bool {
        // Unknown while keys are ignored.
        !self.own_key_valid && !self.truncated
    }

    /// Returns the registrations in order of address. Each address appears once, even if several
    /// keys name it.
    pub fn list(&self) -> Vec<RegisteredProxy> {
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

    fn registered(address: u8) -> RegisteredProxy {
        RegisteredProxy {
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
        fn lists_the_registrations_of_the_existing_keys(ops in prop::collection::vec(op(), 0..60)) {
            let mut members = Members::new(key(0));
            let mut model: BTreeMap<usize, u8> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Put(n, address) => {
                        let outcome = members.put(&key(n), &registered(address).value());
                        prop_assert_eq!(outcome, PutOutcome::Stored);
                        model.insert(n, address);
                    }
                    Op::Junk(n) => {
                        prop_assert_eq!(members.put(&key(n), b"junk"), PutOutcome::Invalid);
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
                prop_assert_eq!(members.lacks_own_key(), !model.contains_key(&0));
            }
        }
    }

    #[test]
    fn is_bounded_in_number_and_size() {
        let mut members = Members::new(Bytes::from_static(b"p/own"));
        let value = registered(1).value();
        for n in 0..limits::FLEET_MEMBERS {
            assert_eq!(members.put(&key(n), &value), PutOutcome::Stored);
        }
        assert!(!members.needs_reread());
        let one_more = key(limits::FLEET_MEMBERS);
        assert_eq!(members.put(&one_more, &value), PutOutcome::TooMany);
        assert_eq!(members.list(), [registered(1)]);
        assert!(!members.needs_reread() && !members.lacks_own_key());
        assert_eq!(members.put(&key(0), &value), PutOutcome::Stored);
        members.delete(&key(5));
        assert!(members.needs_reread());
        let large = RegisteredProxy {
            name: "x".repeat(limits::FLEET_VALUE_BYTES),
            ..registered(1)
        };
        assert_eq!(members.put(&key(1), &large.value()), PutOutcome::Invalid);
        for n in 0..limits::FLEET_MEMBERS {
            members.delete(&key(n));
        }
        assert_eq!(members.list(), []);
    }
}
