//! What workers tell one another.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::driver::state::identity::{Credential, Identity, Session};
use crate::state_machine::lease::End;
use crate::state_machine::reads::cache::Question;
use crate::state_machine::watch::FeedEvent as FeedTold;
use crate::state_machine::watch::hub::{FeedStatus, IdentityId, Stats};
use crate::state_machine::watch::trunk::{Sub, Token};
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::status::Status;

/// From worker to worker.
#[derive(Debug)]
pub(in crate::driver) enum WorkerMessage {
    /// About watches.
    Watch(WatchMessage),
    /// About leases.
    Lease(LeaseMessage),
    /// To all: no endpoint that a stream of this identity reaches has a leader.
    NoLeader(IdentityId),
    /// To all: say what is served.
    Report(UnboundedSender<Report>),
}

impl WorkerMessage {
    /// Bytes of events in it.
    pub(in crate::driver) fn bytes(&self) -> usize {
        match self {
            WorkerMessage::Watch(WatchMessage::Told(_, FeedTold::Events(batch))) => batch.bytes,
            _ => 0,
        }
    }
}

/// About watches.
#[derive(Debug)]
pub(in crate::driver) enum WatchMessage {
    /// To the owner of an identity's shared line: tell this feed.
    Open {
        identity: IdentityId,
        login: Arc<Identity>,
        sub: Sub,
        range: KeyRange,
        prev_kv: bool,
    },
    /// No longer.
    Close(IdentityId, Sub),
    /// A stream wants a barrier.
    Sync(IdentityId, Token),
    /// No longer.
    Unsync(IdentityId, Token),
    /// To the worker of a feed.
    Told(u64, FeedTold),
    /// To the worker of a stream: its barrier stands.
    Synced(u64, i64),
    /// To all: history went back, and stands here now.
    Reset(Header),
    /// To the owner of an identity's shared line: prove an answer right.
    Cover(Box<Wanted>),
}

/// An answer that is to be proved right by a watch.
#[derive(Debug)]
pub(in crate::driver) struct Wanted {
    /// What it answers.
    pub(in crate::driver) question: Question,
    /// The keys it is about.
    pub(in crate::driver) range: KeyRange,
    /// The identity whose it is, with the token of a client that was given it.
    pub(in crate::driver) session: Session,
}

/// About leases.
#[derive(Debug)]
pub(in crate::driver) enum LeaseMessage {
    /// To the owner of an identity's line: what its clients on a worker say.
    Said {
        login: Arc<Identity>,
        worker: u32,
        said: Vec<LeaseInput>,
    },
    /// To the worker of clients: what they are told.
    Told(Vec<Told>),
    /// To all: etcd does not take a token of this identity, or that there is none.
    TokenRefused(u64, Option<Credential>, Status),
}

/// What a client's stream has said.
#[derive(Debug)]
pub(in crate::driver) struct LeaseInput {
    /// Its number on its worker.
    pub(in crate::driver) stream: u64,
    pub(in crate::driver) word: Word,
}

/// See [`LeaseInput`].
#[derive(Debug)]
pub(in crate::driver) enum Word {
    /// It begins, on the connection of this number.
    Opened(u64),
    /// Keep this lease alive.
    Beat(i64),
    /// It says no more.
    HalfClosed,
    /// It is over.
    Closed,
}

/// What a client's stream is told.
#[derive(Debug)]
pub(in crate::driver) struct Told {
    /// Its number on its worker.
    pub(in crate::driver) stream: u64,
    pub(in crate::driver) answer: Answer,
}

/// See [`Told`].
#[derive(Debug)]
pub(in crate::driver) enum Answer {
    /// A framed message, so many times.
    Message(Bytes, u32),
    /// Its end.
    End(End),
}

/// The heartbeats of one identity, for people.
#[derive(Debug)]
pub(in crate::driver) struct LeaseStatus {
    /// The identity's name.
    pub(in crate::driver) name: String,
    pub(in crate::driver) client_streams: usize,
    pub(in crate::driver) upstream_streams: usize,
}

/// The watches of one worker, for people.
#[derive(Debug)]
pub(in crate::driver) struct WatchStatus {
    /// Sizes and counts.
    pub(in crate::driver) stats: Stats,
    /// s-watchers of the lines that are here.
    pub(in crate::driver) upstream_watchers: usize,
    /// The feeds, each with the name of its identity.
    pub(in crate::driver) feeds: Vec<(String, FeedStatus)>,
}

/// What one worker serves.
#[derive(Debug)]
pub(in crate::driver) struct Report {
    /// Its number.
    pub(in crate::driver) worker: u32,
    pub(in crate::driver) watches: WatchStatus,
    /// The lines of leases that it owns.
    pub(in crate::driver) leases: Vec<LeaseStatus>,
}
