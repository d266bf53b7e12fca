//! Helpers of the policy tests: counts of calls by member, and a proxy that delays a member.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::load::{CallResult, H2Connection};
use crate::support::proxy::Proxy;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

const PUT: &str = "/etcdserverpb.KV/Put";
/// PutRequest { key: "k", value: "v" }.
const KEY_VALUE: &[u8] = b"\x0a\x01k\x12\x01v";

/// Returns the puts handled by each member. A follower forwards writes without gRPC, so each counts
/// once.
pub(crate) fn puts(cluster: &Cluster) -> Vec<f64> {
    let series = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
                  grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    let count = |member| cluster.metric(member, series).unwrap_or(0.0);
    (0..cluster.size()).map(count).collect()
}

/// Returns the puts of each member since `before`.
pub(crate) fn since(cluster: &Cluster, before: &[f64]) -> Vec<f64> {
    let now = puts(cluster).into_iter();
    now.zip(before).map(|(now, before)| now - before).collect()
}

pub(crate) async fn put(connection: &H2Connection) -> CallResult {
    connection.unary(PUT, KEY_VALUE, Some("20S")).await
}

/// Sends `count` successful puts, one after the other.
pub(crate) async fn put_many(connection: &H2Connection, count: usize) {
    for _ in 0..count {
        let result = put(connection).await;
        assert!(result.ok(), "{result:?}");
    }
}

/// Returns the endpoints on the proxy's status page.
pub(crate) fn endpoints(proxy: &Proxy) -> Vec<Value> {
    let page = http::get(proxy.address(), "/proxy/status").expect("the proxy's page");
    let page: Value = serde_json::from_str(&page.body).expect("JSON");
    page["endpoints"].as_array().expect("endpoints").clone()
}

/// Waits until the endpoints on the status page satisfy a condition.
pub(crate) async fn wait_endpoints(
    proxy: &Proxy,
    condition: &str,
    limit: Duration,
    is_met: impl Fn(&[Value]) -> bool,
) {
    let until = Instant::now() + limit;
    loop {
        let shown = endpoints(proxy);
        if is_met(&shown) {
            return;
        }
        assert!(
            Instant::now() < until,
            "{condition}: {shown:#?}\n{}",
            proxy.process.tail()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends puts until the proxy has used every endpoint. Returns the client connection.
pub(crate) async fn warm(cluster: &Cluster, proxy: &Proxy) -> H2Connection {
    let connection = H2Connection::connect(proxy.address())
        .await
        .expect("the proxy");
    let until = Instant::now() + LIMIT;
    let before = puts(cluster);
    while since(cluster, &before).contains(&0.0) {
        assert!(
            Instant::now() < until,
            "an endpoint is not used: {:?}",
            endpoints(proxy)
        );
        put_many(&connection, 10).await;
    }
    connection
}

/// A TCP proxy that delays every response of a member.
pub(crate) struct DelayProxy {
    address: String,
    millis: Arc<AtomicU64>,
}

impl DelayProxy {
    /// Starts a proxy for `host:port`, without a delay.
    pub(crate) fn start(to: String) -> DelayProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let millis = Arc::new(AtomicU64::new(0));
        let delay = millis.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else {
                    continue;
                };
                let pair = (client.try_clone(), server.try_clone());
                let (Ok(from), Ok(into)) = pair else { continue };
                std::thread::spawn(move || copy(from, into, &AtomicU64::new(0)));
                let delay = delay.clone();
                std::thread::spawn(move || copy(server, client, &delay));
            }
        });
        DelayProxy { address, millis }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sets the delay of responses, in milliseconds.
    pub(crate) fn delay(&self, millis: u64) {
        self.millis.store(millis, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut into: TcpStream, delay: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    let _ = into.set_nodelay(true);
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(delay.load(Ordering::SeqCst)));
        if into.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
