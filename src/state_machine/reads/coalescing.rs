//! Reads that ask the same at the same time: one on its way to etcd, and one that waits for it to come
//! back, for all who came meanwhile (R1). Nobody joins what is on its way: it may have been answered
//! before he asked.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use crate::state_machine::reads::batching::Batching;

/// Fewer than this at a time are no crowd.
const MANY: usize = 16;

/// Crowds that are remembered while nothing of their question is on its way.
const MOST_IDLE: usize = 16;

/// For how long after somebody asked last.
const IDLE: Duration = Duration::from_millis(200);

/// By what is asked. `R` is what those who wait for the next read have in common.
#[derive(Debug)]
pub struct Coalescing<K, R> {
    /// For each question that is on its way, or lately was one of a crowd.
    places: HashMap<K, Place<R>, RandomState>,
    /// Places of which nothing is on its way, the oldest first. One may be here that is none any more.
    idle: VecDeque<K>,
}

/// Of a question: nothing while nobody has ever waited for the read that is on its way.
type Place<R> = Option<Box<Queue<R>>>;

#[derive(Debug)]
struct Queue<R> {
    /// Those who wait for the next.
    next: Option<R>,
    /// How many have come to wait for it.
    came: usize,
    /// Who came lately, once they were many.
    crowd: Option<Batching>,
    /// When somebody asked last.
    asked: Instant,
    /// Nothing is on its way.
    idle: bool,
}

/// What one who asks is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a, R> {
    /// His read goes now; he says when it has come back.
    Go,
    /// He waits with the others.
    Wait(&'a mut R),
    /// The same, and nothing is on its way: their read goes when this many are there, or after a pause.
    /// Until then it counts as on its way.
    Gather(&'a mut R, usize),
}

/// What those do who wait for a read that has come back.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned<R> {
    /// There are none, and nothing is on its way.
    Nobody,
    /// Their read goes now, and is on its way.
    Go(R),
    /// See [`Asked::Gather`].
    Gather(R, usize),
}

impl<K: Hash + Eq + Clone, R: Clone> Coalescing<K, R> {
    /// With nothing on its way.
    pub fn new() -> Coalescing<K, R> {
        Coalescing {
            places: HashMap::default(),
            idle: VecDeque::new(),
        }
    }

