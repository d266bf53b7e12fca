//! Registration of this proxy in etcd (N4): which request to send, and when.
//!
//! The proxy grants a lease, puts its key under the lease, and renews the lease at a third of its TTL.
//! Failed steps are repeated without end, with a growing pause. A lost lease is replaced, and a
//! deleted key is put again. At shutdown the lease is revoked, which deletes the key at once (S2).
//!
//! Every step may be executed twice:
//! - The lease id is chosen here, so a second grant is refused because the lease exists.
//! - A put of the same key, value and lease has no further effect.
//! - A late step for a revoked lease is refused.
//!
//! So steps are retried like reads. A step of unknown outcome costs at most a lease without a key,
//! until that lease expires.

use std::time::{Duration, Instant};

use crate::limits;
use crate::state_machine::picker::backoff;

/// Request to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Grant a lease with this id.
    Grant(i64),
    /// Put the key under this lease.
    Put(i64),
    /// Renew this lease.
    Renew(i64),
    /// Revoke this lease.
    Revoke(i64),
}

/// What the driver does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run this step with this timeout, then call [`Registration::finish_step`].
    Do(Step, Duration),
    /// Wait until this time or the next input.
    Wait(Instant),
    /// Stop: the registration has ended.
    Over,
}

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Executed. A granted or renewed lease lives this long, counted from when the step was sent.
    Done(Duration),
    /// The lease does not exist.
    Gone,
    /// Not known to be executed, with the reason.
    Failed(String),
}

/// Event for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// The proxy is registered, under this lease.
    Registered(i64),
    /// The proxy is no longer registered, or cannot register, with the reason.
    Failing(String),
}

/// Registration of one proxy.
#[derive(Debug)]
pub struct Registration {
    state: State,
    /// Consecutive failures, for the backoff.
    failures: u32,
    /// End of the backoff.
    rests_until: Option<Instant>,
    /// When the current step was sent.
    asked: Instant,
    /// Since when the key has been reported absent although it was put.
    absent: Option<Instant>,
    draining: bool,
    /// Why the proxy is not registered.
    reason: String,
    /// Last reported failure since the proxy was last registered, and when it was reported.
    told: Option<(Instant, String)>,
    tell: Option<Tell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Without,
    With { lease: Lease, registered: bool },
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    id: i64,
    /// The lease may have expired from this time on.
    until: Instant,
    /// When to renew the lease.
    renew: Instant,
}

impl Lease {
    fn new(id: i64, asked: Instant, lives: Duration) -> Lease {
        Lease {
            id,
            until: asked + lives,
            renew: asked + lives / 3,
        }
    }
}

impl Registration {
    /// Creates a registration that has not started.
    pub fn new(now: Instant) -> Registration {
        Registration {
            state: State::Without,
            failures: 0,
            rests_until: None,
            asked: now,
            absent: None,
            draining: false,
            reason: "not registered yet".to_owned(),
            told: None,
            tell: None,
        }
    }

    /// Returns what to do now. `chance` is a random number.
    pub fn next(&mut self, now: Instant, chance: u64) -> Next {
        self.look(now);
        let step = match self.state {
            State::Over => return Next::Over,
            State::Without if self.draining => {
                self.state = State::Over;
                return Next::Over;
            }
            State::With { lease, .. } if self.draining => Step::Revoke(lease.id),
            _ if let Some(until) = self.rests_until.filter(|until| now < *until) => {
                return Next::Wait(self.end().map_or(until, |end| until.min(end)));
            }
            State::Without => Step::Grant(lease_id(chance)),
            State::With { lease, .. } if now >= lease.renew => Step::Renew(lease.id),
            State::With { lease, registered } if !registered => Step::Put(lease.id),
            State::With { lease, .. } => {
                let missed = self.absent.map(|since| since + limits::FLEET_ABSENT_TIME);
                return Next::Wait(missed.map_or(lease.renew, |at| at.min(lease.renew)));
            }
        };
        self.asked = now;
        let within = match (step, self.state) {
            (Step::Revoke(_), _) => limits::FLEET_REVOKE_TIME,
            (Step::Renew(_), State::With { lease, .. }) => {
                (lease.until - now).min(limits::FLEET_CALL_TIME)
            }
            _ => limits::FLEET_CALL_TIME,
        };
        Next::Do(step, within)
    }

