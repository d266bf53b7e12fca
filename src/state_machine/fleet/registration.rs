//! How a proxy registers and stays registered (N4): what to ask of etcd, and when.
//!
//! A lease is granted, the key is put under it, and the lease is renewed at a third of its time. What
//! fails is tried again for ever, at growing pauses. A lease that is gone is followed by another, and a
//! key that is gone is put again. At the end the lease is revoked, which deletes the key at once (S2).
//!
//! Every step may be done twice: the lease's id is chosen here, so a second grant of it is refused as
//! one that exists; a put of the same key, value and lease changes nothing that counts; and what comes
//! late for a lease that is revoked is refused. So steps are sent again like reads, and one whose
//! outcome is not known costs at most a lease without a key, for as long as that lives.

use std::time::{Duration, Instant};

use crate::limits;
use crate::state_machine::picker::backoff;

/// Something to ask of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A lease of this id.
    Grant(i64),
    /// The key, under this lease.
    Put(i64),
    /// Another lifetime of this lease.
    Renew(i64),
    /// The end of this lease.
    Revoke(i64),
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This, and say what came of it within a time.
    Do(Step, Duration),
    /// Nothing before this moment, unless something is told.
    Wait(Instant),
    /// Nothing ever again.
    Over,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; a lease that was granted or renewed lives so long from when it was asked for.
    Done(Duration),
    /// etcd knows no such lease.
    Gone,
    /// It is not known to be done, and why.
    Failed(String),
}

/// Something for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// It is registered, under this lease.
    Registered(i64),
    /// It is not any more, or cannot be, and why.
    Failing(String),
}

/// The registration of one proxy.
#[derive(Debug)]
pub struct Registration {
    state: State,
    /// In a row, for the backoff.
    failures: u32,
    /// Nothing is asked before.
    rests_until: Option<Instant>,
    /// When the step under way was begun.
    asked: Instant,
    /// Since when the key has been seen to be gone, though it was put.
    absent: Option<Instant>,
    draining: bool,
    /// Why it is not registered.
    reason: String,
    /// The failure that was told last, since it last was registered, and when.
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
    /// It may be over from then on.
    until: Instant,
    /// It is to be renewed.
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
    /// Not registered yet.
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

    /// What to do now. `chance` is any number.
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

    /// What came of a step. `chance` is any number.
    pub fn heard(&mut self, step: Step, outcome: Outcome, now: Instant, chance: u64) {
        match (step, outcome) {
            // Revoked or not: nobody waits for it any longer, and the lease ends by itself.
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
                // One that was there is replaced at once, one that never served is a failure.
                if !was {
                    self.rest(now, chance);
                }
            }
            (_, Outcome::Failed(reason)) => {
                self.rest(now, chance);
                if self.is_registered() {
                    // The lease goes on; what is wrong is told if that is to be its end.
                    self.reason = reason;
                } else {
                    self.lost(reason, now);
                }
            }
        }
    }

    /// The key has been seen, or seen to be gone. Seen late, perhaps: only what stays gone for
    /// [`limits::FLEET_ABSENT_TIME`] is put again.
    pub fn seen(&mut self, present: bool, now: Instant) {
        match present {
            true => self.absent = None,
            false => _ = self.absent.get_or_insert(now),
        }
    }

    /// The process is to end: nothing more but the lease's revocation.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether it is registered, as far as is known.
    pub fn is_registered(&self) -> bool {
        matches!(
            self.state,
            State::With {
                registered: true,
                ..
            }
        )
    }

    /// The lease, if there is one.
    pub fn lease(&self) -> Option<i64> {
        match self.state {
            State::With { lease, .. } => Some(lease.id),
            State::Without | State::Over => None,
        }
    }

    /// Why it is not registered.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What is to be logged, once.
    pub fn take_tell(&mut self) -> Option<Tell> {
        self.tell.take()
    }

    /// When the lease may be over.
    fn end(&self) -> Option<Instant> {
        match self.state {
            State::With { lease, .. } => Some(lease.until),
            State::Without | State::Over => None,
        }
    }

    /// What time alone has changed.
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

    /// Tells of the first failure, and of another one once in a while.
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

/// Ids are positive; 0 would leave the choice to etcd.
fn lease_id(chance: u64) -> i64 {
    ((chance >> 1) as i64).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(6);

    /// A store with one key, whose leases end by the clock.
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
        /// Nothing gets there.
        Lost,
        /// It is done, and the answer is lost.
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

    /// A machine before a store, with a clock of its own.
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
                    // Watched as closely as a watch tells of it.
                    Next::Wait(until) => {
                        let look = self.now + Duration::from_millis(200);
                        self.now = until
                            .min(end)
                            .min(look)
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
        /// Whatever happened, it comes back once etcd answers, asks little meanwhile, and leaves
        /// nothing behind.
        #[test]
        fn comes_back_and_goes(acts in prop::collection::vec(act(), 0..12)) {
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
            // Still so after many lifetimes.
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

        /// It never says that it is registered when its lease has ended by the clock.
        #[test]
        fn a_lease_that_is_not_renewed_is_not_believed_in(millis in 1u64..20_000) {
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
    fn what_fails_is_told_once_and_so_is_what_works() {
        let mut scene = Scene::new();
        scene.play(Way::Lost, Duration::from_secs(600));
        assert_eq!(scene.tells, [Tell::Failing("lost".to_owned())]);
        assert!(!scene.machine.is_registered());
        assert_eq!(scene.machine.reason(), "lost");
        scene.play(Way::Open, Duration::from_secs(10));
        assert!(matches!(scene.tells[..], [_, Tell::Registered(lease)] if lease > 0));
        // It fails again: told again, with the reason.
        scene.play(Way::Lost, Duration::from_secs(10));
        let told = Tell::Failing("the lease was not renewed in time: lost".to_owned());
        assert_eq!(scene.tells[2..], [told]);
        // Of something else, and a while later.
        scene.play(Way::Unknown, Duration::from_secs(120));
        assert_eq!(scene.tells[3..], [Tell::Failing("unknown".to_owned())]);
    }

    #[test]
    fn a_lease_that_is_gone_is_replaced_at_once() {
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
    fn the_end_of_the_process_waits_for_no_pause() {
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
        // Whatever comes of it.
        let outcome = Outcome::Failed("lost".to_owned());
        scene
            .machine
            .heard(Step::Revoke(lease), outcome, scene.now, 0);
        assert_eq!(scene.machine.next(scene.now, 0), Next::Over);
    }

    #[test]
    fn leases_have_ids_that_etcd_takes() {
        for chance in [0, 1, 2, u64::MAX, u64::MAX - 1] {
            assert!(lease_id(chance) > 0);
        }
    }
}
