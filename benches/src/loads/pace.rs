//! When calls begin, for loads of many short calls.
//!
//! Closed loop: in every place for a call the next one begins when the last has ended. Open loop:
//! calls are due at fixed times whatever the target does, and a latency counts from when the call
//! was due, so a target that stalls is charged for everything that had to wait meanwhile.
//!
//! One `current_thread` runtime drives all of it, so the generator takes at most one core. Counters
//! and the observer's snapshots are taken at the same moment on the same thread, so per-call
//! figures divide like by like. A failed call is counted and never timed.

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

/// How long calls that are under way at the end may still take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place for one call at a time.
pub(crate) trait Place: Send + 'static {
    /// Makes one call and checks its answer. Gives the bytes of values that were moved; the error
    /// says what went wrong.
    fn call(&mut self) -> impl Future<Output = Result<u64, String>> + Send;
}

/// Calls per second of an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// So many.
    PerSecond(f64),
    /// A share of what a reference managed in a closed loop.
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
            _ => Err("calls per second (1 to 1000000), or a share such as 30%".into()),
        }
    }
}

/// What came of it.
pub(crate) struct Outcome<S> {
    /// Right answers within the window.
    pub(crate) calls: u64,
    /// Right answers from the begin of the warm-up until all calls had ended.
    pub(crate) all: u64,
    /// Bytes of values that they moved.
    pub(crate) bytes: u64,
    /// The window's true length.
    pub(crate) elapsed: Duration,
    /// Latencies in microseconds. Closed loop: of calls that began and ended within the window.
    /// Open loop: of calls that were due within the window, whenever they ended.
    pub(crate) latency: Histogram<u64>,
    /// Open loop: how much later than due calls began, in microseconds.
    pub(crate) lateness: Histogram<u64>,
    /// The observer's snapshots at the window's begin and end.
    pub(crate) before: S,
    pub(crate) after: S,
}

