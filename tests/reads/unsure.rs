//! Writes of which nobody knows whether they are done (R3).

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Call, Client};
use crate::support::pages;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::{LONG, PUT, ask, hits, put, range, read, serializable, values};

/// Keeps an answer, sends a put that etcd does not answer, and has etcd do it or not; then the answer is
/// etcd's own.
async fn unsure(lose: impl AsyncFnOnce(&mut Cluster, &Client)) {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &[LONG]);
    let client = Client::connect(proxy.address()).await;
    for key in ["k", "other"] {
        put(&client, key, "old").await;
        for _ in 0..2 {
            assert_eq!(read(&client, key, "").await, ["old"]);
        }
    }
    assert_eq!(hits(&proxy), 2.0);
    lose(&mut cluster, &client).await;
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let reader = Client::connect(proxy.address()).await;
    // What else is kept is given on.
    assert_eq!(read(&reader, "other", "").await, ["old"]);
    assert_eq!(hits(&proxy), 3.0);
    for _ in 0..3 {
        let told = values(&ask(&direct, range("k", "")).await);
        let given = ask(&reader, serializable(range("k", ""))).await;
        assert_eq!(values(&given), told);
    }
    let unsure = "etcd_edge_cache_invalidated_total{cause=\"unsure\"}";
    assert!(pages::metric(proxy.address(), unsure) >= 1.0);
}

fn new() -> Msg {
    Msg::new().bytes(1, "k").bytes(2, "new")
}

/// A put that has left for an etcd that is silent.
async fn left(cluster: &mut Cluster, client: &Client) -> Call {
    cluster.stop(0);
    let mut call = client.call(PUT, &[]).await;
    call.send(new()).await;
    call.half_close();
    tokio::time::sleep(Duration::from_millis(300)).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_whose_time_is_over() {
    unsure(async |cluster: &mut Cluster, client: &Client| {
        cluster.stop(0);
        let hurried = &[("grpc-timeout", "300m")];
        let reply = client.unary(PUT, new(), hurried).await;
        assert_eq!(reply.code(), Some(4), "{reply:?}");
        cluster.resume(0);
        cluster.wait_healthy(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_its_client_leaves() {
    unsure(async |cluster: &mut Cluster, client: &Client| {
        let mut call = left(cluster, client).await;
        call.cancel();
        cluster.resume(0);
        cluster.wait_healthy(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_whose_connection_is_lost() {
    unsure(async |cluster: &mut Cluster, client: &Client| {
        let call = left(cluster, client).await;
        cluster.restart(0);
        let reply = call.finish().await;
        assert_eq!(reply.code(), Some(14), "{reply:?}");
        cluster.wait_healthy(0);
    })
    .await;
}
