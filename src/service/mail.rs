//! What workers tell one another.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::machine::lease::End;
use crate::machine::reads::cache::Question;
use crate::machine::watch::Told as FeedTold;
use crate::machine::watch::hub::{FeedStatus, Identity, Stats};
use crate::machine::watch::trunk::{Sub, Token};
use crate::service::identity::{Credential, Login, Session};
use crate::wire::header::Header;
use crate::wire::range::KeyRange;
use crate::wire::status::Status;

/// From worker to worker.
#[derive(Debug)]
pub(super) enum Mail {
    /// About watches.
    Watch(WatchMail),
    /// About leases.
    Lease(LeaseMail),
    /// To all: no endpoint that a stream of this identity reaches has a leader.
    NoLeader(Identity),
    /// To all: say what is served.
    Report(UnboundedSender<Report>),
}

impl Mail {
    /// Bytes of events in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Mail::Watch(WatchMail::Told(_, FeedTold::Events(batch))) => batch.bytes,
            _ => 0,
        }
    }
}

/// About watches.
#[derive(Debug)]
pub(super) enum WatchMail {
    /// To the owner of an identity's shared line: tell this feed.
    Open {
        identity: Identity,
        login: Arc<Login>,
        sub: Sub,
        range: KeyRange,
        prev_kv: bool,
    },
    /// No longer.
    Close(Identity, Sub),
    /// A stream wants a barrier.
    Sync(Identity, Token),
    /// No longer.
    Unsync(Identity, Token),
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
pub(super) struct Wanted {
    /// What it answers.
    pub(super) question: Question,
    /// The keys it is about.
    pub(super) range: KeyRange,
    /// The identity whose it is, with the token of a client that was given it.
    pub(super) session: Session,
}

/// About leases.
#[derive(Debug)]
pub(super) enum LeaseMail {
    /// To the owner of an identity's line: what its clients on a worker say.
    Said {
        login: Arc<Login>,
        worker: u32,
        said: Vec<Said>,
    },
    /// To the worker of clients: what they are told.
    Told(Vec<Told>),
    /// To all: etcd does not take a token of this identity, or that there is none.
    TokenRefused(u64, Option<Credential>, Status),
}

/// What a client's stream has said.
#[derive(Debug)]
pub(super) struct Said {
    /// Its number on its worker.
    pub(super) stream: u64,
    pub(super) word: Word,
}

/// See [`Said`].
#[derive(Debug)]
pub(super) enum Word {
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
pub(super) struct Told {
    /// Its number on its worker.
    pub(super) stream: u64,
    pub(super) answer: Answer,
}

/// See [`Told`].
#[derive(Debug)]
pub(super) enum Answer {
    /// A framed message, so many times.
    Message(Bytes, u32),
    /// Its end.
    End(End),
}

/// The heartbeats of one identity, for people.
#[derive(Debug)]
pub(super) struct LeaseStatus {
    /// The identity's name.
    pub(super) name: String,
    pub(super) c_streams: usize,
    pub(super) s_streams: usize,
}

/// The watches of one worker, for people.
#[derive(Debug)]
pub(super) struct WatchStatus {
    /// Sizes and counts.
    pub(super) stats: Stats,
    /// s-watchers of the lines that are here.
    pub(super) s_watchers: usize,
    /// The feeds, each with the name of its identity.
    pub(super) feeds: Vec<(String, FeedStatus)>,
}

/// What one worker serves.
#[derive(Debug)]
pub(super) struct Report {
    /// Its number.
    pub(super) worker: u32,
    pub(super) watches: WatchStatus,
    /// The lines of leases that it owns.
    pub(super) leases: Vec<LeaseStatus>,
}
