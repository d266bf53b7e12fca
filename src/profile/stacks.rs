//! Where the program is: the addresses of the calls that are open on this thread.

use crate::limits;

/// Writes them to `into`, the innermost first, and says how many there are: at most
/// [`limits::PROFILE_DEPTH`].
pub(super) fn walk(mut into: impl FnMut(usize, usize)) -> usize {
    let mut depth = 0;
    let each = |frame: &backtrace::Frame| {
        let address = frame.ip().addr();
        // The outermost has none that called it.
        if address == 0 {
            return false;
        }
        into(depth, address);
        depth += 1;
        depth < limits::PROFILE_DEPTH
    };
    #[expect(
        unsafe_code,
        reason = "what it does not lock is for Windows' library of symbols; walking a stack shares \
                  nothing on Unix, and the lock is held while names are looked up"
    )]
    unsafe {
        backtrace::trace_unsynchronized(each);
    }
    depth
}
