//! Health of the proxy for all workers, and the streams subscribed to its changes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::driver::state::check_report::{CheckOutcome, CheckReport};
use crate::driver::state::connection::ClientConnection;
use crate::limits;
use crate::state_machine::health::{FailureThreshold, Probe, ProbeDecision};

/// Health state of the process.
#[derive(Debug)]
pub struct Health {
    /// Check by a linearizable read.
    pub(in crate::driver) read: SharedCheck,
    /// Check by a watch.
    pub(in crate::driver) watch: SharedCheck,
    /// Checks of `/livez` of etcd.
    pub(in crate::driver) livez: SharedCheck<CheckReport>,
    /// Checks of `/readyz` of etcd.
    pub(in crate::driver) readyz: SharedCheck<CheckReport>,
    /// Health for subscribers; `None` until it is known.
    healthy: watch::Sender<Option<bool>>,
    steady: Mutex<FailureThreshold>,
    /// Number of subscribers.
    subscribers: AtomicUsize,
    /// A poller runs.
    polling: Mutex<bool>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            read: SharedCheck::default(),
            watch: SharedCheck::default(),
            livez: SharedCheck::default(),
            readyz: SharedCheck::default(),
            healthy: watch::Sender::new(None),
            steady: Mutex::default(),
            subscribers: AtomicUsize::new(0),
            polling: Mutex::new(false),
        }
    }
}

impl Health {
    /// Records the result of a read of etcd.
    pub(in crate::driver) fn record_read(&self, ok: bool) {
        let decision = self.steady.lock().record(ok, limits::HEALTH_FAILURES);
        if let Some(healthy) = decision {
            self.publish(healthy);
        }
    }

    /// Records that no endpoint is reachable. Subscribers are notified at once.
    pub(in crate::driver) fn record_outage(&self) {
        self.steady.lock().record_outage(limits::HEALTH_FAILURES);
        self.publish(false);
    }

    fn publish(&self, healthy: bool) {
        self.healthy.send_if_modified(|current| {
            let changed = *current != Some(healthy);
            *current = Some(healthy);
            changed
        });
    }

    /// Returns a receiver of the current health and its changes.
    pub(in crate::driver) fn subscribe(&self) -> watch::Receiver<Option<bool>> {
        self.healthy.subscribe()
    }
}

/// Subscription of one client stream to health changes. The process has at most
/// [`limits::HEALTH_WATCHES`], a connection at most [`limits::HEALTH_WATCHES_PER_CONNECTION`].
pub(in crate::driver) struct HealthSubscriber {
    health: Arc<Health>,
    connection: Rc<ClientConnection>,
}

impl HealthSubscriber {
    /// Returns `None` if there are too many subscriptions.
    pub(in crate::driver) fn new(
        health: &Arc<Health>,
        connection: &Rc<ClientConnection>,
    ) -> Option<HealthSubscriber> {
        let before = health.subscribers.fetch_add(1, Ordering::Relaxed);
        let of_connection = connection.health_subscribers.get();
        connection.health_subscribers.set(of_connection + 1);
        let subscriber = HealthSubscriber {
            health: health.clone(),
            connection: connection.clone(),
        };
        let has_capacity = before < limits::HEALTH_WATCHES
            && of_connection < limits::HEALTH_WATCHES_PER_CONNECTION;
        // Beyond the limit the new subscription is dropped, which restores both counts.
        has_capacity.then_some(subscriber)
    }
}

impl Drop for HealthSubscriber {
    fn drop(&mut self) {
        self.health.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.connection
            .health_subscribers
            .set(self.connection.health_subscribers.get() - 1);
    }
}

/// Right to poll etcd's health for all subscribers. There is at most one in the process.
pub(in crate::driver) struct HealthPoller {
    health: Arc<Health>,
    active: Cell<bool>,
}

impl HealthPoller {
    /// Returns `None` while another poller runs.
    pub(in crate::driver) fn new(health: &Arc<Health>) -> Option<HealthPoller> {
        let already_polling = std::mem::replace(&mut *health.polling.lock(), true);
        (!already_polling).then(|| HealthPoller {
            health: health.clone(),
            active: Cell::new(true),
        })
    }

    /// Returns whether to continue; false once there are no subscribers. A later subscriber starts
    /// a new poller.
    pub(in crate::driver) fn should_continue(&self) -> bool {
        let mut polling = self.health.polling.lock();
        *polling = self.health.subscribers.load(Ordering::Relaxed) > 0;
        self.active.set(*polling);
        *polling
    }
}

impl Drop for HealthPoller {
    fn drop(&mut self) {
        // Still active: its worker has ended. If not active, the flag may belong to another poller.
        if self.active.get() {
            *self.health.polling.lock() = false;
        }
    }
}

/// Result of a [`SharedCheck`].
pub(in crate::driver) trait Outcome: Clone + 'static {
    /// Returns whether the check succeeded.
    fn is_success(&self) -> bool;
}

