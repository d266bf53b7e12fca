//! State shared by the watchers and the writers of one sample: the ranges, and the verification of
//! every event.
//!
//! Each range is a key prefix that no earlier sample has used, so its events are exactly the puts
//! recorded here. The value of a put contains its number, its due time, and bytes derived from the
//! number. An event of a watcher must be such a put, and the next one in the [`EventLog`] of its
//! range.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::event_log::{EventLog, Faults, LogEntry, Position};
use super::keys::pattern;
use super::pace::latencies;
use crate::client::Windows;
use crate::streampb::{self, Event};

/// Windows of a client that receives many events, as large as those of the Go client.
pub(crate) const WINDOWS: Windows = Windows {
    stream: 1 << 20,
    connection: 16 << 20,
};

/// Time limit for expected messages. Shorter in tests, where some never arrive.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });

/// Minimum bytes of a value: the number and the due time.
pub(crate) const LEAST_VALUE: usize = 16;

/// The ranges of one sample and their state.
pub(crate) struct WatchChecker {
    /// Origin of all times.
    base: Instant,
    prefixes: Vec<Vec<u8>>,
    pattern: Vec<u8>,
    size: usize,
    deliveries: AtomicU64,
    /// Permits for puts that some watcher has not received yet.
    put_permits: Semaphore,
    /// Latencies count for puts that are due between these times, in nanoseconds since `base`.
    counted_from: AtomicU64,
    counted_to: AtomicU64,
    broken: AtomicBool,
    state: Mutex<State>,
}

struct State {
    logs: Vec<EventLog>,
    /// Number of watchers of each range.
    watcher_counts: Vec<u32>,
    /// Range and position of every watcher. `None` after its retirement.
    watchers: Vec<Option<(usize, Position)>>,
    /// Number of correct events of retired watchers.
    retired: u64,
    faults: Faults,
    first_failure: Option<String>,
    latency: Histogram<u64>,
}

impl WatchChecker {
    /// Creates new ranges for values of `size` bytes. `in_flight` is the number of puts that may be
    /// missing at some watcher if the writers wait for the watchers.
    pub(crate) fn new(
        ranges: usize,
        size: usize,
        in_flight: usize,
    ) -> Result<Arc<WatchChecker>, String> {
        static SAMPLES: AtomicU64 = AtomicU64::new(0);
        let sample = SAMPLES.fetch_add(1, Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let run = now.map_err(|e| e.to_string())?.as_millis();
        let prefix = |range| format!("bench/watch-{run:x}-{sample}/{range}/").into_bytes();
        Ok(Arc::new(WatchChecker {
            base: Instant::now(),
            prefixes: (0..ranges).map(prefix).collect(),
            pattern: pattern(size + 256),
            size,
            deliveries: AtomicU64::new(0),
            put_permits: Semaphore::new(in_flight),
            counted_from: AtomicU64::new(u64::MAX),
            counted_to: AtomicU64::new(u64::MAX),
            broken: AtomicBool::new(false),
            state: Mutex::new(State {
                logs: (0..ranges).map(|_| EventLog::default()).collect(),
                watcher_counts: vec![0; ranges],
                watchers: Vec::new(),
                retired: 0,
                faults: Faults::default(),
                first_failure: None,
                latency: latencies()?,
            }),
        }))
    }

    /// Returns the number of ranges.
    pub(crate) fn ranges(&self) -> usize {
        self.prefixes.len()
    }

    /// Returns the key prefix of a range.
    pub(crate) fn prefix(&self, range: usize) -> &[u8] {
        &self.prefixes[range]
    }

    /// Returns the number of correct events so far, over all watchers.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.load(Relaxed)
    }

    /// Starts to record the latency of puts that are due from now on.
    pub(crate) fn count_from_now(&self) {
        self.counted_from.store(self.now(), Relaxed);
    }

    /// Stops to record the latency of puts that are due from now on.
    pub(crate) fn count_until_now(&self) {
        self.counted_to.store(self.now(), Relaxed);
    }

