//! Compressed calls: encodings, flags, invalid and large messages.

use bytes::Bytes;
use etcd_edge::wire::gzip;

use crate::recording::Recorder;
use crate::support::grpc::frame;
use crate::support::pb::Msg;

const GZIP: (&str, &str) = ("grpc-encoding", "gzip");

fn compressed(message: impl AsRef<[u8]>) -> Vec<u8> {
    gzip::compress([message.as_ref()], Vec::new())
}

pub(crate) async fn run(etcd: &mut Recorder) {
    let key = || Msg::new().bytes(1, "compressed");
    let value = vec![b'v'; 3000];
    let put = key().bytes(2, &value);
    etcd.unary("KV/Put", "for compressed reads", put, 0).await;
    etcd.authorize(None);
    headers(
        etcd,
        &frame(0, key().as_ref()),
        &frame(1, &compressed(key())),
    )
    .await;
    for (path, request) in [
        ("KV/Range", key()),
        ("Cluster/MemberList", Msg::new()),
        ("Lease/LeaseKeepAlive", Msg::new().int(1, 12345)),
        ("Watch/Watch", Msg::new().msg(1, key())),
        ("grpc.health.v1.Health/Check", Msg::new()),
        ("KV/Txn", Msg::new().msg(2, Msg::new().msg(1, key()))),
    ] {
        let valid = compressed(request);
        for (case, message) in invalid(&valid) {
            send(etcd, path, case, &[GZIP], frame(1, &message), Some(13)).await;
        }
        let deflate = [("grpc-encoding", "deflate")];
        for (case, metadata, bytes, code) in [
            ("deflate", &deflate[..], frame(1, &valid), 12),
            ("deflate, not flagged", &deflate[..], frame(0, b""), 12),
        ] {
            send(etcd, path, case, metadata, bytes, Some(code)).await;
        }
    }
    streams(etcd).await;
    // etcd accepts 2 MiB.
    for size in [0, 1 << 20, (2 << 20) - 20, 2 << 20, 100 << 20] {
        let request = key().bytes(1000, vec![0; size]);
        let case = format!("{size} zero bytes");
        let code = if size < 2 << 20 { 0 } else { 8 };
        let bytes = frame(1, &compressed(request));
        send(etcd, "KV/Range", &case, &[GZIP], bytes, Some(code)).await;
    }
}

/// Combinations of the headers and the flag.
async fn headers(etcd: &mut Recorder, plain: &Bytes, gzip: &Bytes) {
    let named = |name: &'static str| ("grpc-encoding", name);
    let accept = |names: &'static str| ("grpc-accept-encoding", names);
    for (case, metadata, bytes, code) in [
        ("gzip", &[GZIP][..], gzip, 0),
        ("gzip, not flagged", &[GZIP], plain, 0),
        ("accepting gzip", &[named(""), accept("gzip")], plain, 0),
        ("accepting no gzip", &[GZIP, accept("identity")], gzip, 0),
        ("identity", &[named("identity")], plain, 0),
        ("identity, flagged", &[named("identity")], gzip, 13),
        ("no encoding, flagged", &[named("")], gzip, 13),
        ("another case", &[named("GZIP")], gzip, 12),
        ("a list", &[named("gzip,identity")], gzip, 12),
        ("identity last", &[GZIP, named("identity")], gzip, 13),
        ("gzip last", &[named("identity"), GZIP], gzip, 0),
        ("deflate", &[named("deflate")], gzip, 12),
        ("snappy, not flagged", &[named("snappy")], plain, 12),
    ] {
        send(etcd, "KV/Range", case, metadata, bytes.clone(), Some(code)).await;
    }
}

/// Messages that are not valid gzip, made of a valid one.
fn invalid(valid: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let end = valid.len();
    let with = |at: usize, byte: u8| {
        let mut message = valid.to_vec();
        message[at] = byte;
        message
    };
    let followed_by = |rest: &[u8]| [valid, rest].concat();
    vec![
        ("an empty compressed message", Vec::new()),
        ("no gzip", b"junkjunkjunk".to_vec()),
        ("a short header", valid[..2].to_vec()),
        ("another method", with(2, 7)),
        ("a header only", valid[..10].to_vec()),
        ("without trailer", valid[..end - 8].to_vec()),
        ("a truncated trailer", valid[..end - 1].to_vec()),
        ("a wrong checksum", with(end - 8, valid[end - 8] ^ 1)),
        ("a wrong length", with(end - 1, 0xff)),
        ("a corrupt block", with(10, 7)),
        ("a short rest", followed_by(b"rest")),
        ("zeros behind it", followed_by(&[0; 20])),
    ]
}

/// Several messages of one stream, compressed and not.
async fn streams(etcd: &mut Recorder) {
    let create = |key: &str| Msg::new().msg(1, Msg::new().bytes(1, key));
    let members = [
        compressed(&create("x").as_ref()[..2]),
        compressed(&create("x").as_ref()[2..]),
    ];
    for (case, second, code) in [
        ("a plain one second", frame(0, create("x").as_ref()), None),
        ("two members", frame(1, &members.concat()), None),
        ("junk second", frame(1, b"junkjunkjunk"), Some(13)),
    ] {
        let mut call = etcd.client.call("/etcdserverpb.Watch/Watch", &[GZIP]).await;
        call.send_raw(frame(1, &compressed(create("w")))).await;
        call.next().await.expect("the watch is created");
        call.send_raw(second).await;
        if code.is_none() {
            call.next().await.expect("the second watch is created");
            // etcd ends a watch stream only with its client.
            call.send_raw(frame(1, b"end")).await;
        }
        etcd.record("Watch/Watch", case, call.finish().await, Some(13), &[]);
    }
}

async fn send(
    etcd: &mut Recorder,
    path: &str,
    case: &str,
    metadata: &[(&str, &str)],
    bytes: Bytes,
    code: Option<u32>,
) {
    let full = match path.starts_with("grpc.") {
        true => format!("/{path}"),
        false => format!("/etcdserverpb.{path}"),
    };
    let mut call = etcd.client.call(&full, metadata).await;
    call.send_raw(bytes).await;
    call.half_close();
    etcd.record(path, case, call.finish().await, code, &[]);
}
