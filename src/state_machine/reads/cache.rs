//! One shard of the read cache: entries, eviction, and whether an entry may be served (R2, R3, R5).
//!
//! The decision depends on properties of the entry: the revision at which it is true and when its
//! request was sent. The order in which reads and writes return does not matter.
//!
//! A shard is bounded in bytes, including its index (R6). It evicts with the CLOCK (second-chance)
//! algorithm.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::quality::RandomState;

use crate::limits;
use crate::state_machine::reads::popularity::Popularity;
use crate::wire::range::KeyRange;

/// Key of a cached response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Number of the identity; 0 for none.
    pub identity: u64,
    /// Encoded request, without the `serializable` flag.
    pub message: Bytes,
}

/// One cached response.
#[derive(Debug)]
pub struct CachedResponse {
    /// Keys that the response covers.
    pub range: KeyRange,
    /// Explicit old revision of the request; `None` for the latest.
    pub at: Option<i64>,
    /// Revision at which the response is true: the revision of its header.
    pub revision: i64,
    /// When the request was sent to etcd.
    pub asked: Instant,
    /// Framed response of etcd.
    pub answer: Bytes,
    /// For the owner of the floors: its count of raised floors when the entry was last found to be
    /// above [`ServeConditions::written`] and [`ServeConditions::uncertain`].
    pub checked: AtomicU64,
}

/// Conditions under which an entry may be served to one client.
#[derive(Debug, Clone, Copy)]
pub struct Standard {
    /// Current time.
    pub now: Instant,
    /// Maximum age of a response.
    pub max_age: Duration,
    /// Highest revision of a known write to the range.
    pub written: Option<i64>,
    /// Responses to requests sent before this time are unusable: etcd may apply a write until then.
    pub unsure: Option<Instant>,
    /// Highest revision that the client connection has received.
    pub shown: i64,
    /// Proof by a watch on the range.
    pub proof: Option<Proof>,
}

/// Proof that a watch on a range was current at a certain moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// First revision of the events of the watch; they have raised [`ServeConditions::written`].
    pub from: i64,
    /// All events up to this revision have arrived.
    pub through: i64,
    /// When the barrier that proves it was sent.
    pub asked: Instant,
}

/// Decision on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheDecision {
    /// The response may be served.
    Give {
        /// Revision at which it is true.
        revision: i64,
        /// When its request, or the barrier of its proof, was sent.
        asked: Instant,
    },
    /// etcd must be read.
    Stale(Stale),
}

/// Why a response may not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Too old, and without a proof.
    Age,
    /// A later write touched the range.
    Written,
    /// A later write may have touched the range.
    Unsure,
    /// The client connection has received a higher revision.
    Shown,
}

impl CachedResponse {
    /// Decides whether the response may be served.
    pub fn judge(&self, standard: &Standard) -> CacheDecision {
        // The response for an old revision does not change.
        if self.at.is_none() {
            if standard
                .written
                .is_some_and(|written| self.revision < written)
            {
                return CacheDecision::Stale(Stale::Written);
            }
            if standard.unsure.is_some_and(|until| self.asked < until) {
                return CacheDecision::Stale(Stale::Unsure);
            }
        }
        let proof = standard
            .proof
            .filter(|proof| self.at.is_none() && proof.from <= self.revision.saturating_add(1));
        let asked = proof.map_or(self.asked, |proof| proof.asked.max(self.asked));
        if standard.now.saturating_duration_since(asked) >= standard.max_age {
            return CacheDecision::Stale(Stale::Age);
        }
        let revision = match proof {
            _ if self.revision >= standard.shown => self.revision,
            // The response is true at every revision up to that of the watch.
            Some(proof) if proof.through >= standard.shown => proof.through,
            _ => return CacheDecision::Stale(Stale::Shown),
        };
        CacheDecision::Give { revision, asked }
    }
}

/// One shard of the read cache.
#[derive(Debug)]
pub struct Cache {
    slots: HashMap<Question, Slot, RandomState>,
    /// Order of the CLOCK hand. The number is that of the slot.
    order: VecDeque<(u64, Question)>,
    last: u64,
    bytes: usize,
    most: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<CachedResponse>,
    /// Number in `order`. An item of `order` with another number is void.
    number: u64,
    /// The entry was looked up since the clock hand passed.
    visited: bool,
    /// The response was looked up since it was stored.
    asked: bool,
    /// A caller refreshes the response.
    renewing: bool,
    proof: Option<Proof>,
    heat: Popularity,
}

