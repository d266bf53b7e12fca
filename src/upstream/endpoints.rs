//! What all workers share about endpoints: the list, the picker, and the endpoint that serves, which
//! the per-call path reads without a lock.
//!
//! The list may change while calls are open. Workers are told and let connections to what went come to
//! their end ([`Pool`](super::pool::Pool)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::limits;
use crate::metrics::{EndpointList, EndpointMetrics};
use crate::net::tls::client::{ClientTls, Dialer};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::state_machine::picker::{EndpointId, Pick, Picker, EndpointPolicy, CallOutcomes, Share, EndpointState, TriedEndpoints};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::selection_history::{Event, Selection, SelectionHistory, SelectionReason};
use crate::upstream::target::Target;

/// No endpoint's number.
const NONE: u64 = u64::MAX;

/// What flags say of endpoints beyond where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// How often the list is taken from the cluster's members, at least [`limits::MIN_SYNC_INTERVAL`]; zero:
    /// never.
    pub sync: Duration,
    /// Which endpoint a call goes to.
    pub policy: EndpointPolicy,
    /// Weights, from 1 on, of endpoints by their `host:port`. Who is not here has 1. Others may come
    /// ([`Endpoints::weigh`]).
    pub weights: Vec<(String, u32)>,
}

/// See the head of the file.
pub struct Endpoints {
    state: Mutex<State>,
    /// The serving endpoint's number, or [`NONE`]: the picker's answer without its lock.
    current: AtomicU64,
    /// Told when the list has changed.
    changes: watch::Sender<()>,
    /// Grows with each change of who takes calls, where calls are spread.
    version: AtomicU64,
    /// Woken when the endpoint that serves has failed.
    lost: Notify,
    tls: Option<Arc<Dialer>>,
    keepalive: KeepaliveOptions,
    options: EndpointOptions,
    metrics: Arc<EndpointList>,
}

#[derive(Default)]
struct State {
    picker: Picker,
    /// In the order they came. Never empty.
    targets: Vec<Arc<Target>>,
    /// As in [`EndpointOptions`].
    weights: Vec<(String, u32)>,
    /// Who takes calls, as workers were told last.
    shares: Vec<Share>,
    /// What has been seen of each, as of the last look.
    seen: Vec<(EndpointId, CallOutcomes)>,
    switches: SelectionHistory,
}

impl State {
    fn note(&mut self, endpoint: EndpointId, event: Event) {
        if let Some(target) = self.targets.iter().find(|t| t.id == endpoint) {
            self.switches.note(&target.metrics.name, event);
        }
    }

    /// Whether calls go to it now.
    fn serves(&self, endpoint: EndpointId) -> bool {
        let standing = self.picker.state(endpoint, Instant::now());
        matches!(standing, Some(EndpointState::Active | EndpointState::Balanced(_)))
    }
}

impl State {
    fn weight(&self, endpoint: &Endpoint) -> u32 {
        let authority = endpoint.authority();
        let mut weights = self.weights.iter();
        let weight = weights.find(|(name, _)| *name == authority);
        weight.map_or(1, |(_, weight)| *weight)
    }
}

