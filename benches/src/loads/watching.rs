//! What the watchers and the writers of one sample share: the ranges, and the judgement of every
//! event.
//!
//! Each range is a key prefix that no earlier sample used, so that exactly the puts noted here are
//! its events. A put's value holds its number, the moment at which it was meant to begin, and bytes
//! that follow from the number; a watcher's event must be such a put, and the next one of its
//! range's [`Ledger`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::keys::pattern;
use super::ledger::{Entry, Faults, Ledger, Place};
use super::pace::latencies;
use crate::client::Windows;
use crate::streampb::{self, Event};

/// A client of many events opens its windows, as the Go client's does by itself.
pub(crate) const WINDOWS: Windows = Windows {
    stream: 1 << 20,
    connection: 16 << 20,
};

/// How long is waited for what must come. Tests wait for what does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });

/// The least length of a value: number and moment, which every value begins with.
pub(crate) const LEAST_VALUE: usize = 16;

/// The ranges of one sample, and what is known of them.
pub(crate) struct Watching {
    /// Moments are told from here on.
    base: Instant,
    prefixes: Vec<Vec<u8>>,
    pattern: Vec<u8>,
    size: usize,
    deliveries: AtomicU64,
    /// Room for puts that not all watchers have seen yet.
    room: Semaphore,
    /// Latencies count of puts whose moment lies between, in nanoseconds since the base.
    counted_from: AtomicU64,
    counted_to: AtomicU64,
    broken: AtomicBool,
    state: Mutex<State>,
}

struct State {
    ledgers: Vec<Ledger>,
    /// How many watchers each range has.
    crowds: Vec<u32>,
    /// Every watcher that is still there to see all: its range, and how far it is.
    watchers: Vec<Option<(usize, Place)>>,
    /// Right events of watchers that are gone.
    retired: u64,
    faults: Faults,
    first_failure: Option<String>,
    latency: Histogram<u64>,
}

impl Watching {
    /// So many new ranges, for values of `size` bytes; `room` is how many puts may be on their way
    /// when the writers wait for the watchers.
    pub(crate) fn new(ranges: usize, size: usize, room: usize) -> Result<Arc<Watching>, String> {
        static SAMPLES: AtomicU64 = AtomicU64::new(0);
        let sample = SAMPLES.fetch_add(1, Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let run = now.map_err(|e| e.to_string())?.as_millis();
        let prefix = |range| format!("bench/watch-{run:x}-{sample}/{range}/").into_bytes();
        Ok(Arc::new(Watching {
            base: Instant::now(),
            prefixes: (0..ranges).map(prefix).collect(),
            pattern: pattern(size + 256),
            size,
            deliveries: AtomicU64::new(0),
            room: Semaphore::new(room),
            counted_from: AtomicU64::new(u64::MAX),
            counted_to: AtomicU64::new(u64::MAX),
            broken: AtomicBool::new(false),
            state: Mutex::new(State {
                ledgers: (0..ranges).map(|_| Ledger::default()).collect(),
                crowds: vec![0; ranges],
                watchers: Vec::new(),
                retired: 0,
                faults: Faults::default(),
                first_failure: None,
                latency: latencies()?,
            }),
        }))
    }

    /// How many ranges there are.
    pub(crate) fn ranges(&self) -> usize {
        self.prefixes.len()
    }

    /// The prefix that is a range.
    pub(crate) fn prefix(&self, range: usize) -> &[u8] {
        &self.prefixes[range]
    }

    /// Right events so far, over all watchers.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.load(Relaxed)
    }

    /// Puts whose moment lies from now on count in the latency.
    pub(crate) fn count_from_now(&self) {
        self.counted_from.store(self.now(), Relaxed);
    }

    /// Puts whose moment lies from now on do not count any more.
    pub(crate) fn count_until_now(&self) {
        self.counted_to.store(self.now(), Relaxed);
    }

