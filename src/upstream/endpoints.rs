//! Endpoint state that all workers share: the list, the picker, and the serving endpoint, which
//! each call reads without a lock.
//!
//! The list may change while calls are open. Each worker is notified, and its connections to
//! removed endpoints close after their last call ([`Pool`](super::pool::Pool)).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::limits;
use crate::metrics::{EndpointList, EndpointMetrics};
use crate::net::tls::client::{ClientTls, CurrentClientTls};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::state_machine::picker::{
    CallOutcomes, EndpointId, EndpointPolicy, EndpointState, Pick, Picker, Share, TriedEndpoints,
};
use crate::upstream::dial_error::likely_cause;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoint_status::{Reachability, StatusChange};
use crate::upstream::selection_history::{
    EndpointFailure, SelectionChange, SelectionEvent, SelectionHistory,
};
use crate::upstream::target::EndpointTarget;

/// Value of [`Endpoints::current`] if no endpoint serves.
const NO_ENDPOINT: u64 = u64::MAX;

/// Endpoint settings other than the addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Interval at which the list is replaced by the members of the cluster, at least
    /// [`limits::MIN_SYNC_INTERVAL`]. Zero: never.
    pub sync: Duration,
    /// Policy that selects the endpoint of a call.
    pub policy: EndpointPolicy,
    /// Weights of endpoints, by `host:port`, at least 1. Other endpoints have the weight 1. A
    /// reload may replace the weights ([`Endpoints::set_weights`]).
    pub weights: Vec<(String, u32)>,
}

/// The endpoint list, the picker and the settings of connections to etcd.
pub struct Endpoints {
    state: Mutex<State>,
    /// Number of the serving endpoint, or [`NO_ENDPOINT`]. A copy that is read without the lock.
    current: AtomicU64,
    /// Notified when the list has changed.
    changes: watch::Sender<()>,
    /// Incremented with each change of `State::shares`.
    version: AtomicU64,
    /// Notified when the serving endpoint has failed.
    current_failed: Notify,
    /// Whether every endpoint is gone ([`EndpointTarget::is_gone`]).
    outage: watch::Sender<bool>,
    /// Number of times that an endpoint which served was lost.
    losses: AtomicU64,
    /// Notified when the endpoints must be checked at once.
    check: Notify,
    tls: Option<Arc<CurrentClientTls>>,
    keepalive: KeepaliveOptions,
    options: EndpointOptions,
    metrics: Arc<EndpointList>,
}

#[derive(Default)]
struct State {
    picker: Picker,
    /// In the order in which they were added. Never empty.
    targets: Vec<Arc<EndpointTarget>>,
    /// Weights in the form of [`EndpointOptions::weights`].
    weights: Vec<(String, u32)>,
    /// Endpoints that take calls under a balancing policy, as last reported to workers.
    shares: Vec<Share>,
    /// Total call outcomes of each endpoint at the last call of [`Endpoints::detect_outliers`].
    last_outcomes: Vec<(EndpointId, CallOutcomes)>,
    history: SelectionHistory,
    /// The picked endpoint that was last counted and logged.
    announced: Option<EndpointId>,
}

impl State {
    fn record(&mut self, endpoint: EndpointId, event: SelectionEvent) {
        if let Some(target) = self.targets.iter().find(|t| t.id == endpoint) {
            self.history.record(&target.metrics.name, event);
        }
    }

    /// Counts and logs the picked endpoint, once, when it can be reached: an endpoint that is
    /// picked and then cannot be reached has not served.
    fn announce_picked(&mut self, endpoint: EndpointId) {
        let Some(target) = self.targets.iter().find(|t| t.id == endpoint) else {
            return;
        };
        if !target.is_reachable() || self.announced == Some(endpoint) {
            return;
        }
        self.announced = Some(endpoint);
        target.metrics.picked.inc();
        info!(endpoint = %target.endpoint, "endpoint picked");
        self.record(endpoint, SelectionEvent::Picked);
    }

    /// Reports whether calls go to the endpoint now.
    fn serves(&self, endpoint: EndpointId) -> bool {
        let endpoint_state = self.picker.state(endpoint, Instant::now());
        matches!(
            endpoint_state,
            Some(EndpointState::Active | EndpointState::Balanced(_))
        )
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
    /// Creates the state for `list`. `tls` is required if an endpoint of the list uses TLS.
    ///
    /// # Panics
    /// The list is empty.
    pub fn new(
        list: Vec<Endpoint>,
        tls: Option<Arc<CurrentClientTls>>,
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
            current: AtomicU64::new(NO_ENDPOINT),
            changes: watch::Sender::new(()),
            version: AtomicU64::new(0),
            current_failed: Notify::new(),
            outage: watch::Sender::new(false),
            losses: AtomicU64::new(0),
            check: Notify::new(),
            tls,
            keepalive,
            options,
            metrics,
        };
        let mut state = endpoints.state.lock();
        list.into_iter()
            .for_each(|endpoint| endpoints.add(&mut state, endpoint));
        endpoints.publish(&mut state);
        drop(state);
        endpoints
    }

