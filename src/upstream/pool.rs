//! The connections of one worker to etcd.
//!
//! Per endpoint there is at most one dial at a time, however many calls wait for it. A connection
//! is used by one thread only. Connections to an endpoint that was removed from the list accept no
//! more calls, and close after their last open call.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::Failure;
use crate::limits;
use crate::state_machine::picker::{Balancer, EndpointId, Pick, TriedEndpoints};
use crate::upstream::conn::{Conn, ConnectionEnd};
use crate::upstream::dial;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::target::EndpointTarget;

/// The connections of one worker, by endpoint.
pub struct Pool {
    endpoints: Arc<Endpoints>,
    /// Indexed by [`EndpointId::index`].
    slots: RefCell<Vec<Option<Slot>>>,
    /// Notified when a dial has ended, or the list has changed.
    changed: Notify,
    /// Under a balancing policy: the balancer of this worker, and the version of its shares.
    balancer: Option<RefCell<(u64, Balancer)>>,
    /// Number of the worker, for metrics.
    worker: usize,
}

struct Slot {
    target: Arc<EndpointTarget>,
    conns: Vec<Rc<Conn>>,
    dialing: bool,
}

impl Pool {
    /// Creates an empty pool. No endpoint is dialed before the first call.
    pub fn new(endpoints: Arc<Endpoints>, worker: usize) -> Rc<Pool> {
        let policy = endpoints.options().policy;
        // Version 0 is lower than the first version of the shares.
        let balancer = || RefCell::new((0, Balancer::new(policy)));
        Rc::new(Pool {
            balancer: policy.balances().then(balancer),
            endpoints,
            slots: RefCell::default(),
            changed: Notify::new(),
            worker,
        })
    }

    /// Returns the endpoint state that all workers share.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// Returns an established connection for a call, without waiting: to the serving endpoint, or
    /// under a balancing policy to the next endpoint in turn. Used by every call.
    pub fn ready(self: &Rc<Self>) -> Option<Rc<Conn>> {
        match self.endpoints.current() {
            Some(current) => self.usable_connection(current),
            None => self.next_balanced(),
        }
    }

    /// Returns a connection to the next endpoint in turn, among those with a connection. Dials the
    /// other endpoints that take calls.
    fn next_balanced(self: &Rc<Self>) -> Option<Rc<Conn>> {
        let (version, balancer) = &mut *self.balancer.as_ref()?.borrow_mut();
        let now = self.endpoints.version();
        if *version != now {
            *version = now;
            balancer.set_shares(&self.endpoints.shares());
        }
        let chosen = balancer.choose(|endpoint| {
            let conn = self.usable_connection(endpoint)?;
            Some(conn.calls().open_unary.get())
        });
        for endpoint in balancer.endpoints() {
            if self.usable_connection(endpoint).is_none() {
                self.dial(endpoint);
            }
        }
        self.usable_connection(chosen?)
    }

