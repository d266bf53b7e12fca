//! The SIGPROF handler of the CPU profiler, and the samples that it records.
//!
//! A signal interrupts a thread at any instruction: in the allocator, in the dynamic loader, while
//! it unwinds a panic. A handler must therefore be async-signal-safe: no lock, no allocation, no
//! initialization on first use. A stack walk in the handler (`_Unwind_Backtrace`) is not
//! async-signal-safe. Depending on the C library, the walk calls `dl_iterate_phdr` with the lock of
//! the loader, `pthread_once`, or the cache of libunwind with its lock and `malloc`. The walk also
//! reads memory at computed addresses without a check.
//!
//! The handler does not walk the stack. The handler copies the registers and the innermost
//! [`PROFILE_STACK_BYTES`](limits::PROFILE_STACK_BYTES) of the stack, and `unwind.rs` walks the
//! copy on the thread of the profiler. The handler contains these operations and no others:
//!
//! 1. Loads, stores and exchanges of static atomics, which are lock-free.
//! 2. Reads of the `ucontext_t` that the kernel stored for this call.
//! 3. `__errno_location`, which returns the address of a thread-local variable. The handler
//!    restores `errno`.
//! 4. The system call `pwrite64`. The kernel copies the stack to a file in memory and checks each
//!    address. At the end of the mapping the copy is short or fails, so that the handler needs no
//!    bounds of the stack and cannot fault.
//!
//! The calls of functions in the C library are bound when the program starts (full RELRO), so they
//! do not enter the dynamic loader. No operation waits for another thread in user space. SIGPROF
//! is blocked while its handler runs, and each call has its own slot. The handler remains
//! installed after the first profile, because a late signal without handler ends the process.
//! Without the timer the handler is not called.
//!
//! A copied stack can contain data of clients. The copy does not leave the process, and its memory
//! is freed after the profile.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::limits;
use crate::profile::registers::{self, Registers};

/// An interrupted thread.
pub(super) struct Sample<'a> {
    pub(super) registers: Registers,
    /// Copy of the stack, from the stack pointer upwards.
    pub(super) stack: &'a [u8],
}

/// One sample between the handler and the profiler. Its stack is in the file, at its index times
/// [`limits::PROFILE_STACK_BYTES`].
struct Slot {
    /// [`FREE`], [`BUSY`] in a handler, or [`READY`].
    state: AtomicU32,
    registers: [AtomicU64; registers::COUNT],
    stack_bytes: AtomicUsize,
}

const FREE: u32 = 0;
const BUSY: u32 = 1;
const READY: u32 = 2;

/// Uses no memory until the first profile, because the pages are untouched.
static SLOTS: [Slot; limits::PROFILE_SLOTS] = [const {
    Slot {
        state: AtomicU32::new(FREE),
        registers: [const { AtomicU64::new(0) }; registers::COUNT],
        stack_bytes: AtomicUsize::new(0),
    }
}; limits::PROFILE_SLOTS];

/// Index of the slot of the next sample.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Descriptor of the file of stacks, which is never closed. -1: no profile yet.
static STACKS: AtomicI32 = AtomicI32::new(-1);

/// The installed signal handler.
pub(super) struct Sampler {
    stacks: &'static File,
}

impl Sampler {
    /// Installs the handler, and discards the samples of an earlier profile.
    ///
    /// # Errors
    /// The system refuses the file or the handler, or limits the size of files.
    pub(super) fn install() -> io::Result<Sampler> {
        // The handler would receive SIGXFSZ, which ends the process.
        let bytes = (limits::PROFILE_SLOTS * limits::PROFILE_STACK_BYTES) as u64;
        if rlimit::Resource::FSIZE.get_soft()? < bytes {
            let text = format!("the file size limit (ulimit -f) is below {bytes} bytes");
            return Err(io::Error::other(text));
        }
        let stacks = match FILE.get() {
            Some(stacks) => stacks,
            None => {
                let stacks = memory_file()?;
                FILE.get_or_init(|| stacks)
            }
        };
        STACKS.store(stacks.as_raw_fd(), Ordering::Release);
        set_handler()?;
        let sampler = Sampler { stacks };
        sampler.collect(|_| {});
        Ok(sampler)
    }

