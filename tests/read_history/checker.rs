//! Checks that a history matches etcd's own and that it is linearizable.
//!
//! etcd numbers every write. A response contains the number of the write that it shows
//! (`mod_revision`) and the revision at which it is true (the header's revision). So the order of
//! all operations is known, and no search is needed: a history is linearizable if its order never
//! contradicts the clock.

use std::collections::HashMap;

use crate::history::{End, KEYS, Op, OpKind, StoreHistory, Version};

/// Compares the results with the store's history. Every write was applied once, an acknowledged one
/// at its revision, a failed one never. A response shows its keys as they were at the revision of
/// its header.
pub(crate) fn check_content(ops: &[Op], history: &StoreHistory) -> Vec<String> {
    let mut violations = Vec::new();
    let mut writes: HashMap<&str, &Op> = HashMap::new();
    for op in ops {
        if let Some((_, value)) = op.writes() {
            let before = writes.insert(value, op);
            assert!(before.is_none(), "two writes of {value}: a bug of the test");
        }
    }
    let mut applied: HashMap<&str, (usize, i64)> = HashMap::new();
    for (key, versions) in history.keys.iter().enumerate() {
        for Version { revision, value } in versions {
            match writes.get(&value[..]) {
                Some(op) if op.writes().is_some_and(|(of, _)| of == key) => {
                    // A refused swap is a read.
                    if matches!(op.end, End::Failed | End::Saw { .. }) {
                        violations.push(format!("failed and applied at {revision}: {op:?}"));
                    }
                }
                _ => violations.push(format!("no client wrote {value} to {key}, at {revision}")),
            }
            if let Some((_, first)) = applied.insert(value, (key, *revision)) {
                violations.push(format!("{value} is written twice: {first}, {revision}"));
            }
        }
    }
    for op in ops {
        if op.header().is_some_and(|header| header > history.through) {
            violations.push(format!("lost: beyond {}: {op:?}", history.through));
        } else if let (Some((key, value)), End::Wrote { header }) = (op.writes(), &op.end) {
            if applied.get(value) != Some(&(key, *header)) {
                let is = applied.get(value);
                violations.push(format!("lost: acknowledged, but applied as {is:?}: {op:?}"));
            }
            let before = history.at(key, header - 1).map_or(0, |last| last.revision);
            if let OpKind::Swap { from, .. } = op.kind
                && from != before
            {
                violations.push(format!("swapped, but the version was {before}: {op:?}"));
            }
        } else if let End::Saw { header, .. } = op.end {
            violations.extend(check_read(op, header, history, &writes));
        }
    }
    violations
}

/// Returns the violations in the keys of a response.
fn check_read(
    op: &Op,
    header: i64,
    history: &StoreHistory,
    writes: &HashMap<&str, &Op>,
) -> Vec<String> {
    let mut violations = Vec::new();
    for (key, seen) in op.saw() {
        let is = history.at(key, header);
        if seen.is_some_and(|seen| !writes.contains_key(&seen.value[..])) {
            violations.push(format!("no client wrote it: key {key} of {op:?}"));
        } else if seen != is {
            violations.push(format!("key {key} was {is:?} then: {op:?}"));
        }
        if let OpKind::Swap { from, .. } = op.kind
            && seen.map_or(0, |seen| seen.revision) == from
        {
            violations.push(format!("refused without a write in between: {op:?}"));
        }
    }
    violations
}

/// Compares the order of the results with the clock. An operation sent after another one returned
/// has no earlier revision, and a write has a later one. This is checked for each key, by the
/// writes shown, and for all keys together, by headers. Serializable reads are skipped.
pub(crate) fn check_order(ops: &[Op], history: &StoreHistory) -> Vec<String> {
    let mut violations = Vec::new();
    let mut applied: HashMap<&str, i64> = HashMap::new();
    for Version { revision, value } in history.keys.iter().flatten() {
        applied.insert(value, *revision);
    }
    let mut floors: [Floor<'_>; KEYS] = [Floor::default(); KEYS];
    let mut all = Floor::default();
    for (moment, op) in moments(ops) {
        match moment {
            Moment::Invoked => {
                // A write with an unknown outcome, if it was applied, was applied after it was
                // sent.
                let wrote = match op.end {
                    End::Wrote { header } => Some(header),
                    End::Unknown => op
                        .writes()
                        .and_then(|(_, value)| applied.get(value).copied()),
                    End::Failed | End::Saw { .. } => None,
                };
                if let (Some((key, _)), Some(revision)) = (op.writes(), wrote) {
                    violations.extend(floors[key].check(revision - 1, op));
                    violations.extend(all.check(revision - 1, op));
                }
                for (key, seen) in op.saw() {
                    violations.extend(floors[key].check(seen.map_or(0, |seen| seen.revision), op));
                }
                if let End::Saw { header, .. } = op.end {
                    violations.extend(all.check(header, op));
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
    violations
}

/// The highest revision returned so far, and the operation that returned it.
#[derive(Clone, Copy, Default)]
struct Floor<'a> {
    revision: i64,
    op: Option<&'a Op>,
}

impl<'a> Floor<'a> {
    fn raise(&mut self, revision: i64, op: &'a Op) {
        if revision > self.revision {
            (self.revision, self.op) = (revision, Some(op));
        }
    }

    fn check(&self, revision: i64, op: &Op) -> Option<String> {
        let earlier = self.op.filter(|_| revision < self.revision)?;
        Some(format!("stale: {op:?}\n  is older than {earlier:?}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    // At equal times, both operations overlap.
    Invoked,
    Returned,
}

/// Returns the start and the end of each linearizable operation, in order of time.
fn moments(ops: &[Op]) -> Vec<(Moment, &Op)> {
    let linear = ops.iter().filter(|op| {
        !matches!(
            op.kind,
            OpKind::Read {
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
