//! Start times of calls, for loads of many short calls.
//!
//! Closed loop: in every slot the next call begins when the last one has ended. Open loop: calls
//! are due at fixed times, independently of the target. Latency counts from the due time, so a
//! target that stalls is charged for all calls that had to wait.
//!
//! All calls run on one `current_thread` runtime, so the generator uses at most one core. Counters
//! and the observer's snapshots are taken at the same time on the same thread, so figures per call
//! refer to the same period. A failed call is counted and never timed.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Time limit for calls in progress at the end of the window.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A slot for one call at a time.
pub(crate) trait Slot: Send + 'static {
    /// Makes one call and verifies its response. Returns the transferred bytes of values, or a
    /// description of the failure.
    fn call(&mut self) -> impl Future<Output = Result<u64, String>> + Send;
}

/// Calls per second of an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// An absolute rate.
    PerSecond(f64),
    /// A fraction of the reference rate, which is that of a closed loop.
    Share(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let (number, share) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        match number.parse::<f64>() {
            Ok(number) if share && number > 0.0 && number <= 1000.0 => {
                Ok(Rate::Share(number / 100.0))
            }
            Ok(number) if !share && (1.0..=1e6).contains(&number) => Ok(Rate::PerSecond(number)),
            _ => Err("calls per second (1 to 1000000), or a percentage such as 30%".into()),
        }
    }
}

/// Result of [`run`].
pub(crate) struct Outcome<S> {
    /// Correct responses within the window.
    pub(crate) calls: u64,
    /// Correct responses from the start of the warm-up until all calls had ended.
    pub(crate) all: u64,
    /// Bytes of values transferred by `calls`.
    pub(crate) bytes: u64,
    /// Measured length of the window.
    pub(crate) elapsed: Duration,
    /// Latencies in microseconds. Closed loop: of calls that began and ended within the window.
    /// Open loop: of calls that were due within the window, independently of their end.
    pub(crate) latency: Histogram<u64>,
    /// Open loop: delay between due time and start of the calls, in microseconds.
    pub(crate) lateness: Histogram<u64>,
    /// The observer's snapshots at the start and the end of the window.
    pub(crate) before: S,
    pub(crate) after: S,
}

/// Makes calls in all `slots`, in a closed loop or at a rate. Calls `observe` at the start and at
/// the end of the window.
///
/// # Errors
///
/// Returns the first failure if any call failed, even outside the window.
pub(crate) async fn run<P: Slot, S>(
    slots: Vec<P>,
    per_second: Option<f64>,
    warm_up: Duration,
    window: Duration,
    observe: impl Fn() -> S,
) -> Result<Outcome<S>, String> {
    let shared = Arc::new(Shared::new()?);
    let waiting = Arc::new(Mutex::new(VecDeque::new()));
    match per_second {
        None => {
            for slot in slots {
                shared.busy.fetch_add(1, Relaxed);
                tokio::spawn(closed(slot, shared.clone()));
            }
        }
        Some(per_second) => {
            let open = Open {
                free: Arc::new(Mutex::new(VecDeque::from(slots))),
                waiting: waiting.clone(),
                shared: shared.clone(),
            };
            shared.busy.fetch_add(1, Relaxed);
            tokio::spawn(open.dispatch(Duration::from_secs_f64(1.0 / per_second), Ticker::new()?));
        }
    }
    tokio::time::sleep(warm_up).await;
    let before = observe();
    let counts = (shared.calls.load(Relaxed), shared.bytes.load(Relaxed));
    let began = Instant::now();
    shared.window_begin.store(shared.micros(began), Relaxed);
    tokio::time::sleep(window).await;
    let after = observe();
    let ended = Instant::now();
    shared.window_end.store(shared.micros(ended), Relaxed);
    let calls = shared.calls.load(Relaxed) - counts.0;
    let bytes = shared.bytes.load(Relaxed) - counts.1;
    shared.stop.store(true, Relaxed);
    shared.drain(&waiting).await;
    if let Some(text) = shared.first_failure.lock().take() {
        let failures = shared.failures.load(Relaxed);
        return Err(format!("{failures} failed calls, first: {text}"));
    }
    if calls == 0 {
        return Err("no call ended within the window".into());
    }
    let (latency, lateness) = (
        shared.latency.lock().clone(),
        shared.lateness.lock().clone(),
    );
    Ok(Outcome {
        calls,
        all: shared.calls.load(Relaxed),
        bytes,
        elapsed: ended - began,
        latency,
        lateness,
        before,
        after,
    })
}

