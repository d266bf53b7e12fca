//! Keys and range ends on either side of a namespace (N2).
//!
//! Holds for every key and end handed in: what comes out is a key that starts with the prefix, and
//! never an end that is empty or `\0` unless that is what it has to be.

use bytes::Bytes;

/// A prefix that all keys of all clients have at etcd, and none at the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    prefix: Bytes,
    /// `range_end` of all that starts with the prefix.
    end: Bytes,
}

impl Namespace {
    /// The namespace of this prefix; `None` for the empty one, which is none.
    pub fn new(prefix: &[u8]) -> Option<Namespace> {
        if prefix.is_empty() {
            return None;
        }
        Some(Namespace {
            prefix: Bytes::copy_from_slice(prefix),
            end: Bytes::from(end_of(prefix)),
        })
    }

    /// What every key starts with at etcd. Not empty.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// `range_end` of a range from the prefix on that holds all of the namespace and nothing else;
    /// `\0`, which is open-ended, where no key follows those of the namespace.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    /// A client's key as etcd has it.
    pub fn key(&self, key: &[u8]) -> Bytes {
        Bytes::from([&self.prefix, key].concat())
    }

    /// A client's `range_end` as etcd takes it: empty, which is a single key, stays empty; `\0`,
    /// which is open-ended, becomes the end of the namespace.
    pub fn range_end(&self, end: &[u8]) -> Bytes {
        match end {
            [] => Bytes::new(),
            [0] => self.end.clone(),
            _ => self.key(end),
        }
    }

    /// etcd's key as a client has it; `None` for one outside the namespace. That of the prefix alone is
    /// outside: it would be empty, and no client has an empty key.
    pub fn strip<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(&self.prefix[..])
            .filter(|key| !key.is_empty())
    }
}

/// The prefix as a big-endian number plus one. Zero bytes that the carry leaves behind are cut off:
/// `a\xff` ends at `b`, since one that ends at `b\0` would hold the key `b`.
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
    fn an_empty_prefix_is_no_namespace() {
        assert_eq!(Namespace::new(b""), None);
    }

    #[test]
    fn keys_carry_the_prefix() {
        let namespace = namespace(b"pfx/");
        assert_eq!(namespace.key(b"a"), "pfx/a");
        assert_eq!(namespace.key(b"\0"), "pfx/\0");
        assert_eq!(namespace.strip(b"pfx/a"), Some(&b"a"[..]));
        for outside in [&b""[..], b"pfx/", b"pfx", b"pfx0", b"a", b"pfx\0/a"] {
            assert_eq!(namespace.strip(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn range_ends_stay_inside() {
        let cases: [(&[u8], &[u8], &[u8]); 13] = [
            (b"pfx/", b"", b""),
            (b"pfx/", b"\0", b"pfx0"),
            (b"pfx/", b"abd", b"pfx/abd"),
            // Longer than the open end.
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
    fn the_end_is_right_behind_the_last_key() {
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
            let near: [&[u8]; 9] = [
                b"", b"\0", b"\x01", b"\x01\0", b"a", b"b", b"b\0", b"pfx0", b"\xff",
            ];
            for key in near {
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
