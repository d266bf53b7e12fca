//! What one worker keeps of leases: its clients' streams, what they have said in this turn, and the
//! lines it owns.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::driver::lease::tokens::Tokens;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::client_stream::ClientStream;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{LeaseInput, Word};
use crate::limits;
use crate::net::payload::SendNotifier;

/// A client's stream of heartbeats, while it is open here.
pub(super) struct Client {
    pub(super) stream: ClientStream,
    /// Its number on this worker.
    pub(super) number: u64,
    /// Bytes that may wait here for it to read on.
    pub(super) room: usize,
    /// Heartbeats that may wait for their answers.
    pub(super) most: u32,
    /// Those that do.
    pub(super) pending: Cell<u32>,
    /// It has sent some since its token was last looked at.
    pub(super) beats: Cell<bool>,
}

impl Client {
    /// Whether a further heartbeat of it may be read.
    pub(super) fn takes_more(&self) -> bool {
        self.pending.get() < self.most && self.stream.queued() < self.room
    }
}

/// What the clients of one identity have said.
pub(super) type Letter = (Arc<Identity>, Vec<LeaseInput>);

/// One worker's part.
pub struct Leases {
    /// By their numbers.
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    /// The number of the last.
    last: Cell<u64>,
    /// Said and not handed in. One letter for each identity, which are few.
    letters: RefCell<Vec<Letter>>,
    /// Something was said.
    pub(super) work: Notify,
    /// Lines that this worker owns, by the numbers of their identities.
    pub(super) lines: RefCell<HashMap<u64, Rc<UpstreamLink>>>,
    /// Where it is told what has left towards clients.
    pub(super) board: Rc<SendNotifier>,
    pub(super) tokens: Tokens,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            clients: RefCell::default(),
            last: Cell::new(0),
            letters: RefCell::default(),
            work: Notify::new(),
            lines: RefCell::default(),
            board: Rc::default(),
            tokens: Tokens::default(),
        }
    }
}

impl Leases {
    /// Names a client's stream.
    pub(super) fn next_number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// A client's stream is open.
    pub(super) fn insert(&self, client: Rc<Client>) {
        self.clients.borrow_mut().insert(client.number, client);
    }

    /// The client's stream of this number, if it is open.
    pub(super) fn client(&self, number: u64) -> Option<Rc<Client>> {
        self.clients.borrow().get(&number).cloned()
    }

    /// The client's stream is over, if it was open.
    pub(super) fn remove(&self, number: u64) -> Option<Rc<Client>> {
        self.clients.borrow_mut().remove(&number)
    }

    /// How many there are.
    pub(super) fn streams(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Those that fit.
    pub(super) fn select(&self, fits: impl Fn(&Client) -> bool) -> Vec<Rc<Client>> {
        let clients = self.clients.borrow();
        clients.values().filter(|c| fits(c)).cloned().collect()
    }

    /// A client says something to the hub of its identity, which hears it in the worker's next turn.
    pub(super) fn say(&self, client: &Client, word: Word) {
        let login = client.stream.session().login();
        let said = LeaseInput {
            stream: client.number,
            word,
        };
        let mut letters = self.letters.borrow_mut();
        let letter = letters.iter_mut();
        match letter.last().filter(|(to, _)| Arc::ptr_eq(to, login)) {
            Some((_, words)) => words.push(said),
            None => letters.push((login.clone(), vec![said])),
        }
        self.work.notify_one();
    }

    /// What was said, in its order.
    pub(super) fn take_letters(&self) -> Vec<Letter> {
        std::mem::take(&mut self.letters.borrow_mut())
    }
}

/// Heartbeats that may wait for the streams of a connection that has so many: the first ones need not
/// notice the bound, and all together cost little.
pub(super) fn most_pending(streams: usize) -> u32 {
    if streams < limits::ROOMY_STREAMS {
        limits::LEASE_PENDING
    } else {
        limits::LEASE_FEW_PENDING
    }
}
