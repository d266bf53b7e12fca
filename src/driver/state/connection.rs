//! What every call of one client connection shares.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::state::identity::{Credential, Identities, Identity};
use crate::driver::state::store_revision::StoreRevision;
use crate::limits;
use crate::net::payload::{ConnectionQueue, SendNotifier};

/// One client connection.
#[derive(Debug)]
pub struct ClientConnection {
    /// Its number on this worker.
    pub(in crate::driver) number: u64,
    /// Bytes of its requests that are held until they are complete.
    pub(in crate::driver) unfinished: Cell<usize>,
    /// Bytes that wait here for it to read on.
    pub(in crate::driver) stalled_bytes: Cell<usize>,
    /// The same for its watch streams, of which it mostly has none.
    watched: OnceCell<Rc<ConnectionQueue>>,
    /// The same for its streams of heartbeats.
    leased: OnceCell<Rc<ConnectionQueue>>,
    /// Its streams that wait for changes of the proxy's health.
    pub(in crate::driver) followers: Cell<usize>,
    /// The highest revision it has been shown, and of which history (R5).
    shown: Cell<(u64, i64)>,
    /// Who it is, where that is told.
    who: Option<Arc<ClientInfo>>,
    /// Whose its last call with a token was.
    login: RefCell<Option<(Credential, Arc<Identity>)>>,
}

/// Who asks, for what is shared among all that are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver) struct Asker {
    /// The identity's number; 0 is nobody's.
    pub(in crate::driver) identity: u64,
    /// The client's own token.
    pub(in crate::driver) credential: Option<Credential>,
}

impl ClientConnection {
    /// A connection without a call, by its number on its worker.
    pub(in crate::driver) fn new(number: u64, who: Option<Arc<ClientInfo>>) -> ClientConnection {
        ClientConnection {
            number,
            unfinished: Cell::new(0),
            stalled_bytes: Cell::new(0),
            watched: OnceCell::new(),
            leased: OnceCell::new(),
            followers: Cell::new(0),
            shown: Cell::new((0, 0)),
            who,
            login: RefCell::new(None),
        }
    }

    /// Who it is, where that is told.
    pub(in crate::driver) fn who(&self) -> Option<&Arc<ClientInfo>> {
        self.who.as_ref()
    }

    /// Whether any call of the connection, whose driver holds this, is open: each holds it too.
    pub fn has_calls(self: &Rc<ClientConnection>) -> bool {
        Rc::strong_count(self) > 1
    }

    pub(in crate::driver) fn watched(&self, board: &Rc<SendNotifier>) -> &Rc<ConnectionQueue> {
        total(&self.watched, board)
    }

    pub(in crate::driver) fn leased(&self, board: &Rc<SendNotifier>) -> &Rc<ConnectionQueue> {
        total(&self.leased, board)
    }

    /// It is shown this revision.
    pub(in crate::driver) fn show(&self, known: &StoreRevision, revision: i64) {
        let (history, shown) = self.shown.get();
        if revision > shown || history != known.history() {
            self.shown.set((known.history(), revision));
        }
    }

    /// The highest revision it has been shown.
    pub(in crate::driver) fn shown(&self, known: &StoreRevision) -> i64 {
        match self.shown.get() {
            (history, revision) if history == known.history() => revision,
            _ => 0,
        }
    }

    /// Who makes a call with these headers.
    pub(in crate::driver) fn asker(&self, identities: &Identities, headers: &HeaderMap) -> Asker {
        let Some(credential) = Credential::of(headers) else {
            return Asker {
                identity: 0,
                credential: None,
            };
        };
        let mut login = self.login.borrow_mut();
        // A client mostly has one token; looking whose it is takes a lock that all workers share.
        let identity = match &*login {
            Some((last, login)) if *last == credential => login.number(),
            _ => {
                let found = identities.login(&credential);
                let number = found.number();
                *login = Some((credential.clone(), found));
                number
            }
        };
        Asker {
            identity,
            credential: Some(credential),
        }
    }
}

fn total<'a>(
    of: &'a OnceCell<Rc<ConnectionQueue>>,
    board: &Rc<SendNotifier>,
) -> &'a Rc<ConnectionQueue> {
    of.get_or_init(|| ConnectionQueue::new(limits::MAX_STALLED_BYTES / 2, board.clone()))
}
