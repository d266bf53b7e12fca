//! System calls and instructions of a server, counted from outside for a short while.
//!
//! `perf stat` counts them in the kernel, where it may: that costs a server next to nothing. Where it
//! cannot count system calls `strace -c` does, which makes each of them many times as slow: fewer
//! and larger ones are the effect, so its count flatters. What cannot be counted is told, not guessed.

use std::cell::RefCell;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process;

/// The counter needs so long to take hold of all threads. Whoever begins to count stands still for
/// as long, so that nothing is asked of the server meanwhile.
const TAKE_HOLD: Duration = Duration::from_millis(200);

/// The kernel's event at the begin of every system call.
const SYSTEM_CALLS: &str = "raw_syscalls:sys_enter";
const INSTRUCTIONS: &str = "instructions";

/// How things can be counted on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Means {
    perf_counts_system_calls: bool,
    perf_counts_instructions: bool,
    strace: bool,
}

impl Means {
    /// Tries them on this process.
    pub(crate) fn find() -> Means {
        let own = std::process::id();
        let tried = |event| {
            let counts = Counter::perf(own, &[event]).and_then(|counter| {
                std::thread::sleep(Duration::from_millis(20));
                counter.stop()
            });
            counts.is_ok_and(|counts| counts != Counts::default())
        };
        Means {
            perf_counts_system_calls: tried(SYSTEM_CALLS),
            perf_counts_instructions: tried(INSTRUCTIONS),
            strace: process::which("strace").is_some(),
        }
    }

    /// What cannot be counted, or not well, in words for the report.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.perf_counts_system_calls {
            notes.push(if self.strace {
                "system calls are counted by strace, which slows every one of them".into()
            } else {
                "system calls are not counted: perf cannot, and strace is not installed".into()
            });
        }
        if !self.perf_counts_instructions {
            notes.push(
                "instructions are not counted: `perf stat -e instructions` does not count on this \
                 machine"
                    .into(),
            );
        }
        notes
    }

    /// Begins to count what a process and its workers do; none where nothing can be counted.
    fn start(&self, pid: u32) -> Result<Option<Counter>, String> {
        let mut events = Vec::new();
        if self.perf_counts_system_calls {
            events.push(SYSTEM_CALLS);
        }
        if self.perf_counts_instructions {
            events.push(INSTRUCTIONS);
        }
        if self.perf_counts_system_calls || (!self.strace && !events.is_empty()) {
            Counter::perf(pid, &events).map(Some)
        } else if self.strace {
            Counter::strace(pid).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// What was counted; none of what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) system_calls: Option<u64>,
    pub(crate) instructions: Option<u64>,
}

/// A count from one moment to another: begun at the first [`Counting::turn`], ended at the second.
pub(crate) struct Counting {
    means: Means,
    pid: u32,
    state: RefCell<State>,
}

enum State {
    Before,
    Running(Counter),
    After(Result<Counts, String>),
}

impl Counting {
    /// Of a process and its workers.
    pub(crate) fn new(means: Means, pid: u32) -> Counting {
        Counting {
            means,
            pid,
            state: RefCell::new(State::Before),
        }
    }

    /// Begins, or ends.
    pub(crate) fn turn(&self) {
        let next = match self.state.replace(State::Before) {
            State::Before => match self.means.start(self.pid) {
                Ok(Some(counter)) => State::Running(counter),
                Ok(None) => State::After(Ok(Counts::default())),
                Err(text) => State::After(Err(text)),
            },
            State::Running(counter) => State::After(counter.stop()),
            after => after,
        };
        self.state.replace(next);
    }

    /// What was counted, when it has ended.
    pub(crate) fn counts(&self) -> Option<Counts> {
        match &*self.state.borrow() {
            State::After(counts) => counts.as_ref().ok().copied(),
            _ => None,
        }
    }

    /// Why nothing was counted, if it failed.
    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::After(counts) => counts.as_ref().err().cloned(),
            _ => None,
        }
    }
}

/// A running counter.
struct Counter {
    child: Child,
    is_strace: bool,
}

impl Counter {
    fn perf(pid: u32, events: &[&str]) -> Result<Counter, String> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", &events.join(","), "-p"]);
        Counter::start(command.arg(all(pid, ",")), false)
    }

    fn strace(pid: u32) -> Result<Counter, String> {
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-q", "-U", "calls,name"]);
        for pid in all(pid, " ").split(' ') {
            command.args(["-p", pid]);
        }
        Counter::start(&mut command, true)
    }

    fn start(command: &mut Command, is_strace: bool) -> Result<Counter, String> {
        let child = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        std::thread::sleep(TAKE_HOLD);
        Ok(Counter { child, is_strace })
    }

    /// Ends it and gives what it counted.
    fn stop(mut self) -> Result<Counts, String> {
        process::interrupt(self.child.id())?;
        let mut text = String::new();
        if let Some(mut told) = self.child.stderr.take() {
            told.read_to_string(&mut text).map_err(|e| e.to_string())?;
        }
        Ok(if self.is_strace {
            read_strace(&text)
        } else {
            read_perf(&text)
        })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // Fails only for what is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all(pid: u32, between: &str) -> String {
    let all = [pid].into_iter().chain(process::workers(pid));
    let all: Vec<String> = all.map(|pid| pid.to_string()).collect();
    all.join(between)
}

/// Lines of `count,unit,event,…`; `<not supported>` or the like instead of a count.
fn read_perf(text: &str) -> Counts {
    let count = |event: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(',');
            let count = fields.next()?.parse().ok();
            // perf may add a modifier for what it is allowed to see.
            let name = fields.nth(1)?;
            count.filter(|_| name.split(":u").next() == Some(event))
        })
    };
    Counts {
        system_calls: count(SYSTEM_CALLS),
        instructions: count(INSTRUCTIONS),
    }
}

/// Lines of `calls name`, the last one named total.
fn read_strace(text: &str) -> Counts {
    let total = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let count = fields.next()?.parse().ok();
        count.filter(|_| fields.next() == Some("total"))
    });
    Counts {
        system_calls: total,
        instructions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_tells_is_read() {
        let text = "107,,raw_syscalls:sys_enter,502654122,100.00,,\n\
                    <not supported>,,instructions:u,0,100.00,,\n";
        let counts = Counts {
            system_calls: Some(107),
            instructions: None,
        };
        assert_eq!(read_perf(text), counts);
        let text = "5,,instructions:u,0,100.00,,\n";
        assert_eq!(read_perf(text).instructions, Some(5));
        assert_eq!(read_perf("Error: no permission"), Counts::default());
    }

    #[test]
    fn what_strace_tells_is_read() {
        let text = "    calls syscall\n--------- ----------\n       58 futex\n       42 read\n\
                    --------- ----------\n      100 total\n";
        assert_eq!(read_strace(text).system_calls, Some(100));
        assert_eq!(read_strace("strace: attach: no"), Counts::default());
    }
}