    /// Returns all endpoints in the order in which they were added.
    pub fn all(&self) -> Vec<Arc<EndpointTarget>> {
        self.state.lock().targets.clone()
    }

    /// Returns all endpoints, the serving one first.
    pub fn all_current_first(&self) -> Vec<Arc<EndpointTarget>> {
        let mut all = self.all();
        let current = self.current();
        let first = all.iter().position(|target| Some(target.id) == current);
        all.rotate_left(first.unwrap_or(0));
        all
    }

    /// Returns the endpoint with this id if it is in the list.
    pub fn get(&self, endpoint: EndpointId) -> Option<Arc<EndpointTarget>> {
        let state = self.state.lock();
        let target = state.targets.iter().find(|t| t.id == endpoint);
        target.cloned()
    }

    /// Returns the TLS configurations for a connection to an endpoint. `None`: the endpoint uses
    /// plaintext.
    pub fn tls(&self, endpoint: &Endpoint) -> Option<Arc<ClientTls>> {
        let tls = self.tls.as_ref().filter(|_| endpoint.is_tls());
        tls.map(|tls| tls.current())
    }

    /// Returns the ping settings of connections to endpoints.
    pub fn keepalive(&self) -> KeepaliveOptions {
        self.keepalive
    }

    /// Returns the endpoint settings.
    pub fn options(&self) -> &EndpointOptions {
        &self.options
    }

