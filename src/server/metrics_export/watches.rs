//! Metrics of watches.

use std::sync::atomic::Ordering;

use super::MetricsCollector;
use super::family::{Family, counter, gauge, single};

impl MetricsCollector {
    pub(super) fn watches(&self) -> Vec<Family> {
        vec![
            gauge(
                "etcd_edge_watch_streams",
                "Open watch streams of clients.",
                &[],
                self.worker_sum(|w| &w.watch.streams),
            ),
            gauge(
                "etcd_edge_client_watchers",
                "Client watchers.",
                &[],
                self.worker_sum(|w| &w.watch.client_watchers),
            ),
            gauge(
                "etcd_edge_upstream_watchers",
                "Upstream watchers, those that catch up included.",
                &[],
                self.worker_sum(|w| &w.watch.upstream_watchers),
            ),
            gauge(
                "etcd_edge_watch_catch_ups",
                "Upstream watchers that read old events before they join a shared one.",
                &[],
                self.worker_sum(|w| &w.watch.catch_ups),
            ),
            gauge(
                "etcd_edge_slow_watchers",
                "Client watchers of clients that do not read their events.",
                &[],
                self.worker_sum(|w| &w.watch.slow),
            ),
            gauge(
                "etcd_edge_watch_log_bytes",
                "Bytes of events buffered for slow and late watchers.",
                &[],
                self.worker_sum(|w| &w.watch.log_bytes),
            ),
            counter(
                "etcd_edge_watchers_shared_total",
                "Client watchers served by an upstream watcher that already existed.",
                &[],
                self.worker_sum(|w| &w.watch.joined),
            ),
            counter(
                "etcd_edge_watch_catch_ups_total",
                "Upstream watchers created to catch up.",
                &[],
                self.worker_sum(|w| &w.watch.catch_ups_opened),
            ),
            counter(
                "etcd_edge_watch_resumes_total",
                "Watch streams to etcd that replaced a lost one.",
                &[],
                self.worker_sum(|w| &w.watch.resumes),
            ),
            counter(
                "etcd_edge_watch_events_received_total",
                "Watch events received from etcd.",
                &[],
                self.worker_sum(|w| &w.watch.events_received),
            ),
            counter(
                "etcd_edge_watch_events_sent_total",
                "Watch events sent to clients.",
                &[],
                self.worker_sum(|w| &w.watch.events_sent),
            ),
            counter(
                "etcd_edge_history_resets_total",
                "Times the revision history of etcd went backwards.",
                &[],
                self.worker_sum(|w| &w.watch.history_resets),
            ),
            gauge(
                "etcd_grpc_proxy_watchers_coalescing_total",
                "Client watchers minus upstream watchers.",
                &[],
                single(self.coalescing()),
            ),
            counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Watch events sent to clients minus watch events received from etcd.",
                &[],
                single(self.events_coalescing()),
            ),
        ]
    }

    fn coalescing(&self) -> u64 {
        let client_watchers = self.sum(|w| w.watch.client_watchers.get());
        client_watchers.saturating_sub(self.sum(|w| w.watch.upstream_watchers.get()))
    }

    fn events_coalescing(&self) -> u64 {
        let out = self.sum(|w| w.watch.events_sent.get());
        let coalescing = out.saturating_sub(self.sum(|w| w.watch.events_received.get()));
        // Exported as a counter, so the value never decreases.
        let before = self
            .metrics
            .events_coalescing
            .fetch_max(coalescing, Ordering::Relaxed);
        before.max(coalescing)
    }
}
