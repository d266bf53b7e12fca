//! One shard of the read cache: entries, eviction, and whether an entry may be served (R2, R3, R5).
//!
//! The decision depends on properties of the entry: the revision at which it is true and when its
//! request was sent. The order in which reads and writes return does not matter.
//!
//! A shard is bounded in bytes, including its index (R6), and evicts with the CLOCK (second-chance)
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
pub struct CacheKey {
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
    pub requested_revision: Option<i64>,
    /// Revision at which the response is true: the revision of its header.
    pub revision: i64,
    /// Time at which the request was sent to etcd.
    pub sent: Instant,
    /// Framed response of etcd.
    pub response: Bytes,
    /// For the owner of the floors: its count of raised floors when the entry was last found to be
    /// above [`ServeConditions::written`] and [`ServeConditions::uncertain`].
    pub checked: AtomicU64,
}

/// Conditions under which an entry may be served to one client.
#[derive(Debug, Clone, Copy)]
pub struct ServeConditions {
    /// Current time.
    pub now: Instant,
    /// Maximum age of a response.
    pub max_age: Duration,
    /// Highest revision of a known write to the range.
    pub written: Option<i64>,
    /// Responses to requests sent before this time are unusable: etcd may apply a write until then.
    pub uncertain: Option<Instant>,
    /// Highest revision that the client connection has received.
    pub connection_floor: i64,
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
    /// Time at which the barrier that proves it was sent.
    pub sent: Instant,
}

/// Decision on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheDecision {
    /// The response may be served.
    Serve {
        /// Revision at which it is true.
        revision: i64,
        /// Time at which its request, or the barrier of its proof, was sent.
        sent: Instant,
    },
    /// etcd must be read.
    Stale(StaleReason),
}

/// Reason why a response may not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// Too old, and without a proof.
    Age,
    /// A later write touched the range.
    Written,
    /// A later write may have touched the range.
    Uncertain,
    /// The client connection has received a higher revision.
    ConnectionFloor,
}

impl CachedResponse {
    /// Decides whether the response may be served.
    pub fn decide(&self, conditions: &ServeConditions) -> CacheDecision {
        // The response for an old revision does not change.
        if self.requested_revision.is_none() {
            if conditions
                .written
                .is_some_and(|written| self.revision < written)
            {
                return CacheDecision::Stale(StaleReason::Written);
            }
            if conditions.uncertain.is_some_and(|until| self.sent < until) {
                return CacheDecision::Stale(StaleReason::Uncertain);
            }
        }
        let proof = conditions.proof.filter(|proof| {
            self.requested_revision.is_none() && proof.from <= self.revision.saturating_add(1)
        });
        let sent = proof.map_or(self.sent, |proof| proof.sent.max(self.sent));
        if conditions.now.saturating_duration_since(sent) >= conditions.max_age {
            return CacheDecision::Stale(StaleReason::Age);
        }
        let revision = match proof {
            _ if self.revision >= conditions.connection_floor => self.revision,
            // The response is true at every revision up to that of the watch.
            Some(proof) if proof.through >= conditions.connection_floor => proof.through,
            _ => return CacheDecision::Stale(StaleReason::ConnectionFloor),
        };
        CacheDecision::Serve { revision, sent }
    }
}

/// One shard of the read cache.
#[derive(Debug)]
pub struct Cache {
    slots: HashMap<CacheKey, Slot, RandomState>,
    /// Order of the CLOCK hand. The number is that of the slot.
    order: VecDeque<(u64, CacheKey)>,
    last: u64,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<CachedResponse>,
    /// Number in `order`. An item of `order` with another number is void.
    number: u64,
    /// The entry was looked up since the clock hand passed.
    visited: bool,
    /// The response was looked up since it was stored.
    requested: bool,
    /// A caller refreshes the response.
    refreshing: bool,
    proof: Option<Proof>,
    popularity: Popularity,
}

/// Result of a lookup.
#[derive(Debug, Clone)]
pub struct FoundEntry {
    /// The response.
    pub entry: Arc<CachedResponse>,
    /// Its watch proof, if any.
    pub proof: Option<Proof>,
    /// This caller must refresh the response, which is in use, will expire soon and has no proof.
    /// Set for one caller per stored response.
    pub needs_refresh: bool,
    /// This caller must request a watch: the entry is popular and has no proof. Set for one caller
    /// per interval.
    pub needs_watch: bool,
}

impl Cache {
    /// Creates an empty shard for at most `max_bytes` bytes.
    pub fn new(max_bytes: usize) -> Cache {
        Cache {
            slots: HashMap::default(),
            order: VecDeque::new(),
            last: 0,
            bytes: 0,
            max_bytes,
        }
    }