    /// Returns a connection to the serving endpoint, which is dialed if necessary. Waits at most
    /// until `until` (E4).
    ///
    /// # Errors
    /// No connection was established in time.
    pub async fn connection(self: &Rc<Self>, until: Instant) -> Result<Rc<Conn>, Failure> {
        loop {
            if let Some(conn) = self.ready() {
                return Ok(conn);
            }
            let changed = self.changed.notified();
            match self.endpoints.pick() {
                Pick::Use(endpoint) => {
                    if let Some(conn) = self.usable_connection(endpoint) {
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

    /// Returns a connection to an endpoint that is not in `tried`, which is dialed if necessary.
    /// `None`: there is no such endpoint, or its dial failed.
    pub async fn connection_to_other(
        self: &Rc<Self>,
        tried: TriedEndpoints,
        until: Instant,
    ) -> Option<Rc<Conn>> {
        let endpoint = self.endpoints.pick_other(tried)?;
        self.connection_to(endpoint, until).await
    }

    /// Returns a connection to this endpoint, which is dialed if necessary. `None`: the dial
    /// failed, or the endpoint is not in the list any more.
    pub async fn connection_to(
        self: &Rc<Self>,
        endpoint: EndpointId,
        until: Instant,
    ) -> Option<Rc<Conn>> {
        if self.usable_connection(endpoint).is_none() {
            self.dial(endpoint);
        }
        while self.usable_connection(endpoint).is_none() && self.is_dialing(endpoint) {
            let changed = self.changed.notified();
            timeout_at(until, changed).await.ok()?;
        }
        self.usable_connection(endpoint)
    }

    /// Retires every connection. Open calls continue.
    pub fn close(&self) {
        self.slots.borrow_mut().drain(..).for_each(Slot::retire);
    }

    /// Closes connections that are not needed any more: to endpoints that do not serve, or that
    /// were removed from the list. A task of the worker that never ends.
    pub async fn maintain(self: Rc<Self>) {
        let mut changes = self.endpoints.changes();
        loop {
            let change = timeout(limits::UPSTREAM_CHECK_INTERVAL, changes.changed()).await;
            if change.is_ok() {
                self.drop_removed_endpoints();
                continue;
            }
            let current = self.endpoints.current();
            for slot in self.slots.borrow_mut().iter_mut().flatten() {
                if current != Some(slot.target.id) && self.balancer.is_none() {
                    let idle = slot.conns.iter().filter(|c| c.open_calls() == 0);
                    idle.for_each(|c| c.retire());
                }
                slot.conns.retain(|conn| !conn.is_retired());
            }
        }
    }

    fn drop_removed_endpoints(&self) {
        let list = self.endpoints.all();
        for entry in self.slots.borrow_mut().iter_mut() {
            let is_removed =
                |slot: &mut Slot| !list.iter().any(|target| target.id == slot.target.id);
            Slot::retire(entry.take_if(is_removed));
        }
        // Calls that wait for a removed endpoint have to try another one.
        self.changed.notify_waiters();
    }

    /// Returns an established connection to this endpoint that accepts calls.
    pub fn usable_connection(&self, endpoint: EndpointId) -> Option<Rc<Conn>> {
        let slots = self.slots.borrow();
        let slot = slots.get(endpoint.index())?.as_ref()?;
        // Another endpoint may use the same index.
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

    /// Starts a dial, unless one is running or the endpoint is not in the list any more.
    fn dial(self: &Rc<Self>, endpoint: EndpointId) {
        if self.is_dialing(endpoint) {
            return;
        }
        let Some(target) = self.endpoints.get(endpoint) else {
            return;
        };
        let mut slots = self.slots.borrow_mut();
        let index = endpoint.index();
        if slots.len() <= index {
            slots.resize_with(index + 1, || None);
        }
        let slot = match slots[index].take() {
            Some(slot) if slot.target.id == endpoint => Some(slot),
            old => {
                Slot::retire(old);
                None
            }
        };
        let slot = slots[index].insert(slot.unwrap_or_else(|| Slot::new(target.clone())));
        slot.dialing = true;
        slot.conns.retain(|conn| !conn.is_retired());
        tokio::task::spawn_local(self.clone().run(target));
    }

    /// Dials an endpoint and drives the connection to its end.
    async fn run(self: Rc<Self>, target: Arc<EndpointTarget>) {
        let id = target.id;
        let dialed = self.establish(&target).await;
        let new_conn = dialed.as_ref().ok().map(|(conn, _)| conn.clone());
        let is_wanted = self.with_slot(id, |slot| {
            slot.dialing = false;
            slot.conns.extend(new_conn);
        });
        match dialed {
            Err(error) => {
                self.endpoints.dial_failed(&target, &error);
                self.changed.notify_waiters();
            }
            Ok((conn, driver)) => {
                match is_wanted {
                    Some(()) => self.endpoints.connected(&target),
                    None => conn.retire(),
                }
                self.changed.notify_waiters();
                let ended = driver.await;
                let was_needed = !conn.is_retired();
                conn.retire();
                self.with_slot(id, |slot| slot.conns.retain(|c| !Rc::ptr_eq(c, &conn)));
                match ended {
                    ConnectionEnd::Lost(error) => {
                        self.endpoints.connection_lost(&target, conn.age(), error);
                    }
                    // A member that ends closes its connections, too.
                    ConnectionEnd::Closed if was_needed => self.endpoints.request_check(),
                    ConnectionEnd::Closed => {}
                }
            }
        }
    }

    /// Dials an endpoint apart from the connections of the pool, for a check of it.
    ///
    /// # Errors
    /// As [`Conn::handshake`], or the dial took longer than [`limits::DIAL_TIME`].
    pub async fn establish(
        &self,
        target: &Arc<EndpointTarget>,
    ) -> io::Result<(Rc<Conn>, impl Future<Output = ConnectionEnd> + use<>)> {
        let dial = async {
            let endpoint = &target.endpoint;
            let tls = self.endpoints.tls(endpoint);
            let tls = tls.as_ref().map(|tls| (&tls.calls, &*tls.counts));
            let stream = dial::connect(endpoint, tls).await?;
            let keepalive = self.endpoints.keepalive();
            Conn::handshake(target.clone(), self.worker, stream, keepalive).await
        };
        let in_time = timeout(limits::DIAL_TIME, dial).await;
        in_time.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Slot {
    fn new(target: Arc<EndpointTarget>) -> Slot {
        Slot {
            target,
            conns: Vec::new(),
            dialing: false,
        }
    }

    fn usable(&self) -> Option<Rc<Conn>> {
        self.conns.iter().find(|conn| conn.takes_calls()).cloned()
    }

    /// Retires the connections of a slot. Open calls continue.
    fn retire(slot: Option<Slot>) {
        let conns = slot.into_iter().flat_map(|slot| slot.conns);
        conns.for_each(|conn| conn.retire());
    }
}
