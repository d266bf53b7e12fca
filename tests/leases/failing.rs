//! Heartbeats while members fail (L3, E4, W12).

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::heartbeats::{
    EtcdKeepAlive, KEEP_ALIVE, KeepAliveClients, grant, heartbeat, renew,
};
use crate::support::release::NEWEST;
use crate::{clients, leases, scene};

/// How many leases, of how many seconds, for how long; by hand: `ETCD_EDGE_LEASES=10000,10,120`.
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

/// The member that has the heartbeats.
fn serving(cluster: &Cluster) -> usize {
    let until = Instant::now() + Duration::from_secs(10);
    let has = |member: &usize| EtcdKeepAlive::member(cluster, *member).streams > 0.0;
    loop {
        if let Some(member) = (0..cluster.size()).find(has) {
            return member;
        }
        assert!(Instant::now() < until, "nobody has the stream");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Leases are renewed three times in their lives, while members die and stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_is_lost_while_members_die_and_stop() {
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
        let member = serving(&cluster);
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
    let kept = keeper.finish().await;
    println!(
        "{} heartbeats, {} answered, longest wait {:?}; streams ended: {:?}",
        kept.sent, kept.responses, kept.longest_wait, kept.errors
    );
    assert!(
        kept.expired.is_empty() && kept.errors.is_empty(),
        "{kept:?}\n{}",
        proxy.process.log()
    );
}

/// All members are down: streams stay, and are told UNAVAILABLE when nothing comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_down_and_come_back() {
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
    assert!(call.next().await.is_some(), "answered when etcd is back");
    assert_eq!(renew(&mut call, lease).await, 60);
    // And for good.
    cluster.kill(0);
    let begun = Instant::now();
    call.send(heartbeat(lease)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let end = call.finish().await;
    assert_eq!(end.code(), Some(14), "{end:?}");
    assert!(begun.elapsed() > Duration::from_secs(25));
}

/// Without a leader whoever asked to be told is, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_leader_is_told_to_who_asked() {
    let (mut cluster, proxy) = scene(NEWEST, 3);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut asks = client.call(KEEP_ALIVE, &[("hasleader", "true")]).await;
    let mut waits = client.call(KEEP_ALIVE, &[]).await;
    assert_eq!(renew(&mut asks, lease).await, 60);
    assert_eq!(renew(&mut waits, lease).await, 60);
    let left = serving(&cluster);
    let gone: Vec<usize> = (0..3).filter(|member| *member != left).collect();
    gone.iter().for_each(|member| cluster.kill(*member));
    asks.send(heartbeat(lease)).await;
    waits.send(heartbeat(lease)).await;
    let told = asks.finish().await;
    assert_eq!(told.code(), Some(14), "{told:?}");
    assert_eq!(told.message(), "etcdserver: no leader");
    gone.iter().for_each(|member| cluster.restart(*member));
    gone.iter().for_each(|member| cluster.wait_healthy(*member));
    assert!(waits.next().await.is_some(), "answered when there is one");
}
