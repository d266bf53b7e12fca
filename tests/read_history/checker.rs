//! Judges a history: that all that was told is etcd's own, and that it is linearizable.
//!
//! etcd numbers every write, and an answer says which write it shows (`mod_revision`) and as of which it
//! is true (the header's revision). So the order of all that was done is known, and nothing has to be
//! searched for: a history is linearizable if its order never contradicts the clock.

use std::collections::HashMap;

use crate::history::{End, KEYS, Op, Truth, Version, What};

/// Holds what was told against what happened: writes were done once, those that were acknowledged at
/// their revision, and those that failed not at all; and an answer shows its keys as they were at the
/// revision of its header.
pub(crate) fn content(ops: &[Op], truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut writes: HashMap<&str, &Op> = HashMap::new();
    for op in ops {
        if let Some((_, value)) = op.writes() {
            let before = writes.insert(value, op);
            assert!(before.is_none(), "two writes of {value}: a broken test");
        }
    }
    let mut done: HashMap<&str, (usize, i64)> = HashMap::new();
    for (key, versions) in truth.keys.iter().enumerate() {
        for Version { revision, value } in versions {
            match writes.get(&value[..]) {
                Some(op) if op.writes().is_some_and(|(of, _)| of == key) => {
                    // A swap that was refused is a read.
                    if matches!(op.end, End::Failed | End::Saw { .. }) {
                        wrong.push(format!("failed and done at {revision}: {op:?}"));
                    }
                }
                _ => wrong.push(format!("nobody wrote {value} to {key}, at {revision}")),
            }
            if let Some((_, first)) = done.insert(value, (key, *revision)) {
                wrong.push(format!("{value} is written twice: {first}, {revision}"));
            }
        }
    }
    for op in ops {
        if op.header().is_some_and(|header| header > truth.through) {
            wrong.push(format!("lost: beyond {}: {op:?}", truth.through));
        } else if let (Some((key, value)), End::Wrote { header }) = (op.writes(), &op.end) {
            if done.get(value) != Some(&(key, *header)) {
                let is = done.get(value);
                wrong.push(format!("lost: acknowledged, and it is {is:?}: {op:?}"));
            }
            let before = truth.at(key, header - 1).map_or(0, |last| last.revision);
            if let What::Swap { from, .. } = op.what
                && from != before
            {
                wrong.push(format!("swapped what was {before}: {op:?}"));
            }
        } else if let End::Saw { header, .. } = op.end {
            wrong.extend(shown(op, header, truth, &writes));
        }
    }
    wrong
}

/// What is wrong with an answer's keys.
fn shown(op: &Op, header: i64, truth: &Truth, writes: &HashMap<&str, &Op>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, seen) in op.saw() {
        let is = truth.at(key, header);
        if seen.is_some_and(|seen| !writes.contains_key(&seen.value[..])) {
            wrong.push(format!("nobody wrote it: key {key} of {op:?}"));
        } else if seen != is {
            wrong.push(format!("key {key} was {is:?} then: {op:?}"));
        }
        if let What::Swap { from, .. } = op.what
            && seen.map_or(0, |seen| seen.revision) == from
        {
            wrong.push(format!("refused though nothing was written: {op:?}"));
        }
    }
    wrong
}

/// Holds the order of what was told against the clock. Whatever is asked after something has been told
/// is of no earlier revision, and a write of a later one: key by key, by the writes that were shown, and
/// for all keys together, by headers. Serializable reads are passed over.
pub(crate) fn order(ops: &[Op], truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut done: HashMap<&str, i64> = HashMap::new();
    for Version { revision, value } in truth.keys.iter().flatten() {
        done.insert(value, *revision);
    }
    let mut floors: [Floor<'_>; KEYS] = [Floor::default(); KEYS];
    let mut all = Floor::default();
    for (moment, op) in moments(ops) {
        match moment {
            Moment::Invoked => {
                // A write that nobody knows of was done after it was asked for, if it was done.
                let wrote = match op.end {
                    End::Wrote { header } => Some(header),
                    End::Unknown => op.writes().and_then(|(_, value)| done.get(value).copied()),
                    End::Failed | End::Saw { .. } => None,
                };
                if let (Some((key, _)), Some(revision)) = (op.writes(), wrote) {
                    wrong.extend(floors[key].below(revision - 1, op));
                    wrong.extend(all.below(revision - 1, op));
                }
                for (key, seen) in op.saw() {
                    wrong.extend(floors[key].below(seen.map_or(0, |seen| seen.revision), op));
                }
                if let End::Saw { header, .. } = op.end {
                    wrong.extend(all.below(header, op));
                }
            }
            Moment::Returned => {
                if let (Some((key, _)), End::Wrote { header }) = (op.writes(), &op.end) {
                    floors[key].raise(*header, op);
                }
                for (key, seen) in op.saw() {
                    floors[key].raise(seen.map_or(0, |seen| seen.revision), op);
                }
                if let Some(header) = op.header() {
                    all.raise(header, op);
                }
            }
        }
    }
    wrong
}

/// The highest revision that was told by now, and to whom.
#[derive(Clone, Copy, Default)]
struct Floor<'a> {
    revision: i64,
    told: Option<&'a Op>,
}

impl<'a> Floor<'a> {
    fn raise(&mut self, revision: i64, op: &'a Op) {
        if revision > self.revision {
            (self.revision, self.told) = (revision, Some(op));
        }
    }

    fn below(&self, revision: i64, op: &Op) -> Option<String> {
        let told = self.told.filter(|_| revision < self.revision)?;
        Some(format!("stale: {op:?}\n  is before {told:?}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    // At the same time both are under way.
    Invoked,
    Returned,
}

/// When each linearizable operation was asked for and told, in the order of time.
fn moments(ops: &[Op]) -> Vec<(Moment, &Op)> {
    let linear = ops.iter().filter(|op| {
        !matches!(
            op.what,
            What::Read {
                serializable: true,
                ..
            }
        )
    });
    let mut moments: Vec<_> = linear
        .flat_map(|op| {
            [
                (op.invoked, Moment::Invoked, op),
                (op.returned, Moment::Returned, op),
            ]
        })
        .collect();
    moments.sort_by_key(|(time, moment, _)| (*time, *moment));
    let moments = moments.into_iter();
    moments.map(|(_, moment, op)| (moment, op)).collect()
}
