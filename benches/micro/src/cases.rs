//! The cases, each with its name, its operation and its tolerance.

use crate::{relay, wire};

/// One operation to count.
pub(crate) struct Case {
    /// Name in the file of committed figures.
    pub(crate) name: &'static str,
    /// Description of one operation, for `--list`.
    pub(crate) description: &'static str,
    /// Runs the given number of rounds.
    pub(crate) run: fn(u64),
    /// Rounds of the shorter and of the longer run. Only their difference is counted, so start and
    /// warm-up do not count.
    pub(crate) rounds: (u64, u64),
    /// Operations in a round.
    pub(crate) per_round: u64,
    /// Threads with counted instructions.
    pub(crate) threads: Threads,
    /// Largest accepted difference from the committed count, as a fraction of that count.
    pub(crate) tolerance: f64,
}

/// Threads with counted instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The main thread, which does the operation.
    Main,
    /// The threads of the proxy: all except the main thread, which simulates the client and etcd.
    Others,
}

const fn pure(name: &'static str, description: &'static str, run: fn(u64)) -> Case {
    Case {
        name,
        description,
        run,
        rounds: (1_000, 6_000),
        per_round: 1,
        threads: Threads::Main,
        tolerance: 0.02,
    }
}

const fn relayed(
    name: &'static str,
    description: &'static str,
    run: fn(u64),
    rounds: (u64, u64),
    per_round: u64,
) -> Case {
    Case {
        name,
        description,
        run,
        rounds,
        per_round,
        threads: Threads::Others,
        // The order in which threads wake differs slightly between runs.
        tolerance: 0.03,
    }
}

/// Concurrent calls in one round of the `…-64` cases.
pub(crate) const IN_FLIGHT: u64 = 64;

/// All cases: encoding and decoding first, then whole calls.
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
        "a message of 100 B scanned without buffering",
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
        "a grpc-message of 44 B without escapes, encoded and decoded",
        wire::percent_plain,
    ),
    pure(
        "percent-coded",
        "a grpc-message of 44 B with eight escaped bytes, encoded and decoded",
        wire::percent_coded,
    ),
    pure(
        "timeout-parse",
        "grpc-timeout in the format of the Go client, parsed",
        wire::timeout_parse,
    ),
    pure(
        "timeout-format",
        "grpc-timeout for etcd, formatted",
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
        "a prefix added to the key of a put of 100 B",
        wire::namespace_put,
    ),
    pure(
        "namespace-range",
        "a prefix removed from a Range response with one key and 64 B",
        wire::namespace_range,
    ),
    pure(
        "method-first",
        "lookup of the most frequent method",
        wire::method_first,
    ),
    pure(
        "method-last",
        "lookup of the last method of the table",
        wire::method_last,
    ),
    pure(
        "method-unknown",
        "lookup of an unknown method",
        wire::method_unknown,
    ),
    pure(
        "request-head",
        "the request head of a Go client converted to the one for etcd, and dropped",
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
        "Ranges of 64 keys with a deadline, 64 in flight on one connection",
        relay::read_in_flight,
        (5, 35),
        IN_FLIGHT,
    ),
    relayed(
        "shared-read-64",
        "Ranges of one key, 64 in flight on one connection: two reach etcd",
        relay::shared,
        (5, 35),
        IN_FLIGHT,
    ),
    relayed(
        "kept-read-64",
        "serializable Ranges of one key, 64 in flight on one connection: none reaches etcd",
        relay::cached,
        (5, 35),
        IN_FLIGHT,
    ),
];
