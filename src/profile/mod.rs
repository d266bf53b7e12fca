//! Profiles of the running program, in the form that `go tool pprof` reads: where its CPU time goes (`cpu`)
//! and who holds its memory (`heap`). `stacks` is what both gather, `proto` the form, `symbols` the names.
//!
//! Nothing here runs before it is asked for. What stands in the way of others even so is one load and one
//! branch at each allocation. A stack is walked in the middle of anything, in a signal's handler too, so what
//! does it takes no lock that others hold and allocates nothing that is counted. This is the one place of the
//! house with `unsafe` in it: an allocator, a signal and a timer cannot be had without.

pub mod cpu;
pub mod heap;
mod proto;
mod stacks;
mod symbols;

pub use proto::Kind;

use tokio::sync::oneshot;

/// Does what takes long on a thread of its own, away from clients, and from profiles of memory. `work` is
/// shown whether anybody still waits.
///
/// # Errors
/// No thread can be started.
pub fn apart<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> std::io::Result<oneshot::Receiver<T>> {
    let (to, from) = oneshot::channel();
    let body = move || {
        let _busy = heap::Busy::begin();
        let done = work(&|| !to.is_closed());
        // Whoever asked may have left.
        let _ = to.send(done);
    };
    std::thread::Builder::new()
        .name("profile".to_owned())
        .spawn(body)?;
    Ok(from)
}
