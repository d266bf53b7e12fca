//! Requests in encodings that no client library produces: two parsers might read them differently
//! (N3).

use crate::scene::{SECRET, Scene};
use crate::support::pb::Msg;

/// Concatenates raw bytes to a message.
fn raw(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).expect("short");
    assert!(len < 128);
    [&[tag, len], value].concat()
}

/// Returns messages with `key = 1, range_end = 2`, valid and invalid, that try to reach outside.
pub(crate) fn ranges(scene: &Scene) -> Vec<Vec<u8>> {
    let key = |key: &[u8]| field(0x0a, key);
    let end = |end: &[u8]| field(0x12, end);
    let (a, secret) = (key(b"a"), key(SECRET));
    let mut all = vec![
        // Well-formed, as wide as possible.
        raw(&[&a, &end(b"\0")]),
        raw(&[&key(b"\0"), &end(b"\0")]),
        raw(&[&key(b"\0"), &end(b"\xff\xff\xff\xff\xff\xff")]),
        raw(&[&key(b"\xff"), &end(b"\0")]),
        raw(&[&secret, &end(b"\0")]),
        raw(&[&a, &end(b"\0\0")]),
        secret.clone(),
        // The empty key and the empty end, present and absent.
        Vec::new(),
        key(b""),
        end(b"\0"),
        raw(&[&key(b""), &end(b"\0")]),
        raw(&[&a, &end(b"")]),
        raw(&[&end(b""), &a]),
        raw(&[&a, &end(b"\0"), &end(b"")]),
        raw(&[&a, &end(b""), &end(b"\0")]),
        raw(&[&a, &end(b"b"), &end(b"")]),
        raw(&[&a, &end(b""), &end(b"")]),
        // A field more than once.
        raw(&[&a, &secret, &end(b"\0")]),
        raw(&[&secret, &a, &end(b"\0"), &end(b"b")]),
        raw(&[&secret, &end(b"\0"), &key(b"")]),
        raw(&[&key(b""), &end(b"b"), &secret, &end(b"\0")]),
        // Other wire types: a number, eight bytes, four bytes, a group.
        raw(&[&a, b"\x08\x01", &end(b"\0")]),
        raw(&[b"\x09SECRETaa", &end(b"\0")]),
        raw(&[&a, b"\x0dSECR", &end(b"\0")]),
        raw(&[&a, b"\x0b", &secret, b"\x0c", &end(b"\0")]),
        raw(&[b"\x0b\x0c", &end(b"\0")]),
        raw(&[&a, b"\x10\x00"]),
        raw(&[&a, b"\x13\x14"]),
        raw(&[&a, b"\x1b", &end(b"\0"), b"\x1c"]),
        raw(&[&a, b"\x0f"]),
        raw(&[&a, b"\x0e"]),
        // Overlong varints, in the tag and in the length.
        raw(&[b"\x8a\x00\x81\x00a", b"\x92\x00\x81\x00\0"]),
        raw(&[b"\x8a\x80\x80\x80\x80\x00\x06SECRET", &end(b"\0")]),
        raw(&[b"\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x00\x06SECRET"]),
        raw(&[&a, b"\x92\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01\0"]),
        raw(&[b"\x0a\x86\x80\x80\x80\x80\x80\x80\x80\x80\x00SECRET"]),
        // Field numbers beyond the valid range, which a truncating parser reads as 1 and 2, and the
        // number 0.
        raw(&[&a, b"\x8a\x80\x80\x80\x80\x01\x06SECRET"]),
        raw(&[&a, b"\x92\x80\x80\x80\x80\x01\x01\0"]),
        raw(&[&a, b"\x02\x06SECRET"]),
        // Lengths beyond the end, and a negative one.
        raw(&[&a, b"\x12\x02\0"]),
        raw(&[&a, b"\x12\xff\xff\xff\xff\x0f\0"]),
        raw(&[&a, b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0"]),
        raw(&[&a, b"\x12"]),
        raw(&[&a, b"\x92"]),
        // Unknown fields.
        raw(&[&a, &field(0x7a, &raw(&[&secret, &end(b"\0")]))]),
    ];
    for neighbour in scene.neighbours() {
        all.push(raw(&[&key(&neighbour), &end(b"\0")]));
        all.push(raw(&[&key(b"\0"), &end(&neighbour)]));
        all.push(raw(&[&key(&scene.prefix), &end(&neighbour)]));
    }
    all
}

/// Returns the same messages as compares: `key = 3, range_end = 64`.
pub(crate) fn compares(scene: &Scene) -> Vec<Vec<u8>> {
    let renumbered = |range: Vec<u8>| {
        // Equality of the value, which also follows the other fields of the same kind.
        let equal = [0x08, 0, 0x10, 3];
        let mut compare = equal.to_vec();
        let mut rest = &range[..];
        while let [tag @ (0x0a | 0x12), len, tail @ ..] = rest
            && tail.len() >= usize::from(*len)
        {
            let (value, after) = tail.split_at(usize::from(*len));
            match tag {
                0x0a => compare.push(0x1a),
                _ => compare.extend([0x82, 0x04]),
            }
            compare.push(*len);
            compare.extend_from_slice(value);
            rest = after;
        }
        compare.extend_from_slice(rest);
        [&compare[..], &field(0x3a, SECRET), &equal].concat()
    };
    ranges(scene).into_iter().map(renumbered).collect()
}

/// Returns transactions around an operation of one type, at several depths, and with two in one.
pub(crate) fn txns(op: u8, inner: &[u8]) -> Vec<Vec<u8>> {
    let msg = |tag: u8, value: &[u8]| {
        Msg::new()
            .bytes(u32::from(tag >> 3), value)
            .as_ref()
            .to_vec()
    };
    let one = msg(op << 3 | 2, inner);
    let put = msg(0x12, &raw(&[b"\x0a\x01a\x12\x06inside"]));
    let then = msg(0x12, &one);
    let nested = |txn: &[u8]| msg(0x1a, &msg(0x22, txn));
    vec![
        then.clone(),
        msg(0x1a, &one),
        nested(&then),
        nested(&nested(&nested(&then))),
        // Two of one oneof.
        msg(0x12, &raw(&[&put, &one])),
        msg(0x12, &raw(&[&one, &put])),
        msg(0x12, &raw(&[&one, &one])),
        msg(0x12, &raw(&[&msg(0x22, &then), &msg(0x22, &then)])),
        // The length of the operation ends within its content.
        [
            &[0x12, u8::try_from(one.len() % 100).expect("short") / 2],
            &one[..],
        ]
        .concat(),
    ]
}
