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
const BATCHING_START: usize = 16;

/// Maximum number of remembered batching states of keys without a read in flight.
const MAX_IDLE_KEYS: usize = 16;

/// Time for which the batching state of such a key is used after its last request.
const IDLE_TIMEOUT: Duration = Duration::from_millis(200);

/// Coalescing state of all keys. `R` is the shared state of the clients that wait for a read.
#[derive(Debug)]
pub struct Coalescing<K, R> {
    /// Keys with a read in flight, or with a recent large group of clients.
    states: HashMap<K, KeyState<R>, RandomState>,
    /// Keys without a read in flight, the oldest first. Some may not be idle any longer.
    idle: VecDeque<K>,
}

/// State of a key: `None` until a client waits for the read in flight.
type KeyState<R> = Option<Box<Queue<R>>>;

#[derive(Debug)]
struct Queue<R> {
    /// State that the clients waiting for the next read share.
    next: Option<R>,
    /// Number of clients that arrived for the next read.
    arrived: usize,
    /// Recent clients; set once there were many.
    batching: Option<Batching>,
    /// Arrival time of the last request.
    last_request: Instant,
    /// No read is in flight.
    idle: bool,
}

/// Decision on a read that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum ArrivalAction<'a, R> {
    /// The client sends its own read now and reports its return with [`Coalescing::returned`].
    Send,
    /// The client waits for the shared read.
    Wait(&'a mut R),
    /// The client waits for the shared read, and no read is in flight. The caller sends the shared
    /// read when this many clients wait, or after a pause. Until then it counts as in flight.
    Batch(&'a mut R, usize),
}

/// Decision on the clients that wait, when a read has returned.
#[derive(Debug, PartialEq, Eq)]
pub enum ReturnAction<R> {
    /// No client waits, and no read is in flight.
    Idle,
    /// The caller sends the shared read now; it is in flight.
    Send(R),
    /// As [`ArrivalAction::Batch`].
    Batch(R, usize),
}

impl<K: Hash + Eq + Clone, R: Clone> Coalescing<K, R> {
    /// Creates the state with no read in flight.
    pub fn new() -> Coalescing<K, R> {
        Coalescing {
            states: HashMap::default(),
            idle: VecDeque::new(),
        }
    }

    /// Handles a read that arrives from the client of this number.
    ///
    /// `next` creates the shared state if this client is the first that waits.
    pub fn request(
        &mut self,
        key: K,
        client: u64,
        now: Instant,
        next: impl FnOnce() -> R,
    ) -> ArrivalAction<'_, R> {
        let queue = match self.states.entry(key) {
            Entry::Vacant(state) => {
                state.insert(None);
                return ArrivalAction::Send;
            }
            Entry::Occupied(state) => state
                .into_mut()
                .get_or_insert_with(|| Box::new(Queue::new(now))),
        };
        let idle = mem::take(&mut queue.idle);
        let before = mem::replace(&mut queue.last_request, now);
        if idle && now.saturating_duration_since(before) > IDLE_TIMEOUT {
            queue.batching = None;
            return ArrivalAction::Send;
        }
        queue.arrived += 1;
        let mut target = 0;
        if let Some(batching) = &mut queue.batching {
            batching.arrived(client);
            target = batching.target();
        }
        let round = queue.next.get_or_insert_with(next);
        if idle {
            return ArrivalAction::Batch(round, target);
        }
        ArrivalAction::Wait(round)
    }

    /// Handles the return or loss of the read in flight, or the end of a batching pause.
    ///
    /// `may_batch` is false after a pause: the shared read is then sent.
    pub fn returned(&mut self, key: &K, may_batch: bool) -> ReturnAction<R> {
        // Usually no client waits; then there is only one lookup.
        let Some((key, state)) = self.states.remove_entry(key) else {
            return ReturnAction::Idle;
        };
        let Some(mut queue) = state else {
            return ReturnAction::Idle;
        };
        let returned = queue.returned(may_batch);
        match (&returned, &queue.batching) {
            (ReturnAction::Idle, Some(batching)) if batching.is_large() => {
                queue.idle = true;
                self.idle.push_back(key.clone());
                self.states.insert(key, Some(queue));
                self.forget_idle();
            }
            (ReturnAction::Idle, _) => {}
            _ => drop(self.states.insert(key, Some(queue))),
        }
        returned
    }

    fn forget_idle(&mut self) {
        while self.idle.len() > MAX_IDLE_KEYS
            && let Some(oldest) = self.idle.pop_front()
        {
            let idle = self.states.get(&oldest).is_some_and(is_idle);
            // The key may also be a newer item of the queue.
            if idle && !self.idle.contains(&oldest) {
                self.states.remove(&oldest);
            }
        }
    }

    /// Returns the number of reads in flight.
    pub fn len(&self) -> usize {
        self.states.values().filter(|state| !is_idle(state)).count()
    }

    /// Returns whether no read is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_idle<R>(state: &KeyState<R>) -> bool {
    state.as_ref().is_some_and(|queue| queue.idle)
}

