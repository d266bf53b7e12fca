//! Calls of the KV service: every method with its options and its refusals.

use crate::recording::Recorder;
use crate::support::pb::Msg;

const KEY_NOT_PROVIDED: &str = "etcdserver: key is not provided";

pub(crate) async fn run(etcd: &mut Recorder) {
    puts(etcd).await;
    ranges(etcd).await;
    txns(etcd).await;
    deletes(etcd).await;
    streams(etcd).await;
    compactions(etcd).await;
}

fn put(key: &str, value: &str) -> Msg {
    Msg::new().bytes(1, key).bytes(2, value)
}

fn get(key: &str) -> Msg {
    Msg::new().bytes(1, key)
}

async fn puts(etcd: &mut Recorder) {
    for (case, request, code) in [
        ("a new key", put("a", "1"), 0),
        ("an existing key", put("a", "2"), 0),
        ("with the previous value", put("a", "3").int(4, 1), 0),
        ("ignoring the value", get("a").int(5, 1), 0),
        ("ignoring the lease", put("a", "4").int(6, 1), 0),
        (
            "ignoring the value of a missing key",
            get("none").int(5, 1),
            3,
        ),
        ("ignoring and setting a value", put("a", "5").int(5, 1), 3),
        (
            "ignoring and setting a lease",
            put("a", "5").int(3, 7).int(6, 1),
            3,
        ),
        ("an unknown lease", put("a", "5").int(3, 7), 5),
        ("an empty value", put("b", ""), 0),
        (
            "an unknown field",
            put("c", "1").bytes(99, "from a later release"),
            0,
        ),
        ("1 MiB", put("large", &"x".repeat(1 << 20)), 0),
        (
            "beyond a raft entry",
            put("larger", &"x".repeat(1_600_000)),
            3,
        ),
        (
            "beyond a gRPC message",
            put("larger", &"x".repeat(2_200_000)),
            8,
        ),
    ] {
        etcd.unary("KV/Put", case, request, code).await;
    }
    let refused = etcd.unary("KV/Put", "no key", put("", "x"), 3).await;
    assert_eq!(refused.message(), KEY_NOT_PROVIDED);
}

async fn ranges(etcd: &mut Recorder) {
    let all = || get("a").bytes(2, "d");
    for (case, request, code) in [
        ("one key", get("a"), 0),
        ("an unknown key", get("none"), 0),
        ("a range", all(), 0),
        ("from a key on", get("b").bytes(2, [0]), 0),
        ("an inverted range", get("b").bytes(2, "a"), 0),
        ("with a limit", all().int(3, 1), 0),
        ("an old revision", get("a").int(4, 2), 0),
        ("a future revision", get("a").int(4, 1 << 40), 11),
        (
            "sorted downwards by modification",
            all().int(5, 2).int(6, 3),
            0,
        ),
        ("an invalid sort", all().int(5, 9), 3),
        ("serializable", get("a").int(7, 1), 0),
        ("keys only", all().int(8, 1), 0),
        ("count only", all().int(9, 1), 0),
        ("between revisions", all().int(10, 3).int(11, 5), 0),
        ("created between revisions", all().int(12, 2).int(13, 2), 0),
        ("1 MiB", get("large"), 0),
        ("no key", Msg::new(), 3),
    ] {
        etcd.unary("KV/Range", case, request, code).await;
    }
}

async fn txns(etcd: &mut Recorder) {
    let read = |key| Msg::new().msg(1, get(key));
    let write = |key, value| Msg::new().msg(2, put(key, value));
    // Fields of a compare: result, target, key, and the value of the target.
    let version_is = |key, version| Msg::new().int(2, 0).bytes(3, key).int(4, version);
    let nested = Msg::new()
        .msg(1, Msg::new().int(2, 3).bytes(3, "a").bytes(7, "4"))
        .msg(2, write("t", "then"))
        .msg(3, write("t", "else"));
    for (case, request, code) in [
        ("empty", Msg::new(), 0),
        (
            "reads only",
            Msg::new().msg(2, read("a")).msg(2, read("b")),
            0,
        ),
        (
            "the first branch",
            Msg::new()
                .msg(1, version_is("t", 0))
                .msg(2, write("t", "1")),
            0,
        ),
        (
            "the other branch",
            Msg::new()
                .msg(1, version_is("t", 0))
                .msg(2, write("t", "2"))
                .msg(3, read("t")),
            0,
        ),
        ("nested", Msg::new().msg(2, Msg::new().msg(4, nested)), 0),
        (
            "a compare over a range",
            Msg::new().msg(1, version_is("a", 1).bytes(64, "z")),
            0,
        ),
        (
            "a delete",
            Msg::new().msg(2, Msg::new().msg(3, get("t").int(3, 1))),
            0,
        ),
        (
            "a key twice",
            Msg::new().msg(2, write("t", "1")).msg(2, write("t", "2")),
            3,
        ),
        ("no key", Msg::new().msg(2, write("", "1")), 3),
        (
            "a compare without a key",
            Msg::new().msg(1, version_is("", 1)),
            3,
        ),
        (
            "too many operations",
            (0..129).fold(Msg::new(), |txn, _| txn.msg(2, read("a"))),
            3,
        ),
    ] {
        etcd.unary("KV/Txn", case, request, code).await;
    }
}

async fn deletes(etcd: &mut Recorder) {
    for (case, request, code) in [
        ("nothing", get("none"), 0),
        ("one key", get("b"), 0),
        (
            "a range with the previous values",
            get("c").bytes(2, "d").int(3, 1),
            0,
        ),
        ("no key", Msg::new(), 3),
    ] {
        etcd.unary("KV/DeleteRange", case, request, code).await;
    }
}

async fn streams(etcd: &mut Recorder) {
    for i in 0..50 {
        etcd.unary(
            "KV/Put",
            "for a stream",
            put(&format!("s{i:02}"), &"v".repeat(1000)),
            0,
        )
        .await;
    }
    // Older releases do not implement RangeStream: the error is the same on both sides.
    etcd.unary("KV/RangeStream", "a range", get("s").bytes(2, "t"), 0)
        .await;
    etcd.unary(
        "KV/RangeStream",
        "sorted",
        get("s").bytes(2, "t").int(5, 2),
        12,
    )
    .await;
}

async fn compactions(etcd: &mut Recorder) {
    for (case, request, code) in [
        ("a past revision", Msg::new().int(1, 5), 0),
        ("the same again", Msg::new().int(1, 5), 11),
        (
            "waiting for the compaction",
            Msg::new().int(1, 6).int(2, 1),
            0,
        ),
        ("a future revision", Msg::new().int(1, 1 << 40), 11),
    ] {
        etcd.unary("KV/Compact", case, request, code).await;
    }
    etcd.unary("KV/Range", "a compacted revision", get("a").int(4, 2), 11)
        .await;
}
