//! Worker: an OS thread with its own runtime, client connections and upstream pool.
//!
//! A connection stays on one worker, so the path of a call crosses no threads.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use crate::driver::state::process::ProcessState;
use crate::driver::{MaxBytes, WorkerContext, background};
use crate::metrics::Metrics;
use crate::net::socket::{Socket, StdSocket};
use crate::net::tls::server::Acceptor;
use crate::server::ListenerKind;
use crate::server::admin::router::AdminRouter;
use crate::server::connection::{self, ConnectionContext};
use crate::server::http2::Http2Options;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::pool::Pool;

/// Configuration of every worker.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Endpoints, shared by all workers.
    pub endpoints: Arc<Endpoints>,
    /// Metrics of the process; each worker writes its own block.
    pub metrics: Arc<Metrics>,
    /// Driver state that all workers share.
    pub process: Arc<ProcessState>,
    /// Router of admin requests.
    pub admin: Arc<AdminRouter>,
    /// Client TLS, if configured.
    pub tls: Option<Arc<Acceptor>>,
    /// Maximum sizes of messages.
    pub max: MaxBytes,
    /// Options of HTTP/2 connections with clients.
    pub http2: Http2Options,
}

/// Handle of a running worker.
pub struct WorkerHandle {
    sender: WorkerSender,
    thread: Option<JoinHandle<()>>,
    drained: Option<oneshot::Receiver<()>>,
    stopped: Option<oneshot::Receiver<()>>,
}

/// Sends connections to a worker.
#[derive(Clone)]
pub struct WorkerSender {
    commands: UnboundedSender<WorkerCommand>,
    open: Arc<ConnectionCounts>,
}

/// Numbers of open connections of a worker, including connections still in its inbox.
#[derive(Debug, Default)]
struct ConnectionCounts {
    clients: AtomicUsize,
    admin: AtomicUsize,
}

impl ConnectionCounts {
    fn count(&self, kind: ListenerKind) -> &AtomicUsize {
        match kind {
            ListenerKind::Clients => &self.clients,
            ListenerKind::Admin { .. } => &self.admin,
        }
    }
}

enum WorkerCommand {
    Connection(StdSocket, ListenerKind),
    Drain,
    Stop,
}

impl WorkerSender {
    /// Returns the number of open connections from listeners of this kind.
    pub fn open(&self, kind: ListenerKind) -> usize {
        self.open.count(kind).load(Ordering::Relaxed)
    }

    /// Sends a connection to the worker.
    ///
    /// # Errors
    /// The worker has stopped.
    pub fn send_connection(&self, socket: StdSocket, kind: ListenerKind) -> io::Result<()> {
        let open = self.open.count(kind);
        open.fetch_add(1, Ordering::Relaxed);
        let command = WorkerCommand::Connection(socket, kind);
        self.commands.send(command).map_err(|_| {
            open.fetch_sub(1, Ordering::Relaxed);
            io::Error::other("the worker has stopped")
        })
    }
}

impl WorkerHandle {
    /// Starts worker number `number`.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(number: usize, config: WorkerConfig) -> io::Result<WorkerHandle> {
        // The channel needs no bound: the acceptor limits the number of open connections.
        let (commands, inbox) = unbounded_channel();
        let open = Arc::new(ConnectionCounts::default());
        let (report_drained, drained) = oneshot::channel();
        let (report_stopped, stopped) = oneshot::channel();
        let worker_open = open.clone();
        let runtime = Builder::new_current_thread();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                run(runtime, number, config, inbox, worker_open, report_drained);
                // An error means that the handle has been dropped.
                let _ = report_stopped.send(());
            })?;
        Ok(WorkerHandle {
            sender: WorkerSender { commands, open },
            thread: Some(thread),
            drained: Some(drained),
            stopped: Some(stopped),
        })
    }

    /// Returns a sender of connections to this worker.
    pub fn sender(&self) -> WorkerSender {
        self.sender.clone()
    }

    /// Starts the drain: the worker finishes the open calls of its clients (S2).
    pub fn drain(&self) {
        // A worker that has stopped has nothing to drain.
        let _ = self.sender.commands.send(WorkerCommand::Drain);
    }

    /// Returns when the worker is draining and has no client connection left.
    pub async fn drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            // An error means that the thread has ended, and all its connections with it.
            let _ = drained.await;
        }
    }

    /// Stops the worker as soon as its last connection has ended.
    pub fn stop(&self) {
        // An error means that the worker has stopped already.
        let _ = self.sender.commands.send(WorkerCommand::Stop);
    }

    /// Returns when the thread of the worker has ended.
    pub async fn stopped(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            // An error means that the thread has ended.
            let _ = stopped.await;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("worker panicked");
        }
    }
}

