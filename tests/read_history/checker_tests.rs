//! Tests of the checks themselves, with valid and invalid histories.

use std::time::Duration;

use crate::checker;
use crate::history::{End, KEYS, Op, OpKind, Route, StoreHistory, Version};
use crate::staleness;

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn version(revision: i64, value: &str) -> Version {
    Version {
        revision,
        value: value.to_owned(),
    }
}

/// Returns a history of key 0.
fn history(versions: &[(i64, &str)]) -> StoreHistory {
    let mut keys = vec![Vec::new(); KEYS];
    keys[0] = versions
        .iter()
        .map(|(at, value)| version(*at, value))
        .collect();
    StoreHistory { keys, through: 100 }
}

fn op(kind: OpKind, (invoked, returned): (u64, u64), end: End) -> Op {
    Op {
        route: Route::Proxy(0),
        connection: 0,
        kind,
        invoked: ms(invoked),
        returned: ms(returned),
        end,
    }
}

fn put(value: &str, times: (u64, u64), end: End) -> Op {
    let kind = OpKind::Put {
        key: 0,
        value: value.to_owned(),
    };
    op(kind, times, end)
}

fn wrote(value: &str, times: (u64, u64), header: i64) -> Op {
    put(value, times, End::Wrote { header })
}

fn swap(value: &str, from: i64, times: (u64, u64), end: End) -> Op {
    let kind = OpKind::Swap {
        key: 0,
        value: value.to_owned(),
        from,
    };
    op(kind, times, end)
}

fn saw(header: i64, seen: Option<Version>) -> End {
    End::Saw {
        header,
        seen: vec![seen],
    }
}

fn read_by(serializable: bool, times: (u64, u64), end: End) -> Op {
    let kind = OpKind::Read {
        keys: 0..1,
        serializable,
    };
    op(kind, times, end)
}

fn read(times: (u64, u64), header: i64, seen: Option<Version>) -> Op {
    read_by(false, times, saw(header, seen))
}

/// Returns the violations that the checks find.
fn findings(ops: &[Op], history: &StoreHistory) -> Vec<String> {
    let mut violations = checker::check_content(ops, history);
    violations.extend(checker::check_order(ops, history));
    violations
}

#[track_caller]
fn rejected(ops: &[Op], history: &StoreHistory, reason: &str) {
    let violations = findings(ops, history);
    assert!(
        violations.iter().any(|each| each.starts_with(reason)),
        "{violations:#?}"
    );
}

#[track_caller]
fn accepted(ops: &[Op], history: &StoreHistory) {
    assert_eq!(findings(ops, history), [] as [&str; 0]);
}

#[test]
fn valid_histories_are_accepted() {
    let two = history(&[(2, "a"), (5, "b")]);
    accepted(
        &[
            read((0, 1), 1, None),
            wrote("a", (2, 6), 2),
            // A read that overlaps the write may return it before it is acknowledged, or not yet.
            read((3, 4), 3, Some(version(2, "a"))),
            wrote("b", (7, 10), 5),
            read((8, 9), 4, Some(version(2, "a"))),
            read((11, 12), 9, Some(version(5, "b"))),
        ],
        &two,
    );
    // Two overlapping reads may return in either order.
    accepted(
        &[
            wrote("a", (0, 1), 2),
            wrote("b", (2, 20), 5),
            read((3, 10), 5, Some(version(5, "b"))),
            read((4, 11), 4, Some(version(2, "a"))),
        ],
        &two,
    );
    // A write of unknown outcome is applied long after its client gave up, or never.
    accepted(
        &[
            put("a", (0, 1), End::Unknown),
            put("never", (0, 1), End::Unknown),
            read((2, 3), 1, None),
            read((10, 11), 2, Some(version(2, "a"))),
        ],
        &history(&[(2, "a")]),
    );
    // A failed write is not applied. Swaps are accepted.
    accepted(
        &[
            put("failed", (0, 1), End::Failed),
            swap("a", 0, (2, 3), End::Wrote { header: 2 }),
            swap("x", 0, (4, 5), saw(4, Some(version(2, "a")))),
            swap("b", 2, (6, 7), End::Wrote { header: 5 }),
        ],
        &two,
    );
}

#[test]
fn stale_read_is_rejected() {
    let two = history(&[(2, "a"), (5, "b")]);
    let writes = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5)];
    let with = |read: Op| [writes.to_vec(), vec![read]].concat();
    rejected(&with(read((4, 5), 4, Some(version(2, "a")))), &two, "stale");
    rejected(&with(read((4, 5), 1, None)), &two, "stale");
    // An old version with a new header.
    rejected(
        &with(read((4, 5), 5, Some(version(2, "a")))),
        &two,
        "key 0 was",
    );
    rejected(&with(read((4, 5), 5, None)), &two, "key 0 was");
    // The keys match the header, but the header is too old.
    let more = [writes.to_vec(), vec![wrote("c", (4, 5), 9)]].concat();
    let all = history(&[(2, "a"), (5, "b"), (9, "c")]);
    let late = read((6, 7), 8, Some(version(5, "b")));
    rejected(&[more, vec![late]].concat(), &all, "stale");
}

