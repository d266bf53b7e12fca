//! Selects watches that bypass sharing by their range (W13). The relay serves them like any other
//! stream.

use bytes::Bytes;

use crate::wire::range::KeyRange;

/// Returns whether one of the prefixes contains the whole range.
pub(super) fn within(prefixes: &[Bytes], range: &KeyRange) -> bool {
    prefixes
        .iter()
        .any(|prefix| prefix_range(prefix).covers(range))
}

/// Returns the range of all keys with this prefix.
fn prefix_range(prefix: &Bytes) -> KeyRange {
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
    fn prefix_contains_exactly_its_keys() {
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