/// Keeps `places` busy, all the time or at a rate; `observe` is called at the begin and at the end
/// of the window. The error is the first failed call's, if one failed at any time.
pub(crate) async fn run<P: Place, S>(
    places: Vec<P>,
    per_second: Option<f64>,
    warm_up: Duration,
    window: Duration,
    observe: impl Fn() -> S,
) -> Result<Outcome<S>, String> {
    let shared = Arc::new(Shared::new()?);
    let waiting = Arc::new(Mutex::new(VecDeque::new()));
    match per_second {
        None => {
            for place in places {
                shared.busy.fetch_add(1, Relaxed);
                tokio::spawn(closed(place, shared.clone()));
            }
        }
        Some(per_second) => {
            let open = Open {
                free: Arc::new(Mutex::new(VecDeque::from(places))),
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

async fn closed<P: Place>(mut place: P, shared: Arc<Shared>) {
    while !shared.stop.load(Relaxed) {
        let began = Instant::now();
        let answer = place.call().await;
        let within = shared.window_end.load(Relaxed) == u64::MAX;
        if !shared.count(answer, began, within) {
            // A broken target must not become a busy loop.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    shared.busy.fetch_sub(1, Relaxed);
}

/// The open loop: places that are free, and the due times of calls that found none.
struct Open<P> {
    free: Arc<Mutex<VecDeque<P>>>,
    waiting: Arc<Mutex<VecDeque<Instant>>>,
    shared: Arc<Shared>,
}

impl<P: Place> Open<P> {
    /// Begins calls when they are due, each in the place that has been free for longest.
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
                let place = self.free.lock().pop_front();
                match place {
                    Some(place) => self.begin(place, due),
                    None => self.waiting.lock().push_back(due),
                }
            }
        }
        self.shared.busy.fetch_sub(1, Relaxed);
    }

    fn begin(&self, mut place: P, mut due: Instant) {
        let (free, waiting) = (self.free.clone(), self.waiting.clone());
        let shared = self.shared.clone();
        shared.busy.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            loop {
                shared.late(due);
                let answer = place.call().await;
                shared.count(answer, due, true);
                let next = waiting.lock().pop_front();
                let Some(next) = next else { break };
                due = next;
            }
            free.lock().push_back(place);
            shared.busy.fetch_sub(1, Relaxed);
        });
    }
}

struct Shared {
    origin: Instant,
    /// Microseconds since the origin; the greatest number while they have not come.
    window_begin: AtomicU64,
    window_end: AtomicU64,
    stop: AtomicBool,
    /// Tasks that run.
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

    /// Whether a call that was to begin then is one of the window.
    fn in_window(&self, due: Instant) -> bool {
        let due = self.micros(due);
        due >= self.window_begin.load(Relaxed) && due < self.window_end.load(Relaxed)
    }

    /// Notes how a call ended; `timed` if it may be timed. Gives whether it was right.
    fn count(&self, answer: Result<u64, String>, due: Instant, timed: bool) -> bool {
        match answer {
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

    /// Lets calls end that are due or under way. Those that still wait after a while are timed as
    /// if they had ended then, which flatters nobody; one that never ends is a failure.
    async fn drain(&self, waiting: &Mutex<VecDeque<Instant>>) {
        if self.idle_within(PATIENCE).await {
            return;
        }
        for due in waiting.lock().drain(..) {
            self.late(due);
            if self.in_window(due) {
                self.latency.lock().saturating_record(micros(due.elapsed()));
            }
        }
        if !self.idle_within(PATIENCE).await {
            self.fail("a call never ended".into());
        }
    }

    async fn idle_within(&self, patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        while self.busy.load(Relaxed) > 0 {
            if Instant::now() >= limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }
}

/// An empty histogram of 1 µs to 60 s with three significant digits.
pub(crate) fn latencies() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|e| e.to_string())
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A timer of the kernel's, since the runtime's own counts in whole milliseconds.
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
}

impl Ticker {
    /// Does not tick yet.
    pub(crate) fn new() -> Result<Ticker, String> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|e| format!("timer: {e}"))?;
        // SAFETY: an `OwnedFd` that is not taken out again stays open, and the same, until dropped.
        #[allow(unsafe_code)]
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        let timer = timer.map_err(|e| format!("timer: {e}"))?;
        Ok(Ticker { timer })
    }

    /// Ticks from now on at every interval, or every 20 µs if that is longer.
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
        // Fails only for times out of range or a file that is no timer.
        let _ = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &times);
    }

    /// Waits until at least one tick has passed since the last.
    pub(crate) async fn tick(&mut self) {
        let ticks =
            |timer: &OwnedFd| rustix::io::read(timer, &mut [0; 8]).map_err(std::io::Error::from);
        // The only error is that there was no tick yet, and then it goes on waiting.
        let _ = self.timer.async_io(Interest::READABLE, ticks).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after so many milliseconds, or fails.
    struct Slow(u64, Option<&'static str>);

    impl Place for Slow {
        async fn call(&mut self) -> Result<u64, String> {
            tokio::time::sleep(Duration::from_millis(self.0)).await;
            self.1.map_or(Ok(3), |text| Err(text.into()))
        }
    }

    fn run_for(places: Vec<Slow>, rate: Option<f64>, millis: u64) -> Result<Outcome<()>, String> {
        let (warm_up, window) = (Duration::from_millis(20), Duration::from_millis(millis));
        crate::client::runtime()?.block_on(run(places, rate, warm_up, window, || ()))
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
    fn an_open_loop_charges_for_waiting() {
        // One place of 20 ms, a call due every 5 ms: the queue grows all the time.
        let outcome = run_for(vec![Slow(20, None)], Some(200.0), 200).unwrap();
        let places_had_time_for = outcome.elapsed.as_millis() as u64 / 20 + 1;
        assert!(outcome.calls <= places_had_time_for, "{}", outcome.calls);
        // All that were due in the window are timed, though most ended after it.
        assert!(outcome.latency.len() > 2 * outcome.calls);
        assert!(outcome.latency.value_at_quantile(0.9) > 300_000);
        assert!(outcome.lateness.value_at_quantile(0.9) > 280_000);
    }

    #[test]
    fn a_failed_call_fails_the_run() {
        for rate in [None, Some(500.0)] {
            let places = vec![Slow(1, None), Slow(1, Some("wrong"))];
            let error = run_for(places, rate, 50).err().unwrap();
            assert!(error.ends_with("first: wrong"), "{error}");
        }
    }

    #[test]
    fn rates_are_read() {
        assert_eq!("30%".parse(), Ok(Rate::Share(0.3)));
        assert_eq!("2500".parse(), Ok(Rate::PerSecond(2500.0)));
        for wrong in ["", "0", "-1", "0%", "x", "nan", "inf", "2000%"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