    /// Looks up an entry and counts the request.
    ///
    /// From the age of `refresh_age` on, one caller must refresh the entry.
    pub fn lookup(
        &mut self,
        key: &CacheKey,
        now: Instant,
        refresh_age: Duration,
    ) -> Option<FoundEntry> {
        let slot = self.slots.get_mut(key)?;
        slot.visited = true;
        let popular = slot.popularity.record_request(now);
        let requested_before = mem::replace(&mut slot.requested, true);
        let age = now.saturating_duration_since(slot.entry.sent);
        let needs_refresh =
            !slot.refreshing && slot.proof.is_none() && requested_before && age >= refresh_age;
        slot.refreshing |= needs_refresh;
        // The response for an old revision does not change, so it needs no watch.
        let needs_watch = popular
            && slot.entry.requested_revision.is_none()
            && slot.proof.is_none()
            && slot.popularity.notify_once();
        Some(FoundEntry {
            entry: slot.entry.clone(),
            proof: slot.proof,
            needs_refresh,
            needs_watch,
        })
    }

    /// Stores a response in the place of the previous one. Ignores a response that is older.
    ///
    /// Returns false if the response is too large.
    pub fn store(&mut self, key: CacheKey, entry: CachedResponse) -> bool {
        let bytes = size(&key, &entry);
        if bytes > self.max_bytes.min(limits::CACHE_ENTRY_BYTES) {
            return false;
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            if (entry.revision, entry.sent) < (slot.entry.revision, slot.entry.sent) {
                return true;
            }
            slot.requested = false;
            slot.refreshing = false;
            self.bytes = self.bytes + bytes - size(&key, &slot.entry);
            slot.entry = Arc::new(entry);
        } else {
            let sent = entry.sent;
            self.last += 1;
            self.order.push_back((self.last, key.clone()));
            self.bytes += bytes;
            let slot = Slot {
                entry: Arc::new(entry),
                number: self.last,
                visited: false,
                requested: false,
                refreshing: false,
                proof: None,
                popularity: Popularity::new(sent),
            };
            self.slots.insert(key, slot);
        }
        self.evict();
        true
    }

    /// Replaces a response with the same one at a later revision. Its age continues.
    pub fn advance(&mut self, key: &CacheKey, entry: CachedResponse) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.entry.revision < entry.revision
            && slot.entry.sent == entry.sent
        {
            self.bytes = self.bytes + size(key, &entry) - size(key, &slot.entry);
            slot.entry = Arc::new(entry);
        }
    }

    /// Returns whether there is an entry.
    pub fn contains(&self, key: &CacheKey) -> bool {
        self.slots.contains_key(key)
    }

    /// Sets or removes the watch proof of an entry. The proof also applies to later responses of
    /// the entry.
    ///
    /// Returns false if there is no entry.
    pub fn set_proof(&mut self, key: &CacheKey, proof: Option<Proof>) -> bool {
        let slot = self.slots.get_mut(key);
        slot.map(|slot| slot.proof = proof).is_some()
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &CacheKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.bytes -= size(key, &slot.entry);
            if self.order.len() > 2 * self.slots.len() + 16 {
                let slots = &self.slots;
                self.order.retain(|(number, key)| {
                    slots.get(key).is_some_and(|slot| slot.number == *number)
                });
            }
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Cache::new(self.max_bytes);
    }

    /// Returns the lookups of an entry since the last call; `None` if there is no entry.
    pub fn take_request_count(&mut self, key: &CacheKey) -> Option<u32> {
        self.slots
            .get_mut(key)
            .map(|slot| slot.popularity.take_count())
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
        while self.bytes > self.max_bytes
            && let Some((number, key)) = self.order.pop_front()
        {
            let Some(slot) = self.slots.get_mut(&key).filter(|s| s.number == number) else {
                continue;
            };
            if mem::take(&mut slot.visited) {
                self.order.push_back((number, key));
            } else {
                self.remove(&key);
            }
        }
    }
}

