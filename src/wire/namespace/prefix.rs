//! Keys and range ends inside and outside a namespace (N2).
//!
//! Invariant, for every key and end from a client: the result is a key that starts with the prefix.
//! A resulting end is empty or `\0` only if it must be.

use bytes::Bytes;

/// A key prefix that exists at etcd and is invisible to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    prefix: Bytes,
    /// `range_end` of the range of all keys with the prefix.
    end: Bytes,
}

impl Namespace {
    /// Creates the namespace of a prefix. Returns `None` for the empty prefix, which means no
    /// namespace.
    pub fn new(prefix: &[u8]) -> Option<Namespace> {
        if prefix.is_empty() {
            return None;
        }
        Some(Namespace {
            prefix: Bytes::copy_from_slice(prefix),
            end: Bytes::from(end_of(prefix)),
        })
    }

    /// Returns the prefix of every key at etcd. Not empty.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Returns the `range_end` of a range that starts at the prefix and contains exactly the
    /// namespace: `\0` (open-ended) if no key can follow the namespace.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    /// Returns the key at etcd for a client's key.
    pub fn key(&self, key: &[u8]) -> Bytes {
        Bytes::from([&self.prefix, key].concat())
    }

    /// Returns the `range_end` for etcd. An empty end (single key) stays empty. `\0` (open-ended)
    /// becomes the end of the namespace.
    pub fn range_end(&self, end: &[u8]) -> Bytes {
        match end {
            [] => Bytes::new(),
            [0] => self.end.clone(),
            _ => self.key(end),
        }
    }

    /// Returns the client's key for a key of etcd, or `None` for a key outside the namespace. The
    /// prefix itself is outside: the client's key would be empty, and an empty key is invalid.
    pub fn strip<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(&self.prefix[..])
            .filter(|key| !key.is_empty())
    }
}

/// Returns the prefix as a big-endian number plus one, without the zero bytes that the carry
/// creates. `a\xff` ends at `b`: the end `b\0` would include the key `b`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::range::KeyRange;

    fn namespace(prefix: &[u8]) -> Namespace {
        Namespace::new(prefix).unwrap()
    }

    #[test]
    fn rejects_an_empty_prefix() {
        assert_eq!(Namespace::new(b""), None);
    }

    #[test]
    fn adds_and_removes_the_prefix() {
        let namespace = namespace(b"pfx/");
        assert_eq!(namespace.key(b"a"), "pfx/a");
        assert_eq!(namespace.key(b"\0"), "pfx/\0");
        assert_eq!(namespace.strip(b"pfx/a"), Some(&b"a"[..]));
        for outside in [&b""[..], b"pfx/", b"pfx", b"pfx0", b"a", b"pfx\0/a"] {
            assert_eq!(namespace.strip(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn range_ends_stay_in_the_namespace() {
        let cases: [(&[u8], &[u8], &[u8]); 13] = [
            (b"pfx/", b"", b""),
            (b"pfx/", b"\0", b"pfx0"),
            (b"pfx/", b"abd", b"pfx/abd"),
            // Longer than the open-ended range end.
            (b"pfx/", b"\0\0", b"pfx/\0\0"),
            (b"pfx/", b"\0a", b"pfx/\0a"),
            (b"\xff", b"\0", b"\0"),
            (b"\xff\xff\xff", b"\0", b"\0"),
            (b"\xff\xff", b"", b""),
            (b"\xff\xff", b"a", b"\xff\xffa"),
            (b"a\xff", b"\0", b"b"),
            (b"a\xff\xff", b"\0", b"b"),
            (b"\0", b"\0", b"\x01"),
            (b"\0", b"a", b"\0a"),
        ];
        for (prefix, end, want) in cases {
            assert_eq!(namespace(prefix).range_end(end), want, "{prefix:?} {end:?}");
        }
    }

    #[test]
    fn the_end_follows_the_last_key() {
        for prefix in [
            &b"pfx/"[..],
            b"a\xff",
            b"\xff\xff",
            b"\0",
            b"\0\xff",
            b"b\0",
        ] {
            let namespace = namespace(prefix);
            let start = Bytes::copy_from_slice(prefix);
            let all = KeyRange::of(start, namespace.range_end(b"\0"));
            let samples: [&[u8]; 9] = [
                b"", b"\0", b"\x01", b"\x01\0", b"a", b"b", b"b\0", b"pfx0", b"\xff",
            ];
            for key in samples {
                assert_eq!(
                    all.contains(key),
                    key.starts_with(prefix),
                    "{prefix:?} {key:?}"
                );
                assert!(all.contains(&namespace.key(key)));
            }
            assert!(all.contains(&[prefix, &[0xff; 40]].concat()));
        }
    }
}
