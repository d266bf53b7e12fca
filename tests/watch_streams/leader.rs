//! Test of a cluster without a leader: only streams with `hasleader` end (W12).

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
async fn only_streams_with_hasleader_end_without_a_leader() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let connection = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let leader = [("hasleader".to_owned(), "true".to_owned())];
    let all = Create::of("k", "l");
    let mut with_hasleader = Stream::open(&connection, &leader).await;
    with_hasleader.create(&all).await;
    let mut without = Stream::open(&connection, &[]).await;
    without.create(&all).await;

    let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
    let is_serving = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
    let others: Vec<usize> = (0..3).filter(|member| !is_serving(member)).collect();
    for member in &others {
        cluster.kill(*member);
    }
    let ended = with_hasleader.next_or_end().await;
    let ended = ended.expect_err("a stream that ends");
    assert_eq!(ended, "status 14 etcdserver: no leader");
    let mut late = Stream::open(&connection, &leader).await;
    late.send(&all.request());
    let ended = late.next_or_end().await.expect_err("a stream that ends");
    assert_eq!(ended, "status 14 etcdserver: no leader");

    for member in &others {
        cluster.restart(*member);
    }
    cluster.wait_healthy(others[0]);
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    let direct = H2Connection::connect(&cluster.endpoint(others[0]))
        .await
        .unwrap();
    let result = direct.unary(PUT, put.as_ref(), None).await;
    assert!(result.ok(), "{result:?}");
    assert_eq!(without.events(1).await[0].kv.key, b"k");
}
