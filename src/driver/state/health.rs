//! What is known of the proxy's health, for all workers, and who waits to hear it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::driver::state::connection::ClientConnection;
use crate::limits;
use crate::state_machine::health::{Ask, Probe, Steady};

/// How a look at etcd went; on failure the reason.
pub type CheckOutcome = Result<(), Arc<str>>;

/// One for the process.
#[derive(Debug)]
pub struct Health {
    /// The linearizable read.
    pub(in crate::driver) read: SharedCheck,
    /// The watch.
    pub(in crate::driver) watch: SharedCheck,
    /// Whether calls are served, for those who wait for a change; `None` until that is known.
    healthy: watch::Sender<Option<bool>>,
    steady: Mutex<Steady>,
    /// Those who wait for changes.
    subscribers: AtomicUsize,
    /// Somebody looks for them.
    polling: Mutex<bool>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            read: SharedCheck::default(),
            watch: SharedCheck::default(),
            healthy: watch::Sender::new(None),
            steady: Mutex::default(),
            subscribers: AtomicUsize::new(0),
            polling: Mutex::new(false),
        }
    }
}

impl Health {
    /// A read of etcd went so.
    pub(in crate::driver) fn record_read(&self, ok: bool) {
        let Some(healthy) = self.steady.lock().went(ok, limits::HEALTH_FAILURES) else {
            return;
        };
        self.healthy.send_if_modified(|outcome| {
            let changed = *outcome != Some(healthy);
            *outcome = Some(healthy);
            changed
        });
    }

    /// Whether calls are served, and its changes.
    pub(in crate::driver) fn subscribe(&self) -> watch::Receiver<Option<bool>> {
        self.healthy.subscribe()
    }
}

/// One that waits for changes; there are [`limits::HEALTH_WATCHES`] at most, and
/// [`limits::HEALTH_WATCHES_PER_CONNECTION`] of one connection.
pub(in crate::driver) struct HealthSubscriber {
    health: Arc<Health>,
    connection: Rc<ClientConnection>,
}

impl HealthSubscriber {
    /// `None` when there are enough of them.
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
        let has_capacity = before < limits::HEALTH_WATCHES && of_connection < limits::HEALTH_WATCHES_PER_CONNECTION;
        // Dropped, and counted back, where it is one too many.
        has_capacity.then_some(subscriber)
    }
}

impl Drop for HealthSubscriber {
    fn drop(&mut self) {
        self.health.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.connection.health_subscribers.set(self.connection.health_subscribers.get() - 1);
    }
}

/// Who looks at etcd's health for all that wait for changes, one in the process.
pub(in crate::driver) struct HealthPoller {
    health: Arc<Health>,
    active: Cell<bool>,
}

impl HealthPoller {
    /// `None` while another does.
    pub(in crate::driver) fn new(health: &Arc<Health>) -> Option<HealthPoller> {
        let was = std::mem::replace(&mut *health.polling.lock(), true);
        (!was).then(|| HealthPoller {
            health: health.clone(),
            active: Cell::new(true),
        })
    }

    /// Whether to go on: no more once nobody waits. Who comes after that begins to look anew.
    pub(in crate::driver) fn should_continue(&self) -> bool {
        let mut polling = self.health.polling.lock();
        *polling = self.health.subscribers.load(Ordering::Relaxed) > 0;
        self.active.set(*polling);
        *polling
    }
}

impl Drop for HealthPoller {
    fn drop(&mut self) {
        // Where it has not stopped by itself, its worker has ended. Afterwards it may be another's.
        if self.active.get() {
            *self.health.polling.lock() = false;
        }
    }
}

/// A question to etcd that many may have at the same time.
#[derive(Debug)]
pub(in crate::driver) struct SharedCheck {
    probe: Mutex<Probe<CheckOutcome>>,
    /// What was said, for those who wait; `None` when nobody is left to say it.
    outcome: watch::Sender<Option<CheckOutcome>>,
}

impl Default for SharedCheck {
    fn default() -> SharedCheck {
        SharedCheck {
            probe: Mutex::default(),
            outcome: watch::Sender::new(None),
        }
    }
}

