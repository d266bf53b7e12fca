//! Who holds memory: an allocator around the real one that notes where some allocations were made.
//!
//! Once begun, about one in [`limits::HEAP_RATE`] allocated bytes is noted with its stack, and forgotten when
//! it is freed; the chance of each by its size is what a profile is scaled up by, as Go does it. Nearly all
//! that is freed was never noted: a table of small counts by address says so without a lock.
//!
//! Everything done for it here is done with the thread marked as busy: what that allocates and frees is
//! neither noted nor looked for.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use parking_lot::Mutex;

use crate::limits;
use crate::profile::proto::{self, Kind};
use crate::profile::stacks;

/// An allocator whose allocations can be profiled. Until [`begin`] it is the one inside.
#[derive(Debug)]
pub struct Profiled<A>(pub A);

static BEGUN: AtomicBool = AtomicBool::new(false);

/// Allocations are noted from now on.
pub fn begin() {
    BEGUN.store(true, Ordering::Relaxed);
}

/// Whether they are.
#[inline]
pub fn is_begun() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe to be; each call is handed on unchanged to the one inside, whose \
              promises hold, and what is done beside it neither reads nor writes the memory"
)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Profiled<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_begun() {
            return allocated(layout.size(), || unsafe { self.0.alloc(layout) });
        }
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_begun() {
            return allocated(layout.size(), || unsafe { self.0.alloc_zeroed(layout) });
        }
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_begun() {
            freed(memory);
        }
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_begun() {
            freed(memory);
            return allocated(size, || unsafe { self.0.realloc(memory, layout, size) });
        }
        unsafe { self.0.realloc(memory, layout, size) }
    }
}

thread_local! {
    /// Bytes until the next allocation is noted; 0 where that was not settled yet.
    static LEFT: Cell<usize> = const { Cell::new(0) };
    /// This thread is at it.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// How many noted allocations there are by address, many addresses to one count.
static NOTED: [AtomicU16; NOTED_COUNTS] = [const { AtomicU16::new(0) }; NOTED_COUNTS];
const NOTED_COUNTS: usize = 1 << 16;

fn noted(address: usize) -> &'static AtomicU16 {
    // The upper bits of a product spread what lies side by side.
    let spread = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    &NOTED[spread as usize]
}

/// Kept out of the way of those who do not profile: a branch is all that they meet.
#[cold]
#[inline(never)]
fn allocated(size: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    let left = LEFT.get();
    if size < left {
        LEFT.set(left - size);
    } else if !memory.is_null() && !BUSY.get() {
        reached(memory.addr(), size, left);
    }
    memory
}

#[cold]
#[inline(never)]
fn reached(address: usize, size: usize, left: usize) {
    let _busy = Busy::begin();
    LEFT.set(until_next(fastrand::f64()));
    if left > 0 {
        note(address, size);
    } else if size >= LEFT.get() {
        LEFT.set(until_next(fastrand::f64()));
        note(address, size);
    }
}

/// To be told before: once it is freed another thread may get the same address.
#[cold]
#[inline(never)]
fn freed(memory: *mut u8) {
    let address = memory.addr();
    // Whoever frees it got the address from whoever allocated it, and with it this count.
    if noted(address).load(Ordering::Relaxed) != 0 && !BUSY.get() {
        forget(address);
    }
}

/// The thread is at it while this lives: what it allocates is not noted.
#[derive(Debug)]
pub(super) struct Busy {
    was: bool,
}

