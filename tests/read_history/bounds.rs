//! Judges serializable reads through a proxy that has one endpoint: how old they are, by what was
//! written through it, by the clock, and by what their connection has been shown.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{End, KEYS, Op, Truth, Way, What};

/// No answer is older than a write through the same proxy that was acknowledged before it was asked for:
/// neither by its header nor by the key that was written.
pub(crate) fn written(ops: &[Op], way: Way) -> Vec<String> {
    let ours = || ops.iter().filter(|op| op.way == way);
    let mut writes: Vec<(Duration, usize, i64)> = ours()
        .filter_map(|op| match (op.writes(), &op.end) {
            (Some((key, _)), End::Wrote { header }) => Some((op.returned, key, *header)),
            _ => None,
        })
        .collect();
    writes.sort_unstable();
    let mut reads: Vec<&Op> = ours().filter(|op| op.saw().next().is_some()).collect();
    reads.sort_by_key(|op| op.invoked);
    let mut wrong = Vec::new();
    let mut writes = writes.into_iter().peekable();
    let mut floors = [0; KEYS];
    for op in reads {
        while let Some((_, key, revision)) = writes.next_if(|(told, ..)| *told < op.invoked) {
            floors[key] = revision.max(floors[key]);
        }
        let header = op.header().unwrap_or_default();
        for (key, seen) in op.saw() {
            let (seen, floor) = (seen.map_or(0, |seen| seen.revision), floors[key]);
            if seen < floor || header < floor {
                wrong.push(format!("older than {floor}, of key {key}: {op:?}"));
            }
        }
    }
    wrong
}

/// How old answers are: for how long the endpoint itself had shown more of a key when it was asked for.
/// Those that are older than they may be, and the age of the oldest.
///
/// That needs no allowance: whatever the observer was told by the endpoint, the proxy would have been
/// told had it asked then, and an answer counts from before it is asked for.
pub(crate) fn aged(
    ops: &[Op],
    truth: &Truth,
    way: Way,
    max_age: Duration,
) -> (Vec<String>, Duration) {
    // When the observer had been told how much, each time it was more.
    let mut shown: Vec<(Duration, i64)> = ops
        .iter()
        .filter(|op| op.way == Way::Observer)
        .filter_map(|op| Some((op.returned, op.header()?)))
        .collect();
    shown.sort_unstable();
    let mut most = 0;
    shown.retain(|(_, revision)| {
        let more = *revision > most;
        most = most.max(*revision);
        more
    });
    let (mut wrong, mut oldest) = (Vec::new(), Duration::ZERO);
    for op in ops.iter().filter(|op| op.way == way) {
        for (key, seen) in op.saw() {
            let Some(next) = truth.after(key, seen.map_or(0, |seen| seen.revision)) else {
                continue;
            };
            let at = shown.partition_point(|(_, revision)| *revision < next.revision);
            let Some((since, _)) = shown.get(at) else {
                continue;
            };
            let age = op.invoked.saturating_sub(*since);
            oldest = oldest.max(age);
            if age > max_age {
                wrong.push(format!("{age:?} old, since {next:?} of key {key}: {op:?}"));
            }
        }
    }
    (wrong, oldest)
}

/// Nothing that one connection is told is of an earlier revision than what it was told before.
pub(crate) fn back(ops: &[Op], way: Way) -> Vec<String> {
    let mut ours: Vec<&Op> = ops.iter().filter(|op| op.way == way).collect();
    ours.sort_by_key(|op| op.invoked);
    let mut last: HashMap<u64, &Op> = HashMap::new();
    let mut wrong = Vec::new();
    for op in ours {
        let Some(header) = op.header() else {
            continue;
        };
        let before = last.insert(op.connection, op);
        if let Some(before) = before.filter(|before| before.header() > Some(header)) {
            wrong.push(format!("back: {op:?}\n  came after {before:?}"));
        }
    }
    wrong
}

/// How many serializable reads were answered on this way.
pub(crate) fn reads(ops: &[Op], way: Way) -> usize {
    let read = |op: &&Op| {
        let serializable = matches!(
            op.what,
            What::Read {
                serializable: true,
                ..
            }
        );
        op.way == way && serializable && op.header().is_some()
    };
    ops.iter().filter(read).count()
}