impl Outcome for CheckOutcome {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

impl Outcome for CheckReport {
    fn is_success(&self) -> bool {
        self.is_success()
    }
}

/// Check of etcd; all concurrent callers share its result.
#[derive(Debug)]
pub(in crate::driver) struct SharedCheck<T = CheckOutcome> {
    probe: Mutex<Probe<T>>,
    /// Latest result, for waiting callers; `None` if the check was dropped without a result.
    outcome: watch::Sender<Option<T>>,
}

impl<T> Default for SharedCheck<T> {
    fn default() -> SharedCheck<T> {
        SharedCheck {
            probe: Mutex::new(Probe::default()),
            outcome: watch::Sender::new(None),
        }
    }
}

impl<T: Outcome> SharedCheck<T> {
    /// Returns the result of a check of etcd, or a recent result.
    ///
    /// `check` starts a check, in a task of its own: if a caller leaves, the other callers still
    /// need the result. `select` finds this value in the health state for that task.
    pub(in crate::driver) async fn run<F>(
        health: &Arc<Health>,
        select: fn(&Health) -> &SharedCheck<T>,
        check: impl Fn() -> F,
    ) -> T
    where
        F: Future<Output = T> + 'static,
    {
        let shared_check = select(health);
        loop {
            // Subscribe before the state is read, so that no later result is missed.
            let mut outcome = shared_check.outcome.subscribe();
            let decision = shared_check.probe.lock().request(Instant::now());
            match decision {
                ProbeDecision::Known(outcome) => return outcome,
                ProbeDecision::Wait => {}
                ProbeDecision::Start => {
                    let running = RunningCheck {
                        health: health.clone(),
                        select,
                        outcome: None,
                    };
                    tokio::task::spawn_local(running.run(check()));
                }
            }
            // No error: the sender lives as long as this value.
            let _ = outcome.changed().await;
            if let Some(outcome) = &*outcome.borrow() {
                return outcome.clone();
            }
        }
    }

    fn end(&self, outcome: Option<T>) {
        let mut probe = self.probe.lock();
        match outcome.clone() {
            None => probe.cancel(),
            Some(outcome) => {
                let valid_for = valid_for(&outcome);
                probe.set_result(outcome, Instant::now(), valid_for);
            }
        }
        drop(probe);
        self.outcome.send_replace(outcome);
    }
}

/// Returns how long a result is valid.
fn valid_for(outcome: &impl Outcome) -> Duration {
    match outcome.is_success() {
        true => limits::HEALTH_TTL,
        false => limits::HEALTH_FAILURE_TTL,
    }
}

/// A running check. If it is dropped early, for example because its worker ends, a waiting caller
/// starts another.
struct RunningCheck<T: Outcome> {
    health: Arc<Health>,
    select: fn(&Health) -> &SharedCheck<T>,
    outcome: Option<T>,
}

impl<T: Outcome> RunningCheck<T> {
    async fn run(mut self, check: impl Future<Output = T>) {
        self.outcome = Some(check.await);
    }
}

impl<T: Outcome> Drop for RunningCheck<T> {
    fn drop(&mut self) {
        (self.select)(&self.health).end(self.outcome.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_are_bounded_and_share_one_poller() {
        let health = Arc::new(Health::default());
        let few = limits::HEALTH_WATCHES / limits::HEALTH_WATCHES_PER_CONNECTION;
        let number = u64::try_from(few).unwrap();
        let connections: Vec<_> = (0..=number)
            .map(|n| Rc::new(ClientConnection::new(n, None)))
            .collect();
        // One connection has at most its limit.
        let of_connection: Vec<_> = (0..limits::HEALTH_WATCHES)
            .filter_map(|_| HealthSubscriber::new(&health, &connections[0]))
            .collect();
        assert_eq!(of_connection.len(), limits::HEALTH_WATCHES_PER_CONNECTION);
        drop(of_connection);
        // All connections together have at most the limit of the process.
        let subscriber = || {
            connections
                .iter()
                .find_map(|connection| HealthSubscriber::new(&health, connection))
        };
        let mut all: Vec<_> = (0..limits::HEALTH_WATCHES)
            .filter_map(|_| subscriber())
            .collect();
        assert_eq!(all.len(), limits::HEALTH_WATCHES);
        assert!(subscriber().is_none() && subscriber().is_none());
        all.pop();
        all.extend(subscriber());
        assert_eq!(all.len(), limits::HEALTH_WATCHES);
        assert!(subscriber().is_none());

        let poller = HealthPoller::new(&health).expect("no poller runs");
        assert!(poller.should_continue() && HealthPoller::new(&health).is_none());
        all.clear();
        assert!(!poller.should_continue());
        // A new poller starts before the first is dropped.
        let other = HealthPoller::new(&health).expect("no poller runs");
        drop(poller);
        assert!(HealthPoller::new(&health).is_none());
        drop(other);
        assert!(HealthPoller::new(&health).is_some());
    }
}
