//! Watch sharing: few upstream watchers serve many client watchers, and no event is lost.
//!
//! Two state machines are connected by feeds. A *trunk* keeps upstream watchers alive over streams
//! that are opened and lost, and turns their responses into feeds. A trunk does not depend on
//! clients. A *hub* serves the client watchers of one worker from feeds. A hub does not depend on
//! etcd.
//!
//! The only messages between them are [`FeedEvent`]s, in order. A batch is shared by reference: it
//! is created once for any number of workers and client watchers.

pub mod hub;
pub mod trunk;

use std::sync::Arc;

use crate::wire::response_header::Header;
use crate::wire::watch::Event;

/// Event of a feed. Events of a feed are ordered. The first one is [`FeedEvent::Live`], unless the
/// feed ends before it. Any number of [`FeedEvent::TokenRefused`] may precede the first one.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// The upstream watcher exists. Every event with revision ≥ `from` is delivered, or was dropped
    /// because no client was promised it.
    Live {
        /// The first revision that this feed delivers.
        from: i64,
        /// The frontier F (W3), at least `from` - 1.
        frontier: i64,
        /// Header of the `created` response. Its revision is that of the store at that time.
        header: Header,
    },
    /// Events, and the frontier after them.
    Events(Arc<Batch>),
    /// The frontier advanced without events (W3).
    Frontier(i64),
    /// Compaction removed revisions before they were delivered. Client watchers with a next
    /// revision ≤ `compact_revision` are canceled with it. The feed has ended, and the other client
    /// watchers need another feed.
    Compacted {
        /// `compact_revision` of etcd's cancel.
        compact_revision: i64,
        /// Header of etcd's cancel.
        header: Header,
    },
    /// etcd refused or canceled the upstream watcher, with this reason. The feed has ended.
    Refused(String),
    /// etcd refused the token for an upstream watcher that is not live, with this reason, and no
    /// token of the identity works now. Creates that wait for the feed are refused. The feed goes
    /// on: the trunk opens the upstream watcher when a token works.
    TokenRefused(String),
    /// No endpoint can serve the feed within the time that calls wait (E4), or none accepts this
    /// identity. The feed has ended. The streams of its clients end, so that the clients reconnect.
    Lost(Unavailable),
}

/// Reason why a feed could not continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// UNAVAILABLE: no endpoint, or no token that an endpoint accepts (W10).
    Unavailable,
    /// UNAVAILABLE `etcdserver: no leader`, at every endpoint (W12).
    NoLeader,
}

/// Events of one range, delivered together. Revisions are whole: all events of a revision are in
/// one batch (W5).
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Header that etcd sent with these events.
    pub header: Header,
    /// At least one event, ordered by revision.
    pub events: Vec<Event>,
    /// The frontier F after this batch: the revision of its last event (W3).
    pub frontier: i64,
    /// Memory used by the events, in bytes.
    pub bytes: usize,
}
