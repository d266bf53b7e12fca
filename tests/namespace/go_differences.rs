//! Test of the documented differences from Go's proxy with a namespace
//! (`docs/features/namespace.md`).

use crate::scene::{PUT, RANGE, REVOKE, TIME_TO_LIVE, TXN, WATCH, call_ok, repeated};
use crate::start;
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::heartbeats::grant;
use crate::support::pb::{self, Msg};
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

/// Behaviour of a proxy with the namespace `p/`.
#[derive(Debug, PartialEq, Eq)]
struct Behaviour {
    snapshot: Option<u32>,
    compact: Option<u32>,
    range_stream: Option<u32>,
    /// Key of a lock at etcd.
    lock: String,
    /// Status of a transaction with an empty key.
    empty: Option<u32>,
    /// Whether that transaction wrote the key that equals the prefix.
    wrote_prefix: bool,
    /// Keys of a lease, as a client sees them.
    shown: Vec<String>,
    revoke: Option<u32>,
    /// Key in the first event of a watch on the empty key, after puts of the prefix and of `p/\0`.
    watched: String,
}

async fn observe(cluster: &Cluster, proxy: &Proxy) -> Behaviour {
    let client = Client::connect(proxy.address()).await;
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let code = async |path: &str, request: Msg| client.unary(path, request, &[]).await.code();
    let put = |key: &str, lease| Msg::new().bytes(1, key).bytes(2, "v").int(3, lease);

    let lease = grant(&direct, 600).await;
    let lock = Msg::new().bytes(1, "lock").int(2, lease);
    call_ok(&client, "/v3lockpb.Lock/Lock", lock).await;
    let keys = Msg::new().int(1, lease).int(2, 1);
    let lock = call_ok(&direct, TIME_TO_LIVE, keys).await;
    let lock = repeated(lock.only(), 5).next().expect("a key");
    let lock = text(lock).replace(&format!("{lease:x}"), "LEASE");

    let empty = Msg::new().msg(2, Msg::new().msg(2, put("", 0)));
    let empty = code(TXN, empty).await;
    let prefix = call_ok(&direct, RANGE, Msg::new().bytes(1, "p/")).await;
    let wrote_prefix = pb::int(prefix.only(), &[4]) == 1;

    let lease = grant(&direct, 600).await;
    call_ok(&direct, PUT, put("p/", lease)).await;
    call_ok(&direct, PUT, put("outside", lease)).await;
    let keys = Msg::new().int(1, lease).int(2, 1);
    let shown = call_ok(&client, TIME_TO_LIVE, keys).await;
    let shown = repeated(shown.only(), 5).map(text).collect();
    let revoke = code(REVOKE, Msg::new().int(1, lease)).await;

    let mut watch = client.call(WATCH, &[]).await;
    watch.send(Msg::new().msg(1, Msg::new().bytes(1, ""))).await;
    watch.next().await.expect("created");
    call_ok(&direct, PUT, put("p/", 0)).await;
    call_ok(&direct, PUT, put("p/\0", 0)).await;
    let watched = loop {
        let message = watch.next().await.expect("an event");
        if let Some(event) = repeated(&message, 11).next() {
            break text(pb::bytes(&event, &[2, 1]));
        }
    };
    Behaviour {
        snapshot: code("/etcdserverpb.Maintenance/Snapshot", Msg::new()).await,
        compact: code("/etcdserverpb.KV/Compact", Msg::new().int(1, 2)).await,
        range_stream: code("/etcdserverpb.KV/RangeStream", Msg::new().bytes(1, "a")).await,
        lock,
        empty,
        wrote_prefix,
        shown,
        revoke,
        watched,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_differences_from_gos_proxy_exist() {
    let cluster = Cluster::start(NEWEST, 1);
    let address = format!("127.0.0.1:{}", ports::take());
    let flags = [
        "--namespace=p/".to_owned(),
        format!("--advertise-client-url={address}"),
    ];
    let go = Proxy::start_go_at(&cluster, address, &flags);
    let go = observe(&cluster, &go).await;
    let cluster = Cluster::start(NEWEST, 1);
    let edge = observe(&cluster, &start(&cluster, "p/", &[])).await;
    let refused = Some(7);
    assert_eq!(
        edge,
        Behaviour {
            snapshot: refused,
            compact: refused,
            range_stream: Some(0),
            lock: "p/lock/LEASE".to_owned(),
            empty: Some(3),
            wrote_prefix: false,
            shown: vec![],
            revoke: refused,
            watched: "\0".to_owned(),
        }
    );
    assert_eq!(
        go,
        Behaviour {
            snapshot: Some(0),
            compact: Some(0),
            range_stream: Some(12),
            lock: "lock/LEASE".to_owned(),
            empty: Some(0),
            wrote_prefix: true,
            shown: vec![String::new()],
            revoke: Some(0),
            watched: String::new(),
        }
    );
}
