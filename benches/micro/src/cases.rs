//! What is counted: every case with its name, its operation and its tolerance.

use crate::{relay, wire};

/// One thing that is counted.
pub(crate) struct Case {
    /// As in the figures.
    pub(crate) name: &'static str,
    /// What one operation is.
    pub(crate) what: &'static str,
    /// Does this many rounds.
    pub(crate) run: fn(u64),
    /// Rounds of the shorter and of the longer run. Their difference is counted, so that starting
    /// and warming up are not.
    pub(crate) rounds: (u64, u64),
    /// Operations in a round.
    pub(crate) per_round: u64,
    /// Whose instructions count.
    pub(crate) threads: Threads,
    /// How far a count may be from the committed one before it is told, in parts of it.
    pub(crate) tolerance: f64,
}

/// Whose instructions count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The main thread's, which does the operation.
    Main,
    /// All but the main thread's, which plays the client and etcd: those of the proxy.
    Others,
}

const fn pure(name: &'static str, what: &'static str, run: fn(u64)) -> Case {
    Case {
        name,
        what,
        run,
        rounds: (1_000, 6_000),
        per_round: 1,
        threads: Threads::Main,
        tolerance: 0.02,
    }
}

const fn relayed(
    name: &'static str,
    what: &'static str,
    run: fn(u64),
    rounds: (u64, u64),
    per_round: u64,
) -> Case {
    Case {
        name,
        what,
        run,
        rounds,
        per_round,
        threads: Threads::Others,
        // When a thread wakes is not quite the same each time.
        tolerance: 0.03,
    }
}

/// Calls in one round of the busy case.
pub(crate) const IN_FLIGHT: u64 = 64;

/// In the order of the path, bytes first.
pub(crate) const ALL: &[Case] = &[
    pure(
        "frame-reader",
        "a message of 100 B within one chunk",
        wire::frame_reader,
    ),
    pure(
        "frame-reader-pieces",
        "a message of 64 KiB in chunks of 16 KiB",
        wire::frame_reader_pieces,
    ),
    pure(
        "frame-scanner",
        "a message of 100 B followed, not kept",
        wire::frame_scanner,
    ),
    pure(
        "frame-encode",
        "a payload of 100 B framed",
        wire::frame_encode,
    ),
    pure(
        "frame-encode-message",
        "a put of 100 B encoded and framed",
        wire::frame_encode_message,
    ),
    pure(
        "percent-plain",
        "a grpc-message of 44 B that needs no coding, both ways",
        wire::percent_plain,
    ),
    pure(
        "percent-coded",
        "a grpc-message of 44 B with eight bytes to code, both ways",
        wire::percent_coded,
    ),
    pure(
        "timeout-parse",
        "grpc-timeout as the Go client sends it",
        wire::timeout_parse,
    ),
    pure(
        "timeout-format",
        "grpc-timeout as it goes to etcd",
        wire::timeout_format,
    ),
    pure(
        "walk-range",
        "the fields of a Range request",
        wire::walk_range,
    ),
    pure(
        "walk-txn",
        "the fields of a Txn of two compares, a put and two ranges, down to their keys",
        wire::walk_txn,
    ),
    pure(
        "walk-watch",
        "a watch response of 100 events, down to their keys",
        wire::walk_watch,
    ),
    pure(
        "namespace-put",
        "a put of 100 B, put under a prefix",
        wire::namespace_put,
    ),
    pure(
        "namespace-range",
        "an answer with a key and 64 B, taken out of it",
        wire::namespace_range,
    ),
    pure(
        "method-first",
        "the most frequent method looked up",
        wire::method_first,
    ),
    pure(
        "method-last",
        "the last method of the table looked up",
        wire::method_last,
    ),
    pure(
        "method-unknown",
        "a method that is not known looked up",
        wire::method_unknown,
    ),
    pure(
        "request-head",
        "a Go client's request head made into the one for etcd, and dropped",
        wire::request_head,
    ),
    relayed(
        "relayed-read",
        "a Range with a deadline, one at a time",
        relay::read,
        (200, 1_200),
        1,
    ),
    relayed(
        "relayed-put",
        "a Put with a deadline, one at a time",
        relay::put,
        (200, 1_200),
        1,
    ),
    relayed(
        "relayed-read-64",
        "a Range with a deadline, 64 of as many keys in flight on one connection",
        relay::read_in_flight,
        (5, 35),
        IN_FLIGHT,
    ),
    relayed(
        "shared-read-64",
        "the same of one key: two of them reach etcd",
        relay::shared,
        (5, 35),
        IN_FLIGHT,
    ),
    relayed(
        "kept-read-64",
        "the same, serializable: none reaches etcd",
        relay::kept,
        (5, 35),
        IN_FLIGHT,
    ),
];
