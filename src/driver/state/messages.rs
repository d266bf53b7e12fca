//! Messages between workers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::driver::state::identity::{Credential, Identity, Session};
use crate::state_machine::lease::ClientStreamEnd;
use crate::state_machine::reads::cache::CacheKey;
use crate::state_machine::watch::FeedEvent;
use crate::state_machine::watch::hub::{FeedStatus, IdentityId, Stats};
use crate::state_machine::watch::trunk::{BarrierWaiter, Subscriber};
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::status::Status;

/// Message from one worker to another.
#[derive(Debug)]
pub(in crate::driver) enum WorkerMessage {
    /// Concerns watches.
    Watch(WatchMessage),
    /// Concerns leases.
    Lease(LeaseMessage),
    /// To all workers: no endpoint that a stream of this identity can reach has a leader.
    NoLeader(IdentityId),
    /// To all workers: send a report to this channel.
    Report(UnboundedSender<WorkerReport>),
}

impl WorkerMessage {
    /// Returns the bytes of events in the message.
    pub(in crate::driver) fn bytes(&self) -> usize {
        match self {
            WorkerMessage::Watch(WatchMessage::FeedEvent(_, FeedEvent::Events(batch))) => {
                batch.bytes
            }
            _ => 0,
        }
    }
}

/// Message that concerns watches.
#[derive(Debug)]
pub(in crate::driver) enum WatchMessage {
    /// To the owner of an identity's shared upstream link: open this feed.
    Open {
        id: IdentityId,
        identity: Arc<Identity>,
        subscriber: Subscriber,
        range: KeyRange,
        prev_kv: bool,
    },
    /// To the owner: close the feed.
    Close(IdentityId, Subscriber),
    /// To the owner: place a barrier for a client stream.
    RequestBarrier(IdentityId, BarrierWaiter),
    /// To the owner: cancel the barrier.
    CancelBarrier(IdentityId, BarrierWaiter),
    /// To the worker of a feed, by its number: an event of the feed.
    FeedEvent(u64, FeedEvent),
    /// To the worker of a client stream: its barrier (first number) is reached at a revision
    /// (second).
    BarrierReached(u64, i64),
    /// To all workers: the store's history was reset, and this is its current header.
    Reset(Header),
    /// To the owner of an identity's shared upstream link: keep a cached response current by a
    /// watch.
    ProveResponse(Box<ProofRequest>),
}

/// Request for a watch that proves a cached response current.
#[derive(Debug)]
pub(in crate::driver) struct ProofRequest {
    /// Cache key of the response.
    pub(in crate::driver) question: CacheKey,
    /// Range of keys in the response.
    pub(in crate::driver) range: KeyRange,
    /// Identity of the cached response, with the token of a client that received it.
    pub(in crate::driver) session: Session,
}

/// Message that concerns leases.
#[derive(Debug)]
pub(in crate::driver) enum LeaseMessage {
    /// To the owner of an identity's upstream link: inputs of its clients on a worker.
    Inputs {
        identity: Arc<Identity>,
        worker: u32,
        inputs: Vec<LeaseInput>,
    },
    /// To the worker of client streams: outputs for them.
    Outputs(Vec<LeaseOutput>),
    /// To all workers: etcd rejects a token of this identity, or the lack of one, with this status.
    TokenRefused(u64, Option<Credential>, Status),
}

/// Input of one client stream to a lease hub.
#[derive(Debug)]
pub(in crate::driver) struct LeaseInput {
    /// Number of the stream on its worker.
    pub(in crate::driver) stream: u64,
    pub(in crate::driver) kind: LeaseInputKind,
}

/// Kind of a [`LeaseInput`].
#[derive(Debug)]
pub(in crate::driver) enum LeaseInputKind {
    /// The stream starts, on the connection with this number.
    Opened(u64),
    /// The client renews this lease.
    Heartbeat(i64),
    /// The client has half-closed the stream.
    HalfClosed,
    /// The stream has ended.
    Closed,
}

/// Output of a lease hub to one client stream.
#[derive(Debug)]
pub(in crate::driver) struct LeaseOutput {
    /// Number of the stream on its worker.
    pub(in crate::driver) stream: u64,
    pub(in crate::driver) kind: LeaseOutputKind,
}

/// Kind of a [`LeaseOutput`].
#[derive(Debug)]
pub(in crate::driver) enum LeaseOutputKind {
    /// A framed message, and how many times to send it.
    Message(Bytes, u32),
    /// The end of the stream.
    End(ClientStreamEnd),
}

/// Heartbeats of one identity, for the status page.
#[derive(Debug)]
pub(in crate::driver) struct LeaseStatus {
    /// Name of the identity.
    pub(in crate::driver) name: String,
    pub(in crate::driver) client_streams: usize,
    pub(in crate::driver) upstream_streams: usize,
}

/// Watches of one worker, for the status page.
#[derive(Debug)]
pub(in crate::driver) struct WatchStatus {
    /// Sizes and counts of the watch hub.
    pub(in crate::driver) stats: Stats,
    /// Upstream watchers of the upstream links that this worker owns.
    pub(in crate::driver) upstream_watchers: usize,
    /// Feeds, each with the name of its identity.
    pub(in crate::driver) feeds: Vec<(String, FeedStatus)>,
}

/// Report of one worker, for the status page.
#[derive(Debug)]
pub(in crate::driver) struct WorkerReport {
    /// Index of the worker.
    pub(in crate::driver) worker: u32,
    pub(in crate::driver) watches: WatchStatus,
    /// Lease hubs that the worker owns.
    pub(in crate::driver) leases: Vec<LeaseStatus>,
}
