//! Clients that keep leases alive, and the responses they receive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use super::cluster::Cluster;
use super::grpc::{Call, Client, Metadata};
use super::pb::{self, Msg};

/// Path of `Lease.LeaseKeepAlive`.
pub const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Grants a lease with this TTL in seconds and returns its id.
pub async fn grant(client: &Client, ttl: i64) -> i64 {
    let reply = client.unary(GRANT, Msg::new().int(1, ttl), &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    pb::int(reply.only(), &[2])
}

/// Revokes a lease.
pub async fn revoke(client: &Client, lease: i64) {
    let reply = client.unary(REVOKE, Msg::new().int(1, lease), &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

/// Returns the remaining seconds of a lease; below zero when the lease does not exist.
pub async fn time_to_live(client: &Client, lease: i64) -> i64 {
    let request = Msg::new().int(1, lease);
    let reply = client.unary(TIME_TO_LIVE, request, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    pb::int(reply.only(), &[3])
}

/// Writes a key that is attached to a lease.
pub async fn put_with_lease(client: &Client, key: &str, lease: i64, metadata: Metadata<'_>) {
    let put = Msg::new().bytes(1, key).bytes(2, "v").int(3, lease);
    let reply = client.unary(PUT, put, metadata).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

/// Builds a `LeaseKeepAliveRequest`.
pub fn heartbeat(lease: i64) -> Msg {
    Msg::new().int(1, lease)
}

/// Returns the lease id and the TTL in seconds of a `LeaseKeepAliveResponse`.
pub fn parse_response(message: &[u8]) -> (i64, i64) {
    (pb::int(message, &[2]), pb::int(message, &[3]))
}

/// Sends one heartbeat on an open stream and returns the TTL in seconds of its response.
pub async fn renew(call: &mut Call, lease: i64) -> i64 {
    call.send(heartbeat(lease)).await;
    let message = call.next().await.expect("a response");
    let (renewed, ttl) = parse_response(&message);
    assert_eq!(renewed, lease);
    ttl
}

/// Counters of `LeaseKeepAlive` that etcd itself exports.
#[derive(Default)]
pub struct EtcdKeepAlive {
    /// Streams that are open now.
    pub streams: f64,
    /// Heartbeats received since the start of etcd; too few by one for each stream that ended, with
    /// releases that do not count the end.
    pub heartbeats: f64,
}

impl EtcdKeepAlive {
    /// Sums the counters of all members.
    pub fn all_members(cluster: &Cluster) -> EtcdKeepAlive {
        let each = (0..cluster.size()).map(|member| EtcdKeepAlive::member(cluster, member));
        each.fold(EtcdKeepAlive::default(), |sum, each| EtcdKeepAlive {
            streams: sum.streams + each.streams,
            heartbeats: sum.heartbeats + each.heartbeats,
        })
    }

    /// Returns the counters of one member; zeros when it does not respond.
    pub fn member(cluster: &Cluster, member: usize) -> EtcdKeepAlive {
        let labels = r#"grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}"#;
        let sum = |name: &str| cluster.metric(member, name).unwrap_or_default();
        let codes = [
            "OK",
            "Canceled",
            "Unknown",
            "Unavailable",
            "DeadlineExceeded",
            "PermissionDenied",
            "Unauthenticated",
            "InvalidArgument",
        ];
        let handled: f64 = codes
            .iter()
            .map(|code| {
                sum(&format!(
                    "grpc_server_handled_total{{grpc_code=\"{code}\",{labels}"
                ))
            })
            .sum();
        EtcdKeepAlive {
            streams: sum(&format!("grpc_server_started_total{{{labels}")) - handled,
            // Newer releases count the end of a stream like a message.
            heartbeats: sum(&format!("grpc_server_msg_received_total{{{labels}")) - handled,
        }
    }

    /// Waits until etcd has exactly this many open streams.
    #[track_caller]
    pub fn wait_streams(cluster: &Cluster, streams: u32) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let now = EtcdKeepAlive::all_members(cluster).streams;
            if now == f64::from(streams) {
                return;
            }
            assert!(Instant::now() < until, "{now} streams, not {streams}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Clients that send heartbeats until they are stopped.
pub struct KeepAliveClients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(KeepAliveReport, Option<Call>)>>,
    responses: Arc<AtomicU64>,
}

/// Results of one stream, or of all of them.
#[derive(Debug, Default, Clone)]
pub struct KeepAliveReport {
    /// Heartbeats sent.
    pub sent: u64,
    /// Responses received.
    pub responses: u64,
    /// Leases that a response reported as expired (TTL 0).
    pub expired: Vec<i64>,
    /// Code and message of streams that the server ended.
    pub errors: Vec<(Option<u32>, String)>,
    /// The longest wait for a response.
    pub longest_wait: Duration,
}

impl KeepAliveClients {
    /// Opens a stream for each lease, on the connections in turn, and sends a heartbeat each
    /// `period`. A stream that ends is opened again after half a second, as the Go client does.
    pub fn start(clients: &[Client], leases: &[i64], period: Duration) -> KeepAliveClients {
        let stop = Arc::new(AtomicBool::new(false));
        let responses = Arc::new(AtomicU64::new(0));
        let begun = tokio::time::Instant::now();
        let tasks = leases.iter().enumerate().map(|(n, lease)| {
            let (client, lease) = (clients[n % clients.len()].clone(), *lease);
            let (stop, responses) = (stop.clone(), responses.clone());
            // The heartbeats are spread over the period.
            let mut next = begun + period * n as u32 / leases.len() as u32;
            tokio::spawn(async move {
                let mut report = KeepAliveReport::default();
                let mut call = None;
                while !stop.load(Ordering::Relaxed) {
                    sleep_until(next).await;
                    next += period;
                    if call.is_none() {
                        call = Some(client.call(KEEP_ALIVE, &[("hasleader", "true")]).await);
                    }
                    let open = call.as_mut().expect("just opened");
                    let sent = Instant::now();
                    open.send(heartbeat(lease)).await;
                    report.sent += 1;
                    match open.next().await {
                        Some(message) => {
                            report.longest_wait = report.longest_wait.max(sent.elapsed());
                            report.responses += 1;
                            responses.fetch_add(1, Ordering::Relaxed);
                            if parse_response(&message).1 == 0 {
                                report.expired.push(lease);
                                break;
                            }
                        }
                        None => {
                            let reply = call.take().expect("it was open").finish().await;
                            let error = (reply.code(), reply.message().to_owned());
                            report.errors.push(error);
                            sleep(Duration::from_millis(500)).await;
                        }
                    }
                }
                (report, call)
            })
        });
        KeepAliveClients {
            tasks: tasks.collect(),
            stop,
            responses,
        }
    }

    /// Returns how many responses have arrived so far.
    pub fn responses(&self) -> u64 {
        self.responses.load(Ordering::Relaxed)
    }

    /// Stops each client after its current heartbeat and returns the sum of their reports.
    pub async fn finish(self) -> KeepAliveReport {
        self.silence().await.0
    }

    /// Like [`KeepAliveClients::finish`], but the streams stay open until the calls are dropped.
    pub async fn silence(self) -> (KeepAliveReport, Vec<Call>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut calls) = (KeepAliveReport::default(), Vec::new());
        for task in self.tasks {
            let (report, call) = task.await.expect("a task that does not panic");
            calls.extend(call);
            all.sent += report.sent;
            all.responses += report.responses;
            all.expired.extend(report.expired);
            all.errors.extend(report.errors);
            all.longest_wait = all.longest_wait.max(report.longest_wait);
        }
        (all, calls)
    }
}
