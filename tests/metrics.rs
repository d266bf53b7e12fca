//! Tests of the proxy's Prometheus metrics, with a real etcd: compatibility with Go's proxy,
//! promtool's checks, `--metrics-addr`, and the queries of the dashboard and the alert rules.

mod support;

#[path = "metrics/addresses.rs"]
mod addresses;
#[path = "metrics/dashboard.rs"]
mod dashboard;
#[path = "metrics/go_compatibility.rs"]
mod go_compatibility;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/promql.rs"]
mod promql;
#[path = "metrics/promtool.rs"]
mod promtool;
#[path = "metrics/scrape.rs"]
mod scrape;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use support::cluster::Cluster;
use support::grpc::{Call, Client};
use support::heartbeats;
use support::pb::Msg;
use support::ports;
use support::proxy::Proxy;
use support::release::NEWEST;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// Time limit of every wait.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns a shared member with TLS, for tests that do not change it.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder(NEWEST).tls().start())
}

/// A proxy with all features that have metrics: TLS on both sides, a registration, and plaintext
/// pages on another address.
struct FullProxy {
    proxy: Proxy,
    /// `host:port` of the pages.
    pages: String,
}

impl FullProxy {
    fn start() -> FullProxy {
        let tls = cluster().tls();
        let address = format!("127.0.0.1:{}", ports::take());
        let proxy = Proxy::start(
            cluster(),
            &[
                format!("--listen-addr={address}"),
                format!("--advertise-client-url={address}"),
                "--resolver-prefix=proxies".to_owned(),
                "--resolver-ttl=60".to_owned(),
                format!("--cert-file={}", tls.server.cert.display()),
                format!("--key-file={}", tls.server.key.display()),
                "--metrics-addr=http://127.0.0.1:0".to_owned(),
            ],
        );
        let pages = urls(&proxy).remove(0);
        let pages = pages.trim_start_matches("http://").to_owned();
        FullProxy { proxy, pages }
    }

    async fn client(&self) -> Client {
        let config = cluster().tls().client_config(None);
        let client = Client::connect_tls(self.proxy.address(), config).await;
        client.expect("a handshake")
    }
}

/// Returns the URLs of `--metrics-addr` in order, as they are logged.
fn urls(proxy: &Proxy) -> Vec<String> {
    let log = proxy.process.log();
    let lines = log.lines();
    let entries = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let urls = entries.filter_map(|entry| {
        let message = entry["msg"].as_str()?;
        let url = entry["url"].as_str()?;
        message
            .starts_with("--metrics-addr")
            .then(|| url.to_owned())
    });
    urls.collect()
}

/// Sends calls of every type, all of them successful. Returns the streams that stay open, and the
/// number of messages of a snapshot, which grows with the store.
async fn calls(client: &Client) -> ([Call; 2], usize) {
    // Each test writes its own key: other puts would cause additional events.
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    let own = format!("k{}", CALLED.fetch_add(1, Ordering::Relaxed));
    let key = || Msg::new().bytes(1, &own);
    for _ in 0..3 {
        let reply = client.unary(PUT, key().bytes(2, "v"), &[]).await;
        assert_eq!(reply.code(), Some(0), "{reply:?}");
        for serializable in [0, 1] {
            let read = key().int(7, serializable);
            let reply = client.unary(RANGE, read, &[]).await;
            assert_eq!(reply.code(), Some(0), "{reply:?}");
        }
    }
    let lease = heartbeats::grant(client, 60).await;
    let mut keep_alive = client.call(heartbeats::KEEP_ALIVE, &[]).await;
    assert_eq!(heartbeats::renew(&mut keep_alive, lease).await, 60);
    heartbeats::revoke(client, lease).await;
    let mut watching = client.call(WATCH, &[]).await;
    watching.send(Msg::new().msg(1, key())).await;
    watching.next().await.expect("created");
    let reply = client.unary(PUT, key().bytes(2, "w"), &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    watching.next().await.expect("the event");
    let mut snapshot = client.call(SNAPSHOT, &[]).await;
    snapshot.send(Msg::new()).await;
    snapshot.half_close();
    let snapshot = snapshot.finish().await;
    assert_eq!(snapshot.code(), Some(0));
    ([keep_alive, watching], snapshot.messages.len())
}