    /// Returns a receiver that is notified of each change of the list.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Replaces the list. Endpoints that are in both lists keep their id, state and connections. An
    /// empty list changes nothing. Logs each added or removed endpoint.
    ///
    /// Returns the endpoints that are ignored: those with TLS if there is no TLS towards etcd, and
    /// those above [`limits::MAX_ENDPOINTS`].
    pub fn replace(&self, list: Vec<Endpoint>) -> Vec<Endpoint> {
        let usable = |endpoint: &Endpoint| !endpoint.is_tls() || self.tls.is_some();
        let (mut wanted, mut ignored): (Vec<Endpoint>, Vec<Endpoint>) =
            list.into_iter().partition(usable);
        ignored.extend(wanted.drain(wanted.len().min(limits::MAX_ENDPOINTS)..));
        if wanted.is_empty() {
            return ignored;
        }
        let mut changed = false;
        let state = &mut *self.state.lock();
        let before = state.targets.clone();
        // Endpoints are removed first, because the list may have no space for old and new
        // endpoints.
        let (mut removed, mut last) = (Vec::new(), None);
        for target in before.iter().filter(|t| !wanted.contains(&t.endpoint)) {
            if state.targets.len() > 1 {
                self.remove(state, target);
                removed.push(target);
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
        // The last old endpoint is removed after the first new one is added: the list is never
        // empty.
        if let Some(target) = last {
            self.remove(state, target);
            removed.push(target);
        }
        for target in &removed {
            info!(endpoint = %target.endpoint, "endpoint removed");
        }
        if changed || !removed.is_empty() {
            self.publish(state);
            self.publish_outage(state);
            // An error means that there is no receiver.
            let _ = self.changes.send(());
        }
        ignored
    }

    /// Replaces the weights of all endpoints.
    pub fn set_weights(&self, weights: Vec<(String, u32)>) {
        let state = &mut *self.state.lock();
        state.weights = weights;
        for target in &state.targets {
            let weight = state.weight(&target.endpoint);
            state.picker.set_weight(target.id, weight);
        }
        self.publish(state);
    }

    fn remove(&self, state: &mut State, target: &EndpointTarget) {
        if state.serves(target.id) {
            state.record(target.id, SelectionEvent::Removed);
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
        let target = EndpointTarget::new(id, endpoint, self.options.policy.balances(), metrics);
        state.targets.push(Arc::new(target));
    }

    /// Returns the serving endpoint, and picks one if none serves. If all endpoints are in backoff,
    /// returns the time of the next dial.
    pub fn pick(&self) -> Pick {
        let state = &mut *self.state.lock();
        let before = state.picker.current();
        let pick = state.picker.pick(Instant::now(), fastrand::u64(..));
        if let Pick::Use(endpoint) = pick
            && before.is_none()
            && !self.options.policy.balances()
        {
            self.publish(state);
            state.announce_picked(endpoint);
        }
        pick
    }

    /// Returns the serving endpoint, if one is picked and has not failed.
    pub fn current(&self) -> Option<EndpointId> {
        let number = self.current.load(Ordering::Relaxed);
        (number != NO_ENDPOINT).then(|| EndpointId::from_number(number))
    }

    /// Returns an endpoint for another attempt: the serving endpoint if it was not tried yet, else
    /// any.
    pub fn pick_other(&self, tried: TriedEndpoints) -> Option<EndpointId> {
        // If no endpoint serves, one is picked first. Otherwise each call here would choose a
        // different endpoint.
        if !self.options.policy.balances() {
            self.pick();
        }
        let picker = &self.state.lock().picker;
        picker.pick_other(Instant::now(), tried, fastrand::u64(..))
    }

    /// Reports whether an endpoint was not tried yet, even if it is in backoff.
    pub fn is_any_untried(&self, tried: TriedEndpoints) -> bool {
        let state = self.state.lock();
        state.targets.iter().any(|t| !tried.contains(t.id))
    }

    /// Records a failure of an endpoint. `age` is the age of its connection at that time.
    pub fn failed(&self, endpoint: EndpointId, age: Duration, failure: EndpointFailure) {
        let state = &mut *self.state.lock();
        if state.serves(endpoint) {
            state.record(endpoint, SelectionEvent::Failed(failure));
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        let (now, chance) = (Instant::now(), fastrand::u64(..));
        let served = state.picker.current() == Some(endpoint);
        state.announced.take_if(|announced| *announced == endpoint);
        state.picker.failed(endpoint, age, now, chance);
        self.publish(state);
        if served {
            self.current_failed.notify_one();
        }
        if let Some(target) = state.targets.iter().find(|t| t.id == endpoint) {
            target.metrics.failures.inc();
        }
    }

    /// Records a failed dial, and logs it if the endpoint could be reached before or it is time for
    /// a reminder. The message names the likely cause.
    pub fn dial_failed(&self, target: &EndpointTarget, error: &io::Error) {
        self.failed(target.id, Duration::ZERO, EndpointFailure::Unreachable);
        let tls = self.tls(&target.endpoint).map(|tls| tls.settings);
        let hint = likely_cause(error, tls);
        let text = match hint {
            Some(hint) => format!("{error}: {hint}"),
            None => error.to_string(),
        };
        let now = Instant::now();
        let change = target
            .status
            .lock()
            .failed(Reachability::Unreachable, text, now);
        if let StatusChange::Down { failures } = change {
            let endpoint = &target.endpoint;
            warn!(%endpoint, %error, hint, failures, "endpoint unreachable");
        }
        self.publish_outage(&self.state.lock());
    }

    /// Records that an established connection of this age broke. Logs it once, although each worker
    /// may lose a connection.
    pub fn connection_lost(&self, target: &EndpointTarget, age: Duration, error: String) {
        self.failed(target.id, age, EndpointFailure::Lost);
        let now = Instant::now();
        let change = target
            .status
            .lock()
            .failed(Reachability::Lost, error.clone(), now);
        if change != StatusChange::None {
            let endpoint = &target.endpoint;
            warn!(%endpoint, error, "connection to endpoint lost");
            self.request_check();
        }
    }

    /// Records that a connection to the endpoint is established.
    pub fn connected(&self, target: &EndpointTarget) {
        if let StatusChange::Up(after) = target.status.lock().connected(Instant::now()) {
            let endpoint = &target.endpoint;
            info!(%endpoint, ?after, "endpoint reachable again");
        }
        let state = &mut *self.state.lock();
        let served = state.serves(target.id);
        state.picker.connected(target.id, Instant::now());
        if !served && state.serves(target.id) {
            state.record(target.id, SelectionEvent::Returned);
        }
        if !self.options.policy.balances() && state.picker.current() == Some(target.id) {
            state.announce_picked(target.id);
        }
        self.publish(state);
        self.publish_outage(state);
        target.metrics.connects.inc();
    }

    /// Returns a receiver of the outage and its changes: whether the last dial of every endpoint has
    /// failed, and no connection is left.
    pub fn outage(&self) -> watch::Receiver<bool> {
        self.outage.subscribe()
    }

    fn publish_outage(&self, state: &State) {
        let outage = state.targets.iter().all(|target| target.is_gone());
        self.outage
            .send_if_modified(|before| std::mem::replace(before, outage) != outage);
    }

    /// Requests a check of all endpoints, after a connection ended: its member may be gone, and
    /// others with it.
    pub fn request_check(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.check.notify_one();
    }

    /// Returns how many times the connection to an endpoint ended or an endpoint that served was
    /// lost. If the number is the same at two times, calls between them went to the same members,
    /// and none has restarted: each knows the tokens that it knew before.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Returns when a check is requested, at once if one was requested since the last call.
    pub async fn check_requested(&self) {
        self.check.notified().await;
    }

    /// Records that the member of the endpoint is the leader.
    pub fn set_leader(&self, endpoint: EndpointId) {
        let state = &mut *self.state.lock();
        let before = state.picker.current();
        state.picker.set_leader(endpoint, Instant::now());
        self.publish(state);
        if state.picker.current() != before
            && let Some(target) = state.targets.iter().find(|t| t.id == endpoint)
        {
            target.metrics.picked.inc();
            info!(endpoint = %target.endpoint, "endpoint picked: its member is the leader");
            state.announced = Some(endpoint);
            state.record(endpoint, SelectionEvent::PickedLeader);
        }
    }

    /// Returns when the serving endpoint fails, at once if it has failed since the last call.
    pub async fn current_failed(&self) {
        self.current_failed.notified().await;
    }

    /// Compares the endpoints of a balancing policy and ejects an outlier. Must be called once per
    /// [`limits::OUTLIER_TICK`].
    pub fn detect_outliers(&self) {
        let state = &mut *self.state.lock();
        let all = state.targets.iter().map(|t| (t.id, outcomes(&t.metrics)));
        let all: Vec<(EndpointId, CallOutcomes)> = all.collect();
        let recent = all.iter().map(|(id, outcomes)| {
            let before = state.last_outcomes.iter().find(|(before, _)| before == id);
            (
                *id,
                before.map_or(*outcomes, |(_, before)| outcomes.since(before)),
            )
        });
        let recent: Vec<(EndpointId, CallOutcomes)> = recent.collect();
        let ejected = state.picker.record_tick(&recent, Instant::now());
        state.last_outcomes = all;
        if let Some((id, cause)) = ejected
            && let Some(target) = state.targets.iter().find(|t| t.id == id)
        {
            target.metrics.ejections.inc();
            let (endpoint, reason) = (&target.endpoint, cause.name());
            warn!(%endpoint, reason, "endpoint ejected by outlier detection");
            state.record(id, SelectionEvent::Ejected(reason));
        }
        self.publish(state);
    }

    /// Returns a number that changes with each change of [`Endpoints::shares`].
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Returns the endpoints that take calls under a balancing policy, with their weights.
    pub fn shares(&self) -> Vec<Share> {
        self.state.lock().shares.clone()
    }

    /// Returns every endpoint and its state, for the status page and metrics.
    pub fn endpoint_states(&self) -> Vec<(Arc<EndpointTarget>, EndpointState)> {
        let state = self.state.lock();
        let now = Instant::now();
        let endpoint_state =
            |t: &Arc<EndpointTarget>| Some((t.clone(), state.picker.state(t.id, now)?));
        state.targets.iter().filter_map(endpoint_state).collect()
    }

    /// Returns the last selection changes, the newest first.
    pub fn selection_history(&self) -> Vec<SelectionChange> {
        self.state.lock().history.all()
    }

    /// Copies the state of the picker to the fields that calls read without the lock.
    fn publish(&self, state: &mut State) {
        let number = state
            .picker
            .current()
            .map_or(NO_ENDPOINT, EndpointId::number);
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

/// Returns the sum of the call outcomes that all workers have counted for an endpoint.
fn outcomes(metrics: &EndpointMetrics) -> CallOutcomes {
    let mut outcomes = CallOutcomes::default();
    for worker in metrics.workers() {
        let steps = outcomes.answered.iter_mut().zip(&worker.latencies);
        steps.for_each(|(sum, count)| *sum = sum.wrapping_add(count.get()));
        outcomes.failed = outcomes.failed.wrapping_add(worker.failed.get());
        outcomes.open = outcomes.open.wrapping_add(worker.open_unary.get());
    }
    outcomes
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
    fn endpoints_in_both_lists_are_unchanged_and_removed_ones_disappear() {
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
        // The same list again is no change.
        endpoints.replace(list);
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn new_weights_apply_to_present_and_to_added_endpoints() {
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
        endpoints.set_weights(vec![("b:1".to_owned(), 3), ("c:1".to_owned(), 5)]);
        assert_eq!(weights(), [10, 30]);
        assert_ne!(endpoints.version(), version);
        endpoints.replace(["a:1", "b:1", "c:1"].map(endpoint).to_vec());
        assert_eq!(weights(), [10, 30, 50]);
    }

    #[test]
    fn the_list_is_never_empty_and_may_be_replaced_completely() {
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
        let ignored = endpoints.replace(many.collect());
        assert_eq!(ignored.len(), 399 - limits::MAX_ENDPOINTS);
        assert!(!endpoints.all().is_empty());
    }
}
