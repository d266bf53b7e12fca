//! Compressed calls in a namespace: the same messages as without compression, compressed as etcd
//! compresses them, and the same errors as at etcd (P6, N1).

use bytes::Bytes;
use etcd_edge::wire::gzip;

use crate::scene::{DELETE, PUT, RANGE, REVOKE, TIME_TO_LIVE, TXN, WATCH, call_ok};
use crate::start;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, Reply, frame};
use crate::support::heartbeats::{KEEP_ALIVE, grant, put_with_lease};
use crate::support::pb::{self, Msg};
use crate::support::release::versions;

const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const BYPASS: (&str, &str) = ("etcd-edge-bypass", "1");

/// A client of etcd and one in the namespace.
struct Sides {
    direct: Client,
    inside: Client,
}

impl Sides {
    /// Sends the same compressed request on both sides. The keys differ, and so do the messages.
    async fn compressed(&self, path: &str, request: impl AsRef<[u8]>) -> [Reply; 2] {
        let call = async |client: &Client| {
            let reply = client.with_gzip().unary(path, &request, &[]).await;
            (reply.headers.clone(), reply.compressed, reply)
        };
        let (direct, inside) = (call(&self.direct).await, call(&self.inside).await);
        assert_eq!(inside.0, direct.0, "{path}: {:?}", inside.2);
        assert_eq!(inside.1, direct.1, "{path}: {:?}", inside.2);
        assert_eq!(inside.2.code(), Some(0), "{path}: {:?}", inside.2);
        [direct.2, inside.2]
    }

    /// Sends raw bytes and returns status and headers of both sides, which must be equal.
    async fn refused(&self, path: &str, bytes: Bytes, code: u32) {
        let call = async |client: &Client| {
            let mut call = client.call(path, &[("grpc-encoding", "gzip")]).await;
            call.send_raw(bytes.clone()).await;
            call.half_close();
            call.finish().await
        };
        let (direct, inside) = (call(&self.direct).await, call(&self.inside).await);
        assert_eq!(direct.code(), Some(code), "{path}");
        assert_eq!(inside, direct, "{path}");
    }
}

async fn compare(version: &str) {
    let cluster = Cluster::start(version, 1);
    // The limit of etcd.
    let proxy = start(&cluster, "p/", &["--max-send-bytes=2097152"]);
    let sides = Sides {
        direct: Client::connect(&cluster.endpoint(0)).await,
        inside: Client::connect(proxy.address()).await,
    };
    let key = |key: &str| Msg::new().bytes(1, key);
    let value = [b'v'; 1000];
    sides.compressed(PUT, key("a").bytes(2, value)).await;
    let lease = grant(&sides.direct, 600).await;
    put_with_lease(&sides.inside, "leased", lease, &[]).await;

    let stored = call_ok(&sides.direct, RANGE, key("p/a")).await;
    let stored = pb::bytes(stored.only(), &[2, 5]);
    assert_eq!(stored, value, "the put is not in the namespace");
    let get = Msg::new().msg(1, key("a"));
    for (path, request) in [
        (RANGE, key("a")),
        (RANGE, key("a").int(7, 1)),
        (RANGE, key("\0").bytes(2, "\0")),
        (TXN, Msg::new().msg(2, get.clone()).msg(2, get)),
        (TIME_TO_LIVE, Msg::new().int(1, lease).int(2, 1)),
        (ALARM, Msg::new()),
    ] {
        let plain = call_ok(&sides.inside, path, &request).await;
        // Twice: the second may come from the cache.
        for _ in 0..2 {
            let [_, inside] = sides.compressed(path, &request).await;
            assert_eq!(inside.messages, plain.messages, "{path}");
        }
        let gzip = sides.inside.with_gzip();
        let bypassing = gzip.unary(path, &request, &[BYPASS]).await;
        assert_eq!(bypassing.messages, plain.messages, "{path}");
        let again = call_ok(&sides.inside, path, &request).await;
        assert_eq!(
            again, plain,
            "{path}: a compressed call changes a plain one"
        );
    }
    watches(&sides).await;
    let heartbeat = Msg::new().int(1, lease);
    sides.compressed(KEEP_ALIVE, heartbeat).await;
    let gone = sides.compressed(DELETE, key("a").int(3, 1)).await;
    assert_eq!(pb::bytes(gone[1].only(), &[3, 1]), b"a");
    let revoke = Msg::new().int(1, lease);
    let gzip = sides.inside.with_gzip();
    let revoked = gzip.unary(REVOKE, revoke, &[]).await;
    assert_eq!((revoked.code(), revoked.compressed), (Some(0), 1));

    let compressed = |message: Msg| gzip::compress([message.as_ref()], Vec::new());
    let valid = compressed(key("a"));
    for path in [RANGE, PUT, TXN, WATCH, KEEP_ALIVE, TIME_TO_LIVE] {
        let part = |end| frame(1, &valid[..end]);
        for bytes in [part(0), part(10), part(valid.len() - 1), frame(1, &[7; 40])] {
            sides.refused(path, bytes, 13).await;
        }
    }
    for path in [RANGE, PUT, TXN, WATCH] {
        let bomb = Msg::new().bytes(1000, vec![0; 20 << 20]);
        sides.refused(path, frame(1, &compressed(bomb)), 8).await;
    }
}

/// Events are compressed, shared or not, and contain the same as uncompressed ones.
async fn watches(sides: &Sides) {
    let create = |key: &str| Msg::new().msg(1, Msg::new().bytes(1, key));
    let gzip = [sides.direct.with_gzip(), sides.inside.with_gzip()];
    let inside = create("watched");
    let mut calls = vec![
        (gzip[0].call(WATCH, &[]).await, create("p/watched")),
        (gzip[1].call(WATCH, &[]).await, inside.clone()),
        (gzip[1].call(WATCH, &[BYPASS]).await, inside.clone()),
        (sides.inside.call(WATCH, &[]).await, inside),
    ];
    for (call, request) in &mut calls {
        call.send(request).await;
        call.next().await.expect("the watch is created");
    }
    let put = Msg::new().bytes(1, "watched").bytes(2, "value");
    call_ok(&sides.inside, PUT, put).await;
    let mut replies = Vec::new();
    for (mut call, _) in calls {
        call.next().await.expect("the event");
        // Ends the call with an error.
        call.send_raw(frame(3, b"")).await;
        let reply = call.finish().await;
        replies.push((reply.compressed, reply.headers, reply.messages));
    }
    let events: Vec<_> = replies
        .iter()
        .map(|(_, _, messages)| {
            let event = &messages[1];
            (pb::bytes(event, &[11, 2, 1]), pb::bytes(event, &[11, 2, 5]))
        })
        .collect();
    assert_eq!(events[0].0, b"p/watched");
    for event in &events[1..] {
        assert_eq!(*event, (b"watched".to_vec(), b"value".to_vec()));
    }
    let compressed: Vec<usize> = replies.iter().map(|reply| reply.0).collect();
    assert_eq!(compressed, [2, 2, 2, 0]);
    assert_eq!(replies[1].1, replies[0].1);
    assert_eq!(replies[2].1, replies[0].1);
}

#[tokio::test]
async fn compressed_calls_equal_those_of_every_release() {
    for version in versions() {
        compare(version).await;
    }
}