/// Returns the approximate memory of an entry, in bytes: two handles of the key, the key's bytes
/// once, the response, the range, and the tables.
fn size(key: &CacheKey, entry: &CachedResponse) -> usize {
    let end = entry.range.end().map_or(0, Bytes::len);
    let tables = 2 * size_of::<CacheKey>() + size_of::<Slot>() + size_of::<CachedResponse>() + 64;
    tables + key.message.len() + entry.response.len() + entry.range.start().len() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> CacheKey {
        CacheKey {
            identity: 1,
            message: Bytes::from(vec![n]),
        }
    }

    fn entry(revision: i64, sent: Instant) -> CachedResponse {
        CachedResponse {
            range: KeyRange::of("k".into(), Bytes::new()),
            requested_revision: None,
            revision,
            sent,
            response: Bytes::from(vec![0; 100]),
            checked: AtomicU64::new(0),
        }
    }

    const REFRESH_AGE: Duration = Duration::from_millis(750);

    #[test]
    fn an_older_response_does_not_replace_a_newer_one() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        cache.store(key(1), entry(5, now));
        cache.store(key(1), entry(4, now + REFRESH_AGE));
        assert_eq!(
            cache
                .lookup(&key(1), now, REFRESH_AGE)
                .unwrap()
                .entry
                .revision,
            5
        );
        cache.store(key(1), entry(5, now + REFRESH_AGE));
        let found = cache
            .lookup(&key(1), now + REFRESH_AGE, REFRESH_AGE)
            .unwrap();
        assert_eq!(found.entry.sent, now + REFRESH_AGE);
    }

    #[test]
    fn requested_entries_stay_and_others_are_evicted() {
        let now = Instant::now();
        let one = size(&key(0), &entry(5, now));
        let mut cache = Cache::new(4 * one);
        for n in 0..4 {
            cache.store(key(n), entry(5, now));
        }
        cache.lookup(&key(0), now, REFRESH_AGE).unwrap();
        for n in 4..7 {
            cache.store(key(n), entry(5, now));
        }
        assert_eq!((cache.len(), cache.bytes()), (4, 4 * one));
        assert!(cache.contains(&key(0)));
        assert!(!cache.contains(&key(1)) && !cache.contains(&key(2)));
        (0..7).for_each(|n| cache.remove(&key(n)));
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        // A response that is larger than the shard is not stored.
        let large = CachedResponse {
            response: Bytes::from(vec![0; 4 * one]),
            ..entry(5, now)
        };
        assert!(!cache.store(key(1), large));
        assert_eq!(cache.bytes(), 0);
    }

    /// Only one caller refreshes, and an entry that is requested once is not refreshed.
    #[test]
    fn one_caller_refreshes_an_entry_before_it_expires() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        cache.store(key(1), entry(5, now));
        let late = now + REFRESH_AGE;
        let mut needs_refresh = |at| {
            cache
                .lookup(&key(1), at, REFRESH_AGE)
                .unwrap()
                .needs_refresh
        };
        assert_eq!(
            [
                needs_refresh(late),
                needs_refresh(late),
                needs_refresh(late)
            ],
            [false, true, false]
        );
    }

    /// Replacing the response does not reset the popularity.
    #[test]
    fn a_popular_entry_requests_a_watch_unless_it_has_a_proof() {
        let (mut cache, begin) = (Cache::new(10_000), Instant::now());
        let span = |cache: &mut Cache, n: u32| {
            let now = begin + limits::CACHE_HOT_INTERVAL * n;
            let watches = (0..limits::CACHE_HOT_REQUESTS).filter(|each| {
                cache.store(key(1), entry(i64::from(n * 100 + each), now));
                cache.lookup(&key(1), now, REFRESH_AGE).unwrap().needs_watch
            });
            watches.count()
        };
        let watches: Vec<usize> = (0..6).map(|n| span(&mut cache, n)).collect();
        assert_eq!(watches, [0, 0, 0, 1, 1, 1]);
        assert_eq!(
            cache.take_request_count(&key(1)),
            Some(6 * limits::CACHE_HOT_REQUESTS)
        );
        let proof = Proof {
            from: 1,
            through: 9,
            sent: begin,
        };
        assert!(cache.set_proof(&key(1), Some(proof)));
        assert_eq!(span(&mut cache, 6), 0);
        assert!(!cache.set_proof(&key(2), Some(proof)));
        assert_eq!(cache.take_request_count(&key(2)), None);
    }

    /// The response for an old revision does not change: floors and watches do not apply, age does.
    #[test]
    fn floors_do_not_apply_to_an_old_revision() {
        let now = Instant::now();
        let entry = CachedResponse {
            requested_revision: Some(3),
            ..entry(5, now)
        };
        let conditions = ServeConditions {
            now,
            max_age: Duration::from_secs(1),
            written: Some(9),
            uncertain: Some(now + REFRESH_AGE),
            connection_floor: 5,
            proof: None,
        };
        let serve = CacheDecision::Serve {
            revision: 5,
            sent: now,
        };
        assert_eq!(entry.decide(&conditions), serve);
        let later = ServeConditions {
            now: now + conditions.max_age,
            proof: Some(Proof {
                from: 1,
                through: 9,
                sent: now + REFRESH_AGE,
            }),
            ..conditions
        };
        assert_eq!(entry.decide(&later), CacheDecision::Stale(StaleReason::Age));
    }
}
