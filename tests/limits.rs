//! What no client can do to the proxy: every bound of S1 met on purpose, and the neighbours who do not
//! notice.
//!
//! Bounds of a minute are met with `ETCD_EDGE_LONG=1` only.

mod support;

#[path = "limits/dials.rs"]
mod dials;
#[path = "limits/floods.rs"]
mod floods;
#[path = "limits/memory.rs"]
mod memory;
#[path = "limits/messages.rs"]
mod messages;
#[path = "limits/pings.rs"]
mod pings;
#[path = "limits/requests.rs"]
mod requests;
#[path = "limits/times.rs"]
mod times;

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

/// A scripted etcd, a proxy with these flags before it, and a well-behaved client.
async fn scene(flags: &[&str]) -> (ScriptedEtcd, Proxy, Client) {
    let etcd = ScriptedEtcd::start(1).await;
    let mut all = vec![etcd.flag()];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let proxy = Proxy::start_with(&all);
    let client = Client::connect(proxy.address()).await;
    (etcd, proxy, client)
}

/// A call of the well-behaved client, answered.
async fn serves(etcd: &mut ScriptedEtcd, client: &Client) {
    let (reply, ()) = tokio::join!(client.unary(PUT, "x", &[]), async {
        etcd.next().await.respond("y");
    });
    assert_eq!(reply.only(), b"y");
}
