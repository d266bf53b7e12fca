//! What lines have to say to hubs: noted for the hub of this worker, sent to those of others.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::driver::state::messages::{WatchMessage, WorkerMessage};
use crate::driver::state::process::ProcessState;
use crate::state_machine::watch::FeedEvent;
use crate::state_machine::watch::hub::{CheckId, CheckResult, FeedId, IdentityId, StreamId};
use crate::state_machine::watch::trunk::{Sub, Token};
use crate::wire::response_header::Header;

/// Something the hub has to be told.
#[derive(Debug)]
pub(super) enum Input {
    Checked(CheckId, CheckResult),
    Told(FeedId, FeedEvent),
    Synced(StreamId, i64),
    Closed(StreamId),
    Reset(Header),
    /// To the cover of this number.
    Cover(u64, FeedEvent),
    /// To the covers of an identity: a barrier stands here.
    CoversSynced(IdentityId, i64),
}

/// Stands for a worker in the names of feeds and streams that are covers: they are always where their
/// line is, and no hub knows them. No worker has this number.
pub(super) const COVERS: u32 = u32::MAX;

/// Of one worker.
pub(super) struct Outbox {
    worker: u32,
    shared: Arc<ProcessState>,
    inbox: RefCell<VecDeque<Input>>,
    /// s-watchers of all lines here.
    upstream_watchers: Cell<usize>,
}

impl Outbox {
    /// Empty.
    pub(super) fn new(worker: u32, shared: Arc<ProcessState>) -> Outbox {
        Outbox {
            worker,
            shared,
            inbox: RefCell::default(),
            upstream_watchers: Cell::new(0),
        }
    }

    /// Notes something that the hub has to be told; [`run`](super::work::run) does.
    pub(super) fn note(&self, input: Input) {
        self.inbox.borrow_mut().push_back(input);
    }

    /// What was noted first.
    pub(super) fn next(&self) -> Option<Input> {
        self.inbox.borrow_mut().pop_front()
    }

    /// Tells a feed, wherever its hub is.
    pub(super) fn tell(&self, sub: Sub, told: FeedEvent) {
        if sub.worker == self.worker {
            self.note(Input::Told(FeedId::from_number(sub.feed), told));
        } else if sub.worker == COVERS {
            self.note(Input::Cover(sub.feed, told));
        } else {
            let mail = WatchMessage::Told(sub.feed, told);
            self.shared.post(sub.worker, WorkerMessage::Watch(mail));
        }
    }

    /// Tells a stream that its barrier stands, wherever its hub is.
    pub(super) fn synced(&self, token: Token, revision: i64) {
        if token.worker == self.worker {
            self.note(Input::Synced(StreamId::from_number(token.stream), revision));
        } else if token.worker == COVERS {
            self.note(Input::CoversSynced(IdentityId(token.stream), revision));
        } else {
            let mail = WatchMessage::Synced(token.stream, revision);
            self.shared.post(token.worker, WorkerMessage::Watch(mail));
        }
    }

    /// A line had so many s-watchers, and now has so many.
    pub(super) fn count_watchers(&self, before: usize, now: usize) {
        self.upstream_watchers
            .set(self.upstream_watchers.get() + now - before);
    }

    /// s-watchers of all lines here.
    pub(super) fn upstream_watchers(&self) -> usize {
        self.upstream_watchers.get()
    }
}
