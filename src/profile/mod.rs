//! Profiles of the running program in the format of `go tool pprof`.
//!
//! - `cpu`: samples of CPU time. `sampler` records them in a signal handler, `registers` names the
//!   registers of a sample, `unwind` walks its stack.
//! - `heap`: sampled allocations. `stacks` walks the stack of the allocating thread.
//! - `symbols`: function, file and line of an address.
//! - `proto`: encoding of a profile.
//!
//! No code here runs before a profile is requested, except one load and one branch per allocation.
//! This module has the only `unsafe` code of the crate: an allocator, a signal handler and a timer
//! require it.

pub mod cpu;
pub mod heap;
mod proto;
mod registers;
mod sampler;
mod stacks;
mod symbols;
mod unwind;

pub use proto::ProfileKind;

use tokio::sync::oneshot;

/// Runs long work on a separate thread, so that it does not delay clients. The allocations of the
/// thread are not sampled. `work` receives a function that returns whether the receiver still
/// exists.
///
/// # Errors
/// The thread cannot be started.
pub fn run_on_thread<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> std::io::Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        let _paused = heap::SamplingPaused::begin();
        let result = work(&|| !sender.is_closed());
        // The receiver may be dropped.
        let _ = sender.send(result);
    };
    std::thread::Builder::new()
        .name("profile".to_owned())
        .spawn(body)?;
    Ok(receiver)
}