#[test]
fn read_older_than_one_of_another_client_is_rejected() {
    let two = history(&[(2, "a"), (5, "b")]);
    let ops = [
        wrote("a", (0, 1), 2),
        // The write is not acknowledged yet: only the reads contradict each other.
        wrote("b", (2, 20), 5),
        read((3, 4), 5, Some(version(5, "b"))),
        read((5, 6), 4, Some(version(2, "a"))),
    ];
    rejected(&ops, &two, "stale");
    // The same with a write of unknown outcome.
    let ops = [
        wrote("a", (0, 1), 2),
        put("b", (2, 3), End::Unknown),
        read((4, 5), 5, Some(version(5, "b"))),
        read((6, 7), 4, Some(version(2, "a"))),
    ];
    rejected(&ops, &two, "stale");
}

#[test]
fn lost_write_is_rejected() {
    let ops = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5)];
    rejected(&ops, &history(&[(2, "a")]), "lost");
    rejected(&ops, &history(&[(2, "a"), (6, "b")]), "lost");
    let mut short = history(&[(2, "a"), (5, "b")]);
    short.through = 4;
    rejected(&ops, &short, "lost");
}

#[test]
fn value_that_was_never_written_is_rejected() {
    let one = history(&[(2, "a")]);
    let unknown = read((2, 3), 3, Some(version(3, "x")));
    rejected(
        &[wrote("a", (0, 1), 2), unknown],
        &one,
        "no client wrote it",
    );
    rejected(&[], &one, "no client wrote a");
    // The value belongs to another key.
    let mut other = history(&[]);
    other.keys[1].push(version(2, "a"));
    rejected(&[wrote("a", (0, 1), 2)], &other, "no client wrote a");
    // The write failed and was applied.
    rejected(&[put("a", (0, 1), End::Failed)], &one, "failed and applied");
    // The value is read before its write was sent.
    let early = read((0, 1), 2, Some(version(2, "a")));
    rejected(&[early.clone(), wrote("a", (2, 3), 2)], &one, "stale");
    rejected(&[early, put("a", (2, 3), End::Unknown)], &one, "stale");
}

#[test]
fn write_applied_twice_or_out_of_order_is_rejected() {
    let twice = history(&[(2, "a"), (5, "a")]);
    rejected(&[wrote("a", (0, 1), 2)], &twice, "a is written twice");
    rejected(
        &[put("a", (0, 1), End::Unknown)],
        &twice,
        "a is written twice",
    );
    let reversed = [wrote("b", (0, 1), 5), wrote("a", (2, 3), 2)];
    rejected(&reversed, &history(&[(2, "a"), (5, "b")]), "stale");
}

#[test]
fn swap_with_a_wrong_comparison_is_rejected() {
    let two = history(&[(2, "a"), (5, "b")]);
    let bad = swap("b", 0, (2, 3), End::Wrote { header: 5 });
    rejected(
        &[wrote("a", (0, 1), 2), bad],
        &two,
        "swapped, but the version was 2",
    );
    let bad = swap("x", 5, (6, 7), saw(5, Some(version(5, "b"))));
    let writes = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5), bad];
    rejected(&writes, &two, "refused without a write");
    // The swap was refused and applied.
    let bad = swap("b", 1, (2, 3), saw(4, Some(version(2, "a"))));
    rejected(&[wrote("a", (0, 1), 2), bad], &two, "failed and applied");
}

#[test]
fn serializable_read_beyond_its_bounds_is_rejected() {
    let two = history(&[(2, "a"), (5, "b")]);
    let stale = |invoked| read_by(true, (invoked, 9_000), saw(4, Some(version(2, "a"))));
    let route = Route::Proxy(0);
    // By a write on the same route. Writes on other routes do not count.
    let mut ops = vec![wrote("b", (0, 10), 5), stale(10)];
    assert!(staleness::older_than_write(&ops, route).is_empty());
    ops[1] = stale(11);
    assert_eq!(staleness::older_than_write(&ops, route).len(), 1);
    ops[0].route = Route::Direct;
    assert!(staleness::older_than_write(&ops, route).is_empty());
    // By its header, although the key is current.
    let header = read_by(true, (20, 21), saw(4, Some(version(5, "b"))));
    let ops = [wrote("b", (0, 10), 5), header];
    assert_eq!(staleness::older_than_write(&ops, route).len(), 1);
    // By the clock, from the time at which the endpoint itself returned the newer version.
    let mut seen = read_by(true, (0, 1_000), saw(7, Some(version(5, "b"))));
    seen.route = Route::Observer;
    for (invoked, findings, age) in [(500, 0, 0), (1_300, 0, 300), (1_301, 1, 301)] {
        let ops = [stale(invoked), seen.clone()];
        let (violations, oldest) = staleness::older_than_limit(&ops, &two, route, ms(300));
        assert_eq!((violations.len(), oldest), (findings, ms(age)));
    }
    let (violations, _) = staleness::older_than_limit(&[stale(9_000)], &two, route, ms(300));
    assert!(
        violations.is_empty(),
        "the observer has not seen the newer version"
    );
}

#[test]
fn connection_that_goes_back_in_time_is_rejected() {
    let at = |connection, invoked, header| Op {
        connection,
        ..read_by(true, (invoked, invoked + 1), saw(header, None))
    };
    let route = Route::Proxy(0);
    let good = [at(1, 0, 5), at(2, 2, 4), at(1, 4, 5), at(2, 6, 6)];
    assert!(staleness::back_in_time(&good, route).is_empty());
    let bad = [at(1, 0, 5), at(2, 2, 4), at(1, 4, 4)];
    assert_eq!(staleness::back_in_time(&bad, route).len(), 1);
    let write = [
        Op {
            connection: 1,
            ..wrote("a", (0, 1), 9)
        },
        at(1, 2, 8),
    ];
    assert_eq!(staleness::back_in_time(&write, route).len(), 1);
}
