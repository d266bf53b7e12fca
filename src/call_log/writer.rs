//! Access log thread: writes lines to the access log and to the log of the proxy. A slow file or
//! pipe delays only this thread, never a worker.

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
use crate::call_log::queue::{FLUSH_TIME, LogThrottle, Queue, QueueNotifier};
use crate::error::StartError;
use crate::limits;
use crate::metrics::SharedCounter;

/// Target of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// A file. Created if missing; lines are appended.
    File(PathBuf),
    /// Standard output (`-`).
    Stdout,
}

impl AccessLogTarget {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            AccessLogTarget::File(path) => Box::new(open(path)?),
            AccessLogTarget::Stdout => Box::new(io::stdout()),
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Client addresses and methods are confidential, so other users cannot read the file.
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640).open(path)
}

/// Handle of the access log thread, used by the workers.
#[derive(Debug)]
pub(super) struct AccessLog {
    queue: Queue<QueueItem>,
    signals: Arc<Signals>,
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum QueueItem {
    Call(Arc<FinishedCall>),
    /// Wakes the thread, which then reads its [`Signals`].
    Wake,
}

#[derive(Debug, Default)]
struct Signals {
    reopen: QueueNotifier,
    end: QueueNotifier,
}

impl AccessLog {
    /// Opens the access log, if there is a target, and starts the thread. With `log`, the thread
    /// also writes to the log of the proxy.
    pub(super) fn start(
        target: Option<AccessLogTarget>,
        log: bool,
        dropped: Arc<SharedCounter>,
    ) -> Result<AccessLog, StartError> {
        let file = match &target {
            None => None,
            Some(target) => Some(target.open().map_err(|error| match target {
                AccessLogTarget::File(path) => StartError::file("--access-log", path, error),
                AccessLogTarget::Stdout => StartError::new("--access-log=-", error),
            })?),
        };
        let (sender, receiver) = sync_channel(limits::CALL_LOG_QUEUE);
        let (report_end, ended) = sync_channel(1);
        let signals = Arc::<Signals>::default();
        let writer = Writer {
            receiver,
            signals: signals.clone(),
            target,
            file,
            log,
            dropped: dropped.clone(),
            lines: String::new(),
            count: 0,
            dropped_warning: LogThrottle::new(),
            failure_warning: LogThrottle::new(),
            failures: 0,
        };
        let run = move || {
            writer.run();
            // An error means that the handle has been dropped.
            let _ = report_end.send(());
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let spawned = thread.spawn(run);
        spawned.map_err(|e| StartError::new("cannot start the access log thread", e))?;
        Ok(AccessLog {
            queue: Queue::new(sender, dropped),
            signals,
            ended: Mutex::new(ended),
        })
    }

    /// Queues a finished call.
    pub(super) fn send(&self, call: Arc<FinishedCall>) {
        self.queue.send(QueueItem::Call(call));
    }

    /// Reopens the file, because log rotation may have renamed it.
    pub(super) fn reopen(&self) {
        self.signals.reopen.set();
        self.queue.wake(QueueItem::Wake);
    }

    /// Blocks until all queued calls are written, at most [`FLUSH_TIME`].
    pub(super) fn finish(&self) {
        self.signals.end.set();
        self.queue.wake(QueueItem::Wake);
        // An error means that the thread has ended or takes too long. Either way, the wait ends.
        let _ = self.ended.lock().recv_timeout(FLUSH_TIME);
    }
}

/// The access log thread.
struct Writer {
    receiver: Receiver<QueueItem>,
    signals: Arc<Signals>,
    target: Option<AccessLogTarget>,
    file: Option<Box<dyn Write + Send>>,
    log: bool,
    dropped: Arc<SharedCounter>,
    /// Lines of the next write, and their number.
    lines: String,
    count: u64,
    dropped_warning: LogThrottle,
    failure_warning: LogThrottle,
    failures: u64,
}

impl Writer {
    fn run(mut self) {
        let mut ending = false;
        while let Some(item) = self.next(ending) {
            self.process(item);
            // One write contains all calls that are queued now.
            while self.lines.len() < limits::CALL_LOG_BATCH_BYTES
                && let Ok(item) = self.receiver.try_recv()
            {
                self.process(item);
            }
            if self.signals.reopen.take() {
                self.reopen();
            }
            self.write();
            if let Some(dropped) = self.dropped_warning.due(self.dropped.get()) {
                warn!(dropped, "access log queue full: dropping lines");
            }
            ending |= self.signals.end.take();
        }
    }

    fn next(&self, ending: bool) -> Option<QueueItem> {
        match ending {
            true => self.receiver.try_recv().ok(),
            false => self.receiver.recv().ok(),
        }
    }

    fn process(&mut self, item: QueueItem) {
        let QueueItem::Call(call) = item else {
            return;
        };
        if self.log {
            log_call(&call);
        }
        if self.file.is_some() {
            line::write(&mut self.lines, &call);
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
            if self.failure_warning.due(self.failures).is_some() {
                warn!(%error, "access log write failed");
            }
        }
        self.lines.clear();
        self.count = 0;
    }

    fn reopen(&mut self) {
        let Some(AccessLogTarget::File(path)) = &self.target else {
            return;
        };
        // Earlier calls belong to the old file.
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

/// Writes a call to the log of the proxy.
fn log_call(call: &FinishedCall) {
    let address = call
        .client
        .as_ref()
        .map(|client| client.address.to_string());
    let trace = call.trace.map(|trace| format!("{trace:032x}"));
    info!(
        method = &*call.path,
        client_address = address,
        client_name = call
            .client
            .as_ref()
            .and_then(|client| client.name.as_deref()),
        code = call.code.as_str(),
        duration_ms = line::duration_ms(call),
        received_messages = call.received.messages,
        received_bytes = call.received.bytes,
        sent_messages = call.sent.messages,
        sent_bytes = call.sent.bytes,
        source = call.source.name(),
        endpoint = call.endpoint.as_ref().map(|endpoint| &endpoint.name[..]),
        trace_id = trace,
        request = call.request.as_deref(),
        "finished call"
    );
}
