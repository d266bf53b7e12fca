//! Leases that block or end the stream of their heartbeats do not affect other leases (L4).

use std::time::{Duration, Instant};

use crate::support::grpc::Client;
use crate::support::heartbeats::{
    KEEP_ALIVE, KeepAliveClients, grant, heartbeat, parse_response, renew,
};
use crate::support::proxy_output::metric;
use crate::support::release::{NEWEST, versions};
use crate::{clients, leases, scene};

/// Time after which a blocked heartbeat is alone on its stream, with what was in flight before.
const ISOLATION_TIME: Duration = Duration::from_millis(200);

/// Heartbeats for expired leases and for others.
#[derive(Debug, Default)]
struct Blocked {
    /// Heartbeats to which etcd did not respond within [`ISOLATION_TIME`].
    heartbeats: u32,
    /// Responses to other heartbeats while such a heartbeat waited.
    others: u64,
}

/// Renews leases right after they expired, repeatedly. etcd responds to such a heartbeat only after
/// it has revoked the lease, and processes nothing else of the stream meanwhile.
async fn renew_expired(address: &str, until: Instant, others: &KeepAliveClients) -> Blocked {
    let client = Client::connect(address).await;
    let mut seen = Blocked::default();
    while Instant::now() < until {
        let mut some = leases(&client, 2, 8).await;
        let granted = Instant::now();
        let mut call = client.call(KEEP_ALIVE, &[]).await;
        tokio::time::sleep_until((granted + Duration::from_millis(2_020)).into()).await;
        let sent = Instant::now();
        for lease in &some {
            call.send(heartbeat(*lease)).await;
        }
        let isolated = async {
            tokio::time::sleep_until((sent + ISOLATION_TIME).into()).await;
            others.responses()
        };
        let all = async {
            let mut late = 0;
            while !some.is_empty() {
                let message = call.next().await.expect("a response");
                let (lease, _) = parse_response(&message);
                some.retain(|each| *each != lease);
                late += u32::from(sent.elapsed() > ISOLATION_TIME);
            }
            (late, others.responses())
        };
        let (before, (late, after)) = tokio::join!(isolated, all);
        if late > 0 {
            seen.heartbeats += late;
            seen.others += after - before;
        }
    }
    seen
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
        let some = leases(&clients[0], 10, 200).await;
        let keeper = KeepAliveClients::start(&clients, &some, Duration::from_millis(500));
        let until = Instant::now() + Duration::from_secs(6);
        let blocked = renew_expired(address, until, &keeper).await;
        let report = keeper.finish().await;
        println!(
            "{version}, {members}: {blocked:?}, {} isolated, longest wait of others {:?}",
            metric(address, "etcd_edge_heartbeats_isolated_total"),
            report.longest_wait
        );
        assert!(blocked.heartbeats > 0, "{version}: nothing was blocked");
        assert!(blocked.others > 0, "{version}: the others waited too");
        assert!(
            report.expired.is_empty() && report.errors.is_empty(),
            "{version}, {members} members: {report:?}"
        );
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
