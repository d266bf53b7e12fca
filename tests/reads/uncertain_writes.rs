//! Tests of writes with an unknown outcome (R3).

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Call, Client};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::NEWEST;
use crate::{LONG, PUT, hits, put, range, read, send_range, serializable, values};

/// Caches a response, loses the response to a put through `lose`, and checks that later reads equal
/// etcd's, whether or not etcd applied the put.
async fn check_uncertain_write(lose: impl AsyncFnOnce(&mut Cluster, &Client)) {
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
    // Other entries stay valid.
    assert_eq!(read(&reader, "other", "").await, ["old"]);
    assert_eq!(hits(&proxy), 3.0);
    for _ in 0..3 {
        let expected = values(&send_range(&direct, range("k", "")).await);
        let reply = send_range(&reader, serializable(range("k", ""))).await;
        assert_eq!(values(&reply), expected);
    }
    let uncertain = "etcd_edge_cache_rejected_total{reason=\"write_uncertain\"}";
    assert!(proxy_output::metric(proxy.address(), uncertain) >= 1.0);
}

fn new_put() -> Msg {
    Msg::new().bytes(1, "k").bytes(2, "new")
}

/// Sends a put to an etcd that does not respond.
async fn send_put(cluster: &mut Cluster, client: &Client) -> Call {
    cluster.stop(0);
    let mut call = client.call(PUT, &[]).await;
    call.send(new_put()).await;
    call.half_close();
    tokio::time::sleep(Duration::from_millis(300)).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_past_its_deadline_invalidates_the_key() {
    check_uncertain_write(async |cluster: &mut Cluster, client: &Client| {
        cluster.stop(0);
        let deadline = &[("grpc-timeout", "300m")];
        let reply = client.unary(PUT, new_put(), deadline).await;
        assert_eq!(reply.code(), Some(4), "{reply:?}");
        cluster.resume(0);
        cluster.wait_healthy(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_cancelled_by_its_client_invalidates_the_key() {
    check_uncertain_write(async |cluster: &mut Cluster, client: &Client| {
        let mut call = send_put(cluster, client).await;
        call.cancel();
        cluster.resume(0);
        cluster.wait_healthy(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_on_a_lost_connection_invalidates_the_key() {
    check_uncertain_write(async |cluster: &mut Cluster, client: &Client| {
        let call = send_put(cluster, client).await;
        cluster.restart(0);
        let reply = call.finish().await;
        assert_eq!(reply.code(), Some(14), "{reply:?}");
        cluster.wait_healthy(0);
    })
    .await;
}
