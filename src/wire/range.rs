//! Ranges of keys, normalized: every spelling of a range in a request has one form.

use bytes::Bytes;

/// The keys from `start` (inclusive) to `end` (exclusive). A single key `k` is `k` to `k\0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    start: Bytes,
    /// `None` for an open-ended range.
    end: Option<Bytes>,
}

impl KeyRange {
    /// Returns the range of `key` and `range_end` of a request. An empty end means one key, and the
    /// end `\0` means an open-ended range.
    ///
    /// The empty key is invalid in a read and means `\0` in a watch. The caller handles both.
    pub fn of(key: Bytes, range_end: Bytes) -> KeyRange {
        match &range_end[..] {
            [] => {
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(&key);
                next.push(0);
                // Both ends share one allocation: a process has many ranges of one key.
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

    /// Returns the range from `start` (inclusive) to `end` (exclusive). `None` is open-ended.
    pub fn between(start: Bytes, end: Option<Bytes>) -> KeyRange {
        KeyRange { start, end }
    }

    /// Returns the lowest key that the range may contain.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// Returns the first key after the range, or `None` for an open-ended range.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Returns the key if the range contains exactly one.
    pub fn single(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        let one = end.len() == self.start.len() + 1
            && end.last() == Some(&0)
            && end.starts_with(&self.start);
        one.then_some(&self.start)
    }

    /// Returns the `range_end` of a request for this range.
    pub fn range_end(&self) -> Bytes {
        match &self.end {
            _ if self.single().is_some() => Bytes::new(),
            Some(end) => end.clone(),
            None => Bytes::from_static(&[0]),
        }
    }

    /// Returns whether the range contains no key. etcd returns no key-values for such a range, and
    /// rejects a watch of it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Returns whether the range contains `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= *key && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Returns whether the range contains every key of `other`.
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
    fn every_spelling_has_one_normal_form() {
        assert_eq!(range(b"a", b""), range(b"a", b"a\0"));
        assert_eq!(range(b"a", b"a\0").range_end(), "");
        assert_eq!(range(b"a", b"\0").range_end(), "\0");
        assert_eq!(range(b"a", b"b").range_end(), "b");
        assert_eq!(range(b"a", b"").single().unwrap(), "a");
        assert_eq!(range(b"a", b"aa").single(), None);
        assert_eq!(range(b"a", b"\0").single(), None);
    }

    #[test]
    fn contains_its_start_but_not_its_end() {
        let one = range(b"a", b"");
        assert!(one.contains(b"a") && !one.contains(b"a\0") && !one.contains(b""));
        let some = range(b"a", b"b");
        assert!(some.contains(b"a") && some.contains(b"az") && !some.contains(b"b"));
        assert!(range(b"a", b"\0").contains(b"\xff\xff"));
        assert!(range(b"b", b"b").is_empty() && range(b"b", b"a").is_empty());
        assert!(!one.is_empty() && !range(b"", b"\0").is_empty());
    }

    #[test]
    fn covers_ranges_inside() {
        let all = range(b"\0", b"\0");
        let some = range(b"a", b"b");
        assert!(all.covers(&some) && all.covers(&all) && !some.covers(&all));
        assert!(some.covers(&range(b"az", b"")) && !some.covers(&range(b"b", b"")));
        assert!(some.covers(&some) && !range(b"a", b"").covers(&some));
    }
}
