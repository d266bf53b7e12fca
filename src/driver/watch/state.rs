//! What one worker keeps of watches: its hub, its clients' streams, and its ends of the feeds.
//!
//! Values and their keeping only; what is done with them stands in the files beside this one.
//! Everything here belongs to one thread. Nothing that the hub asks for is done inside of it: it is
//! noted in the inbox, and [`run`](super::work::run) goes on until nothing is left.

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
use crate::state_machine::watch::trunk::{Sub, Token};
use crate::wire::response_header::Header;

/// A client's watch stream, while it is open here.
pub(super) struct Client {
    pub(super) stream: ClientStream,
    /// Its token was good once.
    pub(super) granted: Cell<bool>,
    /// A barrier was asked for, and has not come.
    pub(super) syncing: Cell<bool>,
}

/// Where a feed comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// The shared line of an identity, on the worker that owns it.
    Shared(IdentityId),
    /// A line of its own, here.
    Own(Rc<UpstreamLink>),
}

type Named = (StreamId, Rc<Client>);

/// Whether an endpoint answers progress requests soundly (W8), and until
/// when that counts.
pub(super) type Releases = HashMap<EndpointId, (bool, Instant)>;

/// One worker's part.
pub struct Watches {
    pub(super) worker: u32,
    pub(super) shared: Arc<ProcessState>,
    pub(super) hub: RefCell<Hub>,
    pub(super) out: Outbox,
    /// [`run`](super::work::run) is at work further up.
    pub(super) running: Cell<bool>,
    /// The highest known revision that the hub has been told.
    pub(super) told_known: Cell<Header>,
    /// By the place of their [`StreamId`].
    clients: RefCell<Vec<Option<Named>>>,
    pub(super) feeds: RefCell<HashMap<FeedId, Source>>,
    /// Identities of open streams, and how many streams each has.
    logins: RefCell<HashMap<IdentityId, (Arc<Identity>, usize)>>,
    /// Shared lines that this worker owns.
    pub(super) lines: RefCell<HashMap<IdentityId, Rc<UpstreamLink>>>,
    /// Their feeds that prove kept answers right.
    pub(super) covers: CacheProofTable,
    pub(super) granted: RefCell<PermissionChecks>,
    /// etcd was asked who it is.
    pub(super) greeted: OnceCell<()>,
    pub(super) releases: RefCell<Releases>,
    pub(super) board: Rc<SendNotifier>,
    /// When the hub is to be told the time; `clock` waits for it.
    pub(super) alarm: Cell<Option<Instant>>,
    pub(super) rearm: Notify,
    /// Something waits in the inbox.
    pub(super) work: Notify,
}

impl Watches {
    /// Without a client; the hubs of all workers together keep the bytes of one flag.
    pub fn new(worker: usize, shared: Arc<ProcessState>) -> Watches {
        let options = shared.options();
        let settings = Settings {
            log_bytes: options.log_bytes / shared.workers(),
            progress_interval: options.progress_notify,
            fragment_bytes: shared.part_bytes(),
            ..Settings::default()
        };
        Watches {
            // Bounded by MAX_WORKERS.
            worker: worker as u32,
            out: Outbox::new(worker as u32, shared.clone()),
            shared,
            hub: RefCell::new(Hub::new(settings, Instant::now())),
            running: Cell::new(false),
            told_known: Cell::default(),
            clients: RefCell::default(),
            feeds: RefCell::default(),
            logins: RefCell::default(),
            lines: RefCell::default(),
            covers: CacheProofTable::default(),
            granted: RefCell::default(),
            greeted: OnceCell::new(),
            releases: RefCell::default(),
            board: Rc::default(),
            alarm: Cell::new(None),
            rearm: Notify::new(),
            work: Notify::new(),
        }
    }

    /// Where it is told what has left towards clients.
    pub fn board(&self) -> &Rc<SendNotifier> {
        &self.board
    }

    /// A client's stream was opened under this name.
    pub(super) fn insert(&self, id: StreamId, client: Rc<Client>) {
        let login = client.stream.session().login();
        self.logins
            .borrow_mut()
            .entry(identity(login))
            .or_insert_with(|| (login.clone(), 0))
            .1 += 1;
        let mut clients = self.clients.borrow_mut();
        if clients.len() <= id.index() {
            clients.resize_with(id.index() + 1, || None);
        }
        clients[id.index()] = Some((id, client));
    }

    /// The client's stream of this name, if it is still open.
    pub(super) fn client(&self, id: StreamId) -> Option<Rc<Client>> {
        let clients = self.clients.borrow();
        let (named, client) = clients.get(id.index())?.as_ref()?;
        (*named == id).then(|| client.clone())
    }

    /// Its stream is over. The hub knows, or is told by the caller.
    pub(super) fn remove(&self, id: StreamId) -> Option<Rc<Client>> {
        let (_, client) = {
            let mut clients = self.clients.borrow_mut();
            let place = clients.get_mut(id.index())?;
            place.take_if(|(named, _)| *named == id)?
        };
        let identity = identity(client.stream.session().login());
        if client.syncing.get() {
            self.send(identity, WatchMessage::Unsync(identity, self.token(id)));
        }
        let mut logins = self.logins.borrow_mut();
        if let Some((_, streams)) = logins.get_mut(&identity) {
            *streams -= 1;
            if *streams == 0 {
                logins.remove(&identity);
            }
        }
        Some(client)
    }

    /// A line is over. Another may have taken its place.
    pub(super) fn forget_line(&self, line: &Rc<UpstreamLink>) {
        let identity = identity(&line.login);
        let mut lines = self.lines.borrow_mut();
        if lines
            .get(&identity)
            .is_some_and(|own| Rc::ptr_eq(own, line))
        {
            lines.remove(&identity);
        }
    }

    /// The open streams of clients that fit.
    pub(super) fn streams(&self, fits: impl Fn(&Client) -> bool) -> Vec<StreamId> {
        let clients = self.clients.borrow();
        let open = clients.iter().flatten();
        open.filter(|(_, client)| fits(client))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The login of an identity with an open stream here.
    pub(super) fn login(&self, identity: IdentityId) -> Option<Arc<Identity>> {
        let logins = self.logins.borrow();
        logins.get(&identity).map(|(login, _)| login.clone())
    }

    /// Sends mail to the worker that owns the identity's shared line.
    pub(super) fn send(&self, identity: IdentityId, mail: WatchMessage) {
        let owner = self.shared.owner(identity);
        self.shared.post(owner, WorkerMessage::Watch(mail));
    }

    /// A feed of this worker's hub, as trunks know it.
    pub(super) fn sub(&self, feed: FeedId) -> Sub {
        Sub {
            worker: self.worker,
            feed: feed.number(),
        }
    }

    /// A stream of this worker's hub, as trunks know it.
    pub(super) fn token(&self, stream: StreamId) -> Token {
        Token {
            worker: self.worker,
            stream: stream.number(),
        }
    }
}

/// The hub's word for a login.
pub(super) fn identity(login: &Identity) -> IdentityId {
    IdentityId(login.number())
}
