//! One worker: an OS thread with a runtime of its own, its clients, and its pool upstream.
//! A connection lives and dies on one worker, so nothing on a call's path crosses threads.

use std::io;
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use crate::driver::state::process::ProcessState;
use crate::driver::{MaxBytes, WorkerContext, background};
use crate::metrics::Metrics;
use crate::net::tls::server::Acceptor;
use crate::server::ListenerKind;
use crate::server::admin::router::Pages;
use crate::server::connection::{self, Clients};
use crate::server::http2::Http2Options;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::pool::Pool;

/// What every worker is made of.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Endpoints, shared by all.
    pub endpoints: Arc<Endpoints>,
    /// Counters, a block each.
    pub metrics: Arc<Metrics>,
    /// What the services of all workers share.
    pub shared: Arc<ProcessState>,
    /// HTTP pages.
    pub pages: Arc<Pages>,
    /// TLS towards clients, if any.
    pub tls: Option<Arc<Acceptor>>,
    /// Largest messages.
    pub max: MaxBytes,
    /// What holds for clients' HTTP/2 connections.
    pub http2: Http2Options,
}

/// A running worker.
pub struct WorkerHandle {
    inlet: WorkerSender,
    thread: Option<JoinHandle<()>>,
    drained: Option<oneshot::Receiver<()>>,
    done: Option<oneshot::Receiver<()>>,
}

/// A worker as listeners see it.
#[derive(Clone)]
pub struct WorkerSender {
    messages: UnboundedSender<Message>,
    open: Arc<Open>,
}

/// Connections that a worker has, those on their way to it included.
#[derive(Debug, Default)]
struct Open {
    clients: AtomicUsize,
    pages: AtomicUsize,
}

impl Open {
    fn through(&self, door: ListenerKind) -> &AtomicUsize {
        match door {
            ListenerKind::Clients => &self.clients,
            ListenerKind::Pages { .. } => &self.pages,
        }
    }
}

enum Message {
    Connection(StdStream, ListenerKind),
    Drain,
    End,
}

impl WorkerSender {
    /// Connections it has that came through such a door.
    pub fn open(&self, door: ListenerKind) -> usize {
        self.open.through(door).load(Ordering::Relaxed)
    }

    /// Hands it a connection.
    pub fn give(&self, socket: StdStream, door: ListenerKind) -> io::Result<()> {
        let open = self.open.through(door);
        open.fetch_add(1, Ordering::Relaxed);
        let message = Message::Connection(socket, door);
        self.messages.send(message).map_err(|_| {
            open.fetch_sub(1, Ordering::Relaxed);
            io::Error::other("the worker has stopped")
        })
    }
}

impl WorkerHandle {
    /// Starts worker number `number`.
    pub fn start(number: usize, plan: WorkerConfig) -> io::Result<WorkerHandle> {
        // Unbounded, and bounded all the same: the acceptor counts what it hands over.
        let (messages, inbox) = unbounded_channel();
        let open = Arc::new(Open::default());
        let (is_drained, drained) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let opened = open.clone();
        let runtime = Builder::new_current_thread();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                run(runtime, number, plan, inbox, opened, is_drained);
                // Nobody may be waiting any more.
                let _ = finished.send(());
            })?;
        Ok(WorkerHandle {
            inlet: WorkerSender { messages, open },
            thread: Some(thread),
            drained: Some(drained),
            done: Some(done),
        })
    }

    /// It for listeners.
    pub fn inlet(&self) -> WorkerSender {
        self.inlet.clone()
    }

    /// Asks it to finish what clients have open (S2).
    pub fn drain(&self) {
        // A worker that has stopped has nothing to drain.
        let _ = self.inlet.messages.send(Message::Drain);
    }

    /// Returns when it has been told to drain and has no client any more.
    pub async fn drained(&mut self) {
        if let Some(drained) = self.drained.take() {
            // An error means that the thread is gone, with all it had.
            let _ = drained.await;
        }
    }

    /// Asks it to end with the last connection it has.
    pub fn end(&self) {
        // It may have stopped.
        let _ = self.inlet.messages.send(Message::End);
    }

    /// Returns when it has ended.
    pub async fn ended(&mut self) {
        if let Some(done) = self.done.take() {
            // An error means that the thread is gone, which is an end too.
            let _ = done.await;
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
    plan: WorkerConfig,
    inbox: UnboundedReceiver<Message>,
    open: Arc<Open>,
    is_drained: oneshot::Sender<()>,
) {
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "worker failed to start");
            return;
        }
    };
    runtime.block_on(serve(number, plan, inbox, open, is_drained));
}

