//! What the proxy tells of itself to Prometheus, on a real etcd: beside Go's proxy, as promtool judges it,
//! through `--metrics-addr`, and as the dashboard and the alert rules ask for it.

mod support;

#[path = "metrics/addresses.rs"]
mod addresses;
#[path = "metrics/beside.rs"]
mod beside;
#[path = "metrics/dashboard.rs"]
mod dashboard;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/promql.rs"]
mod promql;
#[path = "metrics/scrape.rs"]
mod scrape;
#[path = "metrics/tool.rs"]
mod tool;

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

/// No test waits longer for one thing.
const LIMIT: Duration = Duration::from_secs(30);

/// One member with TLS, for all tests that leave it as it was.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder(NEWEST).tls().start())
}

/// A proxy with everything on that has metrics of its own: TLS on both sides, a registration, and pages in
/// plain text elsewhere.
struct Lit {
    proxy: Proxy,
    /// `host:port` of its pages.
    pages: String,
}

impl Lit {
    fn start() -> Lit {
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
        Lit { proxy, pages }
    }

    async fn client(&self) -> Client {
        let config = cluster().tls().client_config(None);
        let client = Client::connect_tls(self.proxy.address(), config).await;
        client.expect("a handshake")
    }
}

/// Where `--metrics-addr` is served, in its order, as the log says it.
fn urls(proxy: &Proxy) -> Vec<String> {
    let log = proxy.process.log();
    let lines = log.lines();
    let entries = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let urls = entries.filter_map(|entry| {
        let said = entry["msg"].as_str()?;
        let url = entry["url"].as_str()?;
        said.starts_with("--metrics-addr").then(|| url.to_owned())
    });
    urls.collect()
}

/// A call of each kind, all answered; the streams that are open.
async fn calls(client: &Client) -> [Call; 2] {
    // What others put would be an event more.
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
    let mut beating = client.call(heartbeats::KEEP_ALIVE, &[]).await;
    assert_eq!(heartbeats::renew(&mut beating, lease).await, 60);
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
    [beating, watching]
}
