//! One worker's connections to etcd.
//!
//! Dials at most once at a time per endpoint, however many calls wait, and no connection crosses
//! threads. Connections to an endpoint that is in the list no more take no further calls, and close
//! with the last one they have.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::warn;

use crate::error::Failure;
use crate::limits;
use crate::state_machine::picker::{Balancer, EndpointId, Pick, TriedEndpoints};
use crate::upstream::conn::{Conn, Ended};
use crate::upstream::dial;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::selection_history::SelectionReason;
use crate::upstream::target::Target;

/// See the head of the file.
pub struct Pool {
    endpoints: Arc<Endpoints>,
    /// By the places of their endpoints.
    slots: RefCell<Vec<Option<Slot>>>,
    /// A dial ended, this way or that.
    changed: Notify,
    /// Where calls are spread: this worker's turns, and the version of what they are by.
    spread: Option<RefCell<(u64, Balancer)>>,
    /// The number of the worker, for what is counted.
    worker: usize,
}

struct Slot {
    target: Arc<Target>,
    conns: Vec<Rc<Conn>>,
    dialing: bool,
}

impl Pool {
    /// An empty pool. Nothing is dialed before the first call.
    pub fn new(endpoints: Arc<Endpoints>, worker: usize) -> Rc<Pool> {
        let policy = endpoints.options().policy;
        // Below the first version.
        let spread = || RefCell::new((0, Balancer::new(policy)));
        Rc::new(Pool {
            spread: policy.balances().then(spread),
            endpoints,
            slots: RefCell::default(),
            changed: Notify::new(),
            worker,
        })
    }

    /// What all workers share.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// A connection to the serving endpoint, or where calls are spread, to the one whose turn it is, if
    /// it is up: the per-call path.
    pub fn ready(self: &Rc<Self>) -> Option<Rc<Conn>> {
        match self.endpoints.current() {
            Some(current) => self.up(current),
            None => self.turn(),
        }
    }

    /// A connection to the endpoint whose turn it is of those that are up. The others that should take
    /// calls are dialed meanwhile.
    fn turn(self: &Rc<Self>) -> Option<Rc<Conn>> {
        let (version, spread) = &mut *self.spread.as_ref()?.borrow_mut();
        let now = self.endpoints.version();
        if *version != now {
            *version = now;
            spread.set_shares(&self.endpoints.shares());
        }
        let chosen = spread.choose(|endpoint| {
            let conn = self.up(endpoint)?;
            Some(conn.calls().open.get())
        });
        for endpoint in spread.endpoints() {
            if self.up(endpoint).is_none() {
                self.dial(endpoint);
            }
        }
        self.up(chosen?)
    }

    /// A connection to the serving endpoint, dialed if need be; waits until then at most (E4).
    pub async fn connection(self: &Rc<Self>, until: Instant) -> Result<Rc<Conn>, Failure> {
        loop {
            if let Some(conn) = self.ready() {
                return Ok(conn);
            }
            let changed = self.changed.notified();
            match self.endpoints.pick() {
                Pick::Use(endpoint) => {
                    if let Some(conn) = self.up(endpoint) {
                        return Ok(conn);
                    }
                    self.dial(endpoint);
                    let _ = timeout_at(until, changed).await;
                }
                Pick::Wait(at) => sleep_until(until.min(at.into())).await,
            }
            if Instant::now() >= until {
                return Err(Failure::no_endpoint());
            }
        }
    }

    /// A connection to an endpoint that is none of `tried`, dialed if need be; `None` when
    /// there is no such endpoint or its dial fails.
    pub async fn other(self: &Rc<Self>, tried: TriedEndpoints, until: Instant) -> Option<Rc<Conn>> {
        let endpoint = self.endpoints.other(tried)?;
        self.to(endpoint, until).await
    }

    /// A connection to this endpoint, dialed if need be; `None` when the dial fails, or the endpoint
    /// is in the list no more.
    pub async fn to(self: &Rc<Self>, endpoint: EndpointId, until: Instant) -> Option<Rc<Conn>> {
        if self.up(endpoint).is_none() {
            self.dial(endpoint);
        }
        while self.up(endpoint).is_none() && self.is_dialing(endpoint) {
            let changed = self.changed.notified();
            timeout_at(until, changed).await.ok()?;
        }
        self.up(endpoint)
    }

    /// Retires every connection; open calls go on.
    pub fn close(&self) {
        self.slots.borrow_mut().drain(..).for_each(Slot::end);
    }

