//! A child process with its output collected, killed by its id when dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::janitor;

/// A running child. Dropping it kills it (SIGKILL) and reaps it.
pub struct Process {
    child: Child,
    name: String,
    output: Arc<Output>,
    /// Those who collect it.
    readers: [JoinHandle<()>; 2],
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` and collects its stdout and stderr by lines.
    pub fn spawn(name: &str, command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        janitor::child(child.id());
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

    /// The process id.
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

    /// Stops it (SIGSTOP) and waits until each of its threads has: on a busy machine some run on
    /// until the one that was given the signal gets its turn.
    pub fn stop(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let until = Instant::now() + Duration::from_secs(10);
        let runs = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            // The state stands behind the name, which is in brackets.
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

    /// Kills it with SIGKILL and reaps it. Killing an ended one does nothing.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("the child is ours");
            let status = self.child.wait().ok();
            self.reap(status);
        }
    }

    /// Whether it can answer: neither ended nor stopped.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let state = stat
            .ok()
            .and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
        self.ended.is_none() && matches!(state, Some('R' | 'S' | 'D'))
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("the child is ours");
            self.reap(status);
        }
        self.ended
    }

    /// Waits for its end; panics with its output if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            let late = Instant::now() >= until;
            assert!(!late, "{} runs after {limit:?}:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a line that `found` recognises. The error tells why there is none: the process
    /// ended, or `limit` passed; both with its output.
    pub fn wait_line<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + limit;
        let mut next = 0;
        loop {
            // Asked before the lines are read, so that what it said last is not missed.
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
                let why = ended.map_or_else(|| "does not say it".into(), |s| s.to_string());
                return Err(format!("{}: {why}\n{}", self.name, self.log()));
            }
        }
    }

    /// The last lines it wrote, stdout and stderr together.
    pub fn log(&self) -> String {
        let lines = self.output.lock();
        lines
            .kept
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// Resident memory in KiB.
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

    /// CPU time used, user and system, in clock ticks (1/100 s on Linux).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .unwrap_or_else(|error| panic!("{} has no stat: {error}", self.name));
        // The name in brackets may hold blanks; utime and stime are fields 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    fn reap(&mut self, status: Option<ExitStatus>) {
        if status.is_some() {
            janitor::reaped(self.child.id());
            self.ended = status;
            // What it said last is still on its way here; a child of its own may keep the pipes open.
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

/// The last lines of a child, of both its pipes.
#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    total: usize,
}

impl Lines {
    const KEPT: usize = 5000;

    fn since(&self, first: usize) -> impl Iterator<Item = &String> {
        let dropped = self.total - self.kept.len();
        self.kept.iter().skip(first.saturating_sub(dropped))
    }
}

impl Output {
    fn collect(output: &Arc<Output>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = Arc::clone(output);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut lines = output.lock();
                lines
                    .kept
                    .push_back(String::from_utf8_lossy(&line).into_owned());
                lines.total += 1;
                if lines.kept.len() > Lines::KEPT {
                    lines.kept.pop_front();
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
