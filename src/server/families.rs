//! How what is counted is shown to Prometheus.

mod fleet;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::metrics::{AGES, Count, EndpointMetrics, Limit, MethodLabels, Metrics, WorkerMetrics};

impl MetricsCollector {
    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.0.workers().map(of).fold(0, u64::wrapping_add)
    }

    fn calls(&self) -> Vec<MetricFamily> {
        let endpoints = self.0.endpoints.all();
        let per_endpoint = |of: fn(&EndpointMetrics) -> u64| {
            let series = |e: &Arc<EndpointMetrics>| (vec![label("endpoint", &e.name)], of(e));
            endpoints.iter().map(series).collect()
        };
        let limits = Limit::ALL.iter().map(|(limit, name)| {
            (
                vec![label("limit", name)],
                self.sum(|w| w.limits[*limit as usize].get()),
            )
        });
        let refused = self.0.connections_refused.get();
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
                self.plain(|w| &w.accepted),
            ),
            counter(
                "etcd_edge_connections_refused_total",
                "Client connections closed at accept because there were too many.",
                vec![(vec![], refused)],
            ),
            counter(
                "etcd_edge_handshakes_failed_total",
                "Client connections that ended before their first request.",
                self.plain(|w| &w.handshakes_failed),
            ),
            gauge(
                "etcd_edge_connections",
                "Client connections open.",
                self.plain(|w| &w.connections),
            ),
            gauge(
                "etcd_edge_calls",
                "Calls open.",
                self.plain(|w| &w.open_calls),
            ),
            counter(
                "etcd_edge_retries_total",
                "Attempts at a call beyond its first.",
                self.plain(|w| &w.retries),
            ),
            counter(
                "etcd_edge_hedged_reads_total",
                "Silent reads that were also sent to another endpoint.",
                self.plain(|w| &w.hedges),
            ),
            counter(
                "etcd_edge_limit_hits_total",
                "Bounds that clients met.",
                limits.collect(),
            ),
            counter(
                "etcd_edge_endpoint_picked_total",
                "Times the endpoint was picked to serve.",
                per_endpoint(|e| e.picked.get()),
            ),
            counter(
                "etcd_edge_endpoint_connects_total",
                "Connections to the endpoint that came up.",
                per_endpoint(|e| e.connects.get()),
            ),
            counter(
                "etcd_edge_endpoint_failures_total",
                "Dials and connections of the endpoint that failed.",
                per_endpoint(|e| e.failures.get()),
            ),
            counter(
                "etcd_edge_endpoint_ejections_total",
                "Times the endpoint was left out for doing worse than the others.",
                per_endpoint(|e| e.ejections.get()),
            ),
            counter(
                "etcd_edge_endpoint_requests_total",
                "Calls sent to the endpoint.",
                per_endpoint(|e| e.workers().map(|w| w.requests.get()).sum()),
            ),
        ]
    }

    fn watches(&self) -> Vec<MetricFamily> {
        vec![
            gauge(
                "etcd_edge_watch_streams",
                "Watch streams of clients open.",
                self.plain(|w| &w.watch.streams),
            ),
            gauge(
                "etcd_edge_c_watchers",
                "Watchers of clients.",
                self.plain(|w| &w.watch.c_watchers),
            ),
            gauge(
                "etcd_edge_s_watchers",
                "Watchers at etcd.",
                self.plain(|w| &w.watch.s_watchers),
            ),
            gauge(
                "etcd_edge_watch_catch_ups",
                "Watchers at etcd that catch up with the shared ones.",
                self.plain(|w| &w.watch.catch_ups),
            ),
            gauge(
                "etcd_edge_slow_watchers",
                "Watchers of clients that do not read on.",
                self.plain(|w| &w.watch.slow),
            ),
            gauge(
                "etcd_edge_watch_log_bytes",
                "Bytes of events kept for slow and late watchers.",
                self.plain(|w| &w.watch.log_bytes),
            ),
            counter(
                "etcd_edge_watchers_joined_total",
                "Watchers of clients served by a watcher at etcd that was there.",
                self.plain(|w| &w.watch.joined),
            ),
            counter(
                "etcd_edge_watch_catch_ups_total",
                "Watchers at etcd opened to catch up.",
                self.plain(|w| &w.watch.catch_ups_opened),
            ),
            counter(
                "etcd_edge_watch_resumes_total",
                "Watch streams to etcd opened in the place of lost ones.",
                self.plain(|w| &w.watch.resumes),
            ),
            counter(
                "etcd_edge_watch_events_received_total",
                "Events from etcd.",
                self.plain(|w| &w.watch.events_in),
            ),
            counter(
                "etcd_edge_watch_events_sent_total",
                "Events to clients.",
                self.plain(|w| &w.watch.events_out),
            ),
            counter(
                "etcd_edge_history_resets_total",
                "Times the store's history was found to have gone back.",
                self.plain(|w| &w.watch.history_resets),
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
        ]
    }

    fn leases(&self) -> Vec<MetricFamily> {
        vec![
            gauge(
                "etcd_edge_lease_streams",
                "Streams of heartbeats of clients open.",
                self.plain(|w| &w.lease.streams),
            ),
            gauge(
                "etcd_edge_lease_upstream_streams",
                "Streams of heartbeats to etcd open.",
                self.plain(|w| &w.lease.upstream),
            ),
            counter(
                "etcd_edge_heartbeats_received_total",
                "Heartbeats from clients.",
                self.plain(|w| &w.lease.received),
            ),
            counter(
                "etcd_edge_heartbeats_sent_total",
                "Heartbeats to etcd, those sent again included.",
                self.plain(|w| &w.lease.sent),
            ),
            counter(
                "etcd_edge_heartbeats_merged_total",
                "Heartbeats of clients that shared one to etcd with an earlier one.",
                self.plain(|w| &w.lease.merged),
            ),
            counter(
                "etcd_edge_heartbeats_resent_total",
                "Heartbeats sent to etcd again.",
                self.plain(|w| &w.lease.resent),
            ),
            counter(
                "etcd_edge_heartbeats_expired_total",
                "Answers of etcd that a lease is no more.",
                self.plain(|w| &w.lease.expired),
            ),
            counter(
                "etcd_edge_heartbeats_aside_total",
                "Heartbeats that were put aside since they blocked others.",
                self.plain(|w| &w.lease.aside),
            ),
        ]
    }

    fn reads(&self) -> Vec<MetricFamily> {
        let answers = &self.0.answers;
        let cause = |name, of: fn(&WorkerMetrics) -> &Count| {
            (vec![label("cause", name)], self.sum(|w| of(w).get()))
        };
        vec![
            counter(
                "etcd_edge_reads_shared_total",
                "Linearizable reads answered by one that several shared.",
                self.plain(|w| &w.reads.shared),
            ),
            counter(
                "etcd_edge_reads_overtaken_total",
                "Serializable reads asked again for what is no older than what the client was shown.",
                self.plain(|w| &w.reads.overtaken),
            ),
            gauge(
                "etcd_edge_cache_entries",
                "Answers kept.",
                vec![(vec![], answers.count.get() as u64)],
            ),
            gauge(
                "etcd_edge_cache_bytes",
                "Bytes of memory that kept answers hold.",
                vec![(vec![], answers.bytes.get() as u64)],
            ),
            gauge(
                "etcd_edge_cache_covers",
                "Kept answers that a watch proves right.",
                self.plain(|w| &w.reads.covers),
            ),
            counter(
                "etcd_edge_cache_hits_total",
                "Serializable reads answered from what is kept.",
                self.plain(|w| &w.reads.hits),
            ),
            counter(
                "etcd_edge_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                self.plain(|w| &w.reads.misses),
            ),
            counter(
                "etcd_edge_cache_invalidated_total",
                "Kept answers that were found and not given, by cause.",
                vec![
                    cause("age", |w| &w.reads.too_old),
                    cause("written", |w| &w.reads.written),
                    cause("unsure", |w| &w.reads.unsure),
                    cause("shown", |w| &w.reads.behind),
                ],
            ),
            counter(
                "etcd_edge_cache_dropped_total",
                "Times all kept answers were dropped.",
                vec![(vec![], answers.drops.get())],
            ),
            counter(
                "etcd_edge_cache_renewed_total",
                "Reads for answers that were soon to be too old.",
                self.plain(|w| &w.reads.renewed),
            ),
            counter(
                "etcd_edge_cache_audited_total",
                "Answers held against etcd after they were given.",
                self.plain(|w| &w.reads.audited),
            ),
            counter(
                "etcd_edge_cache_differed_total",
                "Audited answers that differed from etcd's.",
                self.plain(|w| &w.reads.differed),
            ),
            self.ages(),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Answers kept.",
                vec![(vec![], answers.count.get() as u64)],
            ),
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable reads answered from what is kept.",
                self.plain(|w| &w.reads.hits),
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                self.plain(|w| &w.reads.misses),
            ),
        ]
    }

    /// How old answers were when they were given.
    fn ages(&self) -> MetricFamily {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut buckets = Vec::new();
        for (n, bound) in AGES.iter().enumerate() {
            count += self.sum(|w| w.reads.ages[n].get());
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(seconds(*bound));
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        count += self.sum(|w| w.reads.ages[AGES.len()].get());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(seconds(self.sum(|w| w.reads.age_sum.get())));
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name("etcd_edge_cache_age_seconds".to_owned());
        family.set_help("Age of kept answers when they were given.".to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.mut_metric().push(metric);
        family
    }

    fn plain(&self, of: fn(&WorkerMetrics) -> &Count) -> Vec<Sample> {
        vec![(vec![], self.sum(|w| of(w).get()))]
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
            .0
            .events_coalescing
            .fetch_max(coalescing, Ordering::Relaxed);
        before.max(coalescing)
    }

    /// Only methods that were called, as go-grpc shows them.
    fn started(&self) -> Vec<Sample> {
        let methods = self.0.methods.iter().enumerate();
        methods
            .map(|(n, labels)| (call_labels(labels), self.sum(|w| w.calls[n].started.get())))
            .filter(|(_, value)| *value > 0)
            .collect()
    }

    fn handled(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (n, labels) in self.0.methods.iter().enumerate() {
            for (code, name) in self.0.code_names.iter().enumerate() {
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
pub(super) struct MetricsCollector(pub(super) Arc<Metrics>);

impl Collector for MetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let parts = [
            self.calls(),
            self.watches(),
            self.leases(),
            self.reads(),
            self.fleet(),
        ];
        parts
            .into_iter()
            .flatten()
            .filter(|f| !f.get_metric().is_empty())
            .collect()
    }
}

type Sample = (Vec<LabelPair>, u64);

/// Microseconds in seconds.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

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