    /// Closes connections that nobody needs any more: to endpoints that do not serve, or are in the
    /// list no more.
    pub async fn keep_house(self: Rc<Self>) {
        let mut changes = self.endpoints.changes();
        loop {
            let look = timeout(limits::UPSTREAM_CHECK_INTERVAL, changes.changed()).await;
            if look.is_ok() {
                self.leave_those_that_went();
                continue;
            }
            let current = self.endpoints.current();
            for slot in self.slots.borrow_mut().iter_mut().flatten() {
                if current != Some(slot.target.id) && self.spread.is_none() {
                    let idle = slot.conns.iter().filter(|c| c.open_calls() == 0);
                    idle.for_each(|c| c.retire());
                }
                slot.conns.retain(|conn| !conn.is_retired());
            }
        }
    }

    fn leave_those_that_went(&self) {
        let list = self.endpoints.all();
        for place in self.slots.borrow_mut().iter_mut() {
            let went = |slot: &mut Slot| !list.iter().any(|target| target.id == slot.target.id);
            Slot::end(place.take_if(went));
        }
        // Whoever waits for one of them is to look again.
        self.changed.notify_waiters();
    }

    fn up(&self, endpoint: EndpointId) -> Option<Rc<Conn>> {
        let slots = self.slots.borrow();
        let slot = slots.get(endpoint.index())?.as_ref()?;
        // Another one may have its place.
        slot.usable().filter(|_| slot.target.id == endpoint)
    }

    fn is_dialing(&self, endpoint: EndpointId) -> bool {
        self.with_slot(endpoint, |slot| slot.dialing)
            .unwrap_or(false)
    }

    fn with_slot<T>(&self, endpoint: EndpointId, f: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(endpoint.index())?.as_mut()?;
        (slot.target.id == endpoint).then(|| f(slot))
    }

    /// Begins a dial unless one is under way, or the endpoint is in the list no more.
    fn dial(self: &Rc<Self>, endpoint: EndpointId) {
        if self.is_dialing(endpoint) {
            return;
        }
        let Some(target) = self.endpoints.get(endpoint) else {
            return;
        };
        let mut slots = self.slots.borrow_mut();
        let place = endpoint.index();
        if slots.len() <= place {
            slots.resize_with(place + 1, || None);
        }
        let slot = match slots[place].take() {
            Some(slot) if slot.target.id == endpoint => Some(slot),
            old => {
                Slot::end(old);
                None
            }
        };
        let slot = slots[place].insert(slot.unwrap_or_else(|| Slot::new(target.clone())));
        slot.dialing = true;
        slot.conns.retain(|conn| !conn.is_retired());
        tokio::task::spawn_local(self.clone().run(target));
    }

    /// A connection's whole life.
    async fn run(self: Rc<Self>, target: Arc<Target>) {
        let id = target.id;
        let dialed = timeout(limits::DIAL_TIME, self.establish(&target)).await;
        let dialed = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let made = dialed.as_ref().ok().map(|(conn, _)| conn.clone());
        let is_wanted = self.with_slot(id, |slot| {
            slot.dialing = false;
            slot.conns.extend(made);
        });
        match dialed {
            Err(error) => {
                self.endpoints
                    .failed(id, Duration::ZERO, SelectionReason::Unreachable);
                let endpoint = &target.endpoint;
                warn!(%endpoint, %error, "endpoint unreachable");
                self.changed.notify_waiters();
            }
            Ok((conn, driver)) => {
                match is_wanted {
                    Some(()) => self.endpoints.connected(&target),
                    None => conn.retire(),
                }
                self.changed.notify_waiters();
                let ended = driver.await;
                conn.retire();
                self.with_slot(id, |slot| slot.conns.retain(|c| !Rc::ptr_eq(c, &conn)));
                if let Ended::Lost(error) = ended {
                    self.endpoints.failed(id, conn.age(), SelectionReason::Lost);
                    let endpoint = &target.endpoint;
                    warn!(%endpoint, error, "connection to endpoint lost");
                }
            }
        }
    }

    async fn establish(
        &self,
        target: &Arc<Target>,
    ) -> io::Result<(Rc<Conn>, impl Future<Output = Ended> + use<>)> {
        let endpoint = &target.endpoint;
        let tls = self.endpoints.tls(endpoint);
        let stream =
            dial::connect(endpoint, tls.as_ref().map(|tls| (&tls.calls, &*tls.counts))).await?;
        let keepalive = self.endpoints.keepalive();
        Conn::handshake(target.clone(), self.worker, stream, keepalive).await
    }
}

impl Slot {
    fn new(target: Arc<Target>) -> Slot {
        Slot {
            target,
            conns: Vec::new(),
            dialing: false,
        }
    }

    fn usable(&self) -> Option<Rc<Conn>> {
        self.conns.iter().find(|conn| conn.takes_calls()).cloned()
    }

    /// Retires its connections; open calls go on.
    fn end(slot: Option<Slot>) {
        let conns = slot.into_iter().flat_map(|slot| slot.conns);
        conns.for_each(|conn| conn.retire());
    }
}
