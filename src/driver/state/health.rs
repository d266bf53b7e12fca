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
pub type Outcome = Result<(), Arc<str>>;

/// One for the process.
#[derive(Debug)]
pub struct Health {
    /// The linearizable read.
    pub(in crate::driver) read: Question,
    /// The watch.
    pub(in crate::driver) watch: Question,
    /// Whether calls are served, for those who wait for a change; `None` until that is known.
    serves: watch::Sender<Option<bool>>,
    steady: Mutex<Steady>,
    /// Those who wait for changes.
    followers: AtomicUsize,
    /// Somebody looks for them.
    looks: Mutex<bool>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            read: Question::default(),
            watch: Question::default(),
            serves: watch::Sender::new(None),
            steady: Mutex::default(),
            followers: AtomicUsize::new(0),
            looks: Mutex::new(false),
        }
    }
}

impl Health {
    /// A read of etcd went so.
    pub(in crate::driver) fn note(&self, well: bool) {
        let Some(serves) = self.steady.lock().went(well, limits::HEALTH_FAILURES) else {
            return;
        };
        self.serves.send_if_modified(|said| {
            let changed = *said != Some(serves);
            *said = Some(serves);
            changed
        });
    }

    /// Whether calls are served, and its changes.
    pub(in crate::driver) fn serves(&self) -> watch::Receiver<Option<bool>> {
        self.serves.subscribe()
    }
}

/// One that waits for changes; there are [`limits::HEALTH_FOLLOWERS`] at most, and
/// [`limits::HEALTH_FOLLOWERS_OF_ONE`] of one connection.
pub(in crate::driver) struct Follower {
    health: Arc<Health>,
    peer: Rc<ClientConnection>,
}

impl Follower {
    /// `None` when there are enough of them.
    pub(in crate::driver) fn new(
        health: &Arc<Health>,
        peer: &Rc<ClientConnection>,
    ) -> Option<Follower> {
        let before = health.followers.fetch_add(1, Ordering::Relaxed);
        let own = peer.followers.get();
        peer.followers.set(own + 1);
        let follower = Follower {
            health: health.clone(),
            peer: peer.clone(),
        };
        let has_room = before < limits::HEALTH_FOLLOWERS && own < limits::HEALTH_FOLLOWERS_OF_ONE;
        // Dropped, and counted back, where it is one too many.
        has_room.then_some(follower)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.health.followers.fetch_sub(1, Ordering::Relaxed);
        self.peer.followers.set(self.peer.followers.get() - 1);
    }
}

/// Who looks at etcd's health for all that wait for changes, one in the process.
pub(in crate::driver) struct Looker {
    health: Arc<Health>,
    looks: Cell<bool>,
}

impl Looker {
    /// `None` while another does.
    pub(in crate::driver) fn new(health: &Arc<Health>) -> Option<Looker> {
        let was = std::mem::replace(&mut *health.looks.lock(), true);
        (!was).then(|| Looker {
            health: health.clone(),
            looks: Cell::new(true),
        })
    }

    /// Whether to go on: no more once nobody waits. Who comes after that begins to look anew.
    pub(in crate::driver) fn goes_on(&self) -> bool {
        let mut looks = self.health.looks.lock();
        *looks = self.health.followers.load(Ordering::Relaxed) > 0;
        self.looks.set(*looks);
        *looks
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        // Where it has not stopped by itself, its worker has ended. Afterwards it may be another's.
        if self.looks.get() {
            *self.health.looks.lock() = false;
        }
    }
}

/// A question to etcd that many may have at the same time.
#[derive(Debug)]
pub(in crate::driver) struct Question {
    probe: Mutex<Probe<Outcome>>,
    /// What was said, for those who wait; `None` when nobody is left to say it.
    said: watch::Sender<Option<Outcome>>,
}

impl Default for Question {
    fn default() -> Question {
        Question {
            probe: Mutex::default(),
            said: watch::Sender::new(None),
        }
    }
}

impl Question {
    /// What etcd says, or said a moment ago. `find` finds this question again for the task that asks:
    /// whoever waits may leave, and the others are to be told all the same.
    pub(in crate::driver) async fn ask<F>(
        health: &Arc<Health>,
        find: fn(&Health) -> &Question,
        asks: impl Fn() -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + 'static,
    {
        let question = find(health);
        loop {
            // Before the look: what is said after it is heard.
            let mut said = question.said.subscribe();
            let ask = question.probe.lock().ask(Instant::now());
            match ask {
                Ask::Known(outcome) => return outcome,
                Ask::Wait => {}
                Ask::Begin => {
                    let asking = Asking {
                        health: health.clone(),
                        find,
                        outcome: None,
                    };
                    tokio::task::spawn_local(asking.hear(asks()));
                }
            }
            // The sender lives as long as this.
            let _ = said.changed().await;
            if let Some(outcome) = &*said.borrow() {
                return outcome.clone();
            }
        }
    }

    fn end(&self, outcome: Option<Outcome>) {
        let mut probe = self.probe.lock();
        match outcome.clone() {
            None => probe.gave_up(),
            Some(outcome) => {
                let counts = counts(&outcome);
                probe.said(outcome, Instant::now(), counts);
            }
        }
        drop(probe);
        self.said.send_replace(outcome);
    }
}

/// How long an outcome counts.
fn counts(outcome: &Outcome) -> Duration {
    match outcome {
        Ok(()) => limits::HEALTH_KEPT,
        Err(_) => limits::HEALTH_FAILURE_KEPT,
    }
}

/// Etcd is being asked. Dropped early, as when its worker ends, the others ask.
struct Asking {
    health: Arc<Health>,
    find: fn(&Health) -> &Question,
    outcome: Option<Outcome>,
}

impl Asking {
    async fn hear(mut self, says: impl Future<Output = Outcome>) {
        self.outcome = Some(says.await);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        (self.find)(&self.health).end(self.outcome.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_follow_and_one_looks_for_them() {
        let health = Arc::new(Health::default());
        let few = limits::HEALTH_FOLLOWERS / limits::HEALTH_FOLLOWERS_OF_ONE;
        let number = u64::try_from(few).unwrap();
        let peers: Vec<_> = (0..=number)
            .map(|n| Rc::new(ClientConnection::new(n, None)))
            .collect();
        // One connection has its share, and no more.
        let own: Vec<_> = (0..limits::HEALTH_FOLLOWERS)
            .filter_map(|_| Follower::new(&health, &peers[0]))
            .collect();
        assert_eq!(own.len(), limits::HEALTH_FOLLOWERS_OF_ONE);
        drop(own);
        // All together have theirs, whoever they are.
        let follower = || peers.iter().find_map(|peer| Follower::new(&health, peer));
        let mut all: Vec<_> = (0..limits::HEALTH_FOLLOWERS)
            .filter_map(|_| follower())
            .collect();
        assert_eq!(all.len(), limits::HEALTH_FOLLOWERS);
        assert!(follower().is_none() && follower().is_none());
        all.pop();
        all.extend(follower());
        assert_eq!(all.len(), limits::HEALTH_FOLLOWERS);
        assert!(follower().is_none());

        let looker = Looker::new(&health).expect("nobody looks");
        assert!(looker.goes_on() && Looker::new(&health).is_none());
        all.clear();
        assert!(!looker.goes_on());
        // It is another's turn before the first is quite gone.
        let other = Looker::new(&health).expect("nobody looks");
        drop(looker);
        assert!(Looker::new(&health).is_none());
        drop(other);
        assert!(Looker::new(&health).is_some());
    }
}
