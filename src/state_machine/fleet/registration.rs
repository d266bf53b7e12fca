//! Registration of this proxy in etcd (N4): which request to send, and when.
//!
//! The proxy grants a lease, puts its key under the lease, and renews the lease at a third of its
//! TTL. Failed steps are repeated without end, with a growing pause. A lost lease is replaced, and
//! a deleted key is put again. At shutdown the lease is revoked, which deletes the key at once
//! (S2).
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
pub enum RegistrationStep {
    /// Grant a lease with this id.
    Grant(i64),
    /// Put the key under this lease.
    Put(i64),
    /// Renew this lease.
    Renew(i64),
    /// Revoke this lease.
    Revoke(i64),
}

/// Action for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationAction {
    /// Run this step with this timeout, then call [`Registration::finish_step`].
    Run(RegistrationStep, Duration),
    /// Wait until this time or the next input.
    Wait(Instant),
    /// Stop: the registration has ended.
    Finished,
}

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// Executed. A granted or renewed lease lives this long, counted from when the step was sent.
    Done(Duration),
    /// The lease does not exist.
    LeaseNotFound,
    /// Not known to be executed, with the reason.
    Failed(String),
}

/// Event for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationEvent {
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
    backoff_until: Option<Instant>,
    /// Time at which the current step was sent.
    sent: Instant,
    /// Time since which the key has been reported absent although it was put.
    absent_since: Option<Instant>,
    draining: bool,
    /// Reason why the proxy is not registered.
    reason: String,
    /// Last reported failure since the proxy was last registered, and the time of the report.
    reported: Option<(Instant, String)>,
    event: Option<RegistrationEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NoLease,
    Leased { lease: Lease, registered: bool },
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    id: i64,
    /// The lease may have expired from this time on.
    until: Instant,
    /// Time to renew the lease.
    renew: Instant,
}

impl Lease {
    fn new(id: i64, sent: Instant, lifetime: Duration) -> Lease {
        Lease {
            id,
            until: sent + lifetime,
            renew: sent + lifetime / 3,
        }
    }
}

impl Registration {
    /// Creates a registration that has not started.
    pub fn new(now: Instant) -> Registration {
        Registration {
            state: State::NoLease,
            failures: 0,
            backoff_until: None,
            sent: now,
            absent_since: None,
            draining: false,
            reason: "not registered yet".to_owned(),
            reported: None,
            event: None,
        }
    }

    /// Returns what to do now. `chance` is a random number.
    pub fn next_action(&mut self, now: Instant, chance: u64) -> RegistrationAction {
        self.apply_time(now);
        let step = match self.state {
            State::Finished => return RegistrationAction::Finished,
            State::NoLease if self.draining => {
                self.state = State::Finished;
                return RegistrationAction::Finished;
            }
            State::Leased { lease, .. } if self.draining => RegistrationStep::Revoke(lease.id),
            _ if let Some(until) = self.backoff_until.filter(|until| now < *until) => {
                return RegistrationAction::Wait(
                    self.lease_end().map_or(until, |end| until.min(end)),
                );
            }
            State::NoLease => RegistrationStep::Grant(lease_id(chance)),
            State::Leased { lease, .. } if now >= lease.renew => RegistrationStep::Renew(lease.id),
            State::Leased { lease, registered } if !registered => RegistrationStep::Put(lease.id),
            State::Leased { lease, .. } => {
                let missed = self
                    .absent_since
                    .map(|since| since + limits::FLEET_ABSENT_TIME);
                return RegistrationAction::Wait(
                    missed.map_or(lease.renew, |at| at.min(lease.renew)),
                );
            }
        };
        self.sent = now;
        let within = match (step, self.state) {
            (RegistrationStep::Revoke(_), _) => limits::FLEET_REVOKE_TIME,
            (RegistrationStep::Renew(_), State::Leased { lease, .. }) => {
                (lease.until - now).min(limits::FLEET_CALL_TIME)
            }
            _ => limits::FLEET_CALL_TIME,
        };
        RegistrationAction::Run(step, within)
    }

