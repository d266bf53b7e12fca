//! Watches that are to share nothing by their range (W13): they are relayed as any other stream.

use bytes::Bytes;

use crate::wire::range::KeyRange;

/// Whether the range lies within one of the prefixes.
pub(super) fn within(prefixes: &[Bytes], range: &KeyRange) -> bool {
    prefixes.iter().any(|prefix| all_of(prefix).covers(range))
}

/// Every key with this prefix.
fn all_of(prefix: &Bytes) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return KeyRange::of(prefix.clone(), end.into());
        }
    }
    KeyRange::of(prefix.clone(), Bytes::from_static(&[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::of(Bytes::from_static(key), Bytes::from_static(end))
    }

    #[test]
    fn a_prefix_holds_its_keys_and_no_more() {
        let prefixes = [Bytes::from_static(b"a/"), Bytes::from_static(b"\xff")];
        for inside in [
            range(b"a/", b""),
            range(b"a/", b"a0"),
            range(b"a/b", b"a/c"),
            range(b"\xff\xff", b"\0"),
        ] {
            assert!(within(&prefixes, &inside), "{inside:?}");
        }
        for outside in [
            range(b"a", b""),
            range(b"a/", b"a1"),
            range(b"a", b"a/b"),
            range(b"a/", b"\0"),
            range(b"\xfe", b"\0"),
        ] {
            assert!(!within(&prefixes, &outside), "{outside:?}");
        }
    }
}