impl Endpoints {
    /// `list` is not empty; `tls` is there if any of it needs it.
    pub fn new(
        list: Vec<Endpoint>,
        tls: Option<Arc<Dialer>>,
        keepalive: KeepaliveOptions,
        options: EndpointOptions,
        metrics: Arc<EndpointList>,
    ) -> Endpoints {
        assert!(
            !list.is_empty(),
            "an empty endpoint list is refused when options are resolved"
        );
        let keepalive = KeepaliveOptions {
            time: keepalive.time.max(limits::UPSTREAM_PING),
            ..keepalive
        };
        let endpoints = Endpoints {
            state: Mutex::new(State {
                picker: Picker::new(options.policy),
                weights: options.weights.clone(),
                ..State::default()
            }),
            current: AtomicU64::new(NONE),
            changes: watch::Sender::new(()),
            version: AtomicU64::new(0),
            lost: Notify::new(),
            tls,
            keepalive,
            options,
            metrics,
        };
        let mut state = endpoints.state.lock();
        list.into_iter()
            .for_each(|endpoint| endpoints.add(&mut state, endpoint));
        endpoints.show(&mut state);
        drop(state);
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

    /// TLS for one connection to an endpoint that wants it.
    pub fn tls(&self, endpoint: &Endpoint) -> Option<Arc<ClientTls>> {
        let dialer = self.tls.as_ref().filter(|_| endpoint.is_tls());
        dialer.map(|dialer| dialer.current())
    }

    /// When connections to endpoints are pinged.
    pub fn keepalive(&self) -> KeepaliveOptions {
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
    /// connections. An empty list changes nothing. Each one that came or went is named in the log.
    /// Gives back what is left out: what wants TLS where there is none towards etcd, and what is too
    /// much.
    pub fn replace(&self, list: Vec<Endpoint>) -> Vec<Endpoint> {
        let usable = |endpoint: &Endpoint| !endpoint.is_tls() || self.tls.is_some();
        let (mut wanted, mut left_out): (Vec<Endpoint>, Vec<Endpoint>) =
            list.into_iter().partition(usable);
        left_out.extend(wanted.drain(wanted.len().min(limits::MAX_ENDPOINTS)..));
        if wanted.is_empty() {
            return left_out;
        }
        let mut changed = false;
        let state = &mut *self.state.lock();
        let before = state.targets.clone();
        // Those that went first: there may be no room for both.
        let (mut went, mut last) = (Vec::new(), None);
        for target in before.iter().filter(|t| !wanted.contains(&t.endpoint)) {
            if state.targets.len() > 1 {
                self.remove(state, target);
                went.push(target);
            } else {
                last = Some(target);
            }
        }
        for endpoint in &wanted {
            if !before.iter().any(|target| target.endpoint == *endpoint) {
                self.add(state, endpoint.clone());
                info!(%endpoint, "endpoint added");
                changed = true;
            }
        }
        // It made way for none before one had come, so that there was one at any time.
        if let Some(target) = last {
            self.remove(state, target);
            went.push(target);
        }
        for target in &went {
            info!(endpoint = %target.endpoint, "endpoint removed");
        }
        if changed || !went.is_empty() {
            self.show(state);
            // Nobody may be there to be told.
            let _ = self.changes.send(());
        }
        left_out
    }

    /// The weights are these from now on.
    pub fn weigh(&self, weights: Vec<(String, u32)>) {
        let state = &mut *self.state.lock();
        state.weights = weights;
        for target in &state.targets {
            let weight = state.weight(&target.endpoint);
            state.picker.set_weight(target.id, weight);
        }
        self.show(state);
    }

    fn remove(&self, state: &mut State, target: &Target) {
        if state.serves(target.id) {
            state.note(target.id, Event::Removed);
        }
        state.targets.retain(|t| t.id != target.id);
        state.picker.remove(target.id);
        self.metrics.remove(&target.metrics);
    }

    fn add(&self, state: &mut State, endpoint: Endpoint) {
        let weight = state.weight(&endpoint);
        let Some(id) = state.picker.add(weight) else {
            let limit = limits::MAX_ENDPOINTS;
            warn!(%endpoint, limit, "endpoint ignored: too many endpoints");
            return;
        };
        let metrics = self.metrics.add(endpoint.to_string());
        let target = Target::new(id, endpoint, self.options.policy.balances(), metrics);
        state.targets.push(Arc::new(target));
    }

    /// The endpoint that serves, picking one if need be; or when one may be dialed again.
    pub fn pick(&self) -> Pick {
        let state = &mut *self.state.lock();
        let before = state.picker.current();
        let pick = state.picker.pick(Instant::now(), fastrand::u64(..));
        if let Pick::Use(endpoint) = pick
            && before.is_none()
            && !self.options.policy.balances()
        {
            self.show(state);
            if let Some(target) = state.targets.iter().find(|t| t.id == endpoint) {
                target.metrics.picked.inc();
                info!(endpoint = %target.endpoint, "endpoint picked");
            }
            state.note(endpoint, Event::Picked);
        }
        pick
    }

    /// The endpoint that serves, if one was picked and has not failed.
    pub fn current(&self) -> Option<EndpointId> {
        let number = self.current.load(Ordering::Relaxed);
        (number != NONE).then(|| EndpointId::from_number(number))
    }

    /// An endpoint for a second try: the one that serves, if it was not tried.
    pub fn other(&self, tried: TriedEndpoints) -> Option<EndpointId> {
        // Where none serves just now, one is picked first: else each call that comes this way would
        // settle somewhere else.
        if !self.options.policy.balances() {
            self.pick();
        }
        let picker = &self.state.lock().picker;
        picker.pick_other(Instant::now(), tried, fastrand::u64(..))
    }

    /// Whether there is an endpoint that was not tried, even if it rests.
    pub fn is_any_untried(&self, tried: TriedEndpoints) -> bool {
        let state = self.state.lock();
        state.targets.iter().any(|t| !tried.contains(t.id))
    }

    /// The endpoint failed so after its connection had lived this long.
    pub fn failed(&self, endpoint: EndpointId, lived: Duration, why: SelectionReason) {
        let state = &mut *self.state.lock();
        if state.serves(endpoint) {
            state.note(endpoint, Event::Failed(why));
        }
        let (now, chance) = (Instant::now(), fastrand::u64(..));
        let served = state.picker.current() == Some(endpoint);
        state.picker.failed(endpoint, lived, now, chance);
        self.show(state);
        if served {
            self.lost.notify_one();
        }
        if let Some(target) = state.targets.iter().find(|t| t.id == endpoint) {
            target.metrics.failures.inc();
        }
    }

    /// A connection to the endpoint is up.
    pub fn connected(&self, target: &Target) {
        let state = &mut *self.state.lock();
        let served = state.serves(target.id);
        state.picker.connected(target.id, Instant::now());
        if !served && state.serves(target.id) {
            state.note(target.id, Event::Returned);
        }
        self.show(state);
        target.metrics.connects.inc();
    }

    /// The endpoint's member leads.
    pub fn leads(&self, endpoint: EndpointId) {
        let state = &mut *self.state.lock();
        let before = state.picker.current();
        state.picker.set_leader(endpoint, Instant::now());
        self.show(state);
        if state.picker.current() != before
            && let Some(target) = state.targets.iter().find(|t| t.id == endpoint)
        {
            target.metrics.picked.inc();
            info!(endpoint = %target.endpoint, "endpoint picked: its member is the leader");
            state.note(endpoint, Event::Leads);
        }
    }

    /// Returns when the endpoint that serves has failed, at once if it has since this was last asked.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Compares endpoints that share calls; to be called at every [`limits::OUTLIER_TICK`].
    pub fn look(&self) {
        let state = &mut *self.state.lock();
        let all = state.targets.iter().map(|t| (t.id, seen(&t.metrics)));
        let all: Vec<(EndpointId, CallOutcomes)> = all.collect();
        let late = all.iter().map(|(id, seen)| {
            let before = state.seen.iter().find(|(before, _)| before == id);
            (*id, before.map_or(*seen, |(_, before)| seen.since(before)))
        });
        let late: Vec<(EndpointId, CallOutcomes)> = late.collect();
        let out = state.picker.record_tick(&late, Instant::now());
        state.seen = all;
        if let Some((id, cause)) = out
            && let Some(target) = state.targets.iter().find(|t| t.id == id)
        {
            target.metrics.ejections.inc();
            let (endpoint, reason) = (&target.endpoint, cause.name());
            warn!(%endpoint, reason, "endpoint ejected by outlier detection");
            state.note(id, Event::Ejected(reason));
        }
        self.show(state);
    }

    /// Grows each time [`Endpoints::shares`] says something else.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Who takes calls now, where calls are spread.
    pub fn shares(&self) -> Vec<Share> {
        self.state.lock().shares.clone()
    }

    /// Every endpoint and how it is, for people.
    pub fn standings(&self) -> Vec<(Arc<Target>, EndpointState)> {
        let state = self.state.lock();
        let now = Instant::now();
        let standing = |t: &Arc<Target>| Some((t.clone(), state.picker.state(t.id, now)?));
        state.targets.iter().filter_map(standing).collect()
    }

    /// The last times that endpoints began or ceased to serve, the last one first.
    pub fn switches(&self) -> Vec<Selection> {
        self.state.lock().switches.all()
    }

    /// Shows the per-call path what the picker says.
    fn show(&self, state: &mut State) {
        let number = state.picker.current().map_or(NONE, EndpointId::number);
        self.current.store(number, Ordering::Relaxed);
        if self.options.policy.balances() {
            let shares = state.picker.shares(Instant::now());
            if shares != state.shares {
                state.shares = shares;
                self.version.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// All that workers have counted of an endpoint.
fn seen(metrics: &EndpointMetrics) -> CallOutcomes {
    let mut seen = CallOutcomes::default();
    for worker in metrics.workers() {
        let steps = seen.answered.iter_mut().zip(&worker.answered);
        steps.for_each(|(sum, count)| *sum = sum.wrapping_add(count.get()));
        seen.failed = seen.failed.wrapping_add(worker.failed.get());
        seen.open = seen.open.wrapping_add(worker.open.get());
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap().with_default_tls(false)
    }

    fn endpoints(list: &[&str]) -> Endpoints {
        let keepalive = KeepaliveOptions {
            time: Duration::ZERO,
            timeout: Duration::from_secs(20),
            without_calls: false,
        };
        let list = list.iter().map(|text| endpoint(text)).collect();
        let metrics = Arc::new(EndpointList::new(1));
        Endpoints::new(list, None, keepalive, EndpointOptions::default(), metrics)
    }

    fn named(endpoints: &Endpoints) -> Vec<String> {
        let all = endpoints.all();
        all.iter().map(|t| t.endpoint.to_string()).collect()
    }

    #[test]
    fn who_stays_is_who_it_was_and_who_goes_is_shown_no_more() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]);
        let mut changes = endpoints.changes();
        let Pick::Use(serves) = endpoints.pick() else {
            panic!("nothing has failed")
        };
        let before = endpoints.all();
        let stays = before.iter().find(|t| t.id != serves).unwrap();
        let list = vec![stays.endpoint.clone(), endpoint("d:1")];
        assert_eq!(endpoints.replace(list.clone()), []);
        assert_eq!(endpoints.all()[0].id, stays.id);
        assert_eq!(named(&endpoints)[1], "http://d:1");
        assert_eq!(endpoints.current(), None);
        assert!(endpoints.get(serves).is_none());
        let counted = endpoints.metrics.all();
        let counted: Vec<&str> = counted.iter().map(|m| &m.name[..]).collect();
        assert_eq!(counted, named(&endpoints));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        // The same again is no change.
        endpoints.replace(list);
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn weights_that_change_count_for_who_is_here_and_who_comes() {
        let keepalive = KeepaliveOptions {
            time: Duration::ZERO,
            timeout: Duration::from_secs(20),
            without_calls: false,
        };
        let options = EndpointOptions {
            policy: EndpointPolicy::Weighted,
            weights: vec![("a:1".to_owned(), 2)],
            ..EndpointOptions::default()
        };
        let list = ["a:1", "b:1"].map(endpoint).to_vec();
        let metrics = Arc::new(EndpointList::new(1));
        let endpoints = Endpoints::new(list, None, keepalive, options, metrics);
        let weights = || {
            endpoints
                .shares()
                .iter()
                .map(|s| s.weight)
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(), [20, 10]);
        let version = endpoints.version();
        endpoints.weigh(vec![("b:1".to_owned(), 3), ("c:1".to_owned(), 5)]);
        assert_eq!(weights(), [10, 30]);
        assert_ne!(endpoints.version(), version);
        endpoints.replace(["a:1", "b:1", "c:1"].map(endpoint).to_vec());
        assert_eq!(weights(), [10, 30, 50]);
    }

    #[test]
    fn the_list_is_never_empty_and_all_of_it_may_change() {
        let endpoints = endpoints(&["a:1", "b:1"]);
        assert_eq!(endpoints.replace(Vec::new()), []);
        let secure = vec![endpoint("https://a:2")];
        assert_eq!(endpoints.replace(secure.clone()), secure);
        assert_eq!(named(&endpoints), ["http://a:1", "http://b:1"]);
        endpoints.replace(vec![endpoint("x:1"), endpoint("y:1")]);
        let mut all = named(&endpoints);
        all.sort();
        assert_eq!(all, ["http://x:1", "http://y:1"]);
        let many = (1..400).map(|port| endpoint(&format!("m:{port}")));
        let left_out = endpoints.replace(many.collect());
        assert_eq!(left_out.len(), 399 - limits::MAX_ENDPOINTS);
        assert!(!endpoints.all().is_empty());
    }
}
