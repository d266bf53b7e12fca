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

use crate::metrics::Metrics;
use crate::net::tls::server::Acceptor;
use crate::server::connection::{self, Clients};
use crate::server::http2::Http2Options;
use crate::server::pages::Pages;
use crate::service::shared::Shared;
use crate::service::{Ctx, MaxBytes, tasks};
use crate::upstream::endpoints::Endpoints;
use crate::upstream::pool::Pool;

/// What every worker is made of.
#[derive(Clone)]
pub struct Plan {
    /// Endpoints, shared by all.
    pub endpoints: Arc<Endpoints>,
    /// Counters, a block each.
    pub metrics: Arc<Metrics>,
    /// What the services of all workers share.
    pub shared: Arc<Shared>,
    /// HTTP pages.
    pub pages: Arc<Pages>,
    /// TLS towards clients, if any.
    pub tls: Option<Arc<Acceptor>>,
    /// Largest messages.
    pub max: MaxBytes,
    /// What holds for clients' HTTP/2 connections.
    pub http2: Http2Options,
}

/// A running worker, as the acceptor sees it.
pub struct WorkerHandle {
    messages: UnboundedSender<Message>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    done: Option<oneshot::Receiver<()>>,
}

enum Message {
    Connection(StdStream),
    Drain,
}

impl WorkerHandle {
    /// Starts worker number `number`.
    pub fn start(number: usize, plan: Plan) -> io::Result<WorkerHandle> {
        // Unbounded, and bounded all the same: the acceptor counts what it hands over.
        let (messages, inbox) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (finished, done) = oneshot::channel();
        let open = connections.clone();
        let runtime = Builder::new_current_thread();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                run(runtime, number, plan, inbox, open);
                // Nobody may be waiting any more.
                let _ = finished.send(());
            })?;
        Ok(WorkerHandle {
            messages,
            connections,
            thread: Some(thread),
            done: Some(done),
        })
    }

    /// Client connections it has, those on their way included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands it a connection.
    pub fn give(&self, socket: StdStream) -> io::Result<()> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.messages
            .send(Message::Connection(socket))
            .map_err(|_| {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                io::Error::other("the worker has stopped")
            })
    }

    /// Asks it to finish what is open and end (S2).
    pub fn drain(&self) {
        // A worker that has stopped has nothing to drain.
        let _ = self.messages.send(Message::Drain);
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
            tracing::error!("a worker panicked");
        }
    }
}

fn run(
    mut runtime: Builder,
    number: usize,
    plan: Plan,
    inbox: UnboundedReceiver<Message>,
    open: Arc<AtomicUsize>,
) {
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    runtime.block_on(serve(number, plan, inbox, open));
}

async fn serve(
    number: usize,
    plan: Plan,
    mut inbox: UnboundedReceiver<Message>,
    open: Arc<AtomicUsize>,
) {
    let pool = Pool::new(plan.endpoints, number);
    let ctx = Rc::new(Ctx::new(pool, plan.metrics, plan.shared, number, plan.max));
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
    tasks::begin(&worker.clients.ctx);
    while let Some(Message::Connection(socket)) = inbox.recv().await {
        worker.clone().take(socket);
    }
    worker.clients.ctx.drain.begin();
    // Connections handed over before the word reached us are served too.
    while let Ok(Message::Connection(socket)) = inbox.try_recv() {
        worker.clone().take(socket);
    }
    while worker.open.load(Ordering::Relaxed) > 0 {
        worker.closed.notified().await;
    }
    tasks::end(&worker.clients.ctx).await;
    worker.clients.ctx.pool.close();
}

struct Worker {
    clients: Rc<Clients>,
    open: Arc<AtomicUsize>,
    closed: Notify,
}

impl Worker {
    fn take(self: Rc<Self>, socket: StdStream) {
        let open = OpenConnection::new(self.clone());
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                tokio::task::spawn_local(async move {
                    connection::serve(self.clients.clone(), socket).await;
                    drop(open);
                });
            }
            Err(error) => tracing::warn!(%error, "connection dropped"),
        }
    }
}

/// Counts as an open connection while it lives; the acceptor has counted it in `open`.
struct OpenConnection(Rc<Worker>);

impl OpenConnection {
    fn new(worker: Rc<Worker>) -> OpenConnection {
        worker.clients.ctx.count().accepted.inc();
        worker.clients.ctx.count().connections.inc();
        OpenConnection(worker)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.clients.ctx.count().connections.dec();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.closed.notify_one();
    }
}