    /// Handles the result of a step. `chance` is a random number.
    pub fn finish_step(
        &mut self,
        step: RegistrationStep,
        outcome: StepOutcome,
        now: Instant,
        chance: u64,
    ) {
        match (step, outcome) {
            // The result does not matter: the lease expires by itself if it was not revoked.
            (RegistrationStep::Revoke(_), _) => self.state = State::Finished,
            (RegistrationStep::Grant(id), StepOutcome::Done(lifetime)) => {
                self.state = State::Leased {
                    lease: Lease::new(id, self.sent, lifetime),
                    registered: false,
                };
            }
            (RegistrationStep::Put(_), StepOutcome::Done(_)) => self.set_registered(),
            (RegistrationStep::Renew(id), StepOutcome::Done(lifetime)) => {
                self.set_renewed(id, lifetime)
            }
            (_, StepOutcome::LeaseNotFound) => {
                let was_registered = self.is_registered();
                self.state = State::NoLease;
                self.report_failure("the lease expired or was revoked".to_owned(), now);
                // A lease with a registered key is replaced at once. Otherwise it is a failure.
                if !was_registered {
                    self.start_backoff(now, chance);
                }
            }
            (_, StepOutcome::Failed(reason)) => {
                self.start_backoff(now, chance);
                if self.is_registered() {
                    // The lease is still valid. The failure is reported if the lease expires.
                    self.reason = reason;
                } else {
                    self.report_failure(reason, now);
                }
            }
        }
    }

    /// Records whether the key exists.
    ///
    /// The report may be late, so only a key that stays absent for [`limits::FLEET_ABSENT_TIME`] is
    /// put again.
    pub fn observe_key(&mut self, present: bool, now: Instant) {
        match present {
            true => self.absent_since = None,
            false => _ = self.absent_since.get_or_insert(now),
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
            State::Leased {
                registered: true,
                ..
            }
        )
    }

    /// Returns the lease, if there is one.
    pub fn lease(&self) -> Option<i64> {
        match self.state {
            State::Leased { lease, .. } => Some(lease.id),
            State::NoLease | State::Finished => None,
        }
    }

    /// Returns why the proxy is not registered.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the event to be logged, once.
    pub fn take_event(&mut self) -> Option<RegistrationEvent> {
        self.event.take()
    }

    /// Returns when the lease may have expired.
    fn lease_end(&self) -> Option<Instant> {
        match self.state {
            State::Leased { lease, .. } => Some(lease.until),
            State::NoLease | State::Finished => None,
        }
    }

    /// Applies the passing of time: an expired lease, a key that stays absent.
    fn apply_time(&mut self, now: Instant) {
        let State::Leased { lease, registered } = self.state else {
            return;
        };
        if now >= lease.until {
            self.state = State::NoLease;
            if registered {
                let reason = format!("the lease was not renewed in time: {}", self.reason);
                self.report_failure(reason, now);
            }
        } else if registered
            && self
                .absent_since
                .is_some_and(|since| now >= since + limits::FLEET_ABSENT_TIME)
        {
            self.absent_since = None;
            self.state = State::Leased {
                lease,
                registered: false,
            };
            self.report_failure("the registration key was deleted".to_owned(), now);
        }
    }

    fn set_registered(&mut self) {
        let State::Leased { lease, .. } = self.state else {
            return;
        };
        self.state = State::Leased {
            lease,
            registered: true,
        };
        self.failures = 0;
        self.backoff_until = None;
        self.absent_since = None;
        self.reason = "no response from etcd".to_owned();
        self.reported = None;
        self.event = Some(RegistrationEvent::Registered(lease.id));
    }

    fn set_renewed(&mut self, id: i64, lifetime: Duration) {
        let State::Leased { registered, .. } = self.state else {
            return;
        };
        self.state = State::Leased {
            lease: Lease::new(id, self.sent, lifetime),
            registered,
        };
        if registered {
            self.failures = 0;
        }
    }

    fn start_backoff(&mut self, now: Instant, chance: u64) {
        self.backoff_until = Some(now + backoff(self.failures, chance));
        self.failures = self.failures.saturating_add(1);
    }

