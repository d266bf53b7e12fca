//! Random watches and writes, drawn from a seed.

use fastrand::Rng;

use crate::support::watch::client::Expect;
use crate::support::watch::messages::Create;

/// Prefixes of the keys, so that ranges nest and overlap.
const PREFIXES: [&str; 6] = ["k/a/", "k/a/b/", "k/b/", "k/c", "m/", "k/b/fat/"];
/// Number of keys of each prefix.
const EACH: usize = 4;
/// Range that the user [`LIMITED`] may read.
pub(crate) const ALLOWED: (&str, &str) = ("k/b/", "k/b0");
/// A user with permission for [`ALLOWED`] only.
pub(crate) const LIMITED: &str = "bob";

/// Range of the store's revisions when a watch is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// First revision of the recorded history.
    pub(crate) from: i64,
    /// Lower bound of the store's current revision.
    pub(crate) now: i64,
}

/// Returns a random key of the writers.
pub(crate) fn key(rng: &mut Rng) -> String {
    format!("{}{}", PREFIXES[rng.usize(..5)], rng.usize(..EACH))
}

/// Returns one of the few keys with large values.
pub(crate) fn large_key(number: usize) -> String {
    format!("{}{number}", PREFIXES[5])
}

/// Returns the range of a prefix: the prefix and the first key after it.
pub(crate) fn prefix(of: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = of.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (of.as_bytes().to_vec(), end)
}

/// Returns a random, non-empty range in the encoding of requests.
pub(crate) fn range(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    match rng.u32(..20) {
        0..=6 => (key(rng).into_bytes(), Vec::new()),
        7..=12 => {
            let of = ["k/", "k/a/", "k/a/b/", "k/b/", "m/", "k/b/fat/"];
            prefix(of[rng.usize(..of.len())])
        }
        13 | 14 => (key(rng).into_bytes(), b"\0".to_vec()),
        15 | 16 => loop {
            let (one, other) = (key(rng), key(rng));
            if one < other {
                break (one.into_bytes(), other.into_bytes());
            }
        },
        17 => (Vec::new(), b"\0".to_vec()),
        18 => (b"\0".to_vec(), b"\0".to_vec()),
        _ => (b"no client writes this".to_vec(), Vec::new()),
    }
}

/// Returns a random watch and the expected response. The number is unique in the seed.
pub(crate) fn create(rng: &mut Rng, span: Span, number: usize, limited: bool) -> (Create, Expect) {
    let (key, range_end) = range(rng);
    let mut create = Create {
        key,
        range_end,
        start: start(rng, span),
        progress_notify: rng.u32(..4) == 0,
        no_put: rng.u32(..8) == 0,
        no_delete: rng.u32(..8) == 0,
        prev_kv: rng.u32(..3) == 0,
        id: 0,
        fragment: rng.u32(..3) == 0,
    };
    let own = i64::try_from(1000 + number).expect("a small number");
    match rng.u32(..20) {
        0..=3 => create.id = own,
        4 => create.id = -own,
        _ => {}
    }
    let mut expect = Expect::Created;
    // etcd checks the start revision first, then the permission, then the range.
    if rng.u32(..40) == 0 {
        (create.key, create.range_end) = (b"m/9".to_vec(), b"m/1".to_vec());
        expect = Expect::Refused("watcher range is empty");
    }
    if limited && !is_allowed(&create) {
        expect = Expect::Refused("permission denied");
    }
    if rng.u32(..40) == 0 {
        create.start = -1 - rng.i64(0..5);
        expect = Expect::Refused("required revision has been compacted");
    }
    (create, expect)
}

fn start(rng: &mut Rng, span: Span) -> i64 {
    let Span { from, now } = span;
    match rng.u32(..20) {
        0..=8 => 0,
        9..=16 => rng.i64(from..=now.max(from)),
        17 | 18 => now + 1 + rng.i64(0..80),
        _ => i64::MAX,
    }
}

fn is_allowed(create: &Create) -> bool {
    let (first, end) = (ALLOWED.0.as_bytes(), ALLOWED.1.as_bytes());
    let last = match &create.range_end[..] {
        [] => &create.key[..] < end,
        [0] => false,
        other => other <= end,
    };
    &create.key[..] >= first && last
}

/// One operation of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// A put of one key.
    Put(String),
    /// A deletion of a range.
    Delete(Vec<u8>, Vec<u8>),
    /// Puts and deletes in one revision.
    Txn(Vec<String>, Vec<String>),
    /// Puts of keys that are deleted when their lease expires.
    Leased(Vec<String>),
    /// Puts of keys that a lease revocation deletes at once, in one revision.
    Revoked(Vec<String>),
    /// Puts of large values, then a deletion of all of them in one revision.
    Large,
}

/// Returns the next operation of a writer.
pub(crate) fn write(rng: &mut Rng) -> Write {
    let mut keys = |most: usize| {
        let mut keys: Vec<String> = (0..=rng.usize(..most)).map(|_| key(rng)).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let (some, more) = (keys(4), keys(8));
    match rng.u32(..100) {
        0..=44 => Write::Put(key(rng)),
        45..=54 => Write::Delete(key(rng).into_bytes(), Vec::new()),
        55..=59 => {
            let (first, end) = range(rng);
            // Open-ended deletions would remove too much too often.
            match &end[..] {
                [0] => Write::Delete(key(rng).into_bytes(), Vec::new()),
                _ => Write::Delete(first, end),
            }
        }
        60..=91 => {
            let deletes = some.into_iter().filter(|key| !more.contains(key));
            Write::Txn(more.clone(), deletes.collect())
        }
        92..=95 => Write::Leased(more),
        _ => Write::Revoked(more),
    }
}
