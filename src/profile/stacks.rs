//! The stack walk of the memory profiler: return addresses of the function calls of the current
//! thread.
//!
//! The walk is not async-signal-safe: it may take the lock of the dynamic loader. The allocator
//! calls it outside of signal handlers, with sampling paused, so an allocation by the walk does
//! not recurse. The lock is recursive, so that an allocation in a callback of the loader can be
//! sampled.

use crate::limits;

/// Passes the index and address of each frame to `store`, innermost first. Returns the number of
/// frames, at most [`limits::PROFILE_DEPTH`].
pub(super) fn walk(mut store: impl FnMut(usize, usize)) -> usize {
    let mut depth = 0;
    let each = |frame: &backtrace::Frame| {
        let address = frame.ip().addr();
        // The outermost frame has no caller.
        if address == 0 {
            return false;
        }
        store(depth, address);
        depth += 1;
        depth < limits::PROFILE_DEPTH
    };
    #[expect(
        unsafe_code,
        reason = "the lock that it omits protects a Windows library; a walk on Unix shares no \
                  state, and symbolization holds that lock"
    )]
    unsafe {
        backtrace::trace_unsynchronized(each);
    }
    depth
}
