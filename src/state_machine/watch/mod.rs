//! Watches: many watchers of clients (c-watchers), few at etcd (s-watchers), and not one event lost.
//!
//! Two machines, joined by feeds. A *trunk* keeps s-watchers alive at etcd over streams that come
//! and go, and turns what they say into feeds; it knows nothing of clients. A *hub* serves the
//! c-watchers of one worker from feeds; it knows nothing of etcd. Between them go only [`FeedEvent`]
//! messages, in order, by reference: a batch is made once, whatever the number of workers and
//! c-watchers.

pub mod hub;
pub mod trunk;

use std::sync::Arc;

use crate::wire::response_header::Header;
use crate::wire::watch::Event;

/// What a feed tells about its range. In order; a feed begins with [`FeedEvent::Live`] or ends before.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// The s-watcher stands. Every event with revision ≥ `from` will be told or has been dropped
    /// because nobody was promised it; the frontier is `through` (≥ `from` - 1).
    Live {
        /// The first revision whose events this feed tells.
        from: i64,
        /// The frontier F (W3).
        through: i64,
        /// Of the `created` answer; its revision is the store's as of then.
        header: Header,
    },
    /// Events, and the frontier behind them.
    Events(Arc<Batch>),
    /// The frontier moved without events (W3).
    Through(i64),
    /// History up to here is gone before it could be told: every c-watcher whose next revision is
    /// not above it is canceled with it. The feed is over; the others need another.
    Compacted {
        /// etcd's own `compact_revision`.
        compact_revision: i64,
        /// As etcd sent it with the cancel.
        header: Header,
    },
    /// etcd refused or canceled the s-watcher for what it is, in its own words. The feed is over.
    Refused(String),
    /// No endpoint can serve the feed within the time that calls wait for one (E4), or none with
    /// this identity. The feed is over; its clients' streams end so that they come again.
    Lost(Unavailable),
}

/// Why a feed could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// UNAVAILABLE: no endpoint, or no token that works (W10).
    Unavailable,
    /// UNAVAILABLE `etcdserver: no leader`, at every endpoint (W12).
    NoLeader,
}

/// Events of one range that a feed tells at once. Revisions are whole: all events of a revision
/// are in one batch (W5).
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// As etcd sent it with these events.
    pub header: Header,
    /// Not empty; in the order of their revisions.
    pub events: Vec<Event>,
    /// The frontier F behind this batch: the last event's revision (W3).
    pub through: i64,
    /// What it holds in memory, in bytes.
    pub bytes: usize,
}