async fn closed<P: Slot>(mut slot: P, shared: Arc<Shared>) {
    while !shared.stop.load(Relaxed) {
        let began = Instant::now();
        let result = slot.call().await;
        let within = shared.window_end.load(Relaxed) == u64::MAX;
        if !shared.count(result, began, within) {
            // Prevents a busy loop if the target is broken.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    shared.busy.fetch_sub(1, Relaxed);
}

/// State of the open loop: free slots, and the due times of calls without a free slot.
struct Open<P> {
    free: Arc<Mutex<VecDeque<P>>>,
    waiting: Arc<Mutex<VecDeque<Instant>>>,
    shared: Arc<Shared>,
}

impl<P: Slot> Open<P> {
    /// Starts calls when they are due, each in the slot that has been free for longest.
    async fn dispatch(self, interval: Duration, mut ticker: Ticker) {
        let start = Instant::now();
        let mut issued = 0;
        ticker.start(interval);
        while !self.shared.stop.load(Relaxed) {
            ticker.tick().await;
            let now = Instant::now();
            loop {
                let due = start + interval.mul_f64(f64::from(issued));
                if due > now {
                    break;
                }
                issued += 1;
                let slot = self.free.lock().pop_front();
                match slot {
                    Some(slot) => self.begin(slot, due),
                    None => self.waiting.lock().push_back(due),
                }
            }
        }
        self.shared.busy.fetch_sub(1, Relaxed);
    }

    fn begin(&self, mut slot: P, mut due: Instant) {
        let (free, waiting) = (self.free.clone(), self.waiting.clone());
        let shared = self.shared.clone();
        shared.busy.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            loop {
                shared.late(due);
                let result = slot.call().await;
                shared.count(result, due, true);
                let next = waiting.lock().pop_front();
                let Some(next) = next else { break };
                due = next;
            }
            free.lock().push_back(slot);
            shared.busy.fetch_sub(1, Relaxed);
        });
    }
}

struct Shared {
    origin: Instant,
    /// Limits of the window in microseconds since `origin`, `u64::MAX` until they are reached.
    window_begin: AtomicU64,
    window_end: AtomicU64,
    stop: AtomicBool,
    /// Number of running tasks.
    busy: AtomicU64,
    calls: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    first_failure: Mutex<Option<String>>,
    latency: Mutex<Histogram<u64>>,
    lateness: Mutex<Histogram<u64>>,
}

impl Shared {
    fn new() -> Result<Shared, String> {
        Ok(Shared {
            origin: Instant::now(),
            window_begin: AtomicU64::new(u64::MAX),
            window_end: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            busy: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            first_failure: Mutex::new(None),
            latency: Mutex::new(latencies()?),
            lateness: Mutex::new(latencies()?),
        })
    }

    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.origin))
    }

    /// Whether a call that is due at this time belongs to the window.
    fn in_window(&self, due: Instant) -> bool {
        let due = self.micros(due);
        due >= self.window_begin.load(Relaxed) && due < self.window_end.load(Relaxed)
    }

    /// Records the result of a call, with its latency if `timed`. Returns whether it was correct.
    fn count(&self, result: Result<u64, String>, due: Instant, timed: bool) -> bool {
        match result {
            Ok(bytes) => {
                self.calls.fetch_add(1, Relaxed);
                self.bytes.fetch_add(bytes, Relaxed);
                if timed && self.in_window(due) {
                    self.latency.lock().saturating_record(micros(due.elapsed()));
                }
                true
            }
            Err(text) => {
                self.fail(text);
                false
            }
        }
    }

    fn late(&self, due: Instant) {
        if self.in_window(due) {
            self.lateness
                .lock()
                .saturating_record(micros(due.elapsed()));
        }
    }

    fn fail(&self, text: String) {
        self.failures.fetch_add(1, Relaxed);
        self.first_failure.lock().get_or_insert(text);
    }

    /// Waits for calls that are due or in progress. Calls that still wait at the time limit are
    /// timed as if they ended then, which favours no target. A call that never ends is a failure.
    async fn drain(&self, waiting: &Mutex<VecDeque<Instant>>) {
        if self.idle_within(DRAIN_TIMEOUT).await {
            return;
        }
        for due in waiting.lock().drain(..) {
            self.late(due);
            if self.in_window(due) {
                self.latency.lock().saturating_record(micros(due.elapsed()));
            }
        }
        if !self.idle_within(DRAIN_TIMEOUT).await {
            self.fail("a call never ended".into());
        }
    }

    async fn idle_within(&self, timeout: Duration) -> bool {
        let limit = Instant::now() + timeout;
        while self.busy.load(Relaxed) > 0 {
            if Instant::now() >= limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }
}