impl SharedCheck {
    /// What etcd says, or said a moment ago. `find` finds this question again for the task that asks:
    /// whoever waits may leave, and the others are to be told all the same.
    pub(in crate::driver) async fn run<F>(
        health: &Arc<Health>,
        select: fn(&Health) -> &SharedCheck,
        check: impl Fn() -> F,
    ) -> CheckOutcome
    where
        F: Future<Output = CheckOutcome> + 'static,
    {
        let shared_check = select(health);
        loop {
            // Before the look: what is said after it is heard.
            let mut outcome = shared_check.outcome.subscribe();
            let ask = shared_check.probe.lock().ask(Instant::now());
            match ask {
                Ask::Known(outcome) => return outcome,
                Ask::Wait => {}
                Ask::Begin => {
                    let running = RunningCheck {
                        health: health.clone(),
                        select,
                        outcome: None,
                    };
                    tokio::task::spawn_local(running.run(check()));
                }
            }
            // The sender lives as long as this.
            let _ = outcome.changed().await;
            if let Some(outcome) = &*outcome.borrow() {
                return outcome.clone();
            }
        }
    }

    fn end(&self, outcome: Option<CheckOutcome>) {
        let mut probe = self.probe.lock();
        match outcome.clone() {
            None => probe.gave_up(),
            Some(outcome) => {
                let valid_for = valid_for(&outcome);
                probe.said(outcome, Instant::now(), valid_for);
            }
        }
        drop(probe);
        self.outcome.send_replace(outcome);
    }
}

/// How long an outcome counts.
fn valid_for(outcome: &CheckOutcome) -> Duration {
    match outcome {
        Ok(()) => limits::HEALTH_TTL,
        Err(_) => limits::HEALTH_FAILURE_TTL,
    }
}

/// Etcd is being asked. Dropped early, as when its worker ends, the others ask.
struct RunningCheck {
    health: Arc<Health>,
    select: fn(&Health) -> &SharedCheck,
    outcome: Option<CheckOutcome>,
}

impl RunningCheck {
    async fn run(mut self, check: impl Future<Output = CheckOutcome>) {
        self.outcome = Some(check.await);
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        (self.select)(&self.health).end(self.outcome.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_follow_and_one_looks_for_them() {
        let health = Arc::new(Health::default());
        let few = limits::HEALTH_WATCHES / limits::HEALTH_WATCHES_PER_CONNECTION;
        let number = u64::try_from(few).unwrap();
        let connections: Vec<_> = (0..=number)
            .map(|n| Rc::new(ClientConnection::new(n, None)))
            .collect();
        // One connection has its share, and no more.
        let of_connection: Vec<_> = (0..limits::HEALTH_WATCHES)
            .filter_map(|_| HealthSubscriber::new(&health, &connections[0]))
            .collect();
        assert_eq!(of_connection.len(), limits::HEALTH_WATCHES_PER_CONNECTION);
        drop(of_connection);
        // All together have theirs, whoever they are.
        let subscriber = || connections.iter().find_map(|connection| HealthSubscriber::new(&health, connection));
        let mut all: Vec<_> = (0..limits::HEALTH_WATCHES)
            .filter_map(|_| subscriber())
            .collect();
        assert_eq!(all.len(), limits::HEALTH_WATCHES);
        assert!(subscriber().is_none() && subscriber().is_none());
        all.pop();
        all.extend(subscriber());
        assert_eq!(all.len(), limits::HEALTH_WATCHES);
        assert!(subscriber().is_none());

        let poller = HealthPoller::new(&health).expect("nobody looks");
        assert!(poller.should_continue() && HealthPoller::new(&health).is_none());
        all.clear();
        assert!(!poller.should_continue());
        // It is another's turn before the first is quite gone.
        let other = HealthPoller::new(&health).expect("nobody looks");
        drop(poller);
        assert!(HealthPoller::new(&health).is_none());
        drop(other);
        assert!(HealthPoller::new(&health).is_some());
    }
}
