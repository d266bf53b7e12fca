//! Calls of unknown methods, and malformed requests.

use bytes::Bytes;

use crate::recording::Recorder;
use crate::support::pb::Msg;

pub(crate) async fn run(etcd: &mut Recorder) {
    for (path, case) in [
        ("/etcdserverpb.KV/Invented", "an unknown method"),
        ("/invented.Service/Method", "an unknown service"),
        ("/invented.Service/", "an empty method"),
        ("/no-service", "not a method name"),
    ] {
        etcd.unary(path, case, Msg::new().bytes(1, "a"), 12).await;
    }
    let unknown = etcd
        .unary("/invented.Service/Method", "again", Msg::new(), 12)
        .await;
    assert_eq!(unknown.message(), "unknown service invented.Service");

    for (case, bytes, code) in [
        ("not protobuf", &b"\0\0\0\0\x03\x0a\xff\xff"[..], 13),
        (
            "compressed, without an encoding",
            b"\x01\0\0\0\x03\x0a\x01a",
            13,
        ),
        ("no message", b"", 2),
    ] {
        let mut call = etcd.open("KV/Range").await;
        call.send_raw(Bytes::from_static(bytes)).await;
        call.half_close();
        etcd.record("KV/Range", case, call.finish().await, Some(code), &[]);
    }
    for (case, metadata, code) in [
        ("in an unknown compression", ("grpc-encoding", "lzw"), 12),
        ("custom metadata", ("x-custom", "value"), 0),
        ("binary metadata", ("x-custom-bin", "AAECAw=="), 0),
        ("requiring a leader", ("hasleader", "true"), 0),
        ("a client version", ("client-api-version", "3.7"), 0),
        (
            "an invalid client version",
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
        etcd.record("KV/Range", case, call.finish().await, Some(code), &[]);
    }
}
