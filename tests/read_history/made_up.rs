//! That the judges judge: histories made by hand, good and bad.

use std::time::Duration;

use crate::bounds;
use crate::checker;
use crate::history::{End, KEYS, Op, Truth, Version, Way, What};

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn version(revision: i64, value: &str) -> Version {
    Version {
        revision,
        value: value.to_owned(),
    }
}

/// Of key 0.
fn truth(versions: &[(i64, &str)]) -> Truth {
    let mut keys = vec![Vec::new(); KEYS];
    keys[0] = versions
        .iter()
        .map(|(at, value)| version(*at, value))
        .collect();
    Truth { keys, through: 100 }
}

fn op(what: What, (invoked, returned): (u64, u64), end: End) -> Op {
    Op {
        way: Way::Proxy(0),
        connection: 0,
        what,
        invoked: ms(invoked),
        returned: ms(returned),
        end,
    }
}

fn put(value: &str, times: (u64, u64), end: End) -> Op {
    let what = What::Put {
        key: 0,
        value: value.to_owned(),
    };
    op(what, times, end)
}

fn wrote(value: &str, times: (u64, u64), header: i64) -> Op {
    put(value, times, End::Wrote { header })
}

fn swap(value: &str, from: i64, times: (u64, u64), end: End) -> Op {
    let what = What::Swap {
        key: 0,
        value: value.to_owned(),
        from,
    };
    op(what, times, end)
}

fn saw(header: i64, seen: Option<Version>) -> End {
    End::Saw {
        header,
        seen: vec![seen],
    }
}

fn read_by(serializable: bool, times: (u64, u64), end: End) -> Op {
    let what = What::Read {
        keys: 0..1,
        serializable,
    };
    op(what, times, end)
}

fn read(times: (u64, u64), header: i64, seen: Option<Version>) -> Op {
    read_by(false, times, saw(header, seen))
}

/// What the checker says.
fn findings(ops: &[Op], truth: &Truth) -> Vec<String> {
    let mut wrong = checker::content(ops, truth);
    wrong.extend(checker::order(ops, truth));
    wrong
}

#[track_caller]
fn refused(ops: &[Op], truth: &Truth, why: &str) {
    let wrong = findings(ops, truth);
    assert!(wrong.iter().any(|each| each.starts_with(why)), "{wrong:#?}");
}

#[track_caller]
fn accepted(ops: &[Op], truth: &Truth) {
    assert_eq!(findings(ops, truth), [] as [&str; 0]);
}

#[test]
fn good_histories_are_accepted() {
    let two = truth(&[(2, "a"), (5, "b")]);
    accepted(
        &[
            read((0, 1), 1, None),
            wrote("a", (2, 6), 2),
            // Beside the write it may be seen before it is acknowledged, or not yet.
            read((3, 4), 3, Some(version(2, "a"))),
            wrote("b", (7, 10), 5),
            read((8, 9), 4, Some(version(2, "a"))),
            read((11, 12), 9, Some(version(5, "b"))),
        ],
        &two,
    );
    // Two reads that overlap may come in either order.
    accepted(
        &[
            wrote("a", (0, 1), 2),
            wrote("b", (2, 20), 5),
            read((3, 10), 5, Some(version(5, "b"))),
            read((4, 11), 4, Some(version(2, "a"))),
        ],
        &two,
    );
    // A write of unknown outcome is done long after its client gave up, or never.
    accepted(
        &[
            put("a", (0, 1), End::Unknown),
            put("never", (0, 1), End::Unknown),
            read((2, 3), 1, None),
            read((10, 11), 2, Some(version(2, "a"))),
        ],
        &truth(&[(2, "a")]),
    );
    // One that failed is not there; swaps.
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
fn a_stale_read_is_refused() {
    let two = truth(&[(2, "a"), (5, "b")]);
    let writes = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5)];
    let with = |read: Op| [writes.to_vec(), vec![read]].concat();
    refused(&with(read((4, 5), 4, Some(version(2, "a")))), &two, "stale");
    refused(&with(read((4, 5), 1, None)), &two, "stale");
    // An old answer with a new header.
    refused(
        &with(read((4, 5), 5, Some(version(2, "a")))),
        &two,
        "key 0 was",
    );
    refused(&with(read((4, 5), 5, None)), &two, "key 0 was");
    // What it says of its keys is right, but not now.
    let more = [writes.to_vec(), vec![wrote("c", (4, 5), 9)]].concat();
    let all = truth(&[(2, "a"), (5, "b"), (9, "c")]);
    let late = read((6, 7), 8, Some(version(5, "b")));
    refused(&[more, vec![late]].concat(), &all, "stale");
}

#[test]
fn a_read_that_goes_back_between_clients_is_refused() {
    let two = truth(&[(2, "a"), (5, "b")]);
    let ops = [
        wrote("a", (0, 1), 2),
        // Not acknowledged yet: only the reads contradict one another.
        wrote("b", (2, 20), 5),
        read((3, 4), 5, Some(version(5, "b"))),
        read((5, 6), 4, Some(version(2, "a"))),
    ];
    refused(&ops, &two, "stale");
    // The same of a write that nobody knows of.
    let ops = [
        wrote("a", (0, 1), 2),
        put("b", (2, 3), End::Unknown),
        read((4, 5), 5, Some(version(5, "b"))),
        read((6, 7), 4, Some(version(2, "a"))),
    ];
    refused(&ops, &two, "stale");
}

