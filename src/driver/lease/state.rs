//! Lease state of one worker: its client streams, their inputs of this turn, and the links it owns.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::driver::lease::accepted_tokens::AcceptedTokens;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::client_stream::ClientStream;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{LeaseInput, LeaseInputKind};
use crate::limits;
use crate::net::payload::SendNotifier;
use crate::wire::status::Status;

/// An open client heartbeat stream.
pub(super) struct Client {
    pub(super) stream: ClientStream,
    /// Number of the stream on this worker.
    pub(super) id: u64,
    /// Bytes that may be queued for the client before its requests are no longer read.
    pub(super) send_capacity: usize,
    /// Maximum heartbeats without a response.
    pub(super) max_pending: u32,
    /// Heartbeats without a response.
    pub(super) pending: Cell<u32>,
    /// Whether the client has sent a heartbeat since the last check of its token.
    pub(super) active: Cell<bool>,
    /// etcd's error if it has refused the token of this client on another stream. The next
    /// heartbeat ends the stream with it, as at etcd.
    pub(super) token_refused: RefCell<Option<Status>>,
}

impl Client {
    /// Returns whether another heartbeat may be read.
    pub(super) fn accepts_requests(&self) -> bool {
        self.pending.get() < self.max_pending && self.stream.queued() < self.send_capacity
    }
}

/// Inputs of client streams of one identity, in order.
pub(super) type IdentityInputs = (Arc<Identity>, Vec<LeaseInput>);

/// The leases of one worker.
pub struct Leases {
    /// By number.
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    /// Number of the newest stream.
    last_id: Cell<u64>,
    /// Inputs that are not delivered yet. Inputs of one identity in a row form one entry.
    inbox: RefCell<Vec<IdentityInputs>>,
    /// Signals that the inbox has inputs.
    pub(super) inbox_ready: Notify,
    /// Links that this worker owns, by the number of the identity.
    pub(super) links: RefCell<HashMap<u64, Rc<UpstreamLink>>>,
    /// Notifier of bytes sent to clients.
    pub(super) send_notifier: Rc<SendNotifier>,
    pub(super) tokens: AcceptedTokens,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            clients: RefCell::default(),
            last_id: Cell::new(0),
            inbox: RefCell::default(),
            inbox_ready: Notify::new(),
            links: RefCell::default(),
            send_notifier: Rc::default(),
            tokens: AcceptedTokens::default(),
        }
    }
}

impl Leases {
    /// Returns the number for a new client stream.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// Adds an open client stream.
    pub(super) fn insert(&self, client: Rc<Client>) {
        self.clients.borrow_mut().insert(client.id, client);
    }

    /// Returns a client stream if it is still open.
    pub(super) fn client(&self, id: u64) -> Option<Rc<Client>> {
        self.clients.borrow().get(&id).cloned()
    }

    /// Removes a client stream that has ended, unless it has been removed before.
    pub(super) fn remove(&self, id: u64) -> Option<Rc<Client>> {
        self.clients.borrow_mut().remove(&id)
    }

    /// Returns the number of open client streams.
    pub(super) fn streams(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Returns the open client streams that match.
    pub(super) fn matching_clients(&self, matches: impl Fn(&Client) -> bool) -> Vec<Rc<Client>> {
        let clients = self.clients.borrow();
        clients.values().filter(|c| matches(c)).cloned().collect()
    }

    /// Queues an input of a client stream. The hub of its identity receives it in the worker's next
    /// turn.
    pub(super) fn push_input(&self, client: &Client, kind: LeaseInputKind) {
        let identity = client.stream.session().identity();
        let input = LeaseInput {
            stream: client.id,
            kind,
        };
        let mut inbox = self.inbox.borrow_mut();
        let batches = inbox.iter_mut();
        match batches.last().filter(|(to, _)| Arc::ptr_eq(to, identity)) {
            Some((_, inputs)) => inputs.push(input),
            None => inbox.push((identity.clone(), vec![input])),
        }
        self.inbox_ready.notify_one();
    }

    /// Takes all queued inputs, in order.
    pub(super) fn take_inbox(&self) -> Vec<IdentityInputs> {
        std::mem::take(&mut self.inbox.borrow_mut())
    }
}

/// Returns the maximum heartbeats without a response for a new stream of a connection that has
/// `streams` already. The limit of the first streams is so high that clients do not notice it. The
/// limit of further streams is small, so that all streams of a connection need little memory.
pub(super) fn max_pending_heartbeats(streams: usize) -> u32 {
    if streams < limits::FULL_CAPACITY_STREAMS {
        limits::LEASE_PENDING
    } else {
        limits::LEASE_REDUCED_PENDING
    }
}
