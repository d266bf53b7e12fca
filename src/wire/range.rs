//! Ranges of keys, in one form for every way a request can spell them.

use bytes::Bytes;

/// All keys from `start` on, up to but without `end`; a single key `k` is `k` up to `k\0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    start: Bytes,
    /// `None` is open-ended.
    end: Option<Bytes>,
}

impl KeyRange {
    /// The range that `key` and `range_end` of a request mean: an empty end is one key, the end
    /// `\0` is open. The empty key is none in a read; a watch takes it for `\0`, which is the
    /// caller's to say.
    pub fn of(key: Bytes, range_end: Bytes) -> KeyRange {
        match &range_end[..] {
            [] => {
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(&key);
                next.push(0);
                // Both ends in one piece of memory: there are many of these.
                let next = Bytes::from(next);
                KeyRange {
                    start: next.slice(..key.len()),
                    end: Some(next),
                }
            }
            [0] => KeyRange {
                start: key,
                end: None,
            },
            _ => KeyRange {
                start: key,
                end: Some(range_end),
            },
        }
    }

    /// From a key up to but without another; `None` is open-ended.
    pub fn between(start: Bytes, end: Option<Bytes>) -> KeyRange {
        KeyRange { start, end }
    }

    /// The first key it may hold.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key behind it; `None` when it is open-ended.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// The key, when it is a range of one.
    pub fn single(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        let one = end.len() == self.start.len() + 1
            && end.last() == Some(&0)
            && end.starts_with(&self.start);
        one.then_some(&self.start)
    }

    /// `range_end` as a request spells it.
    pub fn range_end(&self) -> Bytes {
        match &self.end {
            _ if self.single().is_some() => Bytes::new(),
            Some(end) => end.clone(),
            None => Bytes::from_static(&[0]),
        }
    }

    /// No key is in it: etcd answers such a range with nothing, and refuses to watch it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= *key && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether every key of `other` is in it.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.start <= other.start
            && match (&self.end, &other.end) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(mine), Some(theirs)) => theirs <= mine,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::of(Bytes::from_static(key), Bytes::from_static(end))
    }

    #[test]
    fn every_spelling_has_one_form() {
        assert_eq!(range(b"a", b""), range(b"a", b"a\0"));
        assert_eq!(range(b"a", b"a\0").range_end(), "");
        assert_eq!(range(b"a", b"\0").range_end(), "\0");
        assert_eq!(range(b"a", b"b").range_end(), "b");
        assert_eq!(range(b"a", b"").single().unwrap(), "a");
        assert_eq!(range(b"a", b"aa").single(), None);
        assert_eq!(range(b"a", b"\0").single(), None);
    }

    #[test]
    fn holds_its_start_and_not_its_end() {
        let one = range(b"a", b"");
        assert!(one.contains(b"a") && !one.contains(b"a\0") && !one.contains(b""));
        let some = range(b"a", b"b");
        assert!(some.contains(b"a") && some.contains(b"az") && !some.contains(b"b"));
        assert!(range(b"a", b"\0").contains(b"\xff\xff"));
        assert!(range(b"b", b"b").is_empty() && range(b"b", b"a").is_empty());
        assert!(!one.is_empty() && !range(b"", b"\0").is_empty());
    }

    #[test]
    fn covers_what_lies_within() {
        let all = range(b"\0", b"\0");
        let some = range(b"a", b"b");
        assert!(all.covers(&some) && all.covers(&all) && !some.covers(&all));
        assert!(some.covers(&range(b"az", b"")) && !some.covers(&range(b"b", b"")));
        assert!(some.covers(&some) && !range(b"a", b"").covers(&some));
    }
}
