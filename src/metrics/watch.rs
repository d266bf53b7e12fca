//! Metrics of watches.

use super::counter::Counter;

/// Metrics of watches of one worker.
#[derive(Debug, Default)]
pub struct WatchMetrics {
    /// Open client watch streams.
    pub streams: Counter,
    /// Client watchers.
    pub client_watchers: Counter,
    /// Upstream watchers, including those that catch up.
    pub upstream_watchers: Counter,
    /// Upstream watchers that catch up.
    pub catch_ups: Counter,
    /// Client watchers of clients that do not read their events.
    pub slow: Counter,
    /// Bytes of buffered events.
    pub log_bytes: Counter,
    /// Client watchers served by an upstream watcher that already existed.
    pub joined: Counter,
    /// Upstream watchers created to catch up.
    pub catch_ups_opened: Counter,
    /// Upstream streams that replaced a lost one.
    pub resumes: Counter,
    /// Events received from etcd.
    pub events_received: Counter,
    /// Events sent to clients.
    pub events_sent: Counter,
    /// Times the revision history of etcd went backwards.
    pub history_resets: Counter,
}
