//! Health watches while members fail, beside a client that sends calls only while the proxy serves,
//! as gRPC clients with a `healthCheckConfig` do.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::grpc_health::{NOT_SERVING, SERVING, SOON, next, watch};
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

const RANGE: &str = "/etcdserverpb.KV/Range";

/// Sends a linearizable read with a deadline of two seconds and returns the code.
async fn read(client: &Client) -> Option<u32> {
    let range = Msg::new().bytes(1, "a");
    let deadline = [("grpc-timeout", "2S")];
    client.unary(RANGE, range, &deadline).await.code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_cluster_is_reported_before_a_call_fails() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let client = Client::connect(proxy.address()).await;
    let mut watches = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(proxy.address()).await;
        watches.push(watch(&client, "").await);
    }
    for watch in &mut watches {
        assert_eq!(next(watch, SOON).await.unwrap(), SERVING);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        assert_eq!(read(&client).await, Some(0));
        // The last call has a response. The next is due in a second.
        let begun = Instant::now();
        (0..3).for_each(|member| cluster.kill(member));
        for watch in &mut watches {
            assert_eq!(next(watch, SOON).await.unwrap(), NOT_SERVING);
        }
        let took = begun.elapsed();
        longest = longest.max(took);
        println!("outage reported after {took:?}");
        (0..3).for_each(|member| cluster.restart(member));
        (0..3).for_each(|member| cluster.wait_healthy(member));
        let begun = Instant::now();
        for watch in &mut watches {
            assert_eq!(next(watch, SOON).await.unwrap(), SERVING);
        }
        println!("recovery reported after {:?}", begun.elapsed());
        assert_eq!(read(&client).await, Some(0));
    }
    assert!(
        longest < Duration::from_secs(1),
        "a call was lost: {longest:?}"
    );
}

/// A member that fails is no outage: another one serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_is_not_reported_as_an_outage() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let client = Client::connect(proxy.address()).await;
    let mut watch = watch(&client, "").await;
    assert_eq!(next(&mut watch, SOON).await.unwrap(), SERVING);
    // Each member fails once as a follower. One of them serves the proxy. The failure of a leader
    // would fail reads until the next election.
    for member in 0..3 {
        cluster.move_leader((member + 1) % 3);
        cluster.kill(member);
        for _ in 0..5 {
            assert_eq!(read(&client).await, Some(0));
            sleep(Duration::from_millis(100)).await;
        }
        let change = timeout(Duration::from_millis(500), watch.next()).await;
        assert!(change.is_err(), "{change:?}");
        cluster.restart(member);
        cluster.wait_healthy(member);
    }
}

/// A proxy that starts during an outage reports it as fast.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_without_endpoints_reports_them_as_lost_at_once() {
    let mut cluster = Cluster::start(NEWEST, 1);
    cluster.kill(0);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let client = Client::connect(proxy.address()).await;
    let begun = Instant::now();
    let mut watch = watch(&client, "").await;
    assert_eq!(next(&mut watch, SOON).await.unwrap(), NOT_SERVING);
    let took = begun.elapsed();
    println!("outage reported after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    cluster.restart(0);
    assert_eq!(next(&mut watch, 2 * SOON).await.unwrap(), SERVING);
    assert_eq!(read(&client).await, Some(0));
}
