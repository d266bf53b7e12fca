//! What etcd does not know, and requests that are not well formed.

use bytes::Bytes;

use crate::recording::Recorder;
use crate::support::pb::Msg;

pub(crate) async fn play(etcd: &mut Recorder) {
    for (path, what) in [
        ("/etcdserverpb.KV/Invented", "an unknown method"),
        ("/invented.Service/Method", "an unknown service"),
        ("/invented.Service/", "an empty method"),
        ("/no-service", "not a method name"),
    ] {
        etcd.unary(path, what, Msg::new().bytes(1, "a"), 12).await;
    }
    let unknown = etcd
        .unary("/invented.Service/Method", "again", Msg::new(), 12)
        .await;
    assert_eq!(unknown.message(), "unknown service invented.Service");

    for (what, bytes, code) in [
        ("not protobuf", &b"\0\0\0\0\x03\x0a\xff\xff"[..], 13),
        (
            "compressed, without saying how",
            b"\x01\0\0\0\x03\x0a\x01a",
            13,
        ),
        ("no message", b"", 2),
    ] {
        let mut call = etcd.open("KV/Range").await;
        call.send_raw(Bytes::from_static(bytes)).await;
        call.half_close();
        etcd.keep("KV/Range", what, call.finish().await, Some(code), &[]);
    }
    for (what, metadata, code) in [
        ("in an unknown compression", ("grpc-encoding", "lzw"), 12),
        ("metadata of its own", ("x-of-its-own", "value"), 0),
        ("binary metadata", ("x-of-its-own-bin", "AAECAw=="), 0),
        ("asking for a leader", ("hasleader", "true"), 0),
        ("a client version", ("client-api-version", "3.7"), 0),
        (
            "a client version that is none",
            ("client-api-version", "\u{e9}"),
            0,
        ),
    ] {
        let mut call = etcd
            .client
            .call("/etcdserverpb.KV/Range", &[metadata])
            .await;
        let compressed = u8::from(metadata.0 == "grpc-encoding");
        call.send_raw(Bytes::from(vec![compressed, 0, 0, 0, 3, 0x0a, 1, b'a']))
            .await;
        call.half_close();
        etcd.keep("KV/Range", what, call.finish().await, Some(code), &[]);
    }
}