fn run(
    mut runtime: Builder,
    number: usize,
    config: WorkerConfig,
    inbox: UnboundedReceiver<WorkerCommand>,
    open: Arc<ConnectionCounts>,
    report_drained: oneshot::Sender<()>,
) {
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "worker failed to start");
            return;
        }
    };
    runtime.block_on(serve(number, config, inbox, open, report_drained));
}

async fn serve(
    number: usize,
    config: WorkerConfig,
    mut inbox: UnboundedReceiver<WorkerCommand>,
    open: Arc<ConnectionCounts>,
    report_drained: oneshot::Sender<()>,
) {
    let pool = Pool::new(config.endpoints, number);
    let ctx = Rc::new(WorkerContext::new(
        pool,
        config.metrics,
        config.process,
        number,
        config.max,
    ));
    let clients = ConnectionContext {
        ctx,
        admin: config.admin,
        tls: config.tls,
        http2: config.http2,
    };
    let worker = Rc::new(Worker {
        clients: Rc::new(clients),
        open,
        closed: Notify::new(),
    });
    tokio::task::spawn_local(worker.clients.ctx.pool.clone().maintain());
    tokio::task::spawn_local(worker.clients.ctx.timers.clone().run());
    background::start(&worker.clients.ctx);
    while let Some(WorkerCommand::Connection(socket, kind)) = inbox.recv().await {
        worker.clone().serve_connection(socket, kind);
    }
    worker.clients.ctx.drain.begin();
    worker.finish(&mut inbox, report_drained).await;
    background::wait_for_end(&worker.clients.ctx).await;
    worker.clients.ctx.pool.close();
}

struct Worker {
    clients: Rc<ConnectionContext>,
    open: Arc<ConnectionCounts>,
    closed: Notify,
}

impl Worker {
    /// Serves the drain: returns when [`WorkerCommand::Stop`] has arrived and no connection is
    /// open.
    ///
    /// The worker accepts admin connections until then, because health is probed as long as clients
    /// are connected.
    async fn finish(
        self: &Rc<Self>,
        inbox: &mut UnboundedReceiver<WorkerCommand>,
        report_drained: oneshot::Sender<()>,
    ) {
        let mut report_drained = Some(report_drained);
        let mut stopping = false;
        loop {
            let clients = self.open.clients.load(Ordering::Relaxed);
            if clients == 0
                && let Some(report_drained) = report_drained.take()
            {
                // An error means that the handle has been dropped.
                let _ = report_drained.send(());
            }
            if stopping && clients + self.open.admin.load(Ordering::Relaxed) == 0 {
                return;
            }
            tokio::select! {
                command = inbox.recv(), if !stopping => match command {
                    Some(WorkerCommand::Connection(socket, kind)) => {
                        self.clone().serve_connection(socket, kind);
                    }
                    Some(WorkerCommand::Drain) => {}
                    Some(WorkerCommand::Stop) | None => stopping = true,
                },
                () = self.closed.notified() => {}
            }
        }
    }

    fn serve_connection(self: Rc<Self>, socket: StdSocket, kind: ListenerKind) {
        let open = ConnectionGuard::new(self.clone(), kind);
        match Socket::from_std(socket) {
            Ok(socket) => {
                tokio::task::spawn_local(async move {
                    connection::serve(self.clients.clone(), kind, socket).await;
                    drop(open);
                });
            }
            Err(error) => tracing::warn!(%error, "connection dropped"),
        }
    }
}

/// Counts an open connection in the metrics. Removes it from the metrics and from
/// [`ConnectionCounts`] when dropped; [`WorkerSender`] has added it there.
struct ConnectionGuard {
    worker: Rc<Worker>,
    kind: ListenerKind,
}

impl ConnectionGuard {
    fn new(worker: Rc<Worker>, kind: ListenerKind) -> ConnectionGuard {
        let counters = worker.clients.ctx.counters();
        match kind {
            ListenerKind::Clients => {
                counters.accepted.inc();
                counters.connections.inc();
            }
            ListenerKind::Admin { .. } => counters.admin_connections.inc(),
        }
        ConnectionGuard { worker, kind }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let counters = self.worker.clients.ctx.counters();
        match self.kind {
            ListenerKind::Clients => counters.connections.dec(),
            ListenerKind::Admin { .. } => counters.admin_connections.dec(),
        }
        let open = self.worker.open.count(self.kind);
        open.fetch_sub(1, Ordering::Relaxed);
        self.worker.closed.notify_one();
    }
}