impl<R: Clone> Queue<R> {
    fn new(now: Instant) -> Queue<R> {
        Queue {
            next: None,
            arrived: 0,
            batching: None,
            last_request: now,
            idle: false,
        }
    }

    fn returned(&mut self, may_batch: bool) -> ReturnAction<R> {
        let Some(next) = &self.next else {
            return ReturnAction::Idle;
        };
        if self.batching.is_none() && self.arrived >= BATCHING_START {
            self.batching = Some(Batching::new());
        }
        if may_batch
            && let Some(batching) = self
                .batching
                .as_ref()
                .filter(|batching| batching.is_large())
            && self.arrived < batching.target()
        {
            return ReturnAction::Batch(next.clone(), batching.target());
        }
        self.arrived = 0;
        if let Some(batching) = &mut self.batching {
            batching.read_sent();
        }
        self.next
            .take()
            .map_or(ReturnAction::Idle, ReturnAction::Send)
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

    type Clients = Vec<u64>;

    /// Lets forty clients read in turns, so that their next read is batched. No read is in flight.
    fn with_large_group(now: Instant) -> Coalescing<u8, Clients> {
        let mut coalescing: Coalescing<u8, Clients> = Coalescing::new();
        assert_eq!(coalescing.request(0, 0, now, Vec::new), ArrivalAction::Send);
        for _ in 0..2 {
            for client in 0..40 {
                assert!(matches!(
                    coalescing.request(0, client, now, Vec::new),
                    ArrivalAction::Wait(_)
                ));
            }
            assert!(matches!(
                coalescing.returned(&0, true),
                ReturnAction::Send(_)
            ));
        }
        assert_eq!(coalescing.returned(&0, true), ReturnAction::Idle);
        assert!(coalescing.is_empty());
        coalescing
    }

    #[test]
    fn a_large_group_waits_for_half_of_its_clients() {
        let now = Instant::now();
        let mut coalescing = with_large_group(now);
        // No read is in flight, so the first client waits only for other clients.
        match coalescing.request(0, 1, now, Vec::new) {
            ArrivalAction::Batch(_, target) => assert_eq!(target, 20),
            other => panic!("{other:?}"),
        }
        assert_eq!(coalescing.len(), 1);
        for client in 2..10 {
            assert!(matches!(
                coalescing.request(0, client, now, Vec::new),
                ArrivalAction::Wait(_)
            ));
        }
        // After the pause the read is sent, although few clients wait.
        assert!(matches!(
            coalescing.returned(&0, false),
            ReturnAction::Send(_)
        ));
        // Batching also applies behind a read in flight.
        assert!(matches!(
            coalescing.request(0, 11, now, Vec::new),
            ArrivalAction::Wait(_)
        ));
        assert!(matches!(
            coalescing.returned(&0, true),
            ReturnAction::Batch(_, 20)
        ));
    }

    #[test]
    fn an_idle_group_is_forgotten_after_a_while() {
        let now = Instant::now();
        let mut coalescing = with_large_group(now);
        let later = now + IDLE_TIMEOUT + Duration::from_millis(1);
        assert_eq!(
            coalescing.request(0, 1, later, Vec::new),
            ArrivalAction::Send
        );
        assert_eq!(coalescing.returned(&0, true), ReturnAction::Idle);
        assert!(coalescing.states.is_empty());
    }

    #[test]
    fn the_number_of_idle_groups_is_bounded() {
        let now = Instant::now();
        let mut coalescing = with_large_group(now);
        for key in 1..=MAX_IDLE_KEYS as u8 {
            let state = coalescing.states[&0].as_ref().map(|queue| {
                Box::new(Queue {
                    batching: queue.batching.clone(),
                    ..Queue::new(now)
                })
            });
            coalescing.states.insert(key, state);
            assert_eq!(coalescing.returned(&key, true), ReturnAction::Idle);
        }
        assert_eq!(coalescing.states.len(), MAX_IDLE_KEYS);
        assert!(!coalescing.states.contains_key(&0), "the oldest stayed");
    }
}
