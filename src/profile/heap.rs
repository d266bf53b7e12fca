//! Memory profiles: an allocator around the real one that records the stacks of sampled
//! allocations.
//!
//! After [`enable`], about one in [`limits::HEAP_RATE`] allocated bytes is sampled. The allocation
//! of that byte is recorded with its stack until it is freed. A profile scales each recorded
//! allocation by the probability that its size is sampled, like in Go. Most freed allocations were
//! not recorded: a table of counters by address detects this without a lock.
//!
//! While the sampler itself runs, sampling is paused on the thread ([`SamplingPaused`]).
//! Allocations and frees of the sampler are neither recorded nor looked up.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use parking_lot::Mutex;

use crate::limits;
use crate::profile::proto::{self, ProfileKind};
use crate::profile::stacks;

/// An allocator that samples allocations after [`enable`], and otherwise only calls the inner one.
#[derive(Debug)]
pub struct ProfilingAllocator<A>(pub A);

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Starts the sampling of allocations.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// Returns whether allocations are sampled.
#[inline]
pub fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; each call is passed to the inner allocator unchanged, so its \
              guarantees apply, and the sampler neither reads nor writes the memory"
)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for ProfilingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_enabled() {
            return allocated(layout.size(), || unsafe { self.0.alloc(layout) });
        }
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_enabled() {
            return allocated(layout.size(), || unsafe { self.0.alloc_zeroed(layout) });
        }
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_enabled() {
            freed(memory);
        }
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_enabled() {
            freed(memory);
            return allocated(size, || unsafe { self.0.realloc(memory, layout, size) });
        }
        unsafe { self.0.realloc(memory, layout, size) }
    }
}

thread_local! {
    /// Bytes until the next sampled allocation. 0: not yet drawn.
    static REMAINING: Cell<usize> = const { Cell::new(0) };
    /// Sampling is paused on this thread.
    static PAUSED: Cell<bool> = const { Cell::new(false) };
}

/// Number of recorded allocations by hash of their address. Many addresses share a counter.
static RECORDED: [AtomicU16; COUNTERS] = [const { AtomicU16::new(0) }; COUNTERS];
const COUNTERS: usize = 1 << 16;

fn recorded(address: usize) -> &'static AtomicU16 {
    // The upper bits of the product differ for adjacent addresses.
    let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    &RECORDED[hash as usize]
}

/// Not inlined, so that a disabled profiler costs each allocation one branch.
#[cold]
#[inline(never)]
fn allocated(size: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    let remaining = REMAINING.get();
    if size < remaining {
        REMAINING.set(remaining - size);
    } else if !memory.is_null() && !PAUSED.get() {
        sample(memory.addr(), size, remaining);
    }
    memory
}

#[cold]
#[inline(never)]
fn sample(address: usize, size: usize, remaining: usize) {
    let _paused = SamplingPaused::begin();
    REMAINING.set(until_next(fastrand::f64()));
    if remaining > 0 {
        record(address, size);
    } else if size >= REMAINING.get() {
        REMAINING.set(until_next(fastrand::f64()));
        record(address, size);
    }
}

/// Must be called before the free. After it, another thread may receive the same address.
#[cold]
#[inline(never)]
fn freed(memory: *mut u8) {
    let address = memory.addr();
    // The thread that frees the memory received its address from the allocating thread. That
    // transfer also makes the counter visible.
    if recorded(address).load(Ordering::Relaxed) != 0 && !PAUSED.get() {
        forget(address);
    }
}

/// Pauses sampling on the thread until it is dropped.
#[derive(Debug)]
pub(super) struct SamplingPaused {
    was_paused: bool,
}

impl SamplingPaused {
    pub(super) fn begin() -> SamplingPaused {
        SamplingPaused {
            was_paused: PAUSED.replace(true),
        }
    }
}

impl Drop for SamplingPaused {
    fn drop(&mut self) {
        PAUSED.set(self.was_paused);
    }
}

fn record(address: usize, size: usize) {
    let mut frames = [0; limits::PROFILE_DEPTH];
    let depth = stacks::walk(|at, frame| frames[at] = frame);
    let mut table = TABLE.lock();
    let table = table.get_or_insert_default();
    if table.add(address, size, &frames[..depth]) {
        recorded(address).fetch_add(1, Ordering::Relaxed);
    }
}

