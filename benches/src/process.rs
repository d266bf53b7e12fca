//! Child processes: each has its own log, is measured through `/proc`, and always ends.
//!
//! Dropping a server kills and reaps it with the workers that it has forked. If the harness dies
//! without dropping it, the kernel ends the server (`setpriv --pdeathsig`, if util-linux is
//! installed). Servers must be started from the main thread: the kernel sends the signal when the
//! starting thread ends. Measurements of a process include its workers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A running child process.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with `arguments` in the folder `directory`. Its output is written to
    /// `directory/name.log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Server, String> {
        let log = directory.join(format!("{name}.log"));
        let message = |e: std::io::Error| format!("{name} ({}): {e}", program.display());
        let output = File::create(&log).map_err(message)?;
        let mut command = match which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                // nginx needs a signal that lets it end its workers.
                let last = if program.ends_with("nginx") {
                    "TERM"
                } else {
                    "KILL"
                };
                command.args(["--pdeathsig", last, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(message)?)
            .stderr(output)
            .spawn()
            .map_err(message)?;
        Ok(Server { child, log })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Suspends the process (SIGSTOP).
    pub(crate) fn pause(&self) -> Result<(), String> {
        signal(self.pid(), Signal::STOP)
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn resume(&self) -> Result<(), String> {
        signal(self.pid(), Signal::CONT)
    }

    /// Whether the process has exited.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the last three lines of the log in one line.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" / ");
        format!("end of its log: {tail}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the process has already exited.
        let workers = workers(self.pid());
        let _ = self.child.kill();
        for worker in workers {
            let _ = signal(worker, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cpu {
    /// Time of all threads, with a resolution of a nanosecond.
    pub(crate) total: Duration,
    /// Time in the kernel, with a resolution of 10 ms.
    pub(crate) system: Duration,
}

impl Cpu {
    /// Returns the sum.
    pub(crate) fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            total: self.total + other.total,
            system: self.system + other.system,
        }
    }
}

fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or("no process id")?;
    kill_process(pid, signal).map_err(|e| e.to_string())
}

/// Interrupts a process as a terminal does (SIGINT).
pub(crate) fn interrupt(pid: u32) -> Result<(), String> {
    signal(pid, Signal::INT)
}

/// Returns the processes that a process has forked, if the kernel lists them.
pub(crate) fn workers(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Returns the processor time of this process, without the servers that it started.
pub(crate) fn own_cpu() -> Cpu {
    one_cpu(std::process::id()).unwrap_or_default()
}

/// Returns the resident memory of a process in bytes, or `None` if it has exited. If the process
/// has workers, a page that several of them share counts once.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let workers = workers(pid);
    if workers.is_empty() {
        return kib(pid, "status", "VmRSS:");
    }
    let all = [pid].into_iter().chain(workers);
    all.map(|pid| kib(pid, "smaps_rollup", "Pss:")).sum()
}

fn kib(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns the first file of that name on PATH or in `/usr/sbin`.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Returns the processor time of a process and its workers, or `None` if one has exited.
pub(crate) fn cpu(pid: u32) -> Option<Cpu> {
    let mut all = [pid].into_iter().chain(workers(pid)).map(one_cpu);
    all.try_fold(Cpu::default(), |sum, one| Some(sum.plus(one?)))
}

/// Returns the processor time of one process. The total is the sum of the scheduler's nanosecond
/// counts over all threads: at low load, 10 ms are too coarse. `/proc/PID/stat` gives the time in
/// the kernel, and the total if the kernel has no scheduler counts.
fn one_cpu(pid: u32) -> Option<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain spaces. utime and stime are fields 12 and 13 after it.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name
        .split_whitespace()
        .skip(11)
        .map(|field| Duration::from_millis(10 * field.parse::<u64>().unwrap_or(0)));
    let (user, system) = (ticks.next()?, ticks.next()?);
    let total = scheduled(pid).unwrap_or(user + system);
    Some(Cpu { total, system })
}

fn scheduled(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // The thread may have exited since the directory was read.
        let Ok(counts) = fs::read_to_string(thread.path().join("schedstat")) else {
            continue;
        };
        total += Duration::from_nanos(counts.split(' ').next()?.parse().ok()?);
    }
    (total > Duration::ZERO).then_some(total)
}
