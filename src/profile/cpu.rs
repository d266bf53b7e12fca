//! Where CPU time goes: the kernel's timer of the process's CPU time sends a signal, which notes the stack
//! of the thread that it interrupts. What is noted lies in a few places until it is gathered.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook_registry::SigId;

use crate::limits;
use crate::profile::proto::{Kind, Profile, Sample};
use crate::profile::stacks;

/// One that is being taken. There is one at a time.
#[derive(Debug)]
pub struct Taking(());

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Taking {
    /// `None` while another is taken.
    pub fn begin() -> Option<Taking> {
        // Made only then: to drop one is to let the next begin.
        (!TAKEN.swap(true, Ordering::Acquire)).then(|| Taking(()))
    }

    /// Takes it for so long, or until `wanted` is no more. Takes as long: see [`apart`](super::apart).
    ///
    /// # Errors
    /// The system refuses the signal or the timer.
    pub fn take(self, time: Duration, wanted: &dyn Fn() -> bool) -> io::Result<Vec<u8>> {
        let begun = Instant::now();
        let mut stacks: HashMap<Vec<usize>, i64> = HashMap::new();
        // What an earlier one left.
        gather(|_| {});
        let timer = Ticking::begin()?;
        while begun.elapsed() < time && wanted() {
            std::thread::sleep(limits::PROFILE_GATHER.min(time.saturating_sub(begun.elapsed())));
            gather(|stack| count(&mut stacks, stack));
        }
        drop(timer);
        let took = begun.elapsed();
        gather(|stack| count(&mut stacks, stack));
        let tick = i64::try_from(limits::PROFILE_TICK.as_nanos()).unwrap_or(i64::MAX);
        let mut profile = Profile::new(Kind::Cpu, tick);
        profile.took(took);
        for (frames, count) in stacks {
            let values = vec![count, count.saturating_mul(tick)];
            profile.add(&Sample { frames, values });
        }
        Ok(profile.encode())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// Those that find no room are one without frames.
fn count(stacks: &mut HashMap<Vec<usize>, i64>, mut stack: Vec<usize>) {
    if stacks.len() >= limits::PROFILE_STACKS && !stacks.contains_key(&stack) {
        stack.clear();
    }
    *stacks.entry(stack).or_default() += 1;
}

/// The signal comes while this lives.
struct Ticking(SigId);

impl Ticking {
    fn begin() -> io::Result<Ticking> {
        #[expect(
            unsafe_code,
            reason = "what the handler does may be done in one: it walks the stack and writes to places \
                      that are there for it, without a lock or an allocation"
        )]
        let id = unsafe { signal_hook_registry::register(libc::SIGPROF, note)? };
        let ticking = Ticking(id);
        set_timer(limits::PROFILE_TICK)?;
        Ok(ticking)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        // A timer that could be set can be ended. A signal under way is taken, and does nothing.
        let _ = set_timer(Duration::ZERO);
        signal_hook_registry::unregister(self.0);
    }
}

/// The timer of the process's CPU time fires so often; zero: never.
fn set_timer(every: Duration) -> io::Result<()> {
    let every = libc::timeval {
        tv_sec: 0,
        // Below a second.
        tv_usec: libc::suseconds_t::from(every.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    #[expect(
        unsafe_code,
        reason = "the timer is read, and nothing is written where the last is null"
    )]
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A stack on its way from the handler of a signal.
struct Place {
    /// [`FREE`], [`HELD`] by a handler, or how many frames there are.
    state: AtomicU32,
    frames: [AtomicUsize; limits::PROFILE_DEPTH],
}

const FREE: u32 = 0;
const HELD: u32 = u32::MAX;

/// Untouched, and so no memory, until a profile is taken.
static PLACES: [Place; limits::PROFILE_PLACES] = [const {
    Place {
        state: AtomicU32::new(FREE),
        frames: [const { AtomicUsize::new(0) }; limits::PROFILE_DEPTH],
    }
}; limits::PROFILE_PLACES];

/// Where the next one is put.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The handler of the signal. A stack that finds no place is lost.
fn note() {
    let place = &PLACES[NEXT.fetch_add(1, Ordering::Relaxed) % PLACES.len()];
    let held = place
        .state
        .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
    if held.is_err() {
        return;
    }
    let depth = stacks::walk(|at, frame| place.frames[at].store(frame, Ordering::Relaxed));
    // At most PROFILE_DEPTH.
    place.state.store(depth as u32, Ordering::Release);
}

/// Takes what lies there.
fn gather(mut each: impl FnMut(Vec<usize>)) {
    for place in &PLACES {
        let depth = place.state.load(Ordering::Acquire);
        if depth == FREE || depth == HELD {
            continue;
        }
        let frames = place.frames.iter().take(depth as usize);
        each(frames.map(|frame| frame.load(Ordering::Relaxed)).collect());
        place.state.store(FREE, Ordering::Release);
    }
}
