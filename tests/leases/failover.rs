//! Heartbeats while members fail (L3, E4, W12).

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::heartbeats::{
    EtcdKeepAlive, KEEP_ALIVE, KeepAliveClients, grant, heartbeat, renew,
};
use crate::support::release::NEWEST;
use crate::{clients, leases, scene};

/// Number of leases, TTL in seconds, duration of the test; `ETCD_EDGE_LEASES=10000,10,120` sets
/// others.
fn size() -> (usize, i64, Duration) {
    let Ok(size) = std::env::var("ETCD_EDGE_LEASES") else {
        return (600, 5, Duration::from_secs(16));
    };
    let size: Vec<u32> = size.split(',').map(|n| n.parse().unwrap()).collect();
    let [leases, ttl, seconds] = size[..] else {
        panic!("ETCD_EDGE_LEASES is leases,ttl,seconds");
    };
    (
        leases as usize,
        i64::from(ttl),
        Duration::from_secs(seconds.into()),
    )
}

/// Returns the index of the member that receives the heartbeats.
fn current_member(cluster: &Cluster) -> usize {
    let until = Instant::now() + Duration::from_secs(10);
    let has = |member: &usize| EtcdKeepAlive::member(cluster, *member).streams > 0.0;
    loop {
        if let Some(member) = (0..cluster.size()).find(has) {
            return member;
        }
        assert!(Instant::now() < until, "no member has the stream");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Leases are renewed three times per TTL while members are killed and stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_expires_while_members_are_killed_and_stopped() {
    let (count, ttl, time) = size();
    let (mut cluster, proxy) = scene(NEWEST, 3);
    let clients = clients(proxy.address(), 20).await;
    let some = leases(&clients[0], ttl, count).await;
    let period = Duration::from_secs(ttl.unsigned_abs()) / 3;
    let keeper = KeepAliveClients::start(&clients, &some, period);
    let begun = Instant::now();
    let mut stop = false;
    while begun.elapsed() < time {
        tokio::time::sleep(time / 8).await;
        let member = current_member(&cluster);
        if stop {
            cluster.stop(member);
        } else {
            cluster.kill(member);
        }
        tokio::time::sleep(time / 8).await;
        if stop {
            cluster.resume(member);
        } else {
            cluster.restart(member);
        }
        cluster.wait_healthy(member);
        stop = !stop;
    }
    let report = keeper.finish().await;
    println!(
        "{} heartbeats, {} responses, longest wait {:?}; streams ended: {:?}",
        report.sent, report.responses, report.longest_wait, report.errors
    );
    assert!(
        report.expired.is_empty() && report.errors.is_empty(),
        "{report:?}\n{}",
        proxy.process.tail()
    );
}

/// Without any member, streams stay open for a while and then end with UNAVAILABLE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_wait_for_etcd_and_end_with_unavailable() {
    let (mut cluster, proxy) = scene(NEWEST, 1);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut call = client.call(KEEP_ALIVE, &[]).await;
    assert_eq!(renew(&mut call, lease).await, 60);
    cluster.kill(0);
    call.send(heartbeat(lease)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.restart(0);
    cluster.wait_healthy(0);
    assert!(call.next().await.is_some(), "a response once etcd is back");
    assert_eq!(renew(&mut call, lease).await, 60);
    // A permanent outage.
    cluster.kill(0);
    let begun = Instant::now();
    call.send(heartbeat(lease)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let end = call.finish().await;
    assert_eq!(end.code(), Some(14), "{end:?}");
    assert!(begun.elapsed() > Duration::from_secs(25));
}

/// Without a leader, only streams with the `hasleader` metadata end with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_leader_ends_only_streams_with_hasleader() {
    let (mut cluster, proxy) = scene(NEWEST, 3);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut with_leader = client.call(KEEP_ALIVE, &[("hasleader", "true")]).await;
    let mut plain = client.call(KEEP_ALIVE, &[]).await;
    assert_eq!(renew(&mut with_leader, lease).await, 60);
    assert_eq!(renew(&mut plain, lease).await, 60);
    let left = current_member(&cluster);
    let gone: Vec<usize> = (0..3).filter(|member| *member != left).collect();
    gone.iter().for_each(|member| cluster.kill(*member));
    with_leader.send(heartbeat(lease)).await;
    plain.send(heartbeat(lease)).await;
    let reply = with_leader.finish().await;
    assert_eq!(reply.code(), Some(14), "{reply:?}");
    assert_eq!(reply.message(), "etcdserver: no leader");
    gone.iter().for_each(|member| cluster.restart(*member));
    gone.iter().for_each(|member| cluster.wait_healthy(*member));
    assert!(plain.next().await.is_some(), "a response with a leader");
}