    /// Somebody asks, a client by its number.
    pub fn ask(
        &mut self,
        key: K,
        client: u64,
        now: Instant,
        next: impl FnOnce() -> R,
    ) -> Asked<'_, R> {
        let queue = match self.places.entry(key) {
            Entry::Vacant(place) => {
                place.insert(None);
                return Asked::Go;
            }
            Entry::Occupied(place) => place
                .into_mut()
                .get_or_insert_with(|| Box::new(Queue::new(now))),
        };
        let idle = mem::take(&mut queue.idle);
        let before = mem::replace(&mut queue.asked, now);
        if idle && now.saturating_duration_since(before) > IDLE {
            queue.crowd = None;
            return Asked::Go;
        }
        queue.came += 1;
        let mut enough = 0;
        if let Some(crowd) = &mut queue.crowd {
            crowd.came(client);
            enough = crowd.enough();
        }
        let round = queue.next.get_or_insert_with(next);
        if idle {
            return Asked::Gather(round, enough);
        }
        Asked::Wait(round)
    }

    /// The read that was on its way has come back, or will not; or those who gathered go, and then they
    /// are not to gather `again`.
    pub fn returned(&mut self, key: &K, again: bool) -> Returned<R> {
        // Mostly nobody waits, and the question is looked up once.
        let Some((key, place)) = self.places.remove_entry(key) else {
            return Returned::Nobody;
        };
        let Some(mut queue) = place else {
            return Returned::Nobody;
        };
        let returned = queue.returned(again);
        match (&returned, &queue.crowd) {
            (Returned::Nobody, Some(crowd)) if crowd.is_large() => {
                queue.idle = true;
                self.idle.push_back(key.clone());
                self.places.insert(key, Some(queue));
                self.forget_idle();
            }
            (Returned::Nobody, _) => {}
            _ => drop(self.places.insert(key, Some(queue))),
        }
        returned
    }

    fn forget_idle(&mut self) {
        while self.idle.len() > MOST_IDLE
            && let Some(oldest) = self.idle.pop_front()
        {
            let idle = self.places.get(&oldest).is_some_and(is_idle);
            // It may be there once more, as one of the newer.
            if idle && !self.idle.contains(&oldest) {
                self.places.remove(&oldest);
            }
        }
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.places.values().filter(|place| !is_idle(place)).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_idle<R>(place: &Place<R>) -> bool {
    place.as_ref().is_some_and(|queue| queue.idle)
}

impl<R: Clone> Queue<R> {
    fn new(now: Instant) -> Queue<R> {
        Queue {
            next: None,
            came: 0,
            crowd: None,
            asked: now,
            idle: false,
        }
    }

    fn returned(&mut self, again: bool) -> Returned<R> {
        let Some(next) = &self.next else {
            return Returned::Nobody;
        };
        if self.crowd.is_none() && self.came >= MANY {
            self.crowd = Some(Batching::new());
        }
        if again
            && let Some(crowd) = self.crowd.as_ref().filter(|crowd| crowd.is_large())
            && self.came < crowd.enough()
        {
            return Returned::Gather(next.clone(), crowd.enough());
        }
        self.came = 0;
        if let Some(crowd) = &mut self.crowd {
            crowd.goes();
        }
        self.next.take().map_or(Returned::Nobody, Returned::Go)
    }
}

impl<K: Hash + Eq + Clone, R: Clone> Default for Coalescing<K, R> {
    fn default() -> Coalescing<K, R> {
        Coalescing::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Round = Vec<u64>;

    /// Forty clients ask in turns, so that their next read gathers; nothing is on its way then.
    fn crowded(now: Instant) -> Coalescing<u8, Round> {
        let mut sharing: Coalescing<u8, Round> = Coalescing::new();
        assert_eq!(sharing.ask(0, 0, now, Vec::new), Asked::Go);
        for _ in 0..2 {
            for client in 0..40 {
                assert!(matches!(
                    sharing.ask(0, client, now, Vec::new),
                    Asked::Wait(_)
                ));
            }
            assert!(matches!(sharing.returned(&0, true), Returned::Go(_)));
        }
        assert_eq!(sharing.returned(&0, true), Returned::Nobody);
        assert!(sharing.is_empty());
        sharing
    }

    #[test]
    fn a_crowd_gathers_for_half_of_it() {
        let now = Instant::now();
        let mut sharing = crowded(now);
        // The first of the next turn has nothing to wait for but the others.
        match sharing.ask(0, 1, now, Vec::new) {
            Asked::Gather(_, enough) => assert_eq!(enough, 20),
            other => panic!("{other:?}"),
        }
        assert_eq!(sharing.len(), 1);
        for client in 2..10 {
            assert!(matches!(
                sharing.ask(0, client, now, Vec::new),
                Asked::Wait(_)
            ));
        }
        // They have paused, and go, however few they are.
        assert!(matches!(sharing.returned(&0, false), Returned::Go(_)));
        // The same behind a read that is on its way.
        assert!(matches!(sharing.ask(0, 11, now, Vec::new), Asked::Wait(_)));
        assert!(matches!(
            sharing.returned(&0, true),
            Returned::Gather(_, 20)
        ));
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let now = Instant::now();
        let mut sharing = crowded(now);
        let later = now + IDLE + Duration::from_millis(1);
        assert_eq!(sharing.ask(0, 1, later, Vec::new), Asked::Go);
        assert_eq!(sharing.returned(&0, true), Returned::Nobody);
        assert!(sharing.places.is_empty());
    }

    #[test]
    fn few_crowds_are_remembered() {
        let now = Instant::now();
        let mut sharing = crowded(now);
        for key in 1..=MOST_IDLE as u8 {
            let place = sharing.places[&0].as_ref().map(|queue| {
                Box::new(Queue {
                    crowd: queue.crowd.clone(),
                    ..Queue::new(now)
                })
            });
            sharing.places.insert(key, place);
            assert_eq!(sharing.returned(&key, true), Returned::Nobody);
        }
        assert_eq!(sharing.places.len(), MOST_IDLE);
        assert!(!sharing.places.contains_key(&0), "the oldest stayed");
    }
}
