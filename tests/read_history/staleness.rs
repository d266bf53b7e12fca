//! Checks of serializable reads through a proxy with one endpoint. The age of a response is
//! measured by writes through the proxy, by the clock, and by earlier responses on the same
//! connection.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{End, KEYS, Op, OpKind, Route, StoreHistory};

/// Returns the reads that are older than a write through the same proxy, acknowledged before the
/// read was sent. Both the header and the written key count.
pub(crate) fn older_than_write(ops: &[Op], route: Route) -> Vec<String> {
    let ours = || ops.iter().filter(|op| op.route == route);
    let mut writes: Vec<(Duration, usize, i64)> = ours()
        .filter_map(|op| match (op.writes(), &op.end) {
            (Some((key, _)), End::Wrote { header }) => Some((op.returned, key, *header)),
            _ => None,
        })
        .collect();
    writes.sort_unstable();
    let mut reads: Vec<&Op> = ours().filter(|op| op.saw().next().is_some()).collect();
    reads.sort_by_key(|op| op.invoked);
    let mut violations = Vec::new();
    let mut writes = writes.into_iter().peekable();
    let mut floors = [0; KEYS];
    for op in reads {
        while let Some((_, key, revision)) = writes.next_if(|(returned, ..)| *returned < op.invoked)
        {
            floors[key] = revision.max(floors[key]);
        }
        let header = op.header().unwrap_or_default();
        for (key, seen) in op.saw() {
            let (seen, floor) = (seen.map_or(0, |seen| seen.revision), floors[key]);
            if seen < floor || header < floor {
                violations.push(format!("older than {floor}, of key {key}: {op:?}"));
            }
        }
    }
    violations
}

/// Measures the age of responses: the time since the endpoint itself returned a newer version of
/// the key, up to the sending of the read. Returns the reads beyond the limit, and the age of the
/// oldest read.
///
/// No allowance is needed. The endpoint would have returned the observer's version to the proxy at
/// the same time, and the age of a response counts from the sending of its request.
pub(crate) fn older_than_limit(
    ops: &[Op],
    history: &StoreHistory,
    route: Route,
    max_age: Duration,
) -> (Vec<String>, Duration) {
    // Times at which the observer received a higher revision than before.
    let mut shown: Vec<(Duration, i64)> = ops
        .iter()
        .filter(|op| op.route == Route::Observer)
        .filter_map(|op| Some((op.returned, op.header()?)))
        .collect();
    shown.sort_unstable();
    let mut most = 0;
    shown.retain(|(_, revision)| {
        let more = *revision > most;
        most = most.max(*revision);
        more
    });
    let (mut violations, mut oldest) = (Vec::new(), Duration::ZERO);
    for op in ops.iter().filter(|op| op.route == route) {
        for (key, seen) in op.saw() {
            let Some(next) = history.after(key, seen.map_or(0, |seen| seen.revision)) else {
                continue;
            };
            let at = shown.partition_point(|(_, revision)| *revision < next.revision);
            let Some((since, _)) = shown.get(at) else {
                continue;
            };
            let age = op.invoked.saturating_sub(*since);
            oldest = oldest.max(age);
            if age > max_age {
                violations.push(format!("{age:?} old, since {next:?} of key {key}: {op:?}"));
            }
        }
    }
    (violations, oldest)
}

/// Returns the responses with an earlier revision than the previous response on the same
/// connection.
pub(crate) fn back_in_time(ops: &[Op], route: Route) -> Vec<String> {
    let mut ours: Vec<&Op> = ops.iter().filter(|op| op.route == route).collect();
    ours.sort_by_key(|op| op.invoked);
    let mut last: HashMap<u64, &Op> = HashMap::new();
    let mut violations = Vec::new();
    for op in ours {
        let Some(header) = op.header() else {
            continue;
        };
        let before = last.insert(op.connection, op);
        if let Some(before) = before.filter(|before| before.header() > Some(header)) {
            violations.push(format!("back: {op:?}\n  came after {before:?}"));
        }
    }
    violations
}

/// Returns the number of serializable reads with a response on a route.
pub(crate) fn reads(ops: &[Op], route: Route) -> usize {
    let read = |op: &&Op| {
        let serializable = matches!(
            op.kind,
            OpKind::Read {
                serializable: true,
                ..
            }
        );
        op.route == route && serializable && op.header().is_some()
    };
    ops.iter().filter(read).count()
}
