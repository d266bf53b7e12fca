//! Watch state of one worker: its hub, its client streams and the sources of its feeds.
//!
//! This file has values and their lookup; the other modules of this folder act on them. One thread
//! owns everything here. Actions of the hub add inputs to the inbox instead of calling the hub.
//! Each input wakes the one task that drives the hub ([`tasks`](super::tasks)).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, OnceCell};

use crate::driver::state::client_stream::ClientStream;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{WatchMessage, WorkerMessage};
use crate::driver::state::process::ProcessState;
use crate::driver::watch::cache_proof_table::CacheProofTable;
use crate::driver::watch::outbox::Outbox;
use crate::driver::watch::permission_checks::PermissionChecks;
use crate::driver::watch::upstream_link::UpstreamLink;
use crate::net::payload::SendNotifier;
use crate::state_machine::picker::EndpointId;
use crate::state_machine::watch::hub::{FeedId, Hub, IdentityId, Settings, StreamId};
use crate::state_machine::watch::trunk::{BarrierWaiter, Subscriber};
use crate::wire::response_header::Header;

/// An open client watch stream.
pub(super) struct Client {
    pub(super) stream: ClientStream,
    /// [`losses`](crate::upstream::endpoints::Endpoints::losses) when etcd accepted the token of the
    /// stream, or 0 if that time is not known. `None`: never accepted.
    pub(super) token_accepted: Cell<Option<u64>>,
    /// Whether a barrier is requested and has not been reached.
    pub(super) barrier_pending: Cell<bool>,
}

/// The upstream link that a feed of this worker's hub belongs to.
#[derive(Clone)]
pub(super) enum FeedSource {
    /// The shared link of an identity, on the worker that owns it.
    Shared(IdentityId),
    /// A private link on this worker, for a catch-up.
    Private(Rc<UpstreamLink>),
}

type ClientSlot = (StreamId, Rc<Client>);

/// Per endpoint: whether its responses to progress requests are reliable (W8), and until when this
/// result is valid.
pub(super) type ProgressSupport = HashMap<EndpointId, (bool, Instant)>;

/// The watches of one worker.
pub struct Watches {
    pub(super) worker: u32,
    pub(super) process: Arc<ProcessState>,
    /// Inputs go through [`with_hub`](Watches::with_hub).
    pub(super) hub: RefCell<Hub>,
    pub(super) outbox: Outbox,
    /// The newest header that the hub has received.
    pub(super) reported_header: Cell<Header>,
    /// Indexed by [`StreamId::index`].
    clients: RefCell<Vec<Option<ClientSlot>>>,
    pub(super) feeds: RefCell<HashMap<FeedId, FeedSource>>,
    /// Identities of open client streams, with the number of streams.
    identities: RefCell<HashMap<IdentityId, (Arc<Identity>, usize)>>,
    /// Shared links that this worker owns.
    pub(super) links: RefCell<HashMap<IdentityId, Rc<UpstreamLink>>>,
    /// Watches that keep cached responses current, on the shared links of this worker.
    pub(super) cache_proofs: CacheProofTable,
    pub(super) permission_checks: RefCell<PermissionChecks>,
    /// Set once etcd has sent a header, if no response contained one before the first watch.
    pub(super) header_fetched: OnceCell<()>,
    pub(super) progress_support: RefCell<ProgressSupport>,
    pub(super) send_notifier: Rc<SendNotifier>,
    /// Time of the hub's next tick; [`tasks`](super::tasks) waits for this time.
    pub(super) wake_at: Cell<Option<Instant>>,
    pub(super) timer_changed: Notify,
}

impl Watches {
    /// State without clients. `--watch-log-bytes` is divided among the hubs of all workers.
    pub fn new(worker: usize, process: Arc<ProcessState>) -> Watches {
        let options = process.watch_options();
        let settings = Settings {
            log_bytes: options.log_bytes / process.workers(),
            progress_interval: options.progress_notify,
            fragment_bytes: process.fragment_bytes(),
            ..Settings::default()
        };
        Watches {
            // At most MAX_WORKERS.
            worker: worker as u32,
            outbox: Outbox::new(worker as u32, process.clone()),
            process,
            hub: RefCell::new(Hub::new(settings, Instant::now())),
            reported_header: Cell::default(),
            clients: RefCell::default(),
            feeds: RefCell::default(),
            identities: RefCell::default(),
            links: RefCell::default(),
            cache_proofs: CacheProofTable::default(),
            permission_checks: RefCell::default(),
            header_fetched: OnceCell::new(),
            progress_support: RefCell::default(),
            send_notifier: Rc::default(),
            wake_at: Cell::new(None),
            timer_changed: Notify::new(),
        }
    }

