//! Answers that were given before, one shard of them, and whether one may be given again (R2, R3, R5).
//!
//! Whether it may is decided by what the answer says of itself: the revision it is true at, and when it
//! was asked for. The order in which reads and writes come back plays no part.
//!
//! Bounded in bytes, what finds the answers included (R6). What was not asked for since the hand came
//! by last goes first.

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

/// Who asks what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The identity's number; 0 is nobody's.
    pub identity: u64,
    /// The request, without the word of who may answer.
    pub message: Bytes,
}

/// One answer.
#[derive(Debug)]
pub struct CachedResponse {
    /// The keys it is about.
    pub range: KeyRange,
    /// The old revision it was asked for; `None` for the latest.
    pub at: Option<i64>,
    /// The store's revision it is true at, as its header says.
    pub revision: i64,
    /// When it was asked for.
    pub asked: Instant,
    /// As etcd sent it, framed.
    pub answer: Bytes,
    /// For whoever counts how often [`Standard::written`] and [`Standard::unsure`] rise: when it was
    /// last held against them.
    pub checked: AtomicU64,
}

/// What an answer is held against.
#[derive(Debug, Clone, Copy)]
pub struct Standard {
    /// Now.
    pub now: Instant,
    /// How old it may be.
    pub max_age: Duration,
    /// The highest revision of a write that is known to touch its range.
    pub written: Option<i64>,
    /// Nothing that was asked for earlier counts: a write then may have been done or not.
    pub unsure: Option<Instant>,
    /// The highest revision that the client has been shown.
    pub shown: i64,
    /// A watch covers the range, and has told everything.
    pub proof: Option<Proof>,
}

/// A watch on a range, as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The first revision whose events it tells; they have raised [`Standard::written`].
    pub from: i64,
    /// It has told every event up to this one.
    pub through: i64,
    /// When that was asked.
    pub asked: Instant,
}

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheDecision {
    /// Given.
    Give {
        /// The revision it is true at.
        revision: i64,
        /// When etcd was asked for it, or for what proves it right.
        asked: Instant,
    },
    /// Asked for anew.
    Stale(Stale),
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Too old, with nothing that proves it right.
    Age,
    /// Something was written since.
    Written,
    /// A write may have been done since.
    Unsure,
    /// The client has been shown more.
    Shown,
}

impl CachedResponse {
    /// Whether it may be given.
    pub fn judge(&self, standard: &Standard) -> CacheDecision {
        // What was asked for an old revision does not change.
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
            // It is as true at whatever revision the watch has come to.
            Some(proof) if proof.through >= standard.shown => proof.through,
            _ => return CacheDecision::Stale(Stale::Shown),
        };
        CacheDecision::Give { revision, asked }
    }
}

/// One shard. See the module.
#[derive(Debug)]
pub struct Cache {
    slots: HashMap<Question, Slot, RandomState>,
    /// In the order in which the hand comes by.
    order: VecDeque<(u64, Question)>,
    last: u64,
    bytes: usize,
    most: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<CachedResponse>,
    /// Its place in the order; one under another number is void.
    number: u64,
    /// It was asked for since the hand came by.
    visited: bool,
    /// It was asked for before in this life.
    asked: bool,
    /// Somebody asks for it anew before it is too old.
    renewing: bool,
    proof: Option<Proof>,
    heat: Popularity,
}

/// What a shard has of a question.
#[derive(Debug, Clone)]
pub struct Found {
    /// The answer.
    pub entry: Arc<CachedResponse>,
    /// What proves it right, if something does.
    pub proof: Option<Proof>,
    /// It was given before and will be too old soon, with nothing that proves it right: whoever is told
    /// so asks for it anew. Only one is.
    pub renew: bool,
    /// It has been asked for often for a while, and nothing proves it right: whoever is told so asks for
    /// a watch. One is now and then.
    pub cover: bool,
}

impl Cache {
    /// Without an answer, for at most so many bytes.
    pub fn new(most: usize) -> Cache {
        Cache {
            slots: HashMap::default(),
            order: VecDeque::new(),
            last: 0,
            bytes: 0,
            most,
        }
    }

    /// The answer to a question, which counts as asked for once more. From the age of `early` on it is
    /// to be renewed.
    pub fn look(&mut self, question: &Question, now: Instant, early: Duration) -> Option<Found> {
        let slot = self.slots.get_mut(question)?;
        slot.visited = true;
        let hot = slot.heat.ask(now);
        let again = mem::replace(&mut slot.asked, true);
        let age = now.saturating_duration_since(slot.entry.asked);
        let renew = !slot.renewing && slot.proof.is_none() && again && age >= early;
        slot.renewing |= renew;
        // An old revision's answer does not change.
        let cover = hot && slot.entry.at.is_none() && slot.proof.is_none() && slot.heat.tell();
        Some(Found {
            entry: slot.entry.clone(),
            proof: slot.proof,
            renew,
            cover,
        })
    }

    /// Keeps an answer in the place of the one before; false when it is too large to be kept. One that
    /// is older than the one before is not kept.
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

    /// Puts an answer, true at a later revision, in the place of the same one: its life goes on.
    pub fn advance(&mut self, question: &Question, entry: CachedResponse) {
        if let Some(slot) = self.slots.get_mut(question)
            && slot.entry.revision < entry.revision
            && slot.entry.asked == entry.asked
        {
            self.bytes = self.bytes + size(question, &entry) - size(question, &slot.entry);
            slot.entry = Arc::new(entry);
        }
    }

    /// Whether there is an answer to a question.
    pub fn has(&self, question: &Question) -> bool {
        self.slots.contains_key(question)
    }

    /// What proves the answer to a question right from now on, and those that take its place; false when
    /// there is none.
    pub fn prove(&mut self, question: &Question, proof: Option<Proof>) -> bool {
        let slot = self.slots.get_mut(question);
        slot.map(|slot| slot.proof = proof).is_some()
    }

    /// Drops the answer to a question.
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

    /// Drops every answer.
    pub fn clear(&mut self) {
        *self = Cache::new(self.most);
    }

    /// How often an answer was asked for since this was last called; none when it is not there.
    pub fn take_asked(&mut self, question: &Question) -> Option<u32> {
        self.slots.get_mut(question).map(|slot| slot.heat.take())
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What they hold in memory, in bytes.
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

/// What an answer and its question hold in memory, roughly: two copies of the question's handle, its
/// bytes once, the answer, the range, and the tables.
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
    fn an_older_answer_does_not_take_the_place_of_a_newer_one() {
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
    fn what_is_asked_for_stays_and_the_rest_goes() {
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
        // One that is too large for all there is is not kept.
        let large = CachedResponse {
            answer: Bytes::from(vec![0; 4 * one]),
            ..entry(5, now)
        };
        assert!(!cache.store(question(1), large));
        assert_eq!(cache.bytes(), 0);
    }

    /// Only one renews, and not what is asked for once.
    #[test]
    fn one_is_told_in_time_that_an_answer_will_be_too_old() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        cache.store(question(1), entry(5, now));
        let late = now + EARLY;
        let mut renew = |at| cache.look(&question(1), at, EARLY).unwrap().renew;
        assert_eq!(
            [renew(late), renew(late), renew(late)],
            [false, true, false]
        );
    }

    /// However often its answer is another one.
    #[test]
    fn what_is_hot_is_covered_unless_it_is_proved_right() {
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

    /// An old revision's answer does not change: writes and watches do not concern it, its age does.
    #[test]
    fn an_old_revision_is_not_overtaken() {
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
