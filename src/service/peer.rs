//! What every call of one client connection shares.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::limits;
use crate::net::payload::{Board, Total};
use crate::service::identity::{Credential, Identities, Login};
use crate::service::known::Known;
use crate::service::record::entry::Who;

/// One client connection.
#[derive(Debug)]
pub struct Peer {
    /// Its number on this worker.
    pub(super) number: u64,
    /// Bytes of its requests that are held until they are complete.
    pub(super) unfinished: Cell<usize>,
    /// Bytes that wait here for it to read on.
    pub(super) stalled_bytes: Cell<usize>,
    /// The same for its watch streams, of which it mostly has none.
    watched: OnceCell<Rc<Total>>,
    /// The same for its streams of heartbeats.
    leased: OnceCell<Rc<Total>>,
    /// Its streams that wait for changes of the proxy's health.
    pub(super) followers: Cell<usize>,
    /// The highest revision it has been shown, and of which history (R5).
    shown: Cell<(u64, i64)>,
    /// Who it is, where that is told.
    who: Option<Arc<Who>>,
    /// Whose its last call with a token was.
    login: RefCell<Option<(Credential, Arc<Login>)>>,
}

/// Who asks, for what is shared among all that are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asker {
    /// The identity's number; 0 is nobody's.
    pub(super) identity: u64,
    /// The client's own token.
    pub(super) credential: Option<Credential>,
}

impl Peer {
    /// A connection without a call, by its number on its worker.
    pub(super) fn new(number: u64, who: Option<Arc<Who>>) -> Peer {
        Peer {
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
    pub(super) fn who(&self) -> Option<&Arc<Who>> {
        self.who.as_ref()
    }

    /// Whether any call of the connection, whose driver holds this, is open: each holds it too.
    pub fn has_calls(self: &Rc<Peer>) -> bool {
        Rc::strong_count(self) > 1
    }

    pub(super) fn watched(&self, board: &Rc<Board>) -> &Rc<Total> {
        total(&self.watched, board)
    }

    pub(super) fn leased(&self, board: &Rc<Board>) -> &Rc<Total> {
        total(&self.leased, board)
    }

    /// It is shown this revision.
    pub(super) fn show(&self, known: &Known, revision: i64) {
        let (history, shown) = self.shown.get();
        if revision > shown || history != known.history() {
            self.shown.set((known.history(), revision));
        }
    }

    /// The highest revision it has been shown.
    pub(super) fn shown(&self, known: &Known) -> i64 {
        match self.shown.get() {
            (history, revision) if history == known.history() => revision,
            _ => 0,
        }
    }

    /// Who makes a call with these headers.
    pub(super) fn asker(&self, identities: &Identities, headers: &HeaderMap) -> Asker {
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

fn total<'a>(of: &'a OnceCell<Rc<Total>>, board: &Rc<Board>) -> &'a Rc<Total> {
    of.get_or_init(|| Total::new(limits::MAX_STALLED_BYTES / 2, board.clone()))
}