    /// Handles the result of a step. `chance` is a random number.
    pub fn heard(&mut self, step: Step, outcome: Outcome, now: Instant, chance: u64) {
        match (step, outcome) {
            // The result does not matter: the lease expires by itself if it was not revoked.
            (Step::Revoke(_), _) => self.state = State::Over,
            (Step::Grant(id), Outcome::Done(lives)) => {
                self.state = State::With {
                    lease: Lease::new(id, self.asked, lives),
                    registered: false,
                };
            }
            (Step::Put(_), Outcome::Done(_)) => self.registered(),
            (Step::Renew(id), Outcome::Done(lives)) => self.renewed(id, lives),
            (_, Outcome::Gone) => {
                let was = self.is_registered();
                self.state = State::Without;
                self.lost("the lease expired or was revoked".to_owned(), now);
                // A lease with a registered key is replaced at once. Otherwise it is a failure.
                if !was {
                    self.rest(now, chance);
                }
            }
            (_, Outcome::Failed(reason)) => {
                self.rest(now, chance);
                if self.is_registered() {
                    // The lease is still valid. The failure is reported if the lease expires.
                    self.reason = reason;
                } else {
                    self.lost(reason, now);
                }
            }
        }
    }

    /// Records whether the key exists.
    ///
    /// The report may be late, so only a key that stays absent for [`limits::FLEET_ABSENT_TIME`] is
    /// put again.
    pub fn seen(&mut self, present: bool, now: Instant) {
        match present {
            true => self.absent = None,
            false => _ = self.absent.get_or_insert(now),
        }
    }

    /// Starts the shutdown: the lease is revoked, and nothing else is sent.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Returns whether the proxy is registered, as far as known.
    pub fn is_registered(&self) -> bool {
        matches!(
            self.state,
            State::With {
                registered: true,
                ..
            }
        )
    }

    /// Returns the lease, if there is one.
    pub fn lease(&self) -> Option<i64> {
        match self.state {
            State::With { lease, .. } => Some(lease.id),
            State::Without | State::Over => None,
        }
    }

    /// Returns why the proxy is not registered.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the event to be logged, once.
    pub fn take_tell(&mut self) -> Option<Tell> {
        self.tell.take()
    }

    /// Returns when the lease may have expired.
    fn end(&self) -> Option<Instant> {
        match self.state {
            State::With { lease, .. } => Some(lease.until),
            State::Without | State::Over => None,
        }
    }

    /// Applies the passing of time: an expired lease, a key that stays absent.
    fn look(&mut self, now: Instant) {
        let State::With { lease, registered } = self.state else {
            return;
        };
        if now >= lease.until {
            self.state = State::Without;
            if registered {
                let reason = format!("the lease was not renewed in time: {}", self.reason);
                self.lost(reason, now);
            }
        } else if registered
            && self
                .absent
                .is_some_and(|since| now >= since + limits::FLEET_ABSENT_TIME)
        {
            self.absent = None;
            self.state = State::With {
                lease,
                registered: false,
            };
            self.lost("the registration key was deleted".to_owned(), now);
        }
    }

    fn registered(&mut self) {
        let State::With { lease, .. } = self.state else {
            return;
        };
        self.state = State::With {
            lease,
            registered: true,
        };
        self.failures = 0;
        self.rests_until = None;
        self.absent = None;
        self.reason = "no response from etcd".to_owned();
        self.told = None;
        self.tell = Some(Tell::Registered(lease.id));
    }

    fn renewed(&mut self, id: i64, lives: Duration) {
        let State::With { registered, .. } = self.state else {
            return;
        };
        self.state = State::With {
            lease: Lease::new(id, self.asked, lives),
            registered,
        };
        if registered {
            self.failures = 0;
        }
    }

    fn rest(&mut self, now: Instant, chance: u64) {
        self.rests_until = Some(now + backoff(self.failures, chance));
        self.failures = self.failures.saturating_add(1);
    }

    /// Reports the first failure, and a different one after [`limits::FLEET_WARN_INTERVAL`].
    fn lost(&mut self, reason: String, now: Instant) {
        let news = match &self.told {
            None => true,
            Some((at, told)) => reason != *told && now >= *at + limits::FLEET_WARN_INTERVAL,
        };
        if news {
            self.told = Some((now, reason.clone()));
            self.tell = Some(Tell::Failing(reason.clone()));
        }
        self.reason = reason;
    }
}

