//! Clients that keep leases alive, and what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use super::cluster::Cluster;
use super::grpc::{Call, Client, Metadata};
use super::pb::{self, Msg};

/// The method.
pub const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Grants a lease of so many seconds.
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

/// Seconds a lease has left; below zero when it is no more.
pub async fn time_to_live(client: &Client, lease: i64) -> i64 {
    let ask = Msg::new().int(1, lease);
    let reply = client.unary(TIME_TO_LIVE, ask, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    pb::int(reply.only(), &[3])
}

/// Writes a key that goes with a lease.
pub async fn put_with(client: &Client, key: &str, lease: i64, metadata: Metadata<'_>) {
    let put = Msg::new().bytes(1, key).bytes(2, "v").int(3, lease);
    let reply = client.unary(PUT, put, metadata).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

/// A heartbeat.
pub fn beat(lease: i64) -> Msg {
    Msg::new().int(1, lease)
}

/// What an answer says: the lease and its seconds.
pub fn answer(message: &[u8]) -> (i64, i64) {
    (pb::int(message, &[2]), pb::int(message, &[3]))
}

/// One heartbeat on an open stream: the seconds that its answer says.
pub async fn once(call: &mut Call, lease: i64) -> i64 {
    call.send(beat(lease)).await;
    let message = call.next().await.expect("an answer");
    let (answered, ttl) = answer(&message);
    assert_eq!(answered, lease);
    ttl
}

/// What etcd has counted of heartbeats.
#[derive(Default)]
pub struct AtEtcd {
    /// Streams open now.
    pub streams: f64,
    /// Heartbeats ever.
    pub beats: f64,
}

impl AtEtcd {
    /// Of every member.
    pub fn of(cluster: &Cluster) -> AtEtcd {
        let each = (0..cluster.size()).map(|member| AtEtcd::member(cluster, member));
        each.fold(AtEtcd::default(), |sum, each| AtEtcd {
            streams: sum.streams + each.streams,
            beats: sum.beats + each.beats,
        })
    }

    /// Of one member; nothing when it does not answer.
    pub fn member(cluster: &Cluster, member: usize) -> AtEtcd {
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
        AtEtcd {
            streams: sum(&format!("grpc_server_started_total{{{labels}")) - handled,
            beats: sum(&format!("grpc_server_msg_received_total{{{labels}")),
        }
    }

    /// Waits until etcd has so many streams.
    #[track_caller]
    pub fn wait_streams(cluster: &Cluster, streams: u32) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let now = AtEtcd::of(cluster).streams;
            if now == f64::from(streams) {
                return;
            }
            assert!(Instant::now() < until, "{now} streams, not {streams}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Keeps leases alive until it is told to stop.
pub struct Keeper {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Kept>>,
    answered: Arc<AtomicU64>,
}

/// What one stream was told.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    /// Heartbeats sent.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Leases that were said to be no more.
    pub lost: Vec<i64>,
    /// How streams ended that were not to: code and text.
    pub ended: Vec<(Option<u32>, String)>,
    /// The longest wait for an answer.
    pub longest: Duration,
}

impl Keeper {
    /// Each lease on a stream of its own, its heartbeats a period apart; connections in turn. A stream
    /// that ends is opened again after half a second, as the Go client does.
    pub fn start(clients: &[Client], leases: &[i64], period: Duration) -> Keeper {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let begun = tokio::time::Instant::now();
        let tasks = leases.iter().enumerate().map(|(n, lease)| {
            let (client, lease) = (clients[n % clients.len()].clone(), *lease);
            let (stop, answered) = (stop.clone(), answered.clone());
            // Spread over the period.
            let mut next = begun + period * n as u32 / leases.len() as u32;
            tokio::spawn(async move {
                let mut kept = Kept::default();
                let mut call = None;
                while !stop.load(Ordering::Relaxed) {
                    sleep_until(next).await;
                    next += period;
                    if call.is_none() {
                        call = Some(client.call(KEEP_ALIVE, &[("hasleader", "true")]).await);
                    }
                    let open = call.as_mut().expect("just opened");
                    let sent = Instant::now();
                    open.send(beat(lease)).await;
                    kept.sent += 1;
                    match open.next().await {
                        Some(message) => {
                            kept.longest = kept.longest.max(sent.elapsed());
                            kept.answered += 1;
                            answered.fetch_add(1, Ordering::Relaxed);
                            if answer(&message).1 == 0 {
                                kept.lost.push(lease);
                                return kept;
                            }
                        }
                        None => {
                            let reply = call.take().expect("it was open").finish().await;
                            let ended = (reply.code(), reply.message().to_owned());
                            kept.ended.push(ended);
                            sleep(Duration::from_millis(500)).await;
                        }
                    }
                }
                kept
            })
        });
        Keeper {
            tasks: tasks.collect(),
            stop,
            answered,
        }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops after the heartbeat that each is at.
    pub async fn finish(self) -> Kept {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Kept::default();
        for task in self.tasks {
            let kept = task.await.expect("a task that does not panic");
            all.sent += kept.sent;
            all.answered += kept.answered;
            all.lost.extend(kept.lost);
            all.ended.extend(kept.ended);
            all.longest = all.longest.max(kept.longest);
        }
        all
    }
}
