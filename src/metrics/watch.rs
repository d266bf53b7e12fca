//! Watches.

use super::counter::Counter;

/// Watches on one worker. c-watchers are the clients', s-watchers those at etcd.
#[derive(Debug, Default)]
pub struct WatchMetrics {
    /// Watch streams of clients open now.
    pub streams: Counter,
    /// c-watchers now.
    pub client_watchers: Counter,
    /// s-watchers now, those that catch up included.
    pub upstream_watchers: Counter,
    /// s-watchers now that catch up.
    pub catch_ups: Counter,
    /// c-watchers now whose clients do not read on.
    pub slow: Counter,
    /// Bytes of events kept.
    pub log_bytes: Counter,
    /// c-watchers that were served by an s-watcher that was there.
    pub joined: Counter,
    /// s-watchers that were opened to catch up.
    pub catch_ups_opened: Counter,
    /// Streams to etcd opened in the place of lost ones.
    pub resumes: Counter,
    /// Events from etcd.
    pub events_received: Counter,
    /// Events to clients.
    pub events_sent: Counter,
    /// Times the store's history was found to have gone back.
    pub history_resets: Counter,
}
