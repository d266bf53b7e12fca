//! Progress of the run, on one line of stderr that is overwritten. Shown only on a terminal.

use std::io::{IsTerminal, Write};

/// The progress line. Dropping it clears the line.
pub(crate) struct Progress {
    shown: bool,
    done: usize,
    of: usize,
}

impl Progress {
    /// Progress of a run with `of` samples.
    pub(crate) fn new(of: usize) -> Progress {
        Progress {
            shown: std::io::stderr().is_terminal(),
            done: 0,
            of,
        }
    }

    /// Shows the next sample.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        if self.shown {
            eprint!("\r\x1b[K[{}/{}] {what}", self.done, self.of);
            // An error here is not worth reporting.
            let _ = std::io::stderr().flush();
        }
    }

    /// Prints a line that is not overwritten, on a terminal or not.
    pub(crate) fn print(&self, text: &str) {
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
