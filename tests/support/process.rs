//! A child process with its output collected, killed by its id when dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::exit_cleanup;

/// A running child. Dropping it kills it (SIGKILL) and reaps it.
pub struct Process {
    child: Child,
    name: String,
    output: Arc<Output>,
    /// Threads that collect stdout and stderr.
    readers: [JoinHandle<()>; 2],
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` and collects the lines of its stdout and stderr.
    pub fn spawn(name: &str, command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        exit_cleanup::child(child.id());
        let output = Arc::new(Output::default());
        let readers = [
            Output::collect(&output, child.stdout.take().expect("stdout is a pipe")),
            Output::collect(&output, child.stderr.take().expect("stderr is a pipe")),
        ];
        Process {
            child,
            name: name.to_owned(),
            output,
            readers,
            ended: None,
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        assert!(self.ended.is_none(), "{} has ended", self.name);
        let done = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &self.pid().to_string()])
            .status()
            .expect("sh starts");
        assert!(done.success(), "kill -{name} {} failed", self.name);
    }

    /// Stops the process (SIGSTOP) and waits until each of its threads has stopped. On a busy
    /// machine threads keep running until the thread that received the signal is scheduled.
    pub fn stop(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let until = Instant::now() + Duration::from_secs(10);
        let runs = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            // The state is the field after the name, which is in brackets.
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| !rest.starts_with(" T"))
        };
        loop {
            let tasks = std::fs::read_dir(&tasks).expect("the child is ours");
            if !tasks.flatten().any(|task| runs(&task.path())) {
                return;
            }
            assert!(Instant::now() < until, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills the process with SIGKILL and reaps it. Does nothing if it has ended.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("the child is ours");
            let status = self.child.wait().ok();
            self.reap(status);
        }
    }

    /// Returns whether the process can respond: it has neither ended nor stopped.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let state = stat
            .ok()
            .and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
        self.ended.is_none() && matches!(state, Some('R' | 'S' | 'D'))
    }

    /// Returns the exit status if the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("the child is ours");
            self.reap(status);
        }
        self.ended
    }

    /// Waits for the exit; panics with the output if the process still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            let late = Instant::now() >= until;
            assert!(
                !late,
                "{} runs after {limit:?}:\n{}",
                self.name,
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a line that `found` accepts.
    ///
    /// # Errors
    /// The reason and the output, if the process ended or `limit` passed without such a line.
    pub fn wait_line<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + limit;
        let mut next = 0;
        loop {
            // Checked before the lines are read, so that the last lines are not missed.
            let ended = self.exited();
            let lines = self.output.wait_beyond(next, Duration::from_millis(50));
            for line in lines.since(next) {
                if let Some(value) = found(line) {
                    return Ok(value);
                }
            }
            next = lines.total;
            drop(lines);
            if ended.is_some() || Instant::now() >= until {
                let why = ended.map_or_else(|| "no such line".into(), |s| s.to_string());
                return Err(format!("{}: {why}\n{}", self.name, self.tail()));
            }
        }
    }

    /// Returns the last lines of stdout and stderr together, at most [`Lines::CAPACITY`].
    pub fn log(&self) -> String {
        let lines = self.output.lock();
        lines
            .buffered
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// Returns the end of [`Process::log`] for the message of a failed test: long enough for the
    /// cause, and short enough to be read.
    pub fn tail(&self) -> String {
        const LINES: usize = 40;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let (before, last) = lines.split_at(lines.len().saturating_sub(LINES));
        let mut tail = match before.len() {
            0 => String::new(),
            before => format!("… {before} lines before\n"),
        };
        last.iter().for_each(|line| tail += &format!("{line}\n"));
        tail
    }

    /// Returns the resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .unwrap_or_else(|error| panic!("{} has no status: {error}", self.name));
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or_else(|| panic!("{} has no VmRSS", self.name))
    }

    /// Returns the CPU time used, user and system, in clock ticks (1/100 s on Linux).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .unwrap_or_else(|error| panic!("{} has no stat: {error}", self.name));
        // The name in brackets may contain blanks; utime and stime are fields 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    fn reap(&mut self, status: Option<ExitStatus>) {
        if status.is_some() {
            exit_cleanup::reaped(self.child.id());
            self.ended = status;
            // The last output may not be collected yet. A grandchild may keep the pipes open, so
            // the wait is limited.
            let until = Instant::now() + Duration::from_secs(1);
            while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of both pipes of a child.
#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    buffered: VecDeque<String>,
    total: usize,
}

impl Lines {
    const CAPACITY: usize = 5000;

    fn since(&self, first: usize) -> impl Iterator<Item = &String> {
        let dropped = self.total - self.buffered.len();
        self.buffered.iter().skip(first.saturating_sub(dropped))
    }
}

impl Output {
    fn collect(output: &Arc<Output>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = Arc::clone(output);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut lines = output.lock();
                lines
                    .buffered
                    .push_back(String::from_utf8_lossy(&line).into_owned());
                lines.total += 1;
                if lines.buffered.len() > Lines::CAPACITY {
                    lines.buffered.pop_front();
                }
                output.grown.notify_all();
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn wait_beyond(&self, seen: usize, limit: Duration) -> MutexGuard<'_, Lines> {
        let lines = self.lock();
        let waited = self
            .grown
            .wait_timeout_while(lines, limit, |lines| lines.total <= seen);
        waited.unwrap_or_else(|poison| poison.into_inner()).0
    }
}
