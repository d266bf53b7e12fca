//! What is counted.
//!
//! Each worker counts in a block of its own, so counting is a plain store to memory that no
//! other core writes; a scrape adds the blocks up. Names that dashboards know from the Go proxy
//! are kept, our own begin with `etcd_edge_`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// A counter with one writing thread, or a gauge of one.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more. For the owning thread only: not an atomic addition.
    pub fn inc(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// One less, for gauges. For the owning thread only.
    pub fn dec(&self) {
        self.0.store(self.get().wrapping_sub(1), Ordering::Relaxed);
    }

    /// So many more. For the owning thread only.
    pub fn add(&self, more: usize) {
        self.0
            .store(self.get().wrapping_add(more as u64), Ordering::Relaxed);
    }

    /// What is counted elsewhere. For the owning thread only.
    pub fn set(&self, value: impl TryInto<u64>) {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter that any thread may raise; for what is rare.
#[derive(Debug, Default)]
pub struct SharedCount(AtomicU64);

impl SharedCount {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// gRPC status codes, 0 to 16.
pub const CODES: usize = 17;

/// One method on one worker.
#[derive(Debug, Default)]
pub struct CallMetrics {
    /// Calls that arrived.
    pub started: Count,
    /// Calls that ended, by gRPC code.
    pub handled: [Count; CODES],
}

/// Watches on one worker. c-watchers are the clients', s-watchers those at etcd.
#[derive(Debug, Default)]
pub struct WatchMetrics {
    /// Watch streams of clients open now.
    pub streams: Count,
    /// c-watchers now.
    pub c_watchers: Count,
    /// s-watchers now, those that catch up included.
    pub s_watchers: Count,
    /// s-watchers now that catch up.
    pub catch_ups: Count,
    /// c-watchers now whose clients do not read on.
    pub slow: Count,
    /// Bytes of events kept.
    pub log_bytes: Count,
    /// c-watchers that were served by an s-watcher that was there.
    pub joined: Count,
    /// s-watchers that were opened to catch up.
    pub catch_ups_opened: Count,
    /// Streams to etcd opened in the place of lost ones.
    pub resumes: Count,
    /// Events from etcd.
    pub events_in: Count,
    /// Events to clients.
    pub events_out: Count,
    /// Times the store's history was found to have gone back.
    pub history_resets: Count,
}

/// Heartbeats of one worker: of its clients, and of the lines that it owns.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    /// Clients' streams now.
    pub streams: Count,
    /// Streams to etcd now.
    pub upstream: Count,
    /// Heartbeats from clients.
    pub received: Count,
    /// Heartbeats to etcd.
    pub sent: Count,
    /// Heartbeats of clients that shared one to etcd with an earlier one.
    pub merged: Count,
    /// Heartbeats sent to etcd again.
    pub resent: Count,
    /// Answers that a lease is no more.
    pub expired: Count,
    /// Heartbeats that were put aside since they blocked others.
    pub aside: Count,
}

/// Reads of one worker.
#[derive(Debug, Default)]
pub struct ReadMetrics {
    /// Linearizable reads that were answered by one that several shared.
    pub shared: Count,
    /// Serializable reads that were answered from what is kept.
    pub hits: Count,
    /// Those that were not, though they might have been.
    pub misses: Count,
    /// Of them: what was kept was too old.
    pub too_old: Count,
    /// Something was written since.
    pub written: Count,
    /// A write may have been done since.
    pub unsure: Count,
    /// The client had been shown more.
    pub behind: Count,
    /// Reads for answers that were soon to be too old.
    pub renewed: Count,
    /// Serializable reads that were asked again, since etcd's answer was older than what the client had
    /// been shown.
    pub overtaken: Count,
    /// Answers that a watch proves right.
    pub covers: Count,
    /// Answers that were given, by their age: see [`AGES`].
    pub ages: [Count; AGES.len() + 1],
    /// The sum of their ages, in microseconds.
    pub age_sum: Count,
    /// Answers that were held against etcd after they were given.
    pub audited: Count,
    /// Of them: those that differed.
    pub differed: Count,
}

/// The bounds of the ages that are told apart, in microseconds; what is older comes after the last.
pub const AGES: [u64; 11] = [
    1_000, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl ReadMetrics {
    /// An answer was given that was so old.
    pub fn gave(&self, age: Duration) {
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.hits.inc();
        self.ages[AGES.partition_point(|bound| *bound < micros)].inc();
        self.age_sum.set(self.age_sum.get().wrapping_add(micros));
    }
}

/// Kept answers, of all workers.
#[derive(Debug, Default)]
pub struct AnswerMetrics {
    /// How many there are.
    pub count: Size,
    /// What they hold in memory, in bytes.
    pub bytes: Size,
    /// Times all of them were dropped.
    pub drops: SharedCount,
}

/// The fleet, where this proxy registers.
#[derive(Debug, Default)]
pub struct FleetMetrics {
    /// It does.
    shown: AtomicBool,
    registered: AtomicBool,
    members: AtomicUsize,
    /// Times it was registered.
    pub registrations: SharedCount,
    /// Steps of its registration that failed.
    pub failures: SharedCount,
    /// Times that others could not be followed.
    pub follow_failures: SharedCount,
}

impl FleetMetrics {
    /// Whether any of this is to be shown.
    pub fn show(&self, shown: bool) {
        self.shown.store(shown, Ordering::Relaxed);
    }

    /// Whether any of this is to be shown.
    pub fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// Whether this proxy is registered now.
    pub fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Whether this proxy is registered now.
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// Proxies that are registered, as far as is known.
    pub fn set_members(&self, members: usize) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// Proxies that are registered, as far as is known.
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }
}

/// A gauge that several threads move.
#[derive(Debug, Default)]
pub struct Size(AtomicUsize);

impl Size {
    /// What was of one size is of another.
    pub fn change(&self, from: usize, to: usize) {
        // Wraps, and wraps back.
        self.0.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The block of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Client connections accepted.
    pub accepted: Count,
    /// Client connections open now.
    pub connections: Count,
    /// Connections that ended before their first request: TLS failures, timeouts, noise.
    pub handshakes_failed: Count,
    /// Calls open now.
    pub open_calls: Count,
    /// Attempts at a call beyond its first.
    pub retries: Count,
    /// Watches.
    pub watch: WatchMetrics,
    /// Leases.
    pub lease: LeaseMetrics,
    /// Reads.
    pub reads: ReadMetrics,
    /// Silent reads that were also sent to another endpoint.
    pub hedges: Count,
    /// By [`Limit`].
    pub limits: [Count; Limit::ALL.len()],
    /// By method; the last is for methods that are not known.
    pub calls: Box<[CallMetrics]>,
}

/// A bound that a client met; the name is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Stream resets per second.
    Resets,
    /// Frames that carry no call, per second.
    ControlFrames,
    /// Fields in a header list.
    HeaderFields,
    /// Calls open on a worker.
    Calls,
    /// A message towards etcd.
    SendBytes,
    /// A message from etcd.
    RecvBytes,
    /// A unary request that did not arrive in time.
    SlowRequest,
    /// A unary answer that was not read in time.
    SlowReader,
    /// Bytes that wait for one connection which is not read.
    StalledBytes,
    /// Large messages of streams that are not complete.
    LargeRequests,
    /// Large answers that are not complete.
    LargeAnswers,
}

impl Limit {
    /// Every bound with its name.
    pub const ALL: [(Limit, &'static str); 11] = [
        (Limit::Resets, "resets"),
        (Limit::ControlFrames, "control_frames"),
        (Limit::HeaderFields, "header_fields"),
        (Limit::Calls, "calls"),
        (Limit::SendBytes, "send_bytes"),
        (Limit::RecvBytes, "recv_bytes"),
        (Limit::SlowRequest, "slow_request"),
        (Limit::SlowReader, "slow_reader"),
        (Limit::StalledBytes, "stalled_bytes"),
        (Limit::LargeRequests, "large_requests"),
        (Limit::LargeAnswers, "large_answers"),
    ];
}

impl WorkerMetrics {
    /// A client met this bound.
    pub fn hit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }
}

/// One endpoint, counted by whichever worker sees it.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// The endpoint as logs show it.
    pub name: String,
    /// Times it was picked to serve.
    pub picked: SharedCount,
    /// Connections that came up.
    pub connects: SharedCount,
    /// Dials and connections that failed.
    pub failures: SharedCount,
    /// Times it was left out for doing worse than the others.
    pub ejections: SharedCount,
    workers: Box<[CachePadded<EndpointCalls>]>,
}

/// Calls of one worker to one endpoint.
#[derive(Debug, Default)]
pub struct EndpointCalls {
    /// Calls that were sent, of the proxy's own too.
    pub requests: Count,
    /// Where endpoints share calls: unary calls open now.
    pub open: Count,
    /// Those answered, by their latency; the steps are the picker's.
    pub answered: [Count; LATENCY_STEPS],
    /// Those that failed by the endpoint's doing.
    pub failed: Count,
}

/// Latencies that are told apart.
pub const LATENCY_STEPS: usize = 24;

impl EndpointMetrics {
    /// All at zero, counted by so many workers.
    pub fn new(name: String, workers: usize) -> EndpointMetrics {
        EndpointMetrics {
            name,
            picked: SharedCount::default(),
            connects: SharedCount::default(),
            failures: SharedCount::default(),
            ejections: SharedCount::default(),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// What this worker counts.
    pub fn worker(&self, worker: usize) -> &EndpointCalls {
        &self.workers[worker]
    }

    /// What each worker counts.
    pub fn workers(&self) -> impl Iterator<Item = &EndpointCalls> {
        self.workers.iter().map(|calls| &**calls)
    }
}

/// The endpoints that are in the list now, in the order they came.
#[derive(Debug)]
pub struct EndpointList {
    all: Mutex<Vec<Arc<EndpointMetrics>>>,
    workers: usize,
}

impl EndpointList {
    /// Empty, for so many workers.
    pub fn new(workers: usize) -> EndpointList {
        EndpointList {
            all: Mutex::default(),
            workers,
        }
    }

    /// One has come.
    pub fn add(&self, name: String) -> Arc<EndpointMetrics> {
        let endpoint = Arc::new(EndpointMetrics::new(name, self.workers));
        self.all.lock().push(endpoint.clone());
        endpoint
    }

    /// One has gone, and is shown no more.
    pub fn remove(&self, endpoint: &Arc<EndpointMetrics>) {
        self.all.lock().retain(|e| !Arc::ptr_eq(e, endpoint));
    }

    /// Those that are there.
    pub fn all(&self) -> Vec<Arc<EndpointMetrics>> {
        self.all.lock().clone()
    }
}

/// The labels of one method.
#[derive(Debug, Clone, Copy)]
pub struct MethodLabels {
    /// As go-grpc names it: `unary`, `bidi_stream`, …
    pub kind: &'static str,
    /// The service with its package.
    pub service: &'static str,
    /// The method's own name.
    pub method: &'static str,
}

/// Everything that is counted in the process.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[CachePadded<WorkerMetrics>]>,
    /// One per endpoint.
    pub endpoints: Arc<EndpointList>,
    /// Connections closed at accept because there were too many.
    pub connections_refused: SharedCount,
    /// Kept answers.
    pub answers: Arc<AnswerMetrics>,
    /// The fleet.
    pub fleet: Arc<FleetMetrics>,
    /// The most that was shown.
    pub(crate) events_coalescing: AtomicU64,
    /// Of [`WorkerMetrics::calls`].
    pub(crate) methods: Vec<MethodLabels>,
    /// Of [`CallMetrics::handled`].
    pub(crate) code_names: [&'static str; CODES],
}

impl Metrics {
    /// Blocks for so many workers; a further method is added for those that are not known.
    pub fn new(
        workers: usize,
        mut methods: Vec<MethodLabels>,
        code_names: [&'static str; CODES],
    ) -> Metrics {
        methods.push(MethodLabels {
            kind: "unknown",
            service: "unknown",
            method: "unknown",
        });
        let block = || {
            CachePadded::new(WorkerMetrics {
                accepted: Count::default(),
                connections: Count::default(),
                handshakes_failed: Count::default(),
                open_calls: Count::default(),
                retries: Count::default(),
                watch: WatchMetrics::default(),
                lease: LeaseMetrics::default(),
                reads: ReadMetrics::default(),
                hedges: Count::default(),
                limits: Default::default(),
                calls: methods.iter().map(|_| CallMetrics::default()).collect(),
            })
        };
        Metrics {
            workers: (0..workers).map(|_| block()).collect(),
            endpoints: Arc::new(EndpointList::new(workers)),
            connections_refused: SharedCount::default(),
            answers: Arc::default(),
            fleet: Arc::default(),
            events_coalescing: AtomicU64::new(0),
            methods,
            code_names,
        }
    }

    /// The blocks of all workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.workers.iter().map(|block| &**block)
    }

    /// The block of one worker.
    pub fn worker(&self, worker: usize) -> &WorkerMetrics {
        &self.workers[worker]
    }
}
