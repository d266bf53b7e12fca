//! What all workers share about endpoints: the list, the picker, and the endpoint that serves, which
//! the per-call path reads without a lock.
//!
//! The list may change while calls are open. Workers are told and let connections to what went come to
//! their end ([`Pool`](super::pool::Pool)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::limits;
use crate::machine::picker::{EndpointId, Pick, Picker, Tried};
use crate::machine::silence::KeepAlive;
use crate::metrics::EndpointList;
use crate::net::tls::ClientTls;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::target::Target;

/// No endpoint's number.
const NONE: u64 = u64::MAX;

/// What flags say of endpoints beyond where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// How often the list is taken from the cluster's members, at least [`limits::LEAST_SYNC`]; zero:
    /// never.
    pub sync: Duration,
}

/// See the head of the file.
pub struct Endpoints {
    state: Mutex<State>,
    /// The serving endpoint's number, or [`NONE`]: the picker's answer without its lock.
    current: AtomicU64,
    /// Told when the list has changed.
    changes: watch::Sender<()>,
    tls: Option<ClientTls>,
    keepalive: KeepAlive,
    options: EndpointOptions,
    metrics: Arc<EndpointList>,
}

#[derive(Default)]
struct State {
    picker: Picker,
    /// In the order they came. Never empty.
    targets: Vec<Arc<Target>>,
}

impl Endpoints {
    /// `list` is not empty; `tls` is there if any of it needs it.
    pub fn new(
        list: Vec<Endpoint>,
        tls: Option<ClientTls>,
        keepalive: KeepAlive,
        options: EndpointOptions,
        metrics: Arc<EndpointList>,
    ) -> Endpoints {
        assert!(
            !list.is_empty(),
            "an empty endpoint list is refused when options are resolved"
        );
        let keepalive = KeepAlive {
            time: keepalive.time.max(limits::UPSTREAM_PING),
            ..keepalive
        };
        let endpoints = Endpoints {
            state: Mutex::default(),
            current: AtomicU64::new(NONE),
            changes: watch::Sender::new(()),
            tls,
            keepalive,
            options,
            metrics,
        };
        list.into_iter()
            .for_each(|endpoint| endpoints.add(&mut endpoints.state.lock(), endpoint));
        endpoints
    }

    /// Every endpoint of the list, in the order they came.
    pub fn all(&self) -> Vec<Arc<Target>> {
        self.state.lock().targets.clone()
    }

    /// The endpoint of an id, while it is in the list.
    pub fn get(&self, endpoint: EndpointId) -> Option<Arc<Target>> {
        let state = self.state.lock();
        let target = state.targets.iter().find(|t| t.id == endpoint);
        target.cloned()
    }

    /// TLS for an endpoint that wants it.
    pub fn tls(&self, endpoint: &Endpoint) -> Option<&ClientTls> {
        self.tls.as_ref().filter(|_| endpoint.is_tls())
    }

    /// When connections to endpoints are pinged.
    pub fn keepalive(&self) -> KeepAlive {
        self.keepalive
    }

    /// What flags say.
    pub fn options(&self) -> &EndpointOptions {
        &self.options
    }

    /// Told each time the list has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The list is this from now on; endpoints that are in both stay what they are, with their
    /// connections. What cannot be used is left out, and an empty list changes nothing. Each one
    /// that came or went is named in the log.
    pub fn replace(&self, list: Vec<Endpoint>) {
        let mut wanted: Vec<Endpoint> = Vec::new();
        let list = list
            .into_iter()
            .map(|e| e.with_default_tls(self.tls.is_some()));
        for endpoint in list {
            if endpoint.is_tls() && self.tls.is_none() {
                warn!(%endpoint, "endpoint left out: it wants TLS, and there is none towards etcd");
            } else if !wanted.contains(&endpoint) {
                wanted.push(endpoint);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let mut changed = false;
        let state = &mut *self.state.lock();
        let before = state.targets.clone();
        for endpoint in &wanted {
            if !before.iter().any(|target| target.endpoint == *endpoint) {
                self.add(state, endpoint.clone());
                info!(%endpoint, "endpoint joined");
                changed = true;
            }
        }
        for target in before.iter().filter(|t| !wanted.contains(&t.endpoint)) {
            // Where what came was too much for the list, the last one stays.
            if state.targets.len() > 1 {
                state.targets.retain(|t| t.id != target.id);
                state.picker.remove(target.id);
                self.metrics.remove(&target.metrics);
                info!(endpoint = %target.endpoint, "endpoint left");
                changed = true;
            }
        }
        if changed {
            self.show(&state.picker);
            // Nobody may be there to be told.
            let _ = self.changes.send(());
        }
    }

    fn add(&self, state: &mut State, endpoint: Endpoint) {
        let Some(id) = state.picker.add() else {
            let most = limits::MAX_ENDPOINTS;
            warn!(%endpoint, most, "endpoint left out: there are too many");
            return;
        };
        let metrics = self.metrics.add(endpoint.to_string());
        let target = Target::new(id, endpoint, metrics);
        state.targets.push(Arc::new(target));
    }

    /// The endpoint that serves, picking one if need be; or when one may be dialed again.
    pub fn pick(&self) -> Pick {
        let state = &mut *self.state.lock();
        let before = state.picker.current();
        let pick = state.picker.pick(Instant::now(), fastrand::u64(..));
        if let Pick::Use(endpoint) = pick
            && before.is_none()
        {
            self.show(&state.picker);
            if let Some(target) = state.targets.iter().find(|t| t.id == endpoint) {
                target.metrics.picked.inc();
                info!(endpoint = %target.endpoint, "endpoint picked");
            }
        }
        pick
    }

    /// The endpoint that serves, if one was picked and has not failed.
    pub fn current(&self) -> Option<EndpointId> {
        let number = self.current.load(Ordering::Relaxed);
        (number != NONE).then(|| EndpointId::from_number(number))
    }

    /// An endpoint for a second try: the one that serves, if it was not tried.
    pub fn other(&self, tried: Tried) -> Option<EndpointId> {
        // Where none serves just now, one is picked first: else each call that comes this way would
        // settle somewhere else.
        self.pick();
        let picker = &self.state.lock().picker;
        picker.other(Instant::now(), tried, fastrand::u64(..))
    }

    /// Whether there is an endpoint that was not tried, even if it rests.
    pub fn is_any_untried(&self, tried: Tried) -> bool {
        let state = self.state.lock();
        state.targets.iter().any(|t| !tried.contains(t.id))
    }

    /// The endpoint failed after its connection had lived this long.
    pub fn failed(&self, endpoint: EndpointId, lived: Duration) {
        let state = &mut *self.state.lock();
        let (now, chance) = (Instant::now(), fastrand::u64(..));
        state.picker.failed(endpoint, lived, now, chance);
        self.show(&state.picker);
        if let Some(target) = state.targets.iter().find(|t| t.id == endpoint) {
            target.metrics.failures.inc();
        }
    }

    /// A connection to the endpoint is up.
    pub fn connected(&self, target: &Target) {
        self.state.lock().picker.connected(target.id);
        target.metrics.connects.inc();
    }

    /// Shows the per-call path what the picker says.
    fn show(&self, picker: &Picker) {
        let number = picker.current().map_or(NONE, EndpointId::number);
        self.current.store(number, Ordering::Relaxed);
    }
}
