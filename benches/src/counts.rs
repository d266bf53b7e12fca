//! System calls and instructions of a server, counted from outside for a short time.
//!
//! `perf stat` counts them in the kernel if permitted, at almost no cost to the server. Otherwise
//! `strace -c` counts system calls. It slows each of them many times down, so the server does more
//! with each call and the count is too low. The report names figures that cannot be counted.

use std::cell::RefCell;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process;

/// Time that a counter needs to attach to all threads. The caller blocks for this time, so no calls
/// are sent to the server before the count begins.
const ATTACH_TIME: Duration = Duration::from_millis(200);

/// Kernel event at the start of every system call.
const SYSTEM_CALLS: &str = "raw_syscalls:sys_enter";
const INSTRUCTIONS: &str = "instructions";

/// Tools that can count on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CountingTools {
    perf_counts_system_calls: bool,
    perf_counts_instructions: bool,
    strace: bool,
}

impl CountingTools {
    /// Tries the tools on this process.
    pub(crate) fn find() -> CountingTools {
        let own = std::process::id();
        let works = |event| {
            let counts = Counter::perf(own, &[event]).and_then(|counter| {
                std::thread::sleep(Duration::from_millis(20));
                counter.stop()
            });
            counts.is_ok_and(|counts| counts != Counts::default())
        };
        CountingTools {
            perf_counts_system_calls: works(SYSTEM_CALLS),
            perf_counts_instructions: works(INSTRUCTIONS),
            strace: process::which("strace").is_some(),
        }
    }

    /// Returns notes for the report about figures that cannot be counted, or only inexactly.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.perf_counts_system_calls {
            notes.push(if self.strace {
                "system calls are counted by strace, which slows each of them down".into()
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

    /// Starts to count for a process and its workers. `None` if nothing can be counted.
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

/// Counts of one period. `None` for a figure that cannot be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) system_calls: Option<u64>,
    pub(crate) instructions: Option<u64>,
}

/// A count between two calls of [`Counting::toggle`]: the first starts it, the second stops it.
pub(crate) struct Counting {
    tools: CountingTools,
    pid: u32,
    state: RefCell<State>,
}

enum State {
    Before,
    Running(Counter),
    After(Result<Counts, String>),
}

impl Counting {
    /// Prepares a count for a process and its workers.
    pub(crate) fn new(tools: CountingTools, pid: u32) -> Counting {
        Counting {
            tools,
            pid,
            state: RefCell::new(State::Before),
        }
    }

    /// Starts the count, or stops it if it is running.
    pub(crate) fn toggle(&self) {
        let next = match self.state.replace(State::Before) {
            State::Before => match self.tools.start(self.pid) {
                Ok(Some(counter)) => State::Running(counter),
                Ok(None) => State::After(Ok(Counts::default())),
                Err(text) => State::After(Err(text)),
            },
            State::Running(counter) => State::After(counter.stop()),
            after => after,
        };
        self.state.replace(next);
    }

    /// Returns the counts after the stop.
    pub(crate) fn counts(&self) -> Option<Counts> {
        match &*self.state.borrow() {
            State::After(counts) => counts.as_ref().ok().copied(),
            _ => None,
        }
    }

    /// Returns the error if counting failed.
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
        std::thread::sleep(ATTACH_TIME);
        Ok(Counter { child, is_strace })
    }

    /// Stops the counter and returns its counts.
    fn stop(mut self) -> Result<Counts, String> {
        process::interrupt(self.child.id())?;
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr
                .read_to_string(&mut text)
                .map_err(|e| e.to_string())?;
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
        // Fails only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all(pid: u32, separator: &str) -> String {
    let all = [pid].into_iter().chain(process::workers(pid));
    let all: Vec<String> = all.map(|pid| pid.to_string()).collect();
    all.join(separator)
}

/// Parses lines of `count,unit,event,…`. Uncountable events have a text instead of a count.
fn read_perf(text: &str) -> Counts {
    let count = |event: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(',');
            let count = fields.next()?.parse().ok();
            // perf may append `:u` if it may count only in user space.
            let name = fields.nth(1)?;
            count.filter(|_| name.split(":u").next() == Some(event))
        })
    };
    Counts {
        system_calls: count(SYSTEM_CALLS),
        instructions: count(INSTRUCTIONS),
    }
}

/// Parses lines of `calls name`. The last line has the name `total`.
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
    fn perf_output_is_parsed() {
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
    fn strace_output_is_parsed() {
        let text = "    calls syscall\n--------- ----------\n       58 futex\n       42 read\n\
                    --------- ----------\n      100 total\n";
        assert_eq!(read_strace(text).system_calls, Some(100));
        assert_eq!(read_strace("strace: attach: no"), Counts::default());
    }
}
