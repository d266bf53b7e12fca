//! Tests of a member that stalls with watches on it: the watches move to another member (E5, W10).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::NEWEST;
use crate::support::watch::messages::Create;
use crate::support::watch::stream::Stream;

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the proxy uses a member for its calls.
async fn wait_endpoint(proxy: &Proxy, address: &str) {
    let until = Instant::now() + LIMIT;
    while !proxy_output::current_endpoint(proxy).is_some_and(|endpoint| endpoint.ends_with(address))
    {
        assert!(Instant::now() < until, "{}", proxy.process.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_leaves_a_stalled_member_that_serves_no_calls() {
    let mut cluster = Cluster::start(NEWEST, 3);
    // A keepalive ping would time out after the end of this test.
    let flags = [
        "--endpoint-policy=leader",
        "--dial-keepalive-timeout=300s",
        "--advertise-client-url=",
    ];
    let proxy = Proxy::start(&cluster, &flags);
    let first = cluster.leader();
    wait_endpoint(&proxy, &cluster.endpoint(first)).await;
    let connection = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let mut watches = Stream::open(&connection, &[]).await;
    watches.create(&Create::of("k", "l")).await;
    // From now on calls use another leader. The watch stays at the first one.
    let second = (first + 1) % 3;
    cluster.move_leader(second);
    wait_endpoint(&proxy, &cluster.endpoint(second)).await;
    cluster.stop(first);
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    let result = connection.unary(PUT, put.as_ref(), None).await;
    assert!(result.ok(), "{result:?}");
    assert_eq!(watches.events(1).await[0].kv.key, b"k");
    cluster.resume(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_watch_leaves_a_stalled_member_without_any_call() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let flags = ["--dial-keepalive-timeout=300s", "--advertise-client-url="];
    let proxy = Proxy::start(&cluster, &flags);
    let mut watches = Stream::connect(proxy.address()).await;
    watches.create(&Create::of("k", "l")).await;
    let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
    let is_serving = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
    let member = (0..3).find(is_serving).expect("a member");
    // The write does not pass through the proxy, which has no call to learn from.
    let other = (member + 1) % 3;
    cluster.move_leader(other);
    cluster.stop(member);
    let put = cluster.etcdctl_at(&cluster.endpoint(other), &["put", "k", "v"]);
    assert!(put.status.success(), "{put:?}");
    assert_eq!(watches.events(1).await[0].kv.key, b"k");
    cluster.resume(member);
}
