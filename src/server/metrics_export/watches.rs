//! Watches.

use std::sync::atomic::Ordering;

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge};

impl MetricsCollector {
    pub(super) fn watches(&self) -> Vec<Family> {
        vec![
            gauge(
                "etcd_edge_watch_streams",
                "Watch streams of clients open.",
                &[],
                self.plain(|w| &w.watch.streams),
            ),
            gauge(
                "etcd_edge_client_watchers",
                "Watchers of clients.",
                &[],
                self.plain(|w| &w.watch.c_watchers),
            ),
            gauge(
                "etcd_edge_upstream_watchers",
                "Watchers at etcd.",
                &[],
                self.plain(|w| &w.watch.s_watchers),
            ),
            gauge(
                "etcd_edge_watch_catch_ups",
                "Watchers at etcd that catch up with the shared ones.",
                &[],
                self.plain(|w| &w.watch.catch_ups),
            ),
            gauge(
                "etcd_edge_slow_watchers",
                "Watchers of clients that do not read on.",
                &[],
                self.plain(|w| &w.watch.slow),
            ),
            gauge(
                "etcd_edge_watch_log_bytes",
                "Bytes of events kept for slow and late watchers.",
                &[],
                self.plain(|w| &w.watch.log_bytes),
            ),
            counter(
                "etcd_edge_watchers_joined_total",
                "Watchers of clients served by a watcher at etcd that was there.",
                &[],
                self.plain(|w| &w.watch.joined),
            ),
            counter(
                "etcd_edge_watch_catch_ups_total",
                "Watchers at etcd opened to catch up.",
                &[],
                self.plain(|w| &w.watch.catch_ups_opened),
            ),
            counter(
                "etcd_edge_watch_resumes_total",
                "Watch streams to etcd opened in the place of lost ones.",
                &[],
                self.plain(|w| &w.watch.resumes),
            ),
            counter(
                "etcd_edge_watch_events_received_total",
                "Events from etcd.",
                &[],
                self.plain(|w| &w.watch.events_in),
            ),
            counter(
                "etcd_edge_watch_events_sent_total",
                "Events to clients.",
                &[],
                self.plain(|w| &w.watch.events_out),
            ),
            counter(
                "etcd_edge_history_resets_total",
                "Times the store's history was found to have gone back.",
                &[],
                self.plain(|w| &w.watch.history_resets),
            ),
            gauge(
                "etcd_grpc_proxy_watchers_coalescing_total",
                "Watchers of clients beyond those at etcd.",
                &[],
                alone(self.coalescing()),
            ),
            counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Events to clients that were served without one from etcd.",
                &[],
                alone(self.events_coalescing()),
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
            .metrics
            .events_coalescing
            .fetch_max(coalescing, Ordering::Relaxed);
        before.max(coalescing)
    }
}
