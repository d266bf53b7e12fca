//! Child processes: started with a log of their own, measured through `/proc`, ended for sure.
//!
//! A server is killed and reaped when it is dropped, with the workers it has forked, and is ended by
//! the kernel when the bench dies in a way that drops nothing (`setpriv --pdeathsig`, where
//! util-linux is there). Servers must be started from the main thread: the kernel's signal follows
//! the thread that started them. What is measured of a process is measured of its workers too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A running child.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with `arguments` in the folder `directory`; its output goes to
    /// `directory/name.log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Server, String> {
        let log = directory.join(format!("{name}.log"));
        let say = |e: std::io::Error| format!("{name} ({}): {e}", program.display());
        let output = File::create(&log).map_err(say)?;
        let mut command = match which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                // A server with workers must live to end them.
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
            .stdout(output.try_clone().map_err(say)?)
            .stderr(output)
            .spawn()
            .map_err(say)?;
        Ok(Server { child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it without ending it.
    pub(crate) fn pause(&self) -> Result<(), String> {
        signal(self.pid(), Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<(), String> {
        signal(self.pid(), Signal::CONT)
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log, in one line.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" / ");
        format!("its last words: {tail}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only for what is gone already, which is what is wanted.
        let workers = workers(self.pid());
        let _ = self.child.kill();
        for worker in workers {
            let _ = signal(worker, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Processor time of a process so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cpu {
    /// Of all its threads, to the nanosecond.
    pub(crate) total: Duration,
    /// The part spent in the kernel, to the hundredth of a second.
    pub(crate) system: Duration,
}

impl Cpu {
    /// Both together.
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

/// Asks a process to end, as a terminal does.
pub(crate) fn interrupt(pid: u32) -> Result<(), String> {
    signal(pid, Signal::INT)
}

/// The processes that a process has forked, as far as the kernel tells.
pub(crate) fn workers(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Processor time of this process, without the servers that it started.
pub(crate) fn own_cpu() -> Cpu {
    one_cpu(std::process::id()).unwrap_or_default()
}

/// Resident memory of a process in bytes; none when it is gone. With workers, pages that several
/// share count once.
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

/// The first executable file of that name on PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Processor time of a process and its workers; none when it is gone.
pub(crate) fn cpu(pid: u32) -> Option<Cpu> {
    let mut all = [pid].into_iter().chain(workers(pid)).map(one_cpu);
    all.try_fold(Cpu::default(), |sum, one| Some(sum.plus(one?)))
}

/// The whole is the sum over the threads of what the scheduler counts in nanoseconds: at low load,
/// hundredths of a second are too coarse. Where the kernel does not show that, and for the kernel's
/// part, `/proc/PID/stat` must do.
fn one_cpu(pid: u32) -> Option<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks; utime and stime are the 12th and 13th after it.
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
        // A thread that ended meanwhile has nothing to show.
        let Ok(counts) = fs::read_to_string(thread.path().join("schedstat")) else {
            continue;
        };
        total += Duration::from_nanos(counts.split(' ').next()?.parse().ok()?);
    }
    (total > Duration::ZERO).then_some(total)
}