impl Busy {
    pub(super) fn begin() -> Busy {
        Busy {
            was: BUSY.replace(true),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(self.was);
    }
}

fn note(address: usize, size: usize) {
    let mut frames = [0; limits::PROFILE_DEPTH];
    let depth = stacks::walk(|at, frame| frames[at] = frame);
    let mut table = TABLE.lock();
    let table = table.get_or_insert_default();
    if table.add(address, size, &frames[..depth]) {
        noted(address).fetch_add(1, Ordering::Relaxed);
    }
}

#[cold]
#[inline(never)]
fn forget(address: usize) {
    let _busy = Busy::begin();
    let mut table = TABLE.lock();
    if table.as_mut().is_some_and(|table| table.remove(address)) {
        noted(address).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes until the next one, by chance: so long that each byte is as likely to be hit as any other.
fn until_next(chance: f64) -> usize {
    // From 0 to below 1, so the logarithm is of what is above 0. A float becomes what fits.
    (-(1.0 - chance).ln() * limits::HEAP_RATE as f64) as usize + 1
}

/// How many allocations of this size one that was noted stands for.
fn stands_for(size: usize) -> f64 {
    1.0 / (1.0 - (-(size.max(1) as f64) / limits::HEAP_RATE as f64).exp())
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// What was noted.
#[derive(Default)]
struct Table {
    /// By address: which stack, and how many bytes.
    live: HashMap<usize, (usize, usize), foldhash::fast::RandomState>,
    numbers: HashMap<Arc<[usize]>, usize, foldhash::fast::RandomState>,
    stacks: Vec<Stack>,
}

#[derive(Clone)]
struct Stack {
    frames: Arc<[usize]>,
    /// Allocations and bytes since the beginning, scaled up.
    allocated: [f64; 2],
}

impl Table {
    /// False when there is no room for it: a freed one is not looked for.
    fn add(&mut self, address: usize, size: usize, frames: &[usize]) -> bool {
        let number = self.number(frames);
        let objects = stands_for(size);
        let stack = &mut self.stacks[number];
        stack.allocated[0] += objects;
        stack.allocated[1] += objects * size as f64;
        let has_room = self.live.len() < limits::HEAP_LIVE;
        // There already only where its end was missed; it is this one's now.
        has_room && self.live.insert(address, (number, size)).is_none()
    }

    fn remove(&mut self, address: usize) -> bool {
        self.live.remove(&address).is_some()
    }

    /// Of a stack; those that find no room are one without frames.
    fn number(&mut self, frames: &[usize]) -> usize {
        if let Some(number) = self.numbers.get(frames) {
            return *number;
        }
        let frames: Arc<[usize]> = match self.stacks.len() < limits::HEAP_STACKS {
            true => frames.into(),
            false => Arc::default(),
        };
        if let Some(number) = self.numbers.get(&frames) {
            return *number;
        }
        let number = self.stacks.len();
        self.numbers.insert(frames.clone(), number);
        self.stacks.push(Stack {
            frames,
            allocated: [0.0; 2],
        });
        number
    }

    /// Per stack: objects and bytes ever allocated, and those that live.
    fn samples(&self) -> Vec<(Arc<[usize]>, [f64; 4])> {
        let all = self.stacks.iter();
        let mut samples: Vec<_> = all
            .map(|stack| {
                let [objects, bytes] = stack.allocated;
                (stack.frames.clone(), [objects, bytes, 0.0, 0.0])
            })
            .collect();
        for (number, size) in self.live.values() {
            let objects = stands_for(*size);
            let values = &mut samples[*number].1;
            values[2] += objects;
            values[3] += objects * *size as f64;
        }
        samples
    }
}

/// A profile of what lives, or of all that was allocated, since [`begin`]. Takes long: see
/// [`apart`](super::apart).
pub fn profile(kind: Kind) -> Vec<u8> {
    let samples = {
        let _busy = Busy::begin();
        let table = TABLE.lock();
        table.as_ref().map(Table::samples).unwrap_or_default()
    };
    let samples = samples.into_iter().map(|(frames, values)| proto::Sample {
        frames: frames.to_vec(),
        values: values.map(|value| value as i64).to_vec(),
    });
    let mut profile = proto::Profile::new(kind, limits::HEAP_RATE as i64);
    samples.for_each(|sample| profile.add(&sample));
    profile.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scaled_up_comes_to_what_there_was() {
        let mut chance = fastrand::Rng::with_seed(7);
        for size in [100, 4_000, 500_000, 3_000_000] {
            let (mut left, mut seen, mut count) = (until_next(chance.f64()), 0.0, 0.0);
            for _ in 0..500_000_000 / size {
                count += 1.0;
                if size < left {
                    left -= size;
                } else {
                    seen += stands_for(size);
                    left = until_next(chance.f64());
                }
            }
            let off: f64 = seen / count;
            assert!((0.93..1.07).contains(&off), "{size}: {off}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_is_freed() {
        let mut table = Table::default();
        for n in 0..limits::HEAP_STACKS + 10 {
            assert!(table.add(n + 1, 64, &[n, 7]));
        }
        assert_eq!(table.stacks.len(), limits::HEAP_STACKS + 1);
        let samples = table.samples();
        let last = samples.last().unwrap();
        assert_eq!(last.0.len(), 0, "those that found no room");
        assert!((last.1[1] / last.1[0] - 64.0).abs() < 1e-6 && last.1[3] > 0.0);
        for n in 0..limits::HEAP_STACKS + 10 {
            assert!(table.remove(n + 1));
            assert!(!table.remove(n + 1));
        }
        assert!(
            table
                .samples()
                .iter()
                .all(|(_, values)| values[2] == 0.0 && values[0] > 0.0)
        );
        for n in 0..limits::HEAP_LIVE {
            assert!(table.add(n + 1, 64, &[7]));
        }
        assert!(!table.add(usize::MAX, 64, &[7]));
    }
}
