//! The number of streams and heartbeats at etcd, by its own counters (L1, L2), and the expiry of
//! leases of dead clients.

use std::time::{Duration, Instant};

use etcd_edge::limits;

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::heartbeats::{
    EtcdKeepAlive, KEEP_ALIVE, KeepAliveClients, grant, heartbeat, put_with_lease, renew,
    time_to_live,
};
use crate::support::memory;
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::release::{NEWEST, versions};
use crate::{clients, leases, scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_client_streams_share_one_upstream_stream() {
    for version in versions() {
        let (cluster, proxy) = scene(version, 1);
        let clients = clients(proxy.address(), 10).await;
        let leases = leases(&clients[0], 60, 1_000).await;
        let keeper = KeepAliveClients::start(&clients, &leases, Duration::from_millis(500));
        while keeper.responses() < 3_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let streams = metric(proxy.address(), "etcd_edge_lease_streams");
        assert_eq!(streams, 1_000.0, "{version}");
        let upstream = EtcdKeepAlive::all_members(&cluster).streams;
        let (report, streams) = keeper.silence().await;
        assert!(
            report.expired.is_empty() && report.errors.is_empty(),
            "{report:?}"
        );
        // More streams are opened only for heartbeats that wait, as on a busy machine.
        let waited = report.longest_wait >= limits::LEASE_NEW_STREAM_WAIT;
        assert!(
            upstream == 1.0 || waited && upstream <= limits::LEASE_SHARED_STREAMS as f64,
            "{version}: {upstream} streams, {:?}",
            report.longest_wait
        );
        // They close when nothing waits any longer.
        EtcdKeepAlive::wait_streams(&cluster, 1);
        drop(streams);
        assert_eq!(report.sent, report.responses);
        // A heartbeat is sent to etcd only because a client sent one, or again after its stream was
        // dropped.
        let at_etcd = EtcdKeepAlive::all_members(&cluster).heartbeats as u64;
        let again = metric(proxy.address(), "etcd_edge_heartbeats_resent_total") as u64;
        assert!(
            at_etcd <= report.sent + again,
            "{at_etcd} of {} and {again}",
            report.sent
        );
        EtcdKeepAlive::wait_streams(&cluster, 0);
        wait_metric(
            proxy.address(),
            "etcd_edge_lease_upstream_streams",
            Duration::from_secs(10),
            |streams| streams == 0.0,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_of_one_lease_are_merged() {
    let (cluster, proxy) = scene(NEWEST, 1);
    let clients = clients(proxy.address(), 4).await;
    let lease = grant(&clients[0], 60).await;
    let mut calls = Vec::new();
    for n in 0..200 {
        calls.push(clients[n % 4].call(KEEP_ALIVE, &[]).await);
    }
    for _ in 0..20 {
        for call in &mut calls {
            call.send(heartbeat(lease)).await;
        }
    }
    for call in &mut calls {
        for _ in 0..20 {
            assert!(call.next().await.is_some(), "one response per heartbeat");
        }
        call.half_close();
        assert!(call.next().await.is_none());
    }
    let at_etcd = EtcdKeepAlive::all_members(&cluster).heartbeats;
    assert!(at_etcd < 2_000.0, "{at_etcd} of 4000 reached etcd");
    let merged = metric(proxy.address(), "etcd_edge_heartbeats_merged_total");
    assert!(merged >= 2_000.0, "{merged}");
}

/// A client that floods and does not read costs a bounded number of bytes, and few heartbeats at
/// etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooding_client_uses_bounded_memory() {
    let (cluster, proxy) = scene(NEWEST, 1);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut other = client.call(KEEP_ALIVE, &[]).await;
    assert_eq!(renew(&mut other, lease).await, 60);
    let before = proxy.process.rss_kib();
    memory::reset_peak(&proxy.process);
    let flood = Client::connect(proxy.address()).await;
    let mut call = flood.call(KEEP_ALIVE, &[]).await;
    let burst = heartbeat(lease);
    let sent = tokio::time::timeout(Duration::from_secs(5), async {
        for _ in 0..3_000_000 {
            call.send(&burst).await;
        }
    });
    // Either its window stops it, or all heartbeats got a response.
    let stopped = sent.await.is_err();
    assert_eq!(renew(&mut other, lease).await, 60);
    let grown = memory::peak_kib(&proxy.process).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for one client");
    let at_etcd = EtcdKeepAlive::all_members(&cluster).heartbeats;
    assert!(at_etcd < 400_000.0, "{at_etcd}, stopped: {stopped}");
}

/// Returns the time from the last renewal by a dead client to the end of its lease.
async fn lifetime_after_death(client: &Client, watcher: &Client, key: &str) -> Duration {
    let lease = grant(client, 2).await;
    put_with_lease(client, key, lease, &[]).await;
    let mut call = client.call(KEEP_ALIVE, &[]).await;
    for _ in 0..3 {
        assert_eq!(renew(&mut call, lease).await, 2);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(renew(&mut call, lease).await, 2);
    let last = Instant::now();
    // The client disappears without a revoke.
    drop(call);
    while time_to_live(watcher, lease).await >= 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    last.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_a_dead_client_expires_in_time() {
    let (cluster, proxy) = scene(NEWEST, 1);
    let watcher = &Client::connect(&cluster.endpoint(0)).await;
    // Other clients of the same identity continue, so the upstream stream stays open.
    let others = clients(proxy.address(), 2).await;
    let alive = leases(&others[0], 2, 20).await;
    let keeper = KeepAliveClients::start(&others, &alive, Duration::from_millis(300));
    let measure = |address: String, name: &'static str| async move {
        let deaths = (0..20).map(|n| {
            let address = address.clone();
            async move {
                let client = Client::connect(&address).await;
                lifetime_after_death(&client, watcher, &format!("{name}{n}")).await
            }
        });
        let times = join_all(deaths).await;
        times.into_iter().max().expect("twenty")
    };
    let direct = measure(cluster.endpoint(0), "direct").await;
    let proxied = measure(proxy.address().to_owned(), "proxied").await;
    let report = keeper.finish().await;
    assert!(
        report.expired.is_empty() && report.errors.is_empty(),
        "{report:?}"
    );
    // etcd checks for expired leases twice a second.
    let limit = Duration::from_secs(3);
    assert!(
        proxied <= limit || proxied <= direct + Duration::from_millis(500),
        "a dead client's lease lived for {proxied:?}, without the proxy for {direct:?}"
    );
    println!("longest life after the last heartbeat: {proxied:?}, without the proxy {direct:?}");
}

async fn join_all<T: Send>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// A call with the bypass metadata shares no stream (W13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bypass_uses_a_separate_stream() {
    let (cluster, proxy) = scene(NEWEST, 1);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut shared = client.call(KEEP_ALIVE, &[]).await;
    let mut own = client.call(KEEP_ALIVE, &[("etcd-edge-bypass", "1")]).await;
    assert_eq!(renew(&mut shared, lease).await, 60);
    assert_eq!(renew(&mut own, lease).await, 60);
    EtcdKeepAlive::wait_streams(&cluster, 2);
}

/// Checks the `leases` part of `/proxy/status`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_client_and_upstream_streams() {
    let (_cluster, proxy): (Cluster, _) = scene(NEWEST, 1);
    let clients = clients(proxy.address(), 2).await;
    let lease = grant(&clients[0], 60).await;
    let mut calls = Vec::new();
    for n in 0..6 {
        let mut call = clients[n % 2].call(KEEP_ALIVE, &[]).await;
        renew(&mut call, lease).await;
        calls.push(call);
    }
    let page = crate::support::http::get(proxy.address(), "/proxy/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    let lines = status["leases"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{status}");
    assert_eq!(
        (&lines[0]["client_streams"], &lines[0]["upstream_streams"]),
        (&6.into(), &1.into())
    );
}
