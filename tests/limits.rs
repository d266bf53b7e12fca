//! Limits against clients: each limit of S1 is reached on purpose, and other clients are not
//! affected.
//!
//! Limits of a minute are reached only with `ETCD_EDGE_LONG=1`.

mod support;

#[path = "limits/client_pings.rs"]
mod client_pings;
#[path = "limits/dial_keepalive.rs"]
mod dial_keepalive;
#[path = "limits/floods.rs"]
mod floods;
#[path = "limits/memory.rs"]
mod memory;
#[path = "limits/message_size.rs"]
mod message_size;
#[path = "limits/requests.rs"]
mod requests;
#[path = "limits/timeouts.rs"]
mod timeouts;

use support::grpc::Client;
use support::proxy::Proxy;
use support::scripted_etcd::ScriptedEtcd;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const STREAM: &str = "/etcdserverpb.KV/RangeStream";
const UNKNOWN: &str = "/future.Service/New";

const OK: Option<u32> = Some(0);
const RESOURCE_EXHAUSTED: Option<u32> = Some(8);

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

/// Starts a scripted etcd, a proxy with these flags, and a well-behaved client.
async fn scene(flags: &[&str]) -> (ScriptedEtcd, Proxy, Client) {
    let etcd = ScriptedEtcd::start(1).await;
    let mut all = vec![etcd.flag()];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let proxy = Proxy::start_with(&all);
    let client = Client::connect(proxy.address()).await;
    (etcd, proxy, client)
}

/// Checks that a call of the well-behaved client succeeds.
async fn serves(etcd: &mut ScriptedEtcd, client: &Client) {
    let (reply, ()) = tokio::join!(client.unary(PUT, "x", &[]), async {
        etcd.next().await.respond("y");
    });
    assert_eq!(reply.only(), b"y");
}