/// Result of a lookup.
#[derive(Debug, Clone)]
pub struct Found {
    /// The response.
    pub entry: Arc<CachedResponse>,
    /// Its watch proof, if any.
    pub proof: Option<Proof>,
    /// This caller must refresh the response: it is in use, will expire soon and has no proof. One
    /// caller per stored response gets it.
    pub renew: bool,
    /// This caller must request a watch: the entry is popular and has no proof. One caller per
    /// interval gets it.
    pub cover: bool,
}

impl Cache {
    /// Creates an empty shard for at most `max_bytes` bytes.
    pub fn new(most: usize) -> Cache {
        Cache {
            slots: HashMap::default(),
            order: VecDeque::new(),
            last: 0,
            bytes: 0,
            most,
        }
    }

    /// Looks up an entry and counts the request.
    ///
    /// From the age of `refresh_age` on, one caller must refresh the entry.
    pub fn look(&mut self, question: &Question, now: Instant, early: Duration) -> Option<Found> {
        let slot = self.slots.get_mut(question)?;
        slot.visited = true;
        let hot = slot.heat.ask(now);
        let again = mem::replace(&mut slot.asked, true);
        let age = now.saturating_duration_since(slot.entry.asked);
        let renew = !slot.renewing && slot.proof.is_none() && again && age >= early;
        slot.renewing |= renew;
        // The response for an old revision does not change, so it needs no watch.
        let cover = hot && slot.entry.at.is_none() && slot.proof.is_none() && slot.heat.tell();
        Some(Found {
            entry: slot.entry.clone(),
            proof: slot.proof,
            renew,
            cover,
        })
    }

    /// Stores a response in the place of the previous one. Ignores a response that is older.
    ///
    /// Returns false if the response is too large.
    pub fn store(&mut self, question: Question, entry: CachedResponse) -> bool {
        let bytes = size(&question, &entry);
        if bytes > self.most.min(limits::CACHE_ENTRY_BYTES) {
            return false;
        }
        if let Some(slot) = self.slots.get_mut(&question) {
            if (entry.revision, entry.asked) < (slot.entry.revision, slot.entry.asked) {
                return true;
            }
            slot.asked = false;
            slot.renewing = false;
            self.bytes = self.bytes + bytes - size(&question, &slot.entry);
            slot.entry = Arc::new(entry);
        } else {
            let asked = entry.asked;
            self.last += 1;
            self.order.push_back((self.last, question.clone()));
            self.bytes += bytes;
            let slot = Slot {
                entry: Arc::new(entry),
                number: self.last,
                visited: false,
                asked: false,
                renewing: false,
                proof: None,
                heat: Popularity::new(asked),
            };
            self.slots.insert(question, slot);
        }
        self.evict();
        true
    }

    /// Replaces a response with the same one at a later revision. Its age continues.
    pub fn advance(&mut self, question: &Question, entry: CachedResponse) {
        if let Some(slot) = self.slots.get_mut(question)
            && slot.entry.revision < entry.revision
            && slot.entry.asked == entry.asked
        {
            self.bytes = self.bytes + size(question, &entry) - size(question, &slot.entry);
            slot.entry = Arc::new(entry);
        }
    }

    /// Returns whether there is an entry.
    pub fn has(&self, question: &Question) -> bool {
        self.slots.contains_key(question)
    }

    /// Sets or removes the watch proof of an entry. It also applies to later responses of the entry.
    ///
    /// Returns false if there is no entry.
    pub fn prove(&mut self, question: &Question, proof: Option<Proof>) -> bool {
        let slot = self.slots.get_mut(question);
        slot.map(|slot| slot.proof = proof).is_some()
    }

    /// Removes an entry.
    pub fn remove(&mut self, question: &Question) {
        if let Some(slot) = self.slots.remove(question) {
            self.bytes -= size(question, &slot.entry);
            if self.order.len() > 2 * self.slots.len() + 16 {
                let slots = &self.slots;
                self.order.retain(|(number, question)| {
                    slots
                        .get(question)
                        .is_some_and(|slot| slot.number == *number)
                });
            }
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Cache::new(self.most);
    }

    /// Returns the lookups of an entry since the last call; `None` if there is no entry.
    pub fn take_asked(&mut self, question: &Question) -> Option<u32> {
        self.slots.get_mut(question).map(|slot| slot.heat.take())
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the memory of all entries, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self) {
        while self.bytes > self.most
            && let Some((number, question)) = self.order.pop_front()
        {
            let Some(slot) = self.slots.get_mut(&question).filter(|s| s.number == number) else {
                continue;
            };
            if mem::take(&mut slot.visited) {
                self.order.push_back((number, question));
            } else {
                self.remove(&question);
            }
        }
    }
}

/// Returns the approximate memory of an entry, in bytes: two handles of the key, the key's bytes
/// once, the response, the range, and the tables.
fn size(question: &Question, entry: &CachedResponse) -> usize {
    let end = entry.range.end().map_or(0, Bytes::len);
    let tables = 2 * size_of::<Question>() + size_of::<Slot>() + size_of::<CachedResponse>() + 64;
    tables + question.message.len() + entry.answer.len() + entry.range.start().len() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(n: u8) -> Question {
        Question {
            identity: 1,
            message: Bytes::from(vec![n]),
        }
    }

    fn entry(revision: i64, asked: Instant) -> CachedResponse {
        CachedResponse {
            range: KeyRange::of("k".into(), Bytes::new()),
            at: None,
            revision,
            asked,
            answer: Bytes::from(vec![0; 100]),
            checked: AtomicU64::new(0),
        }
    }

    const EARLY: Duration = Duration::from_millis(750);

    #[test]
    fn an_older_response_does_not_replace_a_newer_one() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        cache.store(question(1), entry(5, now));
        cache.store(question(1), entry(4, now + EARLY));
        assert_eq!(
            cache.look(&question(1), now, EARLY).unwrap().entry.revision,
            5
        );
        cache.store(question(1), entry(5, now + EARLY));
        let found = cache.look(&question(1), now + EARLY, EARLY).unwrap();
        assert_eq!(found.entry.asked, now + EARLY);
    }