    /// Reports the first failure, and a different one after [`limits::FLEET_WARN_INTERVAL`].
    fn report_failure(&mut self, reason: String, now: Instant) {
        let changed = match &self.reported {
            None => true,
            Some((at, reported)) => reason != *reported && now >= *at + limits::FLEET_WARN_INTERVAL,
        };
        if changed {
            self.reported = Some((now, reason.clone()));
            self.event = Some(RegistrationEvent::Failing(reason.clone()));
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
        fn expire(&mut self, now: Instant) {
            self.leases.retain(|_, until| now < *until);
            self.key = self.key.filter(|lease| self.leases.contains_key(lease));
        }

        fn do_step(&mut self, step: RegistrationStep, now: Instant) -> StepOutcome {
            self.expire(now);
            match step {
                RegistrationStep::Grant(lease) => {
                    self.leases.entry(lease).or_insert(now + TTL);
                }
                RegistrationStep::Put(lease) if self.leases.contains_key(&lease) => {
                    self.key = Some(lease)
                }
                RegistrationStep::Renew(lease) if self.leases.contains_key(&lease) => {
                    self.leases.insert(lease, now + TTL);
                }
                RegistrationStep::Revoke(lease) if self.leases.remove(&lease).is_some() => {}
                _ => return StepOutcome::LeaseNotFound,
            }
            self.expire(now);
            StepOutcome::Done(TTL)
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Link {
        Up,
        /// The request does not arrive.
        RequestLost,
        /// The request is executed and the response is lost.
        ResponseLost,
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
        link: Link,
        event: Event,
        millis: u64,
    }

    fn act() -> impl Strategy<Value = Act> {
        let link = prop_oneof![
            Just(Link::Up),
            Just(Link::RequestLost),
            Just(Link::ResponseLost)
        ];
        let event = prop_oneof![
            3 => Just(Event::None),
            1 => Just(Event::LeaseRevoked),
            1 => Just(Event::KeyDeleted),
            1 => Just(Event::Restored),
        ];
        (link, event, 1u64..9_000).prop_map(|(link, event, millis)| Act {
            link,
            event,
            millis,
        })
    }

    /// Registration with a simulated store and clock.
    struct Scene {
        etcd: Etcd,
        registration: Registration,
        now: Instant,
        chance: u64,
        steps: usize,
        events: Vec<RegistrationEvent>,
    }

    impl Scene {
        fn new() -> Scene {
            let now = Instant::now();
            Scene {
                etcd: Etcd::default(),
                registration: Registration::new(now),
                now,
                chance: 1,
                steps: 0,
                events: Vec::new(),
            }
        }

        fn run(&mut self, link: Link, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.etcd.expire(self.now);
                self.registration
                    .observe_key(self.etcd.key.is_some(), self.now);
                self.chance = self
                    .chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(3);
                match self.registration.next_action(self.now, self.chance) {
                    RegistrationAction::Finished => return,
                    // A real watch reports changes at least this fast.
                    RegistrationAction::Wait(until) => {
                        let report = self.now + Duration::from_millis(200);
                        self.now = until
                            .min(end)
                            .min(report)
                            .max(self.now + Duration::from_millis(1));
                    }
                    RegistrationAction::Run(step, within) => {
                        assert!(!within.is_zero());
                        self.steps += 1;
                        let outcome = match link {
                            Link::Up => self.etcd.do_step(step, self.now),
                            Link::RequestLost => StepOutcome::Failed("lost".to_owned()),
                            Link::ResponseLost => {
                                self.etcd.do_step(step, self.now);
                                StepOutcome::Failed("unknown".to_owned())
                            }
                        };
                        self.now += Duration::from_millis(5);
                        self.registration
                            .finish_step(step, outcome, self.now, self.chance);
                    }
                }
                self.events.extend(self.registration.take_event());
            }
        }

        fn is_consistent(&mut self) -> bool {
            self.etcd.expire(self.now);
            self.registration.is_registered() && self.etcd.key == self.registration.lease()
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
                scene.run(act.link, Duration::from_millis(act.millis));
                let seconds = (scene.now - began).as_secs() as usize + 1;
                prop_assert!(scene.steps <= 12 + 6 * seconds, "{} in {seconds} s", scene.steps);
            }
            scene.run(Link::Up, limits::BACKOFF_LONGEST * 2 + limits::FLEET_ABSENT_TIME);
            prop_assert!(scene.is_consistent(), "{:?}", scene.registration);
            // Still registered after many lease lifetimes.
            let steps = scene.steps;
            scene.run(Link::Up, TTL * 10);
            prop_assert!(scene.is_consistent());
            prop_assert!(scene.steps - steps <= 32);
            scene.registration.drain();
            scene.run(Link::Up, Duration::from_secs(1));
            prop_assert_eq!(scene.registration.next_action(scene.now, 0), RegistrationAction::Finished);
            scene.etcd.expire(scene.now);
            prop_assert_eq!(scene.etcd.key, None);
        }

        /// The proxy never reports a registration after its lease has expired by the clock.
        #[test]
        fn a_lease_that_is_not_renewed_ends_the_registration(millis in 1u64..20_000) {
            let mut scene = Scene::new();
            scene.run(Link::Up, Duration::from_secs(1));
            prop_assert!(scene.is_consistent());
            scene.run(Link::RequestLost, Duration::from_millis(millis));
            scene.etcd.expire(scene.now);
            scene.registration.next_action(scene.now, 0);
            prop_assert!(!scene.registration.is_registered() || scene.etcd.key.is_some());
        }
    }

    #[test]
    fn failure_and_success_are_logged_once() {
        let mut scene = Scene::new();
        scene.run(Link::RequestLost, Duration::from_secs(600));
        assert_eq!(
            scene.events,
            [RegistrationEvent::Failing("lost".to_owned())]
        );
        assert!(!scene.registration.is_registered());
        assert_eq!(scene.registration.reason(), "lost");
        scene.run(Link::Up, Duration::from_secs(10));
        assert!(matches!(scene.events[..], [_, RegistrationEvent::Registered(lease)] if lease > 0));
        // It fails again and is reported again, with the reason.
        scene.run(Link::RequestLost, Duration::from_secs(10));
        let failing =
            RegistrationEvent::Failing("the lease was not renewed in time: lost".to_owned());
        assert_eq!(scene.events[2..], [failing]);
        // A different failure, after the interval.
        scene.run(Link::ResponseLost, Duration::from_secs(120));
        assert_eq!(
            scene.events[3..],
            [RegistrationEvent::Failing("unknown".to_owned())]
        );
    }

    #[test]
    fn a_lost_lease_is_replaced_at_once() {
        let mut scene = Scene::new();
        scene.run(Link::Up, Duration::from_secs(1));
        let before = scene.registration.lease();
        scene.etcd.leases.clear();
        scene.run(
            Link::Up,
            limits::FLEET_ABSENT_TIME + Duration::from_millis(600),
        );
        assert!(scene.is_consistent());
        assert_ne!(scene.registration.lease(), before);
    }

    #[test]
    fn shutdown_does_not_wait_for_the_backoff() {
        let mut scene = Scene::new();
        scene.run(Link::RequestLost, Duration::from_secs(60));
        scene.registration.drain();
        assert_eq!(
            scene.registration.next_action(scene.now, 0),
            RegistrationAction::Finished
        );
        let mut scene = Scene::new();
        scene.run(Link::Up, Duration::from_secs(1));
        scene.registration.drain();
        let lease = scene.registration.lease().unwrap();
        let next = scene.registration.next_action(scene.now, 0);
        assert_eq!(
            next,
            RegistrationAction::Run(RegistrationStep::Revoke(lease), limits::FLEET_REVOKE_TIME)
        );
        // The outcome of the revocation does not matter.
        let outcome = StepOutcome::Failed("lost".to_owned());
        scene
            .registration
            .finish_step(RegistrationStep::Revoke(lease), outcome, scene.now, 0);
        assert_eq!(
            scene.registration.next_action(scene.now, 0),
            RegistrationAction::Finished
        );
    }

    #[test]
    fn lease_ids_are_valid_for_etcd() {
        for chance in [0, 1, 2, u64::MAX, u64::MAX - 1] {
            assert!(lease_id(chance) > 0);
        }
    }
}
