//! Leases that block or end the stream of their heartbeats do not affect other leases (L4).

use std::time::{Duration, Instant};

use crate::support::grpc::Client;
use crate::support::heartbeats::{
    KEEP_ALIVE, KeepAliveClients, grant, heartbeat, parse_response, renew,
};
use crate::support::proxy_output::metric;
use crate::support::release::{NEWEST, versions};
use crate::{clients, leases, scene};

/// Renews leases right after they expired, repeatedly. etcd responds to such a heartbeat only after
/// it has revoked the lease, and processes nothing else of the stream meanwhile.
async fn renew_expired(address: &str, until: Instant) -> u32 {
    let client = Client::connect(address).await;
    let mut blocked = 0;
    while Instant::now() < until {
        let mut some = leases(&client, 2, 8).await;
        let granted = Instant::now();
        let mut call = client.call(KEEP_ALIVE, &[]).await;
        tokio::time::sleep_until((granted + Duration::from_millis(2_020)).into()).await;
        let sent = Instant::now();
        for lease in &some {
            call.send(heartbeat(*lease)).await;
        }
        while !some.is_empty() {
            let message = call.next().await.expect("a response");
            let (lease, _) = parse_response(&message);
            some.retain(|each| *each != lease);
            blocked += u32::from(sent.elapsed() > Duration::from_millis(100));
        }
    }
    blocked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_of_expired_leases_delays_no_other_lease() {
    let scenes = [
        (NEWEST, 1),
        (NEWEST, 3),
        (versions()[1], 1),
        (versions()[2], 1),
    ];
    for (version, members) in scenes {
        let (_cluster, proxy) = scene(version, members);
        let address = proxy.address();
        let clients = clients(address, 10).await;
        let some = leases(&clients[0], 3, 1_000).await;
        let keeper = KeepAliveClients::start(&clients, &some, Duration::from_secs(1));
        let until = Instant::now() + Duration::from_secs(6);
        let blocked = renew_expired(address, until).await;
        let report = keeper.finish().await;
        println!(
            "{version}, {members}: {blocked} blocked, {} isolated, longest wait of others {:?}",
            metric(address, "etcd_edge_heartbeats_isolated_total"),
            report.longest_wait
        );
        assert!(blocked > 0, "{version}: nothing was blocked");
        assert!(
            report.expired.is_empty() && report.errors.is_empty(),
            "{version}, {members} members: {report:?}"
        );
        assert!(report.responses > 5_000, "{report:?}");
    }
}

/// A heartbeat for an unknown lease returns TTL 0 at once, on the stream that sent it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeat_of_an_unknown_lease_returns_ttl_zero() {
    let (_cluster, proxy) = scene(NEWEST, 1);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    let mut bad = client.call(KEEP_ALIVE, &[]).await;
    let mut good = client.call(KEEP_ALIVE, &[]).await;
    for id in [1, i64::MAX, -5, 0] {
        assert_eq!(renew(&mut bad, id).await, 0);
        assert_eq!(renew(&mut good, lease).await, 60);
    }
}
