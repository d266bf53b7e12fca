//! One worker's connections to etcd, and what all workers share about endpoints.
//!
//! [`Endpoints`] is one for the process: the list, the picker, and the endpoint that serves,
//! which the per-call path reads without a lock. [`Pool`] is one per worker: it dials at most
//! once at a time per endpoint, however many calls wait, and no connection crosses threads.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::Authority;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use crate::error::Failure;
use crate::limits;
use crate::machine::picker::{Pick, Picker, Tried};
use crate::machine::silence::KeepAlive;
use crate::metrics::EndpointMetrics;
use crate::net::tls::ClientTls;
use crate::upstream::conn::{Conn, Ended};
use crate::upstream::dial;
use crate::upstream::endpoint::{Endpoint, Scheme};

const NONE: usize = usize::MAX;

/// What all workers share about endpoints.
pub struct Endpoints {
    list: Vec<Endpoint>,
    /// `:scheme` and `:authority` for each.
    origins: Vec<(http::uri::Scheme, Authority)>,
    tls: Option<ClientTls>,
    keepalive: KeepAlive,
    picker: Mutex<Picker>,
    /// The serving endpoint's place, or [`NONE`]: the picker's answer without its lock.
    current: AtomicUsize,
    metrics: Arc<[EndpointMetrics]>,
}