#[cold]
#[inline(never)]
fn forget(address: usize) {
    let _paused = SamplingPaused::begin();
    let mut table = TABLE.lock();
    if table.as_mut().is_some_and(|table| table.remove(address)) {
        recorded(address).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the bytes until the next sample for a random number from 0 to below 1. Each byte is
/// sampled with the same probability.
fn until_next(chance: f64) -> usize {
    // The argument of the logarithm is above 0. The cast saturates.
    (-(1.0 - chance).ln() * limits::HEAP_RATE as f64) as usize + 1
}

/// Returns the number of allocations of this size that a recorded one represents.
fn weight(size: usize) -> f64 {
    1.0 / (1.0 - (-(size.max(1) as f64) / limits::HEAP_RATE as f64).exp())
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// The recorded allocations and their stacks.
#[derive(Default)]
struct Table {
    /// By address: the index of the stack, and the bytes.
    live: HashMap<usize, (usize, usize), foldhash::fast::RandomState>,
    indexes: HashMap<Arc<[usize]>, usize, foldhash::fast::RandomState>,
    stacks: Vec<Stack>,
}

#[derive(Clone)]
struct Stack {
    frames: Arc<[usize]>,
    /// Allocations and bytes since the start, scaled.
    allocated: [f64; 2],
}

impl Table {
    /// Adds an allocation. Returns false if the table is full: its free is then not looked up.
    fn add(&mut self, address: usize, size: usize, frames: &[usize]) -> bool {
        let index = self.index(frames);
        let objects = weight(size);
        let stack = &mut self.stacks[index];
        stack.allocated[0] += objects;
        stack.allocated[1] += objects * size as f64;
        let has_space = self.live.len() < limits::HEAP_LIVE;
        // The address is present only if its free was missed. The new allocation replaces it.
        has_space && self.live.insert(address, (index, size)).is_none()
    }

    fn remove(&mut self, address: usize) -> bool {
        self.live.remove(&address).is_some()
    }

    /// Returns the index of a stack. Stacks beyond [`limits::HEAP_STACKS`] share one without
    /// frames.
    fn index(&mut self, frames: &[usize]) -> usize {
        if let Some(index) = self.indexes.get(frames) {
            return *index;
        }
        let frames: Arc<[usize]> = match self.stacks.len() < limits::HEAP_STACKS {
            true => frames.into(),
            false => Arc::default(),
        };
        if let Some(index) = self.indexes.get(&frames) {
            return *index;
        }
        let index = self.stacks.len();
        self.indexes.insert(frames.clone(), index);
        self.stacks.push(Stack {
            frames,
            allocated: [0.0; 2],
        });
        index
    }

    /// Returns per stack: allocated objects, allocated bytes, objects in use, bytes in use.
    fn samples(&self) -> Vec<(Arc<[usize]>, [f64; 4])> {
        let stacks = self.stacks.iter();
        let mut samples: Vec<_> = stacks
            .map(|stack| {
                let [objects, bytes] = stack.allocated;
                (stack.frames.clone(), [objects, bytes, 0.0, 0.0])
            })
            .collect();
        for (index, size) in self.live.values() {
            let objects = weight(*size);
            let values = &mut samples[*index].1;
            values[2] += objects;
            values[3] += objects * *size as f64;
        }
        samples
    }
}

/// Returns a profile of the memory in use, or of all memory allocated since [`enable`]. Blocks: see
/// [`run_on_thread`](super::run_on_thread).
pub fn profile(kind: ProfileKind) -> Vec<u8> {
    let samples = {
        let _paused = SamplingPaused::begin();
        let table = TABLE.lock();
        table.as_ref().map(Table::samples).unwrap_or_default()
    };
    let samples = samples
        .into_iter()
        .map(|(frames, values)| proto::StackSample {
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
    fn scaled_samples_match_the_allocations() {
        let mut random = fastrand::Rng::with_seed(7);
        for size in [100, 4_000, 500_000, 3_000_000] {
            let (mut left, mut seen, mut count) = (until_next(random.f64()), 0.0, 0.0);
            for _ in 0..500_000_000 / size {
                count += 1.0;
                if size < left {
                    left -= size;
                } else {
                    seen += weight(size);
                    left = until_next(random.f64());
                }
            }
            let ratio: f64 = seen / count;
            assert!((0.93..1.07).contains(&ratio), "{size}: {ratio}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_removes_freed_allocations() {
        let mut table = Table::default();
        for n in 0..limits::HEAP_STACKS + 10 {
            assert!(table.add(n + 1, 64, &[n, 7]));
        }
        assert_eq!(table.stacks.len(), limits::HEAP_STACKS + 1);
        let samples = table.samples();
        let last = samples.last().unwrap();
        assert_eq!(last.0.len(), 0, "stacks beyond the limit");
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
