//! Operations of the clients with their results, and the history of the store.

use std::ops::Range;
use std::time::Duration;

use crate::support::grpc::Client;
use crate::support::pb::{self, Msg, Value};

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Number of keys. Each key is a register that is written repeatedly and never deleted.
pub(crate) const KEYS: usize = 6;

/// Returns the name of a key.
pub(crate) fn name(key: usize) -> String {
    format!("h/{key}")
}

/// Returns the key with a name.
fn number(name: &[u8]) -> usize {
    let name = std::str::from_utf8(name).expect("a key name");
    let number = name.strip_prefix("h/").and_then(|key| key.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is not a key of this test"))
}

/// Returns the `key` and `range_end` of a request for all keys.
pub(crate) fn all() -> (&'static str, &'static str) {
    ("h/", "h0")
}

/// Content of a key from a revision on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// The `mod_revision` of the key.
    pub(crate) revision: i64,
    /// Value of the key, different for every write.
    pub(crate) value: String,
}

/// Request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpKind {
    Put {
        key: usize,
        value: String,
    },
    /// A put if the key has this `mod_revision`, otherwise a read of the key. Both are
    /// linearizable.
    Swap {
        key: usize,
        value: String,
        from: i64,
    },
    /// A read of one key or of all keys.
    Read {
        keys: Range<usize>,
        serializable: bool,
    },
}

/// Outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A write was applied, at the revision of this header.
    Wrote { header: i64 },
    /// A read returned at this header's revision, with an entry for each requested key.
    Saw {
        header: i64,
        seen: Vec<Option<Version>>,
    },
    /// The operation was not applied and will not be.
    Failed,
    /// The outcome is unknown.
    Unknown,
}

/// Route of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// Through a proxy.
    Proxy(usize),
    /// To etcd itself.
    Direct,
    /// To the only member of a proxy, to learn the revision of that member.
    Observer,
}

/// One operation. All times are of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) route: Route,
    /// Connection of the operation. Operations on one connection do not overlap.
    pub(crate) connection: u64,
    pub(crate) kind: OpKind,
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
    pub(crate) end: End,
}

impl Op {
    /// Returns the key and value of a write.
    pub(crate) fn writes(&self) -> Option<(usize, &str)> {
        match &self.kind {
            OpKind::Put { key, value } | OpKind::Swap { key, value, .. } => Some((*key, value)),
            OpKind::Read { .. } => None,
        }
    }

    /// Returns the revision in the header of the response.
    pub(crate) fn header(&self) -> Option<i64> {
        match self.end {
            End::Wrote { header } | End::Saw { header, .. } => Some(header),
            End::Failed | End::Unknown => None,
        }
    }

    /// Returns the version seen of each requested key.
    pub(crate) fn saw(&self) -> impl Iterator<Item = (usize, Option<&Version>)> {
        let first = match &self.kind {
            OpKind::Read { keys, .. } => keys.start,
            OpKind::Put { key, .. } | OpKind::Swap { key, .. } => *key,
        };
        let seen: &[Option<Version>] = match &self.end {
            End::Saw { seen, .. } => seen,
            _ => &[],
        };
        let keys = seen.iter().enumerate();
        keys.map(move |(place, version)| (first + place, version.as_ref()))
    }
}

/// Every version of every key, read from etcd itself.
#[derive(Debug, Default)]
pub(crate) struct StoreHistory {
    /// Versions of each key, in the order of revisions.
    pub(crate) keys: Vec<Vec<Version>>,
    /// Revision up to which the history is complete.
    pub(crate) through: i64,
}

impl StoreHistory {
    /// Reads the whole history from a member.
    pub(crate) async fn of(etcd: &str) -> StoreHistory {
        let client = Client::connect(etcd).await;
        let (key, end) = all();
        let range = Msg::new().bytes(1, key).bytes(2, end);
        let reply = client.unary(RANGE, range.clone().int(9, 1), &[]).await;
        let mut history = StoreHistory {
            keys: vec![Vec::new(); KEYS],
            through: pb::int(reply.only(), &[1, 3]),
        };
        let last = RangeResult::parse(client.unary(RANGE, range.clone(), &[]).await.only());
        let last = last.keys.iter().map(|(_, version)| version.revision).max();
        let last = last.expect("at least one write");
        let mut watch = client.call(WATCH, &[]).await;
        watch.send(Msg::new().msg(1, range.int(3, 1))).await;
        let mut received = 0;
        while received < last {
            let response = watch.next().await.expect("a watch of the whole history");
            for (field, event) in pb::fields(&response) {
                let (11, Value::Bytes(event)) = (field, event) else {
                    continue;
                };
                // Only a deletion has a type, and the clients delete nothing.
                assert_eq!(pb::int(&event, &[1]), 0);
                let (key, version) = version(&pb::bytes(&event, &[2]));
                received = received.max(version.revision);
                history.keys[key].push(version);
            }
        }
        history.through = history.through.max(received);
        history
    }

    /// Returns the version of a key at a revision.
    pub(crate) fn at(&self, key: usize, revision: i64) -> Option<&Version> {
        let versions = &self.keys[key];
        let until = versions.partition_point(|version| version.revision <= revision);
        versions[..until].last()
    }

    /// Returns the first version of a key after a revision.
    pub(crate) fn after(&self, key: usize, revision: i64) -> Option<&Version> {
        let versions = &self.keys[key];
        versions.get(versions.partition_point(|version| version.revision <= revision))
    }
}

/// A parsed `RangeResponse`.
pub(crate) struct RangeResult {
    pub(crate) header: i64,
    pub(crate) keys: Vec<(usize, Version)>,
}

impl RangeResult {
    pub(crate) fn parse(response: &[u8]) -> RangeResult {
        let mut seen = RangeResult {
            header: 0,
            keys: Vec::new(),
        };
        for (field, value) in pb::fields(response) {
            match (field, value) {
                (1, Value::Bytes(header)) => seen.header = pb::int(&header, &[3]),
                (2, Value::Bytes(kv)) => seen.keys.push(version(&kv)),
                _ => {}
            }
        }
        seen
    }
}

/// Parses a `KeyValue`.
fn version(kv: &[u8]) -> (usize, Version) {
    let mut key = None;
    let (mut revision, mut text) = (0, String::new());
    for (field, value) in pb::fields(kv) {
        match (field, value) {
            (1, Value::Bytes(name)) => key = Some(number(&name)),
            (3, Value::Varint(at)) => revision = at.cast_signed(),
            (5, Value::Bytes(value)) => text = String::from_utf8(value).expect("a UTF-8 value"),
            _ => {}
        }
    }
    let value = text;
    (key.expect("a key"), Version { revision, value })
}
