//! What clients did and were told, and what happened at etcd.

use std::ops::Range;
use std::time::Duration;

use crate::support::grpc::Client;
use crate::support::pb::{self, Msg, Value};

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How many keys there are; each is a register, written again and again and never deleted.
pub(crate) const KEYS: usize = 6;

/// The name of a key.
pub(crate) fn name(key: usize) -> String {
    format!("h/{key}")
}

/// The key of a name.
fn number(name: &[u8]) -> usize {
    let name = std::str::from_utf8(name).expect("a name of ours");
    let number = name.strip_prefix("h/").and_then(|key| key.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is no key of ours"))
}

/// All keys as a request's `key` and `range_end`.
pub(crate) fn all() -> (&'static str, &'static str) {
    ("h/", "h0")
}

/// A key as it was from a revision on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// Its `mod_revision`.
    pub(crate) revision: i64,
    /// No two writes write the same.
    pub(crate) value: String,
}

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Put {
        key: usize,
        value: String,
    },
    /// A put if the key is as it was at this `mod_revision`; else a read of it. Both are linearizable.
    Swap {
        key: usize,
        value: String,
        from: i64,
    },
    /// One key, or all.
    Read {
        keys: Range<usize>,
        serializable: bool,
    },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was written, at the revision of this header.
    Wrote { header: i64 },
    /// It was read, as of this header: each key that was asked for.
    Saw {
        header: i64,
        seen: Vec<Option<Version>>,
    },
    /// It was not done and will not be.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// Which way it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// Through a proxy.
    Proxy(usize),
    /// To etcd itself.
    Direct,
    /// To the one member that a proxy asks, to know how far that has come.
    Observer,
}

/// One operation. Times are those of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) way: Way,
    /// Operations of one connection follow one another.
    pub(crate) connection: u64,
    pub(crate) what: What,
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
    pub(crate) end: End,
}

impl Op {
    /// The key and value it writes, if it does.
    pub(crate) fn writes(&self) -> Option<(usize, &str)> {
        match &self.what {
            What::Put { key, value } | What::Swap { key, value, .. } => Some((*key, value)),
            What::Read { .. } => None,
        }
    }

    /// The revision of the answer's header.
    pub(crate) fn header(&self) -> Option<i64> {
        match self.end {
            End::Wrote { header } | End::Saw { header, .. } => Some(header),
            End::Failed | End::Unknown => None,
        }
    }

    /// What it saw of each key.
    pub(crate) fn saw(&self) -> impl Iterator<Item = (usize, Option<&Version>)> {
        let first = match &self.what {
            What::Read { keys, .. } => keys.start,
            What::Put { key, .. } | What::Swap { key, .. } => *key,
        };
        let seen: &[Option<Version>] = match &self.end {
            End::Saw { seen, .. } => seen,
            _ => &[],
        };
        let keys = seen.iter().enumerate();
        keys.map(move |(place, version)| (first + place, version.as_ref()))
    }
}

/// Every version of every key, from etcd itself.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// In the order of revisions.
    pub(crate) keys: Vec<Vec<Version>>,
    /// Up to which revision.
    pub(crate) through: i64,
}

impl Truth {
    /// Asks a member for all of it.
    pub(crate) async fn of(etcd: &str) -> Truth {
        let client = Client::connect(etcd).await;
        let (key, end) = all();
        let range = Msg::new().bytes(1, key).bytes(2, end);
        let reply = client.unary(RANGE, range.clone().int(9, 1), &[]).await;
        let mut truth = Truth {
            keys: vec![Vec::new(); KEYS],
            through: pb::int(reply.only(), &[1, 3]),
        };
        let last = Seen::read(client.unary(RANGE, range.clone(), &[]).await.only());
        let last = last.keys.iter().map(|(_, version)| version.revision).max();
        let last = last.expect("something was written");
        let mut watch = client.call(WATCH, &[]).await;
        watch.send(Msg::new().msg(1, range.int(3, 1))).await;
        let mut told = 0;
        while told < last {
            let response = watch.next().await.expect("a watch of the whole history");
            for (field, event) in pb::fields(&response) {
                let (11, Value::Bytes(event)) = (field, event) else {
                    continue;
                };
                // A deletion has a type; nobody deletes.
                assert_eq!(pb::int(&event, &[1]), 0);
                let (key, version) = version(&pb::bytes(&event, &[2]));
                told = told.max(version.revision);
                truth.keys[key].push(version);
            }
        }
        truth.through = truth.through.max(told);
        truth
    }

    /// A key as of a revision.
    pub(crate) fn at(&self, key: usize, revision: i64) -> Option<&Version> {
        let versions = &self.keys[key];
        let until = versions.partition_point(|version| version.revision <= revision);
        versions[..until].last()
    }

    /// What came next of a key after a revision.
    pub(crate) fn after(&self, key: usize, revision: i64) -> Option<&Version> {
        let versions = &self.keys[key];
        versions.get(versions.partition_point(|version| version.revision <= revision))
    }
}

/// A `RangeResponse`.
pub(crate) struct Seen {
    pub(crate) header: i64,
    pub(crate) keys: Vec<(usize, Version)>,
}

impl Seen {
    pub(crate) fn read(response: &[u8]) -> Seen {
        let mut seen = Seen {
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

/// A `KeyValue`.
fn version(kv: &[u8]) -> (usize, Version) {
    let mut key = None;
    let (mut revision, mut text) = (0, String::new());
    for (field, value) in pb::fields(kv) {
        match (field, value) {
            (1, Value::Bytes(name)) => key = Some(number(&name)),
            (3, Value::Varint(at)) => revision = at.cast_signed(),
            (5, Value::Bytes(value)) => text = String::from_utf8(value).expect("text of ours"),
            _ => {}
        }
    }
    let value = text;
    (key.expect("a key"), Version { revision, value })
}