/// Returns a positive lease id. With 0, etcd would choose the id.
fn lease_id(chance: u64) -> i64 {
    ((chance >> 1) as i64).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(6);

    /// Simulated store with one key, and leases that expire by the clock.
    #[derive(Default)]
    struct Etcd {
        leases: HashMap<i64, Instant>,
        key: Option<i64>,
    }

    impl Etcd {
        fn pass(&mut self, now: Instant) {
            self.leases.retain(|_, until| now < *until);
            self.key = self.key.filter(|lease| self.leases.contains_key(lease));
        }

        fn do_step(&mut self, step: Step, now: Instant) -> Outcome {
            self.pass(now);
            match step {
                Step::Grant(lease) => {
                    self.leases.entry(lease).or_insert(now + TTL);
                }
                Step::Put(lease) if self.leases.contains_key(&lease) => self.key = Some(lease),
                Step::Renew(lease) if self.leases.contains_key(&lease) => {
                    self.leases.insert(lease, now + TTL);
                }
                Step::Revoke(lease) if self.leases.remove(&lease).is_some() => {}
                _ => return Outcome::Gone,
            }
            self.pass(now);
            Outcome::Done(TTL)
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Way {
        Open,
        /// The request does not arrive.
        Lost,
        /// The request is executed and the response is lost.
        Unknown,
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        None,
        LeaseRevoked,
        KeyDeleted,
        Restored,
    }

    #[derive(Debug, Clone)]
    struct Act {
        way: Way,
        event: Event,
        millis: u64,
    }

    fn act() -> impl Strategy<Value = Act> {
        let way = prop_oneof![Just(Way::Open), Just(Way::Lost), Just(Way::Unknown)];
        let event = prop_oneof![
            3 => Just(Event::None),
            1 => Just(Event::LeaseRevoked),
            1 => Just(Event::KeyDeleted),
            1 => Just(Event::Restored),
        ];
        (way, event, 1u64..9_000).prop_map(|(way, event, millis)| Act { way, event, millis })
    }

    /// Registration with a simulated store and clock.
    struct Scene {
        etcd: Etcd,
        machine: Registration,
        now: Instant,
        chance: u64,
        steps: usize,
        tells: Vec<Tell>,
    }

    impl Scene {
        fn new() -> Scene {
            let now = Instant::now();
            Scene {
                etcd: Etcd::default(),
                machine: Registration::new(now),
                now,
                chance: 1,
                steps: 0,
                tells: Vec::new(),
            }
        }

        fn play(&mut self, way: Way, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.etcd.pass(self.now);
                self.machine.seen(self.etcd.key.is_some(), self.now);
                self.chance = self
                    .chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(3);
                match self.machine.next(self.now, self.chance) {
                    Next::Over => return,
                    // A real watch reports changes at least this fast.
                    Next::Wait(until) => {
                        let report = self.now + Duration::from_millis(200);
                        self.now = until
                            .min(end)
                            .min(report)
                            .max(self.now + Duration::from_millis(1));
                    }
                    Next::Do(step, within) => {
                        assert!(!within.is_zero());
                        self.steps += 1;
                        let outcome = match way {
                            Way::Open => self.etcd.do_step(step, self.now),
                            Way::Lost => Outcome::Failed("lost".to_owned()),
                            Way::Unknown => {
                                self.etcd.do_step(step, self.now);
                                Outcome::Failed("unknown".to_owned())
                            }
                        };
                        self.now += Duration::from_millis(5);
                        self.machine.heard(step, outcome, self.now, self.chance);
                    }
                }
                self.tells.extend(self.machine.take_tell());
            }
        }

        fn is_right(&mut self) -> bool {
            self.etcd.pass(self.now);
            self.machine.is_registered() && self.etcd.key == self.machine.lease()
        }
    }

    proptest! {
        /// After any events the proxy registers once etcd answers, sends few requests meanwhile,
        /// and leaves no key after the shutdown.
        #[test]
        fn recovers_and_cleans_up(acts in prop::collection::vec(act(), 0..12)) {
            let mut scene = Scene::new();
            let began = scene.now;
            for act in acts {
                match act.event {
                    Event::None => {}
                    Event::LeaseRevoked => scene.etcd.leases.clear(),
                    Event::KeyDeleted => scene.etcd.key = None,
                    Event::Restored => scene.etcd = Etcd::default(),
                }
                scene.play(act.way, Duration::from_millis(act.millis));
                let seconds = (scene.now - began).as_secs() as usize + 1;
                prop_assert!(scene.steps <= 12 + 6 * seconds, "{} in {seconds} s", scene.steps);
            }
            scene.play(Way::Open, limits::BACKOFF_LONGEST * 2 + limits::FLEET_ABSENT_TIME);
            prop_assert!(scene.is_right(), "{:?}", scene.machine);
            // Still registered after many lease lifetimes.
            let steps = scene.steps;
            scene.play(Way::Open, TTL * 10);
            prop_assert!(scene.is_right());
            prop_assert!(scene.steps - steps <= 32);
            scene.machine.drain();
            scene.play(Way::Open, Duration::from_secs(1));
            prop_assert_eq!(scene.machine.next(scene.now, 0), Next::Over);
            scene.etcd.pass(scene.now);
            prop_assert_eq!(scene.etcd.key, None);
        }

        /// The proxy never reports a registration whose lease has expired by the clock.
        #[test]
        fn a_lease_that_is_not_renewed_ends_the_registration(millis in 1u64..20_000) {
            let mut scene = Scene::new();
            scene.play(Way::Open, Duration::from_secs(1));
            prop_assert!(scene.is_right());
            scene.play(Way::Lost, Duration::from_millis(millis));
            scene.etcd.pass(scene.now);
            scene.machine.next(scene.now, 0);
            prop_assert!(!scene.machine.is_registered() || scene.etcd.key.is_some());
        }
    }

    #[test]
    fn failure_and_success_are_logged_once() {
        let mut scene = Scene::new();
        scene.play(Way::Lost, Duration::from_secs(600));
        assert_eq!(scene.tells, [Tell::Failing("lost".to_owned())]);
        assert!(!scene.machine.is_registered());
        assert_eq!(scene.machine.reason(), "lost");
        scene.play(Way::Open, Duration::from_secs(10));
        assert!(matches!(scene.tells[..], [_, Tell::Registered(lease)] if lease > 0));
        // It fails again and is reported again, with the reason.
        scene.play(Way::Lost, Duration::from_secs(10));
        let failing = Tell::Failing("the lease was not renewed in time: lost".to_owned());
        assert_eq!(scene.tells[2..], [failing]);
        // A different failure, after the interval.
        scene.play(Way::Unknown, Duration::from_secs(120));
        assert_eq!(scene.tells[3..], [Tell::Failing("unknown".to_owned())]);
    }

    #[test]
    fn a_lost_lease_is_replaced_at_once() {
        let mut scene = Scene::new();
        scene.play(Way::Open, Duration::from_secs(1));
        let before = scene.machine.lease();
        scene.etcd.leases.clear();
        scene.play(
            Way::Open,
            limits::FLEET_ABSENT_TIME + Duration::from_millis(600),
        );
        assert!(scene.is_right());
        assert_ne!(scene.machine.lease(), before);
    }

    #[test]
    fn shutdown_does_not_wait_for_the_backoff() {
        let mut scene = Scene::new();
        scene.play(Way::Lost, Duration::from_secs(60));
        scene.machine.drain();
        assert_eq!(scene.machine.next(scene.now, 0), Next::Over);
        let mut scene = Scene::new();
        scene.play(Way::Open, Duration::from_secs(1));
        scene.machine.drain();
        let lease = scene.machine.lease().unwrap();
        let next = scene.machine.next(scene.now, 0);
        assert_eq!(
            next,
            Next::Do(Step::Revoke(lease), limits::FLEET_REVOKE_TIME)
        );
        // The outcome of the revocation does not matter.
        let outcome = Outcome::Failed("lost".to_owned());
        scene
            .machine
            .heard(Step::Revoke(lease), outcome, scene.now, 0);
        assert_eq!(scene.machine.next(scene.now, 0), Next::Over);
    }

    #[test]
    fn lease_ids_are_valid_for_etcd() {
        for chance in [0, 1, 2, u64::MAX, u64::MAX - 1] {
            assert!(lease_id(chance) > 0);
        }
    }
}
