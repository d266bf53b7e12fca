//! Results of links for hubs: queued for the hub of this worker, sent as messages to other workers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::driver::state::messages::{WatchMessage, WorkerMessage};
use crate::driver::state::process::ProcessState;
use crate::state_machine::watch::FeedEvent;
use crate::state_machine::watch::hub::{CheckId, CheckResult, FeedId, IdentityId, StreamId};
use crate::state_machine::watch::trunk::{BarrierWaiter, Subscriber};
use crate::wire::response_header::Header;

/// An input of the hub or of the cache proofs of this worker.
#[derive(Debug)]
pub(super) enum HubInput {
    Checked(CheckId, CheckResult),
    FeedEvent(FeedId, FeedEvent),
    BarrierReached(StreamId, i64),
    StreamClosed(StreamId),
    HistoryReset(Header),
    /// An event for the cache proof of this number.
    CacheProofEvent(u64, FeedEvent),
    /// A barrier for the cache proofs of an identity, reached at this revision.
    CacheProofBarrier(IdentityId, i64),
}

/// Worker number in the names of feeds and streams that belong to cache proofs. No worker has this
/// number. Cache proofs are always on the worker of their link, and belong to no hub.
pub(super) const CACHE_PROOFS: u32 = u32::MAX;

/// Inbox of one worker's hub, and the sender to the hubs of other workers.
pub(super) struct Outbox {
    worker: u32,
    process: Arc<ProcessState>,
    inbox: RefCell<VecDeque<HubInput>>,
    /// Whether the hub has work that [`drive_hub`](super::hub_driver::drive_hub) has not done.
    pending: Cell<bool>,
    /// Wakes the task that drives the hub.
    ready: Notify,
    /// Upstream watchers of all links of this worker.
    upstream_watchers: Cell<usize>,
}

impl Outbox {
    /// An outbox with an empty inbox.
    pub(super) fn new(worker: u32, process: Arc<ProcessState>) -> Outbox {
        Outbox {
            worker,
            process,
            inbox: RefCell::default(),
            pending: Cell::new(false),
            ready: Notify::new(),
            upstream_watchers: Cell::new(0),
        }
    }

    /// Queues an input for the hub and wakes the task that drives the hub.
    pub(super) fn push(&self, input: HubInput) {
        self.inbox.borrow_mut().push_back(input);
        self.notify();
    }

    /// Removes the oldest input.
    pub(super) fn pop(&self) -> Option<HubInput> {
        self.inbox.borrow_mut().pop_front()
    }

    /// Wakes the task that drives the hub, once until the hub has no work left.
    pub(super) fn notify(&self) {
        if !self.pending.replace(true) {
            self.ready.notify_one();
        }
    }

    /// Waits until the hub has work.
    pub(super) async fn ready(&self) {
        while !self.pending.get() {
            self.ready.notified().await;
        }
    }

    /// Reports that the hub has no work left: the next input wakes the task again.
    pub(super) fn work_done(&self) {
        self.pending.set(false);
    }

    /// Sends an event to a feed, on any worker.
    pub(super) fn send_event(&self, subscriber: Subscriber, event: FeedEvent) {
        if subscriber.worker == self.worker {
            self.push(HubInput::FeedEvent(
                FeedId::from_number(subscriber.feed),
                event,
            ));
        } else if subscriber.worker == CACHE_PROOFS {
            self.push(HubInput::CacheProofEvent(subscriber.feed, event));
        } else {
            let message = WatchMessage::FeedEvent(subscriber.feed, event);
            self.process
                .send(subscriber.worker, WorkerMessage::Watch(message));
        }
    }

    /// Notifies a stream on any worker that its barrier has been reached at `revision`.
    pub(super) fn send_barrier(&self, waiter: BarrierWaiter, revision: i64) {
        if waiter.worker == self.worker {
            self.push(HubInput::BarrierReached(
                StreamId::from_number(waiter.stream),
                revision,
            ));
        } else if waiter.worker == CACHE_PROOFS {
            self.push(HubInput::CacheProofBarrier(
                IdentityId(waiter.stream),
                revision,
            ));
        } else {
            let message = WatchMessage::BarrierReached(waiter.stream, revision);
            self.process
                .send(waiter.worker, WorkerMessage::Watch(message));
        }
    }

    /// Updates the sum when the number of upstream watchers of a link changes. The task that drives
    /// the hub publishes the sum as a metric.
    pub(super) fn update_watcher_count(&self, previous: usize, current: usize) {
        if previous != current {
            self.upstream_watchers
                .set(self.upstream_watchers.get() + current - previous);
            self.notify();
        }
    }

    /// Returns the number of upstream watchers of all links of this worker.
    pub(super) fn upstream_watchers(&self) -> usize {
        self.upstream_watchers.get()
    }
}
