//! The thread that tells of calls: lines in an access log, lines in the proxy's own log. Whoever reads
//! those slowly slows this thread, and no worker.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::call_log::finished_call::FinishedCall;
use crate::call_log::line;
use crate::call_log::queue::{FLUSH, LogThrottle, Queue, QueueNotifier};
use crate::error::StartError;
use crate::limits;
use crate::metrics::SharedCounter;

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to, made if it is not there.
    File(PathBuf),
    /// `-`.
    Stdout,
}

impl Target {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Target::File(path) => Box::new(open(path)?),
            Target::Stdout => Box::new(io::stdout()),
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Who called what from where is not for everybody's eyes.
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640).open(path)
}

/// The thread as the workers see it.
#[derive(Debug)]
pub(super) struct AccessLog {
    outlet: Queue<Word>,
    bells: Arc<Bells>,
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum Word {
    Call(Arc<FinishedCall>),
    /// A bell was rung.
    Look,
}

#[derive(Debug, Default)]
struct Bells {
    reopen: QueueNotifier,
    end: QueueNotifier,
}

impl AccessLog {
    /// Opens the access log, if there is to be one, and starts; with `log` it writes to the proxy's log
    /// too.
    pub(super) fn start(
        target: Option<Target>,
        log: bool,
        dropped: Arc<SharedCounter>,
    ) -> Result<AccessLog, StartError> {
        let file = match &target {
            None => None,
            Some(target) => Some(target.open().map_err(|error| match target {
                Target::File(path) => StartError::file("--access-log", path, error),
                Target::Stdout => StartError::new("--access-log=-", error),
            })?),
        };
        let (to, from) = sync_channel(limits::CALL_LOG_QUEUE);
        let (over, ended) = sync_channel(1);
        let bells = Arc::<Bells>::default();
        let writer = Writer {
            from,
            bells: bells.clone(),
            target,
            file,
            log,
            dropped: dropped.clone(),
            lines: String::new(),
            count: 0,
            told_lost: LogThrottle::new(),
            told_failed: LogThrottle::new(),
            failures: 0,
        };
        let run = move || {
            writer.run();
            // Nobody may be waiting.
            let _ = over.send(());
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let spawned = thread.spawn(run);
        spawned.map_err(|e| StartError::new("cannot start the access log thread", e))?;
        Ok(AccessLog {
            outlet: Queue::new(to, dropped),
            bells,
            ended: Mutex::new(ended),
        })
    }

    /// Tells of a call.
    pub(super) fn tell(&self, entry: Arc<FinishedCall>) {
        self.outlet.send(Word::Call(entry));
    }

    /// The file is opened anew: what was there may have been moved away.
    pub(super) fn reopen(&self) {
        self.bells.reopen.ring();
        self.outlet.nudge(Word::Look);
    }

    /// Returns when all that was told of is written, or the time for it is over.
    pub(super) fn finish(&self) {
        self.bells.end.ring();
        self.outlet.nudge(Word::Look);
        // An error means that it has ended, or that it takes too long: either way it is left.
        let _ = self.ended.lock().recv_timeout(FLUSH);
    }
}

/// The thread's own side.
struct Writer {
    from: Receiver<Word>,
    bells: Arc<Bells>,
    target: Option<Target>,
    file: Option<Box<dyn Write + Send>>,
    log: bool,
    dropped: Arc<SharedCounter>,
    /// To be written next, and how many they are.
    lines: String,
    count: u64,
    told_lost: LogThrottle,
    told_failed: LogThrottle,
    failures: u64,
}

impl Writer {
    fn run(mut self) {
        let mut ends = false;
        while let Some(word) = self.next(ends) {
            self.take(word);
            // What else is here leaves in the same write.
            while self.lines.len() < limits::CALL_LOG_BATCH_BYTES
                && let Ok(word) = self.from.try_recv()
            {
                self.take(word);
            }
            if self.bells.reopen.take() {
                self.reopen();
            }
            self.write();
            if let Some(dropped) = self.told_lost.due(self.dropped.get()) {
                warn!(dropped, "access log queue full: dropping lines");
            }
            ends |= self.bells.end.take();
        }
    }

    fn next(&self, ends: bool) -> Option<Word> {
        match ends {
            true => self.from.try_recv().ok(),
            false => self.from.recv().ok(),
        }
    }

    fn take(&mut self, word: Word) {
        let Word::Call(entry) = word else {
            return;
        };
        if self.log {
            log(&entry);
        }
        if self.file.is_some() {
            line::write(&mut self.lines, &entry);
            self.count += 1;
        }
    }

    fn write(&mut self) {
        let Some(file) = self.file.as_mut().filter(|_| !self.lines.is_empty()) else {
            return;
        };
        let written = file
            .write_all(self.lines.as_bytes())
            .and_then(|()| file.flush());
        if let Err(error) = written {
            (0..self.count).for_each(|_| self.dropped.inc());
            self.failures += 1;
            if self.told_failed.due(self.failures).is_some() {
                warn!(%error, "access log write failed");
            }
        }
        self.lines.clear();
        self.count = 0;
    }

    fn reopen(&mut self) {
        let Some(Target::File(path)) = &self.target else {
            return;
        };
        // What was told of before belongs to the old one.
        let path = path.clone();
        self.write();
        match open(&path) {
            Ok(file) => {
                self.file = Some(Box::new(file));
                info!(path = %path.display(), "access log reopened");
            }
            Err(error) => {
                warn!(%error, path = %path.display(), "access log reopen failed");
            }
        }
    }
}

/// A call as a line of the proxy's log.
fn log(entry: &FinishedCall) {
    let address = entry.who.as_ref().map(|who| who.address.to_string());
    let trace = entry.trace.map(|trace| format!("{trace:032x}"));
    info!(
        method = &*entry.path,
        client_address = address,
        client_name = entry.who.as_ref().and_then(|who| who.name.as_deref()),
        code = entry.code.as_str(),
        duration_ms = line::millis(entry),
        received_messages = entry.received.messages,
        received_bytes = entry.received.bytes,
        sent_messages = entry.sent.messages,
        sent_bytes = entry.sent.bytes,
        source = entry.source.name(),
        endpoint = entry.endpoint.as_ref().map(|endpoint| &endpoint.name[..]),
        trace_id = trace,
        request = entry.asked.as_deref(),
        "finished call"
    );
}
