//! A cluster without a leader: who asked for one is told so, nobody else (W12).

use std::sync::Arc;

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::NEWEST;
use crate::support::watch::messages::Create;
use crate::support::watch::stream::Stream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_streams_that_ask_for_a_leader_end_without_one() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let lane = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let leader = [("hasleader".to_owned(), "true".to_owned())];
    let all = Create::of("k", "l");
    let mut asks = Stream::open(&lane, &leader).await;
    asks.create(&all).await;
    let mut does_not = Stream::open(&lane, &[]).await;
    does_not.create(&all).await;

    let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
    let is_serving = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
    let others: Vec<usize> = (0..3).filter(|member| !is_serving(member)).collect();
    for member in &others {
        cluster.kill(*member);
    }
    let ended = asks.next_or_end().await.expect_err("no event can come");
    assert_eq!(ended, "status 14 etcdserver: no leader");
    let mut late = Stream::open(&lane, &leader).await;
    late.send(&all.request());
    let ended = late.next_or_end().await.expect_err("no leader yet");
    assert_eq!(ended, "status 14 etcdserver: no leader");

    for member in &others {
        cluster.restart(*member);
    }
    cluster.wait_healthy(others[0]);
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    let direct = H2Connection::connect(&cluster.endpoint(others[0]))
        .await
        .unwrap();
    let told = direct.unary(PUT, put.as_ref(), None).await;
    assert!(told.ok(), "{told:?}");
    assert_eq!(does_not.events(1).await[0].kv.key, b"k");
}