async fn serve(
    number: usize,
    plan: WorkerConfig,
    mut inbox: UnboundedReceiver<Message>,
    open: Arc<Open>,
    is_drained: oneshot::Sender<()>,
) {
    let pool = Pool::new(plan.endpoints, number);
    let ctx = Rc::new(WorkerContext::new(
        pool,
        plan.metrics,
        plan.shared,
        number,
        plan.max,
    ));
    let clients = Clients {
        ctx,
        pages: plan.pages,
        tls: plan.tls,
        http2: plan.http2,
    };
    let worker = Rc::new(Worker {
        clients: Rc::new(clients),
        open,
        closed: Notify::new(),
    });
    tokio::task::spawn_local(worker.clients.ctx.pool.clone().keep_house());
    tokio::task::spawn_local(worker.clients.ctx.timers.clone().run());
    background::begin(&worker.clients.ctx);
    while let Some(Message::Connection(socket, door)) = inbox.recv().await {
        worker.clone().take(socket, door);
    }
    worker.clients.ctx.drain.begin();
    worker.finish(&mut inbox, is_drained).await;
    background::end(&worker.clients.ctx).await;
    worker.clients.ctx.pool.close();
}

struct Worker {
    clients: Rc<Clients>,
    open: Arc<Open>,
    closed: Notify,
}

impl Worker {
    /// Until nobody is here and nobody comes. Who asks for pages comes to the last: whether this process
    /// is well is asked for as long as clients are here.
    async fn finish(
        self: &Rc<Self>,
        inbox: &mut UnboundedReceiver<Message>,
        is_drained: oneshot::Sender<()>,
    ) {
        let mut is_drained = Some(is_drained);
        let mut ends = false;
        loop {
            let clients = self.open.clients.load(Ordering::Relaxed);
            if clients == 0
                && let Some(is_drained) = is_drained.take()
            {
                // Nobody may be waiting any more.
                let _ = is_drained.send(());
            }
            if ends && clients + self.open.pages.load(Ordering::Relaxed) == 0 {
                return;
            }
            tokio::select! {
                message = inbox.recv(), if !ends => match message {
                    Some(Message::Connection(socket, door)) => self.clone().take(socket, door),
                    Some(Message::Drain) => {}
                    Some(Message::End) | None => ends = true,
                },
                () = self.closed.notified() => {}
            }
        }
    }

    fn take(self: Rc<Self>, socket: StdStream, door: ListenerKind) {
        let open = OpenConnection::new(self.clone(), door);
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                tokio::task::spawn_local(async move {
                    connection::serve(self.clients.clone(), door, socket).await;
                    drop(open);
                });
            }
            Err(error) => tracing::warn!(%error, "connection dropped"),
        }
    }
}

/// Counts as an open connection while it lives; the acceptor has counted it in `open`.
struct OpenConnection {
    worker: Rc<Worker>,
    door: ListenerKind,
}

impl OpenConnection {
    fn new(worker: Rc<Worker>, door: ListenerKind) -> OpenConnection {
        let count = worker.clients.ctx.count();
        match door {
            ListenerKind::Clients => {
                count.accepted.inc();
                count.connections.inc();
            }
            ListenerKind::Pages { .. } => count.page_connections.inc(),
        }
        OpenConnection { worker, door }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let count = self.worker.clients.ctx.count();
        match self.door {
            ListenerKind::Clients => count.connections.dec(),
            ListenerKind::Pages { .. } => count.page_connections.dec(),
        }
        let open = self.worker.open.through(self.door);
        open.fetch_sub(1, Ordering::Relaxed);
        self.worker.closed.notify_one();
    }
}