/// Returns an empty histogram of 1 µs to 60 s with three significant digits.
pub(crate) fn latencies() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|e| e.to_string())
}

/// Converts to whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A kernel timer. The runtime's own timer has a resolution of a millisecond.
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
}

impl Ticker {
    /// Creates a stopped timer.
    pub(crate) fn new() -> Result<Ticker, String> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|e| format!("timer: {e}"))?;
        // SAFETY: the `OwnedFd` is never removed, so it stays open and the same until dropped.
        #[allow(unsafe_code)]
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        let timer = timer.map_err(|e| format!("timer: {e}"))?;
        Ok(Ticker { timer })
    }

    /// Starts ticks at every interval, or every 20 µs if that is longer.
    pub(crate) fn start(&mut self, interval: Duration) {
        let interval = interval.max(Duration::from_micros(20));
        let interval = Timespec {
            tv_sec: interval.as_secs() as i64,
            tv_nsec: i64::from(interval.subsec_nanos()),
        };
        let times = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        // Fails only for a time out of range or a file that is not a timer.
        let _ = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &times);
    }

    /// Waits until at least one tick has passed since the last call.
    pub(crate) async fn tick(&mut self) {
        let ticks =
            |timer: &OwnedFd| rustix::io::read(timer, &mut [0; 8]).map_err(std::io::Error::from);
        // The only error means that there was no tick yet, and `async_io` then waits again.
        let _ = self.timer.async_io(Interest::READABLE, ticks).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot that responds or fails after this number of milliseconds.
    struct Slow(u64, Option<&'static str>);

    impl Slot for Slow {
        async fn call(&mut self) -> Result<u64, String> {
            tokio::time::sleep(Duration::from_millis(self.0)).await;
            self.1.map_or(Ok(3), |text| Err(text.into()))
        }
    }

    fn run_for(slots: Vec<Slow>, rate: Option<f64>, millis: u64) -> Result<Outcome<()>, String> {
        let (warm_up, window) = (Duration::from_millis(20), Duration::from_millis(millis));
        crate::client::runtime()?.block_on(run(slots, rate, warm_up, window, || ()))
    }

    #[test]
    fn a_closed_loop_counts_and_times() {
        let outcome = run_for(vec![Slow(5, None), Slow(5, None)], None, 200).unwrap();
        assert!(outcome.calls > 2);
        assert!(outcome.all > outcome.calls);
        assert_eq!(outcome.bytes, 3 * outcome.calls);
        assert!(outcome.latency.min() >= 5_000);
        assert_eq!(outcome.lateness.len(), 0);
    }

    #[test]
    fn an_open_loop_counts_the_waiting_time() {
        // One slot with calls of 20 ms, and one call due every 5 ms: the queue grows all the time.
        let outcome = run_for(vec![Slow(20, None)], Some(200.0), 200).unwrap();
        let slots_had_time_for = outcome.elapsed.as_millis() as u64 / 20 + 1;
        assert!(outcome.calls <= slots_had_time_for, "{}", outcome.calls);
        // All calls that were due in the window are timed, though most ended after it.
        assert!(outcome.latency.len() > 2 * outcome.calls);
        assert!(outcome.latency.value_at_quantile(0.9) > 300_000);
        assert!(outcome.lateness.value_at_quantile(0.9) > 280_000);
    }

    #[test]
    fn a_failed_call_fails_the_run() {
        for rate in [None, Some(500.0)] {
            let slots = vec![Slow(1, None), Slow(1, Some("wrong"))];
            let error = run_for(slots, rate, 50).err().unwrap();
            assert!(error.ends_with("first: wrong"), "{error}");
        }
    }

    #[test]
    fn rates_are_parsed() {
        assert_eq!("30%".parse(), Ok(Rate::Share(0.3)));
        assert_eq!("2500".parse(), Ok(Rate::PerSecond(2500.0)));
        for wrong in ["", "0", "-1", "0%", "x", "nan", "inf", "2000%"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
