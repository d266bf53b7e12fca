//! CPU profiles. A kernel timer of the CPU time of the process sends SIGPROF. The signal handler
//! records the stack of the thread that it interrupts in a slot. The profiler collects the slots.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook_registry::SigId;

use crate::limits;
use crate::profile::proto::{Profile, ProfileKind, Sample};
use crate::profile::stacks;

/// The right to record a CPU profile. One exists at a time.
#[derive(Debug)]
pub struct CpuProfiler(());

static IN_USE: AtomicBool = AtomicBool::new(false);

impl CpuProfiler {
    /// Returns `None` while another profile is recorded.
    pub fn begin() -> Option<CpuProfiler> {
        // Created only on success: a drop releases the right.
        (!IN_USE.swap(true, Ordering::Acquire)).then(|| CpuProfiler(()))
    }

    /// Records a profile for `time`, or until `wanted` returns false. Blocks for this time: see
    /// [`run_on_thread`](super::run_on_thread).
    ///
    /// # Errors
    /// The system rejects the signal handler or the timer.
    pub fn record(self, time: Duration, wanted: &dyn Fn() -> bool) -> io::Result<Vec<u8>> {
        let start = Instant::now();
        let mut stacks: HashMap<Vec<usize>, i64> = HashMap::new();
        // Discard samples of an earlier profile.
        collect(|_| {});
        let timer = ProfileTimer::begin()?;
        while start.elapsed() < time && wanted() {
            std::thread::sleep(
                limits::PROFILE_COLLECT_INTERVAL.min(time.saturating_sub(start.elapsed())),
            );
            collect(|stack| count(&mut stacks, stack));
        }
        drop(timer);
        let duration = start.elapsed();
        collect(|stack| count(&mut stacks, stack));
        let tick = i64::try_from(limits::PROFILE_TICK.as_nanos()).unwrap_or(i64::MAX);
        let mut profile = Profile::new(ProfileKind::Cpu, tick);
        profile.set_duration(duration);
        for (frames, count) in stacks {
            let values = vec![count, count.saturating_mul(tick)];
            profile.add(&Sample { frames, values });
        }
        Ok(profile.encode())
    }
}

impl Drop for CpuProfiler {
    fn drop(&mut self) {
        IN_USE.store(false, Ordering::Release);
    }
}

/// Counts a stack. Stacks beyond [`limits::PROFILE_STACKS`] are counted as one without frames.
fn count(stacks: &mut HashMap<Vec<usize>, i64>, mut stack: Vec<usize>) {
    if stacks.len() >= limits::PROFILE_STACKS && !stacks.contains_key(&stack) {
        stack.clear();
    }
    *stacks.entry(stack).or_default() += 1;
}

/// Sends SIGPROF until it is dropped.
struct ProfileTimer(SigId);

impl ProfileTimer {
    fn begin() -> io::Result<ProfileTimer> {
        #[expect(
            unsafe_code,
            reason = "the handler walks the stack and writes to static slots, without a lock or an \
                      allocation"
        )]
        let id = unsafe { signal_hook_registry::register(libc::SIGPROF, record_sample)? };
        let timer = ProfileTimer(id);
        set_timer(limits::PROFILE_TICK)?;
        Ok(timer)
    }
}

impl Drop for ProfileTimer {
    fn drop(&mut self) {
        // Cannot fail: the same timer was set before. A pending signal has no effect.
        let _ = set_timer(Duration::ZERO);
        signal_hook_registry::unregister(self.0);
    }
}

/// Sets the interval of the timer of the CPU time of the process. Zero: off.
fn set_timer(interval: Duration) -> io::Result<()> {
    let interval = libc::timeval {
        tv_sec: 0,
        // The interval is below one second.
        tv_usec: libc::suseconds_t::from(interval.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    #[expect(
        unsafe_code,
        reason = "the call reads the timer value, and writes nothing because the last pointer is null"
    )]
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One sample between the signal handler and the profiler.
struct Slot {
    /// [`FREE`], [`BUSY`] in a handler, or the number of frames.
    state: AtomicU32,
    frames: [AtomicUsize; limits::PROFILE_DEPTH],
}

const FREE: u32 = 0;
const BUSY: u32 = u32::MAX;

/// Uses no memory until the first profile, because the pages are untouched.
static SLOTS: [Slot; limits::PROFILE_SLOTS] = [const {
    Slot {
        state: AtomicU32::new(FREE),
        frames: [const { AtomicUsize::new(0) }; limits::PROFILE_DEPTH],
    }
}; limits::PROFILE_SLOTS];

/// The slot of the next sample, modulo their number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The signal handler. A sample without a free slot is lost.
fn record_sample() {
    let slot = &SLOTS[NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS.len()];
    let reserved = slot
        .state
        .compare_exchange(FREE, BUSY, Ordering::Acquire, Ordering::Relaxed);
    if reserved.is_err() {
        return;
    }
    let depth = stacks::walk(|at, frame| slot.frames[at].store(frame, Ordering::Relaxed));
    // At most PROFILE_DEPTH.
    slot.state.store(depth as u32, Ordering::Release);
}

/// Removes the samples from the slots and passes them to `each`.
fn collect(mut each: impl FnMut(Vec<usize>)) {
    for slot in &SLOTS {
        let depth = slot.state.load(Ordering::Acquire);
        if depth == FREE || depth == BUSY {
            continue;
        }
        let frames = slot.frames.iter().take(depth as usize);
        each(frames.map(|frame| frame.load(Ordering::Relaxed)).collect());
        slot.state.store(FREE, Ordering::Release);
    }
}