    /// Latencies of the counted events in microseconds.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.state.lock().latency.clone()
    }

    /// Notes what ends the sample; the first one is told.
    pub(crate) fn fail(&self, text: String) {
        self.broken.store(true, Relaxed);
        self.state.lock().first_failure.get_or_insert(text);
    }

    /// The first failure, if there is one.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.broken.load(Relaxed) {
            return Ok(());
        }
        let first = self.state.lock().first_failure.clone();
        Err(first.unwrap_or_default())
    }

    /// Waits for room for one more put.
    pub(crate) async fn room(&self) {
        // It is never closed; were it, no room would be waited for.
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
    }

    /// Waits until every watcher has every put, a failure, or the end of [`PATIENCE`].
    pub(crate) async fn settle(&self) {
        let limit = Instant::now() + PATIENCE;
        while self.missing() > 0 && self.check().is_ok() && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The judgement, when nothing is put any more.
    pub(crate) async fn close(&self) -> Result<(), String> {
        self.settle().await;
        // What is doubled comes after what is right.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.check()?;
        let state = &mut *self.state.lock();
        let mut places = vec![Vec::new(); self.ranges()];
        for (range, place) in state.watchers.iter().flatten() {
            places[*range].push(place.clone());
        }
        for (ledger, places) in state.ledgers.iter_mut().zip(places) {
            ledger.close(&places, &mut state.faults);
        }
        state.faults.verdict()
    }

    /// How many events are still to come.
    fn missing(&self) -> u64 {
        let state = self.state.lock();
        let all = state.ledgers.iter().zip(&state.crowds);
        let all: u64 = all
            .map(|(ledger, crowd)| ledger.puts() as u64 * u64::from(*crowd))
            .sum();
        (all + state.retired).saturating_sub(self.deliveries())
    }

    /// Now, in nanoseconds since the base.
    pub(crate) fn now(&self) -> u64 {
        self.since(Instant::now())
    }

    fn since(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The key that is put in a range.
    pub(crate) fn key(&self, range: usize) -> Vec<u8> {
        [&self.prefixes[range], KEY].concat()
    }

    /// The value of the put `number`, which was meant to begin at `moment`.
    pub(crate) fn value(&self, number: u64, moment: Instant) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.size);
        value.extend(number.to_be_bytes());
        value.extend(self.since(moment).to_be_bytes());
        value.extend(self.filler(number));
        value
    }

    fn filler(&self, number: u64) -> &[u8] {
        let begin = (number % 256) as usize;
        &self.pattern[begin..begin + self.size - LEAST_VALUE]
    }

    /// Notes an answered put.
    pub(crate) fn put(&self, range: usize, entry: Entry) {
        self.state.lock().ledgers[range].put(entry);
    }

    /// A new watcher of a range; its index.
    pub(crate) fn watcher(&self, range: usize) -> usize {
        let state = &mut *self.state.lock();
        state.crowds[range] += 1;
        state.watchers.push(Some((range, Place::default())));
        state.watchers.len() - 1
    }

    /// How many events a watcher has.
    pub(crate) fn seen(&self, watcher: usize) -> usize {
        let state = self.state.lock();
        state.watchers[watcher]
            .as_ref()
            .map_or(0, |(_, place)| place.seen())
    }

    /// A watcher is gone and needs not see what is put from now on. Up to here it is judged.
    pub(crate) fn retire(&self, watcher: usize) {
        let state = &mut *self.state.lock();
        if let Some((range, place)) = state.watchers[watcher].take() {
            state.crowds[range] -= 1;
            state.retired += place.seen() as u64;
        }
    }

    /// Judges the events of one WatchResponse for a watcher; `now` is when it came.
    pub(crate) fn judge(&self, watcher: usize, message: &[u8], now: u64) -> Result<(), String> {
        let state = &mut *self.state.lock();
        let Some((range, place)) = &mut state.watchers[watcher] else {
            return Ok(());
        };
        let counted = self.counted_from.load(Relaxed)..self.counted_to.load(Relaxed);
        streampb::events(message, |event| {
            let (number, moment) = self.read(*range, &event)?;
            let entry = Entry {
                revision: event.mod_revision,
                number,
            };
            let ledger = &mut state.ledgers[*range];
            if let Some(have) = ledger.arrive(place, entry, &mut state.faults) {
                self.deliveries.fetch_add(1, Relaxed);
                if have == state.crowds[*range] {
                    self.room.add_permits(1);
                }
                if counted.contains(&moment) {
                    let micros = now.saturating_sub(moment) / 1000;
                    state.latency.saturating_record(micros);
                }
            }
            Ok(())
        })
    }

    /// The number and the moment of an event of `range`, if it is a put of ours.
    pub(crate) fn read(&self, range: usize, event: &Event) -> Result<(u64, u64), String> {
        if !event.is_put || event.key.strip_prefix(self.prefix(range)) != Some(KEY) {
            return Err(format!("an event of another key or kind: {event:?}"));
        }
        let head = event.value.first_chunk::<8>();
        let (rest, filler) = event
            .value
            .split_at_checked(LEAST_VALUE)
            .ok_or("an event with a short value")?;
        let (Some(number), Some(moment)) = (head, rest.last_chunk::<8>()) else {
            return Err("an event with a short value".into());
        };
        let (number, moment) = (u64::from_be_bytes(*number), u64::from_be_bytes(*moment));
        if filler != self.filler(number) {
            return Err("an event with another value than was put".into());
        }
        Ok((number, moment))
    }
}

/// What follows a range's prefix in the key of its puts.
const KEY: &[u8] = b"key";
