//! CPU profiles. A kernel timer of the CPU time of the process sends SIGPROF. The handler in
//! `sampler.rs` records the thread that it interrupts. The profiler collects the samples and counts
//! their stacks.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::limits;
use crate::profile::proto::{Profile, ProfileKind, StackSample};
use crate::profile::sampler::Sampler;
use crate::profile::unwind::Unwinder;

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
    /// The system rejects the signal handler or the timer, or limits the size of files.
    pub fn record(self, time: Duration, wanted: &dyn Fn() -> bool) -> io::Result<Vec<u8>> {
        let start = Instant::now();
        let mut stacks: HashMap<Vec<usize>, i64> = HashMap::new();
        let sampler = Sampler::install()?;
        let mut unwinder = Unwinder::new();
        let mut collect = || sampler.collect(|sample| count(&mut stacks, unwinder.frames(sample)));
        let timer = ProfileTimer::begin()?;
        while start.elapsed() < time && wanted() {
            std::thread::sleep(
                limits::PROFILE_COLLECT_INTERVAL.min(time.saturating_sub(start.elapsed())),
            );
            collect();
        }
        drop(timer);
        let duration = start.elapsed();
        collect();
        let tick = i64::try_from(limits::PROFILE_TICK.as_nanos()).unwrap_or(i64::MAX);
        let mut profile = Profile::new(ProfileKind::Cpu, tick);
        profile.set_duration(duration);
        for (frames, count) in stacks {
            let values = vec![count, count.saturating_mul(tick)];
            profile.add(&StackSample { frames, values });
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
struct ProfileTimer;

impl ProfileTimer {
    fn begin() -> io::Result<ProfileTimer> {
        set_timer(limits::PROFILE_TICK)?;
        Ok(ProfileTimer)
    }
}

impl Drop for ProfileTimer {
    fn drop(&mut self) {
        // Cannot fail: the same timer was set before. A late signal records a sample, which the
        // next profile discards.
        let _ = set_timer(Duration::ZERO);
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
        reason = "the call reads the timer value, and writes nothing: the last pointer is null"
    )]
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