#[test]
fn a_lost_write_is_refused() {
    let ops = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5)];
    refused(&ops, &truth(&[(2, "a")]), "lost");
    refused(&ops, &truth(&[(2, "a"), (6, "b")]), "lost");
    let mut short = truth(&[(2, "a"), (5, "b")]);
    short.through = 4;
    refused(&ops, &short, "lost");
}

#[test]
fn a_value_from_nowhere_is_refused() {
    let one = truth(&[(2, "a")]);
    let nowhere = read((2, 3), 3, Some(version(3, "x")));
    refused(&[wrote("a", (0, 1), 2), nowhere], &one, "nobody wrote it");
    refused(&[], &one, "nobody wrote a");
    // Right of another key.
    let mut other = truth(&[]);
    other.keys[1].push(version(2, "a"));
    refused(&[wrote("a", (0, 1), 2)], &other, "nobody wrote a");
    // It failed, and was done.
    refused(&[put("a", (0, 1), End::Failed)], &one, "failed and done");
    // It is seen before anybody asked for it.
    let early = read((0, 1), 2, Some(version(2, "a")));
    refused(&[early.clone(), wrote("a", (2, 3), 2)], &one, "stale");
    refused(&[early, put("a", (2, 3), End::Unknown)], &one, "stale");
}

#[test]
fn a_write_that_is_done_twice_or_out_of_order_is_refused() {
    let twice = truth(&[(2, "a"), (5, "a")]);
    refused(&[wrote("a", (0, 1), 2)], &twice, "a is written twice");
    refused(
        &[put("a", (0, 1), End::Unknown)],
        &twice,
        "a is written twice",
    );
    let turned = [wrote("b", (0, 1), 5), wrote("a", (2, 3), 2)];
    refused(&turned, &truth(&[(2, "a"), (5, "b")]), "stale");
}

#[test]
fn a_swap_of_what_was_not_so_is_refused() {
    let two = truth(&[(2, "a"), (5, "b")]);
    let bad = swap("b", 0, (2, 3), End::Wrote { header: 5 });
    refused(&[wrote("a", (0, 1), 2), bad], &two, "swapped what was 2");
    let bad = swap("x", 5, (6, 7), saw(5, Some(version(5, "b"))));
    let writes = [wrote("a", (0, 1), 2), wrote("b", (2, 3), 5), bad];
    refused(&writes, &two, "refused though nothing");
    // It was refused and done.
    let bad = swap("b", 1, (2, 3), saw(4, Some(version(2, "a"))));
    refused(&[wrote("a", (0, 1), 2), bad], &two, "failed and done");
}

#[test]
fn serializable_reads_older_than_they_may_be_are_refused() {
    let two = truth(&[(2, "a"), (5, "b")]);
    let stale = |invoked| read_by(true, (invoked, 9_000), saw(4, Some(version(2, "a"))));
    let way = Way::Proxy(0);
    // By what was written on the same way; another way's writes do not count.
    let mut ops = vec![wrote("b", (0, 10), 5), stale(10)];
    assert!(bounds::written(&ops, way).is_empty());
    ops[1] = stale(11);
    assert_eq!(bounds::written(&ops, way).len(), 1);
    ops[0].way = Way::Direct;
    assert!(bounds::written(&ops, way).is_empty());
    // By its header, though the key is right.
    let header = read_by(true, (20, 21), saw(4, Some(version(5, "b"))));
    let ops = [wrote("b", (0, 10), 5), header];
    assert_eq!(bounds::written(&ops, way).len(), 1);
    // By the clock, from when the endpoint itself was seen to have it.
    let mut seen = read_by(true, (0, 1_000), saw(7, Some(version(5, "b"))));
    seen.way = Way::Observer;
    for (invoked, findings, age) in [(500, 0, 0), (1_300, 0, 300), (1_301, 1, 301)] {
        let ops = [stale(invoked), seen.clone()];
        let (wrong, oldest) = bounds::aged(&ops, &two, way, ms(300));
        assert_eq!((wrong.len(), oldest), (findings, ms(age)));
    }
    let (wrong, _) = bounds::aged(&[stale(9_000)], &two, way, ms(300));
    assert!(wrong.is_empty(), "nobody knows that the endpoint has it");
}

#[test]
fn a_connection_that_goes_back_is_refused() {
    let at = |connection, invoked, header| Op {
        connection,
        ..read_by(true, (invoked, invoked + 1), saw(header, None))
    };
    let way = Way::Proxy(0);
    let good = [at(1, 0, 5), at(2, 2, 4), at(1, 4, 5), at(2, 6, 6)];
    assert!(bounds::back(&good, way).is_empty());
    let bad = [at(1, 0, 5), at(2, 2, 4), at(1, 4, 4)];
    assert_eq!(bounds::back(&bad, way).len(), 1);
    let write = [
        Op {
            connection: 1,
            ..wrote("a", (0, 1), 9)
        },
        at(1, 2, 8),
    ];
    assert_eq!(bounds::back(&write, way).len(), 1);
}