    /// Returns the recorded latencies in microseconds.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.state.lock().latency.clone()
    }

    /// Records a failure of the sample. Only the first is reported.
    pub(crate) fn fail(&self, text: String) {
        self.broken.store(true, Relaxed);
        self.state.lock().first_failure.get_or_insert(text);
    }

    /// Returns the first failure as an error.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.broken.load(Relaxed) {
            return Ok(());
        }
        let first = self.state.lock().first_failure.clone();
        Err(first.unwrap_or_default())
    }

    /// Waits for the permit for one more put.
    pub(crate) async fn put_permit(&self) {
        // The semaphore is never closed. If it were, the put would not wait.
        if let Ok(permit) = self.put_permits.acquire().await {
            permit.forget();
        }
    }

    /// Waits until every watcher has received every put, a failure, or the end of [`WAIT_LIMIT`].
    pub(crate) async fn settle(&self) {
        let limit = Instant::now() + WAIT_LIMIT;
        while self.missing() > 0 && self.check().is_ok() && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Verifies the sample after the last put.
    pub(crate) async fn close(&self) -> Result<(), String> {
        self.settle().await;
        // Time for duplicates, which arrive after the correct events.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.check()?;
        let state = &mut *self.state.lock();
        let mut positions = vec![Vec::new(); self.ranges()];
        for (range, position) in state.watchers.iter().flatten() {
            positions[*range].push(position.clone());
        }
        for (log, positions) in state.logs.iter_mut().zip(positions) {
            log.close(&positions, &mut state.faults);
        }
        state.faults.result()
    }

    /// Returns the number of events that have not arrived yet.
    fn missing(&self) -> u64 {
        let state = self.state.lock();
        let all = state.logs.iter().zip(&state.watcher_counts);
        let all: u64 = all
            .map(|(log, watchers)| log.puts() as u64 * u64::from(*watchers))
            .sum();
        (all + state.retired).saturating_sub(self.deliveries())
    }

    /// Returns the current time in nanoseconds since `base`.
    pub(crate) fn now(&self) -> u64 {
        self.since(Instant::now())
    }

    fn since(&self, due: Instant) -> u64 {
        let since = due.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Returns the key of the puts in a range.
    pub(crate) fn key(&self, range: usize) -> Vec<u8> {
        [&self.prefixes[range], KEY].concat()
    }

    /// Returns the value of the put `number`, which is due at `due`.
    pub(crate) fn value(&self, number: u64, due: Instant) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.size);
        value.extend(number.to_be_bytes());
        value.extend(self.since(due).to_be_bytes());
        value.extend(self.filler(number));
        value
    }

    fn filler(&self, number: u64) -> &[u8] {
        let begin = (number % 256) as usize;
        &self.pattern[begin..begin + self.size - LEAST_VALUE]
    }

    /// Records an acknowledged put.
    pub(crate) fn put(&self, range: usize, entry: LogEntry) {
        self.state.lock().logs[range].put(entry);
    }

    /// Adds a watcher of a range and returns its index.
    pub(crate) fn watcher(&self, range: usize) -> usize {
        let state = &mut *self.state.lock();
        state.watcher_counts[range] += 1;
        state.watchers.push(Some((range, Position::default())));
        state.watchers.len() - 1
    }

    /// Returns the number of events that a watcher has received.
    pub(crate) fn seen(&self, watcher: usize) -> usize {
        let state = self.state.lock();
        state.watchers[watcher]
            .as_ref()
            .map_or(0, |(_, position)| position.seen())
    }

    /// Retires a watcher, which need not receive later puts. Its events until now are verified.
    pub(crate) fn retire(&self, watcher: usize) {
        let state = &mut *self.state.lock();
        if let Some((range, position)) = state.watchers[watcher].take() {
            state.watcher_counts[range] -= 1;
            state.retired += position.seen() as u64;
        }
    }

    /// Verifies the events of one WatchResponse for a watcher. `now` is the time of its arrival.
    pub(crate) fn check_events(
        &self,
        watcher: usize,
        message: &[u8],
        now: u64,
    ) -> Result<(), String> {
        let state = &mut *self.state.lock();
        let Some((range, position)) = &mut state.watchers[watcher] else {
            return Ok(());
        };
        let counted = self.counted_from.load(Relaxed)..self.counted_to.load(Relaxed);
        streampb::events(message, |event| {
            let (number, due) = self.read(*range, &event)?;
            let entry = LogEntry {
                revision: event.mod_revision,
                number,
            };
            let log = &mut state.logs[*range];
            if let Some(have) = log.arrive(position, entry, &mut state.faults) {
                self.deliveries.fetch_add(1, Relaxed);
                if have == state.watcher_counts[*range] {
                    self.put_permits.add_permits(1);
                }
                if counted.contains(&due) {
                    let micros = now.saturating_sub(due) / 1000;
                    state.latency.saturating_record(micros);
                }
            }
            Ok(())
        })
    }

    /// Returns the number and the due time of an event of `range`, if it is a put of this sample.
    pub(crate) fn read(&self, range: usize, event: &Event) -> Result<(u64, u64), String> {
        if !event.is_put || event.key.strip_prefix(self.prefix(range)) != Some(KEY) {
            return Err(format!("an event of another key or kind: {event:?}"));
        }
        let head = event.value.first_chunk::<8>();
        let (rest, filler) = event
            .value
            .split_at_checked(LEAST_VALUE)
            .ok_or("an event with a short value")?;
        let (Some(number), Some(due)) = (head, rest.last_chunk::<8>()) else {
            return Err("an event with a short value".into());
        };
        let (number, due) = (u64::from_be_bytes(*number), u64::from_be_bytes(*due));
        if filler != self.filler(number) {
            return Err("an event with another value than was put".into());
        }
        Ok((number, due))
    }
}

/// Suffix of the key after the prefix of the range.
const KEY: &[u8] = b"key";
