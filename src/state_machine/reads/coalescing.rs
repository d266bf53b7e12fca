//! Coalescing of identical reads (R1): per key one read is in flight, and one waits for it.
//!
//! All clients that arrive meanwhile share the waiting read. No client joins the read in flight,
//! because etcd may have processed it before the client's request arrived.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use crate::state_machine::reads::batching::Batching;

/// Minimum number of clients that wait at once for batching to start.
const MANY: usize = 16;

/// Maximum number of keys without a read in flight whose batching state is remembered.
const MOST_IDLE: usize = 16;

/// How long the batching state of such a key is used after its last request.
const IDLE: Duration = Duration::from_millis(200);

/// Coalescing state of all keys. `R` is the shared state of the clients that wait for a read.
#[derive(Debug)]
pub struct Coalescing<K, R> {
    /// Keys with a read in flight, or with a recent large group of clients.
    places: HashMap<K, Place<R>, RandomState>,
    /// Keys without a read in flight, the oldest first. Some may not be idle any longer.
    idle: VecDeque<K>,
}

/// State of a key: `None` until a client waits for the read in flight.
type Place<R> = Option<Box<Queue<R>>>;

#[derive(Debug)]
struct Queue<R> {
    /// State that the clients waiting for the next read share.
    next: Option<R>,
    /// Number of clients that arrived for the next read.
    came: usize,
    /// Recent clients; set once there were many.
    crowd: Option<Batching>,
    /// When the last request arrived.
    asked: Instant,
    /// No read is in flight.
    idle: bool,
}

/// Decision on a read that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a, R> {
    /// The client sends its own read now and reports its return with [`Coalescing::returned`].
    Go,
    /// The client waits for the shared read.
    Wait(&'a mut R),
    /// The client waits for the shared read, and no read is in flight. The caller sends the shared
    /// read when this many clients wait, or after a pause. Until then it counts as in flight.
    Gather(&'a mut R, usize),
}

/// Decision on the clients that wait, when a read has returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned<R> {
    /// No client waits, and no read is in flight.
    Nobody,
    /// The caller sends the shared read now; it is in flight.
    Go(R),
    /// As [`ArrivalAction::Batch`].
    Gather(R, usize),
}

impl<K: Hash + Eq + Clone, R: Clone> Coalescing<K, R> {
    /// Creates the state with no read in flight.
    pub fn new() -> Coalescing<K, R> {
        Coalescing {
            places: HashMap::default(),
            idle: VecDeque::new(),
        }
    }

    /// Handles a read that arrives from the client of this number.
    ///
    /// `next` creates the shared state if this client is the first that waits.
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

    /// Handles the return or loss of the read in flight, or the end of a batching pause.
    ///
    /// `may_batch` is false after a pause: the shared read is then sent.
    pub fn returned(&mut self, key: &K, again: bool) -> Returned<R> {
        // Usually no client waits; then there is only one lookup.
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
            // The key may also be a newer item of the queue.
            if idle && !self.idle.contains(&oldest) {
                self.places.remove(&oldest);
            }
        }
    }

    /// Returns the number of reads in flight.
    pub fn len(&self) -> usize {
        self.places.values().filter(|place| !is_idle(place)).count()
    }

    /// Returns whether no read is in flight.
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

    /// Lets forty clients read in turns, so that their next read is batched. No read is in flight.
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
    fn a_large_group_waits_for_half_of_its_clients() {
        let now = Instant::now();
        let mut sharing = crowded(now);
        // No read is in flight, so the first client waits only for other clients.
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
        // After the pause the read is sent, although few clients wait.
        assert!(matches!(sharing.returned(&0, false), Returned::Go(_)));
        // Batching also applies behind a read in flight.
        assert!(matches!(sharing.ask(0, 11, now, Vec::new), Asked::Wait(_)));
        assert!(matches!(
            sharing.returned(&0, true),
            Returned::Gather(_, 20)
        ));
    }

    #[test]
    fn an_idle_group_is_forgotten_after_a_while() {
        let now = Instant::now();
        let mut sharing = crowded(now);
        let later = now + IDLE + Duration::from_millis(1);
        assert_eq!(sharing.ask(0, 1, later, Vec::new), Asked::Go);
        assert_eq!(sharing.returned(&0, true), Returned::Nobody);
        assert!(sharing.places.is_empty());
    }

    #[test]
    fn the_number_of_idle_groups_is_bounded() {
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