    /// Passes an input to the hub and wakes the task that carries out the resulting actions.
    pub(super) fn with_hub<T>(&self, input: impl FnOnce(&mut Hub) -> T) -> T {
        let mut hub = self.hub.borrow_mut();
        self.observe_store(&mut hub);
        let result = input(&mut hub);
        self.outbox.notify();
        result
    }

    /// Passes the newest known header of the store to the hub before the hub sends a response (W4).
    pub(super) fn observe_store(&self, hub: &mut Hub) {
        let known = self.process.store_revision.header();
        if self.reported_header.replace(known) != known {
            hub.observe_header(known);
        }
        hub.set_fragment_limit(self.process.fragment_bytes());
    }

    /// Returns the notifier of bytes sent to clients.
    pub fn send_notifier(&self) -> &Rc<SendNotifier> {
        &self.send_notifier
    }

    /// Adds an open client stream.
    pub(super) fn insert(&self, id: StreamId, client: Rc<Client>) {
        let identity = client.stream.session().identity();
        self.identities
            .borrow_mut()
            .entry(identity_id(identity))
            .or_insert_with(|| (identity.clone(), 0))
            .1 += 1;
        let mut clients = self.clients.borrow_mut();
        if clients.len() <= id.index() {
            clients.resize_with(id.index() + 1, || None);
        }
        clients[id.index()] = Some((id, client));
    }

    /// Returns a client stream if it is still open.
    pub(super) fn client(&self, id: StreamId) -> Option<Rc<Client>> {
        let clients = self.clients.borrow();
        let (owner_id, client) = clients.get(id.index())?.as_ref()?;
        (*owner_id == id).then(|| client.clone())
    }

    /// Removes a client stream that has ended, and withdraws its barrier request. The caller
    /// notifies the hub unless the hub ended the stream.
    pub(super) fn remove(&self, id: StreamId) -> Option<Rc<Client>> {
        let (_, client) = {
            let mut clients = self.clients.borrow_mut();
            let slot = clients.get_mut(id.index())?;
            slot.take_if(|(owner_id, _)| *owner_id == id)?
        };
        let identity_id = identity_id(client.stream.session().identity());
        if client.barrier_pending.get() {
            self.send_to_owner(
                identity_id,
                WatchMessage::CancelBarrier(identity_id, self.waiter(id)),
            );
        }
        let mut identities = self.identities.borrow_mut();
        if let Some((_, streams)) = identities.get_mut(&identity_id) {
            *streams -= 1;
            if *streams == 0 {
                identities.remove(&identity_id);
            }
        }
        Some(client)
    }

    /// Removes a shared link that has ended. Another link of the identity stays.
    pub(super) fn remove_link(&self, link: &Rc<UpstreamLink>) {
        let identity_id = identity_id(&link.identity);
        let mut links = self.links.borrow_mut();
        if links
            .get(&identity_id)
            .is_some_and(|own| Rc::ptr_eq(own, link))
        {
            links.remove(&identity_id);
        }
    }

    /// Returns the open client streams that match.
    pub(super) fn matching_streams(&self, matches: impl Fn(&Client) -> bool) -> Vec<StreamId> {
        let clients = self.clients.borrow();
        let open = clients.iter().flatten();
        open.filter(|(_, client)| matches(client))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Returns an identity that has an open client stream on this worker.
    pub(super) fn identity(&self, identity_id: IdentityId) -> Option<Arc<Identity>> {
        let identities = self.identities.borrow();
        identities
            .get(&identity_id)
            .map(|(identity, _)| identity.clone())
    }

    /// Sends a message to the worker that owns the shared link of the identity.
    pub(super) fn send_to_owner(&self, identity_id: IdentityId, message: WatchMessage) {
        let owner = self.process.owner(identity_id);
        self.process.send(owner, WorkerMessage::Watch(message));
    }

    /// Returns the name of a feed of this worker's hub for a trunk.
    pub(super) fn subscriber(&self, feed: FeedId) -> Subscriber {
        Subscriber {
            worker: self.worker,
            feed: feed.number(),
        }
    }

    /// Returns the name of a stream of this worker's hub for a trunk.
    pub(super) fn waiter(&self, stream: StreamId) -> BarrierWaiter {
        BarrierWaiter {
            worker: self.worker,
            stream: stream.number(),
        }
    }
}

/// Returns the number by which hubs and messages refer to an identity.
pub(super) fn identity_id(identity: &Identity) -> IdentityId {
    IdentityId(identity.number())
}