impl Endpoints {
    /// `list` is not empty; `tls` is there if any of it needs it; one of `metrics` each.
    pub fn new(
        list: Vec<Endpoint>,
        tls: Option<ClientTls>,
        keepalive: KeepAlive,
        metrics: Arc<[EndpointMetrics]>,
    ) -> Endpoints {
        let picker = Mutex::new(Picker::new(list.len()));
        let origins = list.iter().map(origin).collect();
        let keepalive = KeepAlive {
            time: keepalive.time.max(limits::UPSTREAM_PING),
            ..keepalive
        };
        Endpoints {
            list,
            origins,
            tls,
            keepalive,
            picker,
            current: AtomicUsize::new(NONE),
            metrics,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The endpoint at a place of the list.
    pub fn get(&self, endpoint: usize) -> &Endpoint {
        &self.list[endpoint]
    }

    /// `:scheme` and `:authority` for requests to it.
    pub fn origin(&self, endpoint: usize) -> &(http::uri::Scheme, Authority) {
        &self.origins[endpoint]
    }

    /// TLS for an endpoint that wants it.
    pub fn tls(&self, endpoint: usize) -> Option<&ClientTls> {
        self.tls.as_ref().filter(|_| self.list[endpoint].is_tls())
    }

    /// The endpoint that serves, picking one if need be; or when one may be dialed again.
    pub fn pick(&self) -> Pick {
        let mut picker = self.picker.lock();
        let before = picker.current();
        let pick = picker.pick(now(), fastrand::u64(..));
        if let Pick::Use(endpoint) = pick
            && before.is_none()
        {
            self.current.store(endpoint, Ordering::Relaxed);
            self.metrics[endpoint].picked.inc();
            info!(endpoint = %self.list[endpoint], "endpoint picked");
        }
        pick
    }

    /// The endpoint that serves, if one was picked and has not failed.
    pub fn current(&self) -> Option<usize> {
        Some(self.current.load(Ordering::Relaxed)).filter(|e| *e != NONE)
    }

    /// An endpoint for a second try: the one that serves, if it was not tried.
    pub fn other(&self, tried: Tried) -> Option<usize> {
        // Where none serves just now, one is picked first: else each call that comes this way would
        // settle somewhere else.
        self.pick();
        self.picker.lock().other(now(), tried, fastrand::u64(..))
    }

    /// The endpoint failed after its connection had lived this long.
    pub fn failed(&self, endpoint: usize, lived: Duration) {
        let mut picker = self.picker.lock();
        picker.failed(endpoint, lived, now(), fastrand::u64(..));
        if picker.current().is_none() {
            self.current.store(NONE, Ordering::Relaxed);
        }
        self.metrics[endpoint].failures.inc();
    }

    fn connected(&self, endpoint: usize) {
        self.picker.lock().connected(endpoint);
        self.metrics[endpoint].connects.inc();
    }
}

fn origin(endpoint: &Endpoint) -> (http::uri::Scheme, Authority) {
    let scheme = match endpoint.scheme {
        Scheme::Tls => http::uri::Scheme::HTTPS,
        Scheme::Plain | Scheme::Unspecified => http::uri::Scheme::HTTP,
    };
    // A host that a resolver takes and HTTP does not is shown as what HTTP allows.
    let authority = Authority::try_from(endpoint.authority());
    (
        scheme,
        authority.unwrap_or_else(|_| Authority::from_static("etcd")),
    )
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// One worker's connections.
pub struct Pool {
    endpoints: Arc<Endpoints>,
    slots: RefCell<Vec<Slot>>,
    /// A dial ended, this way or that.
    changed: Notify,
}

#[derive(Default)]
struct Slot {
    conns: Vec<Rc<Conn>>,
    dialing: bool,
}

impl Pool {
    /// An empty pool. Nothing is dialed before the first call.
    pub fn new(endpoints: Arc<Endpoints>) -> Rc<Pool> {
        let slots = (0..endpoints.count()).map(|_| Slot::default()).collect();
        Rc::new(Pool {
            endpoints,
            slots: RefCell::new(slots),
            changed: Notify::new(),
        })
    }

    /// What all workers share.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// A connection to the serving endpoint, if it is up: the per-call path.
    pub fn ready(&self) -> Option<Rc<Conn>> {
        let current = self.endpoints.current.load(Ordering::Relaxed);
        self.slots.borrow().get(current).and_then(Slot::usable)
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
    pub async fn other(self: &Rc<Self>, tried: Tried, until: Instant) -> Option<Rc<Conn>> {
        let endpoint = self.endpoints.other(tried)?;
        if self.up(endpoint).is_none() {
            self.dial(endpoint);
        }
        while self.up(endpoint).is_none() && self.slots.borrow()[endpoint].dialing {
            let changed = self.changed.notified();
            timeout_at(until, changed).await.ok()?;
        }
        self.up(endpoint)
    }

    /// Retires every connection; open calls go on.
    pub fn close(&self) {
        self.slots
            .borrow_mut()
            .iter_mut()
            .flat_map(|s| s.conns.drain(..))
            .for_each(|c| c.retire());
    }

    /// Closes connections that nobody needs any more: to endpoints that do not serve.
    pub async fn keep_house(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::UPSTREAM_LOOK).await;
            let current = self.endpoints.current.load(Ordering::Relaxed);
            for (endpoint, slot) in self.slots.borrow_mut().iter_mut().enumerate() {
                if endpoint != current {
                    slot.conns
                        .iter()
                        .filter(|c| c.open_calls() == 0)
                        .for_each(|c| c.retire());
                }
                slot.conns.retain(|conn| !conn.is_retired());
            }
        }
    }

    fn up(&self, endpoint: usize) -> Option<Rc<Conn>> {
        self.slots.borrow()[endpoint].usable()
    }

    /// Begins a dial unless one is under way.
    fn dial(self: &Rc<Self>, endpoint: usize) {
        let slot = &mut self.slots.borrow_mut()[endpoint];
        if !slot.dialing {
            slot.dialing = true;
            slot.conns.retain(|conn| !conn.is_retired());
            tokio::task::spawn_local(self.clone().run(endpoint));
        }
    }

    /// A connection's whole life.
    async fn run(self: Rc<Self>, endpoint: usize) {
        let dialed = timeout(limits::DIAL_TIME, self.establish(endpoint)).await;
        let dialed = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let driver = {
            let slot = &mut self.slots.borrow_mut()[endpoint];
            slot.dialing = false;
            dialed.inspect(|(conn, _)| slot.conns.push(conn.clone()))
        };
        match driver {
            Err(error) => {
                self.endpoints.failed(endpoint, Duration::ZERO);
                let endpoint = self.endpoints.get(endpoint);
                warn!(%endpoint, %error, "endpoint cannot be reached");
                self.changed.notify_waiters();
            }
            Ok((conn, driver)) => {
                self.endpoints.connected(endpoint);
                self.changed.notify_waiters();
                let ended = driver.await;
                conn.retire();
                self.slots.borrow_mut()[endpoint]
                    .conns
                    .retain(|c| !Rc::ptr_eq(c, &conn));
                if let Ended::Lost(error) = ended {
                    self.endpoints.failed(endpoint, conn.age());
                    let endpoint = self.endpoints.get(endpoint);
                    warn!(%endpoint, error, "connection to endpoint lost");
                }
            }
        }
    }

    async fn establish(
        &self,
        endpoint: usize,
    ) -> io::Result<(Rc<Conn>, impl Future<Output = Ended> + use<>)> {
        let tls = self.endpoints.tls(endpoint).map(|tls| &tls.calls);
        let stream = dial::connect(self.endpoints.get(endpoint), tls).await?;
        Conn::handshake(endpoint, stream, self.endpoints.keepalive).await
    }
}

impl Slot {
    fn usable(&self) -> Option<Rc<Conn>> {
        self.conns.iter().find(|conn| conn.takes_calls()).cloned()
    }
}
