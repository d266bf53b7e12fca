//! Watches.

use super::count::Count;

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
