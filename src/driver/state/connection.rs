//! Client connection: state that all calls of one connection share.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::state::identity::{Credential, Identities, Identity};
use crate::driver::state::store_revision::StoreRevision;
use crate::limits;
use crate::net::payload::{ConnectionQueue, SendNotifier};

/// State of one client connection.
#[derive(Debug)]
pub struct ClientConnection {
    /// Number of the connection on its worker.
    pub(in crate::driver) number: u64,
    /// Bytes of incomplete request messages buffered for translation (S1).
    pub(in crate::driver) incomplete_bytes: Cell<usize>,
    /// Bytes that wait because the client does not read (S1).
    pub(in crate::driver) stalled_bytes: Cell<usize>,
    /// Send queue of its watch streams, created on first use because most connections have none.
    watch_queue: OnceCell<Rc<ConnectionQueue>>,
    /// Send queue of its lease keepalive streams.
    lease_queue: OnceCell<Rc<ConnectionQueue>>,
    /// Open health watches.
    pub(in crate::driver) health_subscribers: Cell<usize>,
    /// History and highest revision that the client has seen (R5).
    revision_floor: Cell<(u64, i64)>,
    /// Identification of the client for the call log, if calls are logged.
    client_info: Option<Arc<ClientInfo>>,
    /// Token and identity of the latest call with a token.
    last_identity: RefCell<Option<(Credential, Arc<Identity>)>>,
}

/// Identity and token of a call. Responses are shared only among calls of the same identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver) struct Caller {
    /// Number of the identity; 0 for calls without a token.
    pub(in crate::driver) identity: u64,
    /// Token of the client.
    pub(in crate::driver) credential: Option<Credential>,
}

impl ClientConnection {
    /// Creates a connection without calls, by its number on its worker.
    pub(in crate::driver) fn new(
        number: u64,
        client_info: Option<Arc<ClientInfo>>,
    ) -> ClientConnection {
        ClientConnection {
            number,
            incomplete_bytes: Cell::new(0),
            stalled_bytes: Cell::new(0),
            watch_queue: OnceCell::new(),
            lease_queue: OnceCell::new(),
            health_subscribers: Cell::new(0),
            revision_floor: Cell::new((0, 0)),
            client_info,
            last_identity: RefCell::new(None),
        }
    }

    /// Returns the identification of the client for the call log.
    pub(in crate::driver) fn client_info(&self) -> Option<&Arc<ClientInfo>> {
        self.client_info.as_ref()
    }

    /// Returns whether the connection has open calls. Its driver owns one reference, and each call
    /// another.
    pub fn has_calls(self: &Rc<ClientConnection>) -> bool {
        Rc::strong_count(self) > 1
    }

    pub(in crate::driver) fn watch_queue(
        &self,
        notifier: &Rc<SendNotifier>,
    ) -> &Rc<ConnectionQueue> {
        connection_queue(&self.watch_queue, notifier)
    }

    pub(in crate::driver) fn lease_queue(
        &self,
        notifier: &Rc<SendNotifier>,
    ) -> &Rc<ConnectionQueue> {
        connection_queue(&self.lease_queue, notifier)
    }

    /// Records that the client sees `revision`.
    pub(in crate::driver) fn raise_revision_floor(
        &self,
        store_revision: &StoreRevision,
        revision: i64,
    ) {
        let (history, shown) = self.revision_floor.get();
        if revision > shown || history != store_revision.history() {
            self.revision_floor
                .set((store_revision.history(), revision));
        }
    }

    /// Returns the highest revision that the client has seen, or 0 if the store's history was reset
    /// since.
    pub(in crate::driver) fn revision_floor(&self, store_revision: &StoreRevision) -> i64 {
        match self.revision_floor.get() {
            (history, revision) if history == store_revision.history() => revision,
            _ => 0,
        }
    }

    /// Returns the caller of a call with these headers.
    pub(in crate::driver) fn caller(&self, identities: &Identities, headers: &HeaderMap) -> Caller {
        let Some(credential) = Credential::from_headers(headers) else {
            return Caller {
                identity: 0,
                credential: None,
            };
        };
        let mut last_identity = self.last_identity.borrow_mut();
        // Most clients use one token. The lookup of an identity takes a lock that all workers
        // share.
        let identity = match &*last_identity {
            Some((last, identity)) if *last == credential => identity.number(),
            _ => {
                let found = identities.identity_of(&credential);
                let number = found.number();
                *last_identity = Some((credential.clone(), found));
                number
            }
        };
        Caller {
            identity,
            credential: Some(credential),
        }
    }
}

fn connection_queue<'a>(
    queue: &'a OnceCell<Rc<ConnectionQueue>>,
    notifier: &Rc<SendNotifier>,
) -> &'a Rc<ConnectionQueue> {
    queue.get_or_init(|| ConnectionQueue::new(limits::MAX_STALLED_BYTES / 2, notifier.clone()))
}
