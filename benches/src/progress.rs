//! What is being done, on one line that is written over; nothing where stderr is no terminal.

use std::io::{IsTerminal, Write};

/// A line about how far the run is. It goes away when dropped.
pub(crate) struct Progress {
    shown: bool,
    done: usize,
    of: usize,
}

impl Progress {
    /// Of so many samples.
    pub(crate) fn new(of: usize) -> Progress {
        Progress {
            shown: std::io::stderr().is_terminal(),
            done: 0,
            of,
        }
    }

    /// Says what comes next.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        if self.shown {
            eprint!("\r\x1b[K[{}/{}] {what}", self.done, self.of);
            // A line that cannot be shown is not worth a word.
            let _ = std::io::stderr().flush();
        }
    }

    /// Says something that stays, on a terminal or not.
    pub(crate) fn say(&self, text: &str) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
        eprintln!("{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
