//! What is counted, and how it is shown.
//!
//! Each worker counts in a block of its own, so counting is a plain store to memory that no
//! other core writes; a scrape adds the blocks up. Names that dashboards know from the Go proxy
//! are kept, our own begin with `etcd_edge_`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

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
    /// Something was written since, or may have been.
    pub written: Count,
    /// The client had been shown more.
    pub behind: Count,
    /// Reads for answers that were soon to be too old.
    pub renewed: Count,
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
}

impl Limit {
    /// Every bound with its name.
    pub const ALL: [(Limit, &'static str); 10] = [
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
}

impl EndpointMetrics {
    /// All at zero.
    pub fn new(name: String) -> EndpointMetrics {
        EndpointMetrics {
            name,
            picked: SharedCount::default(),
            connects: SharedCount::default(),
            failures: SharedCount::default(),
        }
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
    /// One per endpoint, in the order of the list.
    pub endpoints: Arc<[EndpointMetrics]>,
    /// Connections closed at accept because there were too many.
    pub connections_refused: SharedCount,
    /// The most that was shown.
    events_coalescing: AtomicU64,
    methods: Vec<MethodLabels>,
    code_names: [&'static str; CODES],
}

impl Metrics {
    /// Blocks for so many workers; a further method is added for those that are not known.
    pub fn new(
        workers: usize,
        endpoints: impl IntoIterator<Item = String>,
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
            endpoints: endpoints.into_iter().map(EndpointMetrics::new).collect(),
            connections_refused: SharedCount::default(),
            events_coalescing: AtomicU64::new(0),
            methods,
            code_names,
        }
    }

    /// The block of one worker.
    pub fn worker(&self, worker: usize) -> &WorkerMetrics {
        &self.workers[worker]
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers
            .iter()
            .map(|w| of(w))
            .fold(0, u64::wrapping_add)
    }

    fn families(&self) -> Vec<MetricFamily> {
        let plain = |of: fn(&WorkerMetrics) -> &Count| vec![(vec![], self.sum(|w| of(w).get()))];
        let per_endpoint = |of: fn(&EndpointMetrics) -> &SharedCount| {
            self.endpoints
                .iter()
                .map(|e| (vec![label("endpoint", &e.name)], of(e).get()))
                .collect()
        };
        let limits = Limit::ALL.iter().map(|(limit, name)| {
            (
                vec![label("limit", name)],
                self.sum(|w| w.limits[*limit as usize].get()),
            )
        });
        let refused = self.connections_refused.get();
        vec![
            counter(
                "grpc_server_started_total",
                "Calls that arrived.",
                self.started(),
            ),
            counter(
                "grpc_server_handled_total",
                "Calls that ended, by code.",
                self.handled(),
            ),
            counter(
                "etcd_edge_connections_accepted_total",
                "Client connections accepted.",
                plain(|w| &w.accepted),
            ),
            counter(
                "etcd_edge_connections_refused_total",
                "Client connections closed at accept because there were too many.",
                vec![(vec![], refused)],
            ),
            counter(
                "etcd_edge_handshakes_failed_total",
                "Client connections that ended before their first request.",
                plain(|w| &w.handshakes_failed),
            ),
            gauge(
                "etcd_edge_connections",
                "Client connections open.",
                plain(|w| &w.connections),
            ),
            gauge("etcd_edge_calls", "Calls open.", plain(|w| &w.open_calls)),
            counter(
                "etcd_edge_retries_total",
                "Attempts at a call beyond its first.",
                plain(|w| &w.retries),
            ),
            gauge(
                "etcd_edge_watch_streams",
                "Watch streams of clients open.",
                plain(|w| &w.watch.streams),
            ),
            gauge(
                "etcd_edge_c_watchers",
                "Watchers of clients.",
                plain(|w| &w.watch.c_watchers),
            ),
            gauge(
                "etcd_edge_s_watchers",
                "Watchers at etcd.",
                plain(|w| &w.watch.s_watchers),
            ),
            gauge(
                "etcd_edge_watch_catch_ups",
                "Watchers at etcd that catch up with the shared ones.",
                plain(|w| &w.watch.catch_ups),
            ),
            gauge(
                "etcd_edge_slow_watchers",
                "Watchers of clients that do not read on.",
                plain(|w| &w.watch.slow),
            ),
            gauge(
                "etcd_edge_watch_log_bytes",
                "Bytes of events kept for slow and late watchers.",
                plain(|w| &w.watch.log_bytes),
            ),
            counter(
                "etcd_edge_watchers_joined_total",
                "Watchers of clients served by a watcher at etcd that was there.",
                plain(|w| &w.watch.joined),
            ),
            counter(
                "etcd_edge_watch_catch_ups_total",
                "Watchers at etcd opened to catch up.",
                plain(|w| &w.watch.catch_ups_opened),
            ),
            counter(
                "etcd_edge_watch_resumes_total",
                "Watch streams to etcd opened in the place of lost ones.",
                plain(|w| &w.watch.resumes),
            ),
            counter(
                "etcd_edge_watch_events_received_total",
                "Events from etcd.",
                plain(|w| &w.watch.events_in),
            ),
            counter(
                "etcd_edge_watch_events_sent_total",
                "Events to clients.",
                plain(|w| &w.watch.events_out),
            ),
            counter(
                "etcd_edge_history_resets_total",
                "Times the store's history was found to have gone back.",
                plain(|w| &w.watch.history_resets),
            ),
            gauge(
                "etcd_edge_lease_streams",
                "Streams of heartbeats of clients open.",
                plain(|w| &w.lease.streams),
            ),
            gauge(
                "etcd_edge_lease_upstream_streams",
                "Streams of heartbeats to etcd open.",
                plain(|w| &w.lease.upstream),
            ),
            counter(
                "etcd_edge_heartbeats_received_total",
                "Heartbeats from clients.",
                plain(|w| &w.lease.received),
            ),
            counter(
                "etcd_edge_heartbeats_sent_total",
                "Heartbeats to etcd, those sent again included.",
                plain(|w| &w.lease.sent),
            ),
            counter(
                "etcd_edge_heartbeats_merged_total",
                "Heartbeats of clients that shared one to etcd with an earlier one.",
                plain(|w| &w.lease.merged),
            ),
            counter(
                "etcd_edge_heartbeats_resent_total",
                "Heartbeats sent to etcd again.",
                plain(|w| &w.lease.resent),
            ),
            counter(
                "etcd_edge_heartbeats_expired_total",
                "Answers of etcd that a lease is no more.",
                plain(|w| &w.lease.expired),
            ),
            counter(
                "etcd_edge_heartbeats_aside_total",
                "Heartbeats that were put aside since they blocked others.",
                plain(|w| &w.lease.aside),
            ),
            gauge(
                "etcd_grpc_proxy_watchers_coalescing_total",
                "Watchers of clients beyond those at etcd.",
                vec![(vec![], self.coalescing())],
            ),
            counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Events to clients that were served without one from etcd.",
                vec![(vec![], self.events_coalescing())],
            ),
            counter(
                "etcd_edge_hedged_reads_total",
                "Silent reads that were also sent to another endpoint.",
                plain(|w| &w.hedges),
            ),
            counter(
                "etcd_edge_limit_hits_total",
                "Bounds that clients met.",
                limits.collect(),
            ),
            counter(
                "etcd_edge_endpoint_picked_total",
                "Times the endpoint was picked to serve.",
                per_endpoint(|e| &e.picked),
            ),
            counter(
                "etcd_edge_endpoint_connects_total",
                "Connections to the endpoint that came up.",
                per_endpoint(|e| &e.connects),
            ),
            counter(
                "etcd_edge_endpoint_failures_total",
                "Dials and connections of the endpoint that failed.",
                per_endpoint(|e| &e.failures),
            ),
        ]
    }

    fn coalescing(&self) -> u64 {
        let c_watchers = self.sum(|w| w.watch.c_watchers.get());
        c_watchers.saturating_sub(self.sum(|w| w.watch.s_watchers.get()))
    }

    fn events_coalescing(&self) -> u64 {
        let out = self.sum(|w| w.watch.events_out.get());
        let coalescing = out.saturating_sub(self.sum(|w| w.watch.events_in.get()));
        // Never less than it was: it is shown as a counter.
        let before = self
            .events_coalescing
            .fetch_max(coalescing, Ordering::Relaxed);
        before.max(coalescing)
    }

    /// Only methods that were called, as go-grpc shows them.
    fn started(&self) -> Vec<Sample> {
        let methods = self.methods.iter().enumerate();
        methods
            .map(|(n, labels)| (call_labels(labels), self.sum(|w| w.calls[n].started.get())))
            .filter(|(_, value)| *value > 0)
            .collect()
    }

    fn handled(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (n, labels) in self.methods.iter().enumerate() {
            for (code, name) in self.code_names.iter().enumerate() {
                let value = self.sum(|w| w.calls[n].handled[code].get());
                if value > 0 {
                    let mut labels = call_labels(labels);
                    labels.insert(0, label("grpc_code", name));
                    samples.push((labels, value));
                }
            }
        }
        samples
    }
}

/// Lets a registry of the `prometheus` crate collect the blocks.
#[derive(Debug, Clone)]
pub struct MetricsCollector(pub Arc<Metrics>);

impl Collector for MetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0
            .families()
            .into_iter()
            .filter(|f| !f.get_metric().is_empty())
            .collect()
    }
}

type Sample = (Vec<LabelPair>, u64);

fn call_labels(labels: &MethodLabels) -> Vec<LabelPair> {
    vec![
        label("grpc_method", labels.method),
        label("grpc_service", labels.service),
        label("grpc_type", labels.kind),
    ]
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn counter(name: &str, help: &str, samples: Vec<Sample>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

fn gauge(name: &str, help: &str, samples: Vec<Sample>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: Vec<Sample>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    for (labels, value) in samples {
        let mut metric = Metric::default();
        metric.set_label(labels);
        // Exact up to 2^53, as everywhere in Prometheus.
        set(&mut metric, value as f64);
        family.mut_metric().push(metric);
    }
    family
}