    /// Removes the samples from the slots and passes them to `each`.
    pub(super) fn collect(&self, mut each: impl FnMut(&Sample<'_>)) {
        let mut stack = vec![0; limits::PROFILE_STACK_BYTES];
        for (index, slot) in SLOTS.iter().enumerate() {
            if slot.state.load(Ordering::Acquire) != READY {
                continue;
            }
            let copied = slot.stack_bytes.load(Ordering::Relaxed);
            let stack = &mut stack[..copied.min(limits::PROFILE_STACK_BYTES)];
            let is_read = self.stacks.read_exact_at(stack, offset(index)).is_ok();
            each(&Sample {
                registers: slot
                    .registers
                    .each_ref()
                    .map(|each| each.load(Ordering::Relaxed)),
                stack: if is_read { stack } else { &[] },
            });
            slot.state.store(FREE, Ordering::Release);
        }
        // The first slots are used again, so that the file has as few pages as possible.
        NEXT.store(0, Ordering::Relaxed);
    }
}

impl Drop for Sampler {
    /// Frees the memory of the file.
    fn drop(&mut self) {
        // Cannot fail for a file in memory.
        let _ = self.stacks.set_len(0);
    }
}

/// The file of stacks.
static FILE: OnceLock<File> = OnceLock::new();

fn memory_file() -> io::Result<File> {
    #[expect(
        unsafe_code,
        reason = "the name is a C string, and the new descriptor has no other owner"
    )]
    unsafe {
        match libc::memfd_create(c"profile".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(File::from_raw_fd(descriptor)),
        }
    }
}

fn set_handler() -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = record_sample;
    #[expect(
        unsafe_code,
        reason = "zero is a valid value of each field; the handler fits SA_SIGINFO and is \
                  async-signal-safe: see the head of the file"
    )]
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signal handler. A sample without a free slot is lost. See the head of the file for the
/// operations that are allowed here.
extern "C" fn record_sample(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    let Some(slot) = SLOTS.get(index) else {
        return;
    };
    let reserved = slot
        .state
        .compare_exchange(FREE, BUSY, Ordering::Acquire, Ordering::Relaxed);
    if reserved.is_err() {
        return;
    }
    #[expect(
        unsafe_code,
        reason = "with SA_SIGINFO the kernel passes a valid ucontext_t"
    )]
    let registers = registers::read(unsafe { &*context.cast::<ucontext_t>() });
    for (stored, register) in slot.registers.iter().zip(registers) {
        stored.store(register, Ordering::Relaxed);
    }
    let copied = copy_stack(registers[registers::STACK_POINTER], index);
    slot.stack_bytes.store(copied, Ordering::Relaxed);
    slot.state.store(READY, Ordering::Release);
}

/// Copies the stack of a sample to the file. Returns the number of bytes. Called by the handler.
fn copy_stack(stack_pointer: u64, index: usize) -> usize {
    #[expect(
        unsafe_code,
        reason = "the kernel checks the addresses that it reads, and writes only to the file; \
                  errno is a variable of this thread"
    )]
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let copied = libc::syscall(
            libc::SYS_pwrite64,
            STACKS.load(Ordering::Acquire),
            stack_pointer,
            limits::PROFILE_STACK_BYTES,
            offset(index),
        );
        *errno = saved;
        usize::try_from(copied).unwrap_or(0)
    }
}

/// Returns the place of the stack of a slot in the file.
fn offset(index: usize) -> u64 {
    // The product is below 2^27.
    (index * limits::PROFILE_STACK_BYTES) as u64
}