    #[test]
    fn requested_entries_stay_and_others_are_evicted() {
        let now = Instant::now();
        let one = size(&question(0), &entry(5, now));
        let mut cache = Cache::new(4 * one);
        for n in 0..4 {
            cache.store(question(n), entry(5, now));
        }
        cache.look(&question(0), now, EARLY).unwrap();
        for n in 4..7 {
            cache.store(question(n), entry(5, now));
        }
        assert_eq!((cache.len(), cache.bytes()), (4, 4 * one));
        assert!(cache.has(&question(0)));
        assert!(!cache.has(&question(1)) && !cache.has(&question(2)));
        (0..7).for_each(|n| cache.remove(&question(n)));
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        // A response that is larger than the shard is not stored.
        let large = CachedResponse {
            answer: Bytes::from(vec![0; 4 * one]),
            ..entry(5, now)
        };
        assert!(!cache.store(question(1), large));
        assert_eq!(cache.bytes(), 0);
    }

    /// Only one caller refreshes, and an entry that is requested once is not refreshed.
    #[test]
    fn one_caller_refreshes_an_entry_before_it_expires() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        cache.store(question(1), entry(5, now));
        let late = now + EARLY;
        let mut renew = |at| cache.look(&question(1), at, EARLY).unwrap().renew;
        assert_eq!(
            [renew(late), renew(late), renew(late)],
            [false, true, false]
        );
    }

    /// Replacing the response does not reset the popularity.
    #[test]
    fn a_popular_entry_requests_a_watch_unless_it_has_a_proof() {
        let (mut cache, begin) = (Cache::new(10_000), Instant::now());
        let span = |cache: &mut Cache, n: u32| {
            let now = begin + limits::CACHE_HOT_INTERVAL * n;
            let covers = (0..limits::CACHE_HOT_REQUESTS).filter(|each| {
                cache.store(question(1), entry(i64::from(n * 100 + each), now));
                cache.look(&question(1), now, EARLY).unwrap().cover
            });
            covers.count()
        };
        let covers: Vec<usize> = (0..6).map(|n| span(&mut cache, n)).collect();
        assert_eq!(covers, [0, 0, 0, 1, 1, 1]);
        assert_eq!(
            cache.take_asked(&question(1)),
            Some(6 * limits::CACHE_HOT_REQUESTS)
        );
        let proof = Proof {
            from: 1,
            through: 9,
            asked: begin,
        };
        assert!(cache.prove(&question(1), Some(proof)));
        assert_eq!(span(&mut cache, 6), 0);
        assert!(!cache.prove(&question(2), Some(proof)));
        assert_eq!(cache.take_asked(&question(2)), None);
    }

    /// The response for an old revision does not change: floors and watches do not apply, age does.
    #[test]
    fn floors_do_not_apply_to_an_old_revision() {
        let now = Instant::now();
        let entry = CachedResponse {
            at: Some(3),
            ..entry(5, now)
        };
        let standard = Standard {
            now,
            max_age: Duration::from_secs(1),
            written: Some(9),
            unsure: Some(now + EARLY),
            shown: 5,
            proof: None,
        };
        let give = CacheDecision::Give {
            revision: 5,
            asked: now,
        };
        assert_eq!(entry.judge(&standard), give);
        let later = Standard {
            now: now + standard.max_age,
            proof: Some(Proof {
                from: 1,
                through: 9,
                asked: now + EARLY,
            }),
            ..standard
        };
        assert_eq!(entry.judge(&later), CacheDecision::Stale(Stale::Age));
    }
}
