//! Tests of reads in front of a real etcd. A cached response is returned while it is valid and no
//! longer, equal reads are coalesced, and no response crosses from one user to another (R1 to R6).

mod support;

#[path = "reads/cache.rs"]
mod cache;
#[path = "reads/coalescing.rs"]
mod coalescing;
#[path = "reads/compression.rs"]
mod compression;
#[path = "reads/identities.rs"]
mod identities;
#[path = "reads/invalidation.rs"]
mod invalidation;
#[path = "reads/uncertain_writes.rs"]
mod uncertain_writes;
#[path = "reads/watch_proof.rs"]
mod watch_proof;

use support::cluster::Cluster;
use support::grpc::{Client, Metadata, Reply};
use support::pb::{self, Msg};
use support::proxy::Proxy;
use support::proxy_output;
use support::release::NEWEST;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Age limit that no test reaches: only a write, or the end of the test, makes a response too old.
const LONG: &str = "--cache-max-age=1h";

fn scene(flags: &[&str]) -> (Cluster, Proxy) {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, flags);
    (cluster, proxy)
}

/// Returns a `RangeRequest` for a key, or for all keys up to an end.
fn range(key: &str, end: &str) -> Msg {
    let range = Msg::new().bytes(1, key);
    if end.is_empty() {
        range
    } else {
        range.bytes(2, end)
    }
}

/// Makes a `RangeRequest` serializable: any member may serve it.
fn serializable(range: Msg) -> Msg {
    range.int(7, 1)
}

async fn send_range(client: &Client, range: Msg) -> Reply {
    client.unary(RANGE, range, &[]).await
}

/// Sends a serializable read. Returns the values in key order.
async fn read(client: &Client, key: &str, end: &str) -> Vec<String> {
    values(&send_range(client, serializable(range(key, end))).await)
}

fn values(reply: &Reply) -> Vec<String> {
    let fields = pb::fields(reply.only()).into_iter();
    let kvs = fields.filter_map(|(number, value)| match value {
        pb::Value::Bytes(kv) if number == 2 => Some(kv),
        _ => None,
    });
    kvs.map(|kv| String::from_utf8_lossy(&pb::bytes(&kv, &[5])).into_owned())
        .collect()
}

fn revision(reply: &Reply) -> i64 {
    pb::int(reply.only(), &[1, 3])
}

/// Writes a key. Returns the revision.
async fn put(client: &Client, key: &str, value: &str) -> i64 {
    put_as(client, key, value, &[]).await
}

async fn put_as(client: &Client, key: &str, value: &str, metadata: Metadata<'_>) -> i64 {
    let put = Msg::new().bytes(1, key).bytes(2, value);
    revision(&client.unary(PUT, put, metadata).await)
}

fn hits(proxy: &Proxy) -> f64 {
    proxy_output::metric(proxy.address(), "etcd_edge_cache_hits_total")
}

/// Returns the number of Range and Txn requests that etcd has received, by its own count.
fn etcd_reads(cluster: &Cluster) -> f64 {
    let page = support::http::get(&cluster.endpoint(0), "/metrics").expect("etcd's page");
    let lines = page.body.lines();
    let started = lines.filter(|line| {
        line.starts_with("grpc_server_started_total{")
            && (line.contains("grpc_method=\"Range\"") || line.contains("grpc_method=\"Txn\""))
    });
    started
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
