//! Watches.

use std::sync::atomic::Ordering;

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge};

impl MetricsCollector {
    pub(super) fn watches(&self) -> Vec<Family> {
        vec![
            gauge(
                "etcd_edge_watch_streams",
                "Open watch streams of clients.",
                &[],
                self.plain(|w| &w.watch.streams),
            ),
            gauge(
                "etcd_edge_client_watchers",
                "Client watchers.",
                &[],
                self.plain(|w| &w.watch.client_watchers),
            ),
            gauge(
                "etcd_edge_upstream_watchers",
                "Upstream watchers, those that catch up included.",
                &[],
                self.plain(|w| &w.watch.upstream_watchers),
            ),
            gauge(
                "etcd_edge_watch_catch_ups",
                "Upstream watchers that read old events before they join a shared one.",
                &[],
                self.plain(|w| &w.watch.catch_ups),
            ),
            gauge(
                "etcd_edge_slow_watchers",
                "Client watchers whose clients do not read their events.",
                &[],
                self.plain(|w| &w.watch.slow),
            ),
            gauge(
                "etcd_edge_watch_log_bytes",
                "Bytes of events buffered for slow and late watchers.",
                &[],
                self.plain(|w| &w.watch.log_bytes),
            ),
            counter(
                "etcd_edge_watchers_shared_total",
                "Client watchers served by an upstream watcher that already existed.",
                &[],
                self.plain(|w| &w.watch.joined),
            ),
            counter(
                "etcd_edge_watch_catch_ups_total",
                "Upstream watchers created to catch up.",
                &[],
                self.plain(|w| &w.watch.catch_ups_opened),
            ),
            counter(
                "etcd_edge_watch_resumes_total",
                "Watch streams to etcd that replaced a lost one.",
                &[],
                self.plain(|w| &w.watch.resumes),
            ),
            counter(
                "etcd_edge_watch_events_received_total",
                "Watch events received from etcd.",
                &[],
                self.plain(|w| &w.watch.events_received),
            ),
            counter(
                "etcd_edge_watch_events_sent_total",
                "Watch events sent to clients.",
                &[],
                self.plain(|w| &w.watch.events_sent),
            ),
            counter(
                "etcd_edge_history_resets_total",
                "Times the revision history of etcd went backwards.",
                &[],
                self.plain(|w| &w.watch.history_resets),
            ),
            gauge(
                "etcd_grpc_proxy_watchers_coalescing_total",
                "Client watchers minus upstream watchers.",
                &[],
                alone(self.coalescing()),
            ),
            counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Watch events sent to clients minus watch events received from etcd.",
                &[],
                alone(self.events_coalescing()),
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
        // Never less than it was: it is shown as a counter.
        let before = self
            .metrics
            .events_coalescing
            .fetch_max(coalescing, Ordering::Relaxed);
        before.max(coalescing)
    }
}
