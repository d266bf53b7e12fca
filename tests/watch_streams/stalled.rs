//! A member that says nothing more, with watches on it and calls at another: nobody waits for it (E5, W10).

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

/// Waits until the proxy's calls go to a member.
async fn serves(proxy: &Proxy, address: &str) {
    let until = Instant::now() + LIMIT;
    while !proxy_output::current_endpoint(proxy).is_some_and(|serving| serving.ends_with(address)) {
        assert!(Instant::now() < until, "{}", proxy.process.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_leaves_a_member_that_stalls_though_no_call_goes_there() {
    let mut cluster = Cluster::start(NEWEST, 3);
    // No ping finds out within this test's time.
    let flags = [
        "--endpoint-policy=leader",
        "--dial-keepalive-timeout=300s",
        "--advertise-client-url=",
    ];
    let proxy = Proxy::start(&cluster, &flags);
    let first = cluster.leader();
    serves(&proxy, &cluster.endpoint(first)).await;
    let lane = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let mut watches = Stream::open(&lane, &[]).await;
    watches.create(&Create::of("k", "l")).await;
    // Calls go where another leads from now on; the watch stays.
    let second = (first + 1) % 3;
    cluster.move_leader(second);
    serves(&proxy, &cluster.endpoint(second)).await;
    cluster.stop(first);
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    let told = lane.unary(PUT, put.as_ref(), None).await;
    assert!(told.ok(), "{told:?}");
    assert_eq!(watches.events(1).await[0].kv.key, b"k");
    cluster.resume(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_nobody_has_news_of_leaves_too() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let flags = ["--dial-keepalive-timeout=300s", "--advertise-client-url="];
    let proxy = Proxy::start(&cluster, &flags);
    let mut watches = Stream::connect(proxy.address()).await;
    watches.create(&Create::of("k", "l")).await;
    let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
    let is_serving = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
    let member = (0..3).find(is_serving).expect("a member");
    // What is written is so past the proxy, which has no call to learn from.
    let other = (member + 1) % 3;
    cluster.move_leader(other);
    cluster.stop(member);
    let put = cluster.etcdctl_at(&cluster.endpoint(other), &["put", "k", "v"]);
    assert!(put.status.success(), "{put:?}");
    assert_eq!(watches.events(1).await[0].kv.key, b"k");
    cluster.resume(member);
}
