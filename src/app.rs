//! The life of the process: built bottom-up from resolved options, served, drained (S2).
//!
//! [`App::start`] needs no environment: tests run it in process on port 0.

mod certificates;
pub mod config_reload;
mod metrics_reference;
mod page_listeners;
mod srv_discovery;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use self::config_reload::{Again, Changes, Changing};
use crate::call_log::Observer;
use crate::cli::Settings;
use crate::config::{Config, LEAST_PROGRESS_NOTIFY};
use crate::driver::MaxBytes;
use crate::driver::state::fleet::Fleet;
use crate::driver::state::namespace::NamespacePolicy;
use crate::driver::state::process::{ProcessState, WatchOptions};
use crate::error::StartError;
use crate::limits;
use crate::metrics::Metrics;
use crate::net::tls::reload;
use crate::profile::heap;
use crate::server::ListenerKind;
use crate::server::accept::{self, ConnectionAcceptor};
use crate::server::admin::router::Pages;
use crate::server::http2::Http2Options;
use crate::server::metrics_export::MetricsCollector;
use crate::server::worker::{WorkerConfig, WorkerHandle, WorkerSender};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::upstream::endpoints::Endpoints;
use crate::wire::method;
use crate::wire::namespace::Namespace;

pub use metrics_reference::reference as metrics_reference;
use page_listeners::PagesListener;

/// A proxy that listens; not yet accepting until [`App::serve`].
pub struct App {
    listener: StdListener,
    address: SocketAddr,
    pages: Vec<PagesListener>,
    workers: Vec<WorkerHandle>,
    metrics: Arc<Metrics>,
    sides: Vec<reload::Side>,
    reload: Arc<Notify>,
    observer: Option<Arc<Observer>>,
    most_connections: usize,
    endpoints: Arc<Endpoints>,
    drain_timeout: Arc<Mutex<Duration>>,
}

impl App {
    /// Binds, loads what is on disk, starts the workers. etcd need not be there yet (E4).
    pub fn start(config: &Config) -> Result<App, StartError> {
        let listener = accept::listen(&config.listen_addr)
            .map_err(|e| StartError::new(format!("--listen-addr={}", config.listen_addr), e))?;
        let address = listener
            .local_addr()
            .map_err(|e| StartError::new("the listening socket", e))?;
        let page_listeners = config.metrics_addr.iter().map(PagesListener::bind);
        let page_listeners = page_listeners.collect::<Result<Vec<_>, _>>()?;
        let metrics = metrics_reference::none(config.workers);
        let tls = certificates::load(config, &host(), &metrics.tls)?;
        let observer = Observer::start(&config.observer, &host(), &metrics.records)?;
        let observer = observer.map(Arc::new);
        let keepalive = KeepaliveOptions {
            time: config.dial_keepalive_time,
            timeout: config.dial_keepalive_timeout,
            without_calls: config.permit_without_stream,
        };
        let endpoints = Endpoints::new(
            config.endpoints.clone(),
            tls.dialer,
            keepalive,
            config.endpoint_options.clone(),
            metrics.endpoints.clone(),
        );
        let endpoints = Arc::new(endpoints);
        let collector = MetricsCollector::new(metrics.clone(), endpoints.clone());
        let pages = Pages::new(collector, config.enable_pprof)
            .map_err(|e| StartError::new("metrics", e))?;
        let plan = WorkerConfig {
            endpoints: endpoints.clone(),
            metrics: metrics.clone(),
            shared: Arc::new(ProcessState::new(
                config.workers,
                watch_options(config),
                config.reads,
                metrics.answers.clone(),
                gate(config),
                observer.clone(),
                Fleet::new(config.fleet.clone(), host(), metrics.fleet.clone()),
            )),
            pages: Arc::new(pages),
            tls: tls.acceptor,
            max: MaxBytes {
                send: config.max_send_bytes,
                recv: config.max_recv_bytes,
            },
            http2: http2_options(config),
        };
        let workers = (0..config.workers)
            .map(|n| WorkerHandle::start(n, plan.clone()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| StartError::new("worker failed to start", e))?;
        let most_connections = most_connections(!page_listeners.is_empty());
        let drain_timeout = Arc::new(Mutex::new(config.drain_timeout));
        Ok(App {
            listener,
            address,
            pages: page_listeners,
            workers,
            metrics,
            sides: tls.sides,
            reload: Arc::new(Notify::new()),
            observer,
            most_connections,
            endpoints,
            drain_timeout,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can change while it serves.
    fn changing(&self) -> Changing {
        Changing {
            observer: self.observer.clone(),
            endpoints: self.endpoints.clone(),
            drain_timeout: self.drain_timeout.clone(),
        }
    }

    /// Whoever notifies this has the files of certificates looked at at once (S3).
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Who is told of calls, if anybody.
    pub fn observer(&self) -> Option<Arc<Observer>> {
        self.observer.clone()
    }

    /// Serves until `stop` returns, then drains: whoever is here finishes within the grace
    /// (S2). True when everybody did.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> io::Result<bool> {
        let inlets: Arc<[WorkerSender]> = self.workers.iter().map(WorkerHandle::inlet).collect();
        let entry = |listener, door, most| {
            TcpListener::from_std(listener).map(|listener| ConnectionAcceptor {
                listener,
                door,
                workers: inlets.clone(),
                most,
                metrics: self.metrics.clone(),
            })
        };
        let clients = entry(self.listener, ListenerKind::Clients, self.most_connections)?;
        let mut pages = JoinSet::new();
        let (close_pages, pages_close) = watch::channel(());
        for listener in self.pages {
            let door = ListenerKind::Pages { tls: listener.tls };
            let entry = entry(listener.listener, door, limits::MAX_PAGE_CONNECTIONS)?;
            let mut closes = pages_close.clone();
            pages.spawn(entry.accept(async move {
                // Nothing is ever sent: it ends with its sender.
                while closes.changed().await.is_ok() {}
            }));
        }
        let sides = std::mem::take(&mut self.sides);
        // Until the drain is over: calls may yet need a connection to etcd.
        let _reload = Aborted(tokio::spawn(reload::run(sides, self.reload.clone())));
        clients.accept(stop).await;
        self.workers.iter().for_each(WorkerHandle::drain);
        let all = async {
            for worker in &mut self.workers {
                worker.drained().await;
            }
            // Pages are there as long as any client is.
            drop(close_pages);
            while pages.join_next().await.is_some() {}
            self.workers.iter().for_each(WorkerHandle::end);
            for worker in &mut self.workers {
                worker.ended().await;
            }
        };
        let grace = *self.drain_timeout.lock();
        let drained = timeout(grace, all).await.is_ok();
        if let Some(observer) = self.observer {
            // An error would be a panic of its own, and there is nothing left to save.
            let _ = tokio::task::spawn_blocking(move || observer.finish()).await;
        }
        Ok(drained)
    }
}

/// Whether the proxy could start so, as far as that shows without listening and connecting: the files
/// of certificates are read. None is made.
pub fn check(config: &Config) -> Result<(), StartError> {
    certificates::check(config)?;
    warnings(config);
    Ok(())
}

/// The program: serves until SIGTERM or SIGINT, exits at once on a second. At SIGHUP `again` says what
/// `settings` are by now.
pub fn run(config: &Config, settings: Settings, again: Again) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::new("cannot start the runtime", e))?;
    if config.enable_pprof {
        heap::begin();
    }
    // Within the runtime, since workers and signals belong to it.
    runtime.block_on(async {
        let mut terminate = signals()?;
        let config = &srv_discovery::discovered(config).await?;
        let app = App::start(config)?;
        let drain_timeout = app.drain_timeout.clone();
        let changes = Changes::new(app.changing(), config.clone(), settings, again);
        reload_on_hangup(app.reload(), app.observer(), changes)?;
        warnings(config);
        announce(config, &app);
        let stop = async {
            let name = terminate.recv().await;
            info!(signal = name, drain_timeout = ?*drain_timeout.lock(), "draining");
            tell_systemd(sd_notify::NotifyState::Stopping);
            tokio::spawn(async move {
                terminate.recv().await;
                warn!("second signal received: exiting immediately");
                std::process::exit(1);
            });
        };
        let drained = app.serve(stop).await;
        match drained.map_err(|e| StartError::new("the listening socket", e))? {
            true => info!("drained"),
            false => warn!("drain timeout expired with calls still open"),
        }
        Ok(())
    })
}

/// What is not quite as it was asked for.
fn warnings(config: &Config) {
    if config.upstream_tls.insecure_skip_verify {
        warn!("--insecure-skip-tls-verify: etcd's certificate is not verified");
    }
    if config.max_concurrent_streams != u32::MAX
        && config.max_concurrent_streams > limits::MAX_STREAMS
    {
        warn!(
            requested = config.max_concurrent_streams,
            maximum = limits::MAX_STREAMS,
            "--max-concurrent-streams is capped"
        );
    }
    let minimum = limits::UPSTREAM_PING;
    if !config.dial_keepalive_time.is_zero() && config.dial_keepalive_time < minimum {
        let requested = config.dial_keepalive_time;
        warn!(
            ?requested,
            ?minimum,
            "--dial-keepalive-time is raised: etcd closes connections that ping more often"
        );
    }
    let (requested, minimum) = (config.client_ping_interval, limits::LEAST_CLIENT_PING);
    if !requested.is_zero() && requested < minimum {
        warn!(?requested, ?minimum, "--grpc-keepalive-interval is raised");
    }
    for (endpoint, _) in &config.endpoint_options.weights {
        let named = config.endpoints.iter().any(|e| e.authority() == *endpoint);
        if !named && config.endpoint_options.sync.is_zero() {
            warn!(endpoint, "--endpoint-weights names an unknown endpoint");
        }
    }
    let (requested, minimum) = (config.endpoint_options.sync, limits::LEAST_SYNC);
    if !requested.is_zero() && requested < minimum {
        warn!(
            ?requested,
            ?minimum,
            "--endpoints-auto-sync-interval is raised"
        );
    }
    let minimum = LEAST_PROGRESS_NOTIFY;
    if config.watch_progress_notify < minimum {
        let requested = config.watch_progress_notify;
        warn!(
            ?requested,
            ?minimum,
            "--experimental-watch-progress-notify-interval is raised"
        );
    }
    let reads = &config.reads;
    if reads.audit > 0 && (reads.cache_bytes == 0 || reads.max_age.is_zero()) {
        warn!("--cache-audit has no effect: the cache is off");
    }
}

fn announce(config: &Config, app: &App) {
    for listener in &app.pages {
        info!(url = listener.url, "--metrics-addr: serving HTTP pages");
    }
    let endpoints: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
    info!(
        address = %app.address(),
        version = env!("CARGO_PKG_VERSION"),
        endpoints = endpoints.join(","),
        policy = config.endpoint_options.policy.name(),
        tls = config.server_tls.is_some(),
        workers = config.workers,
        advertise_client_url = config.fleet.advertise,
        resolver_prefix = config.fleet.resolver.as_ref().map(|resolver| &resolver.prefix[..]),
        cache_bytes = config.reads.cache_bytes,
        cache_max_age = ?config.reads.max_age,
        "started gRPC proxy"
    );
    tell_systemd(sd_notify::NotifyState::Ready);
}

/// Without a NOTIFY_SOCKET there is nobody to tell, and nothing happens.
fn tell_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "notifying NOTIFY_SOCKET failed");
    }
}

/// A task that ends with this value.
struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// SIGHUP, whose own meaning would end the process.
fn reload_on_hangup(
    reload: Arc<Notify>,
    observer: Option<Arc<Observer>>,
    changes: Option<Changes>,
) -> Result<(), StartError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| StartError::new("signals", e))?;
    let mut changes = changes;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("SIGHUP received: reloading files");
            reload.notify_one();
            if let Some(observer) = &observer {
                observer.reopen();
            }
            if let Some(changes) = &mut changes {
                changes.look().await;
            }
        }
    });
    Ok(())
}

/// SIGTERM and SIGINT as one stream.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

fn signals() -> Result<Signals, StartError> {
    let listen = |kind| signal(kind).map_err(|e| StartError::new("signals", e));
    Ok(Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
    })
}

impl Signals {
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn watch_options(config: &Config) -> WatchOptions {
    let bypass = config.watch_bypass.iter();
    WatchOptions {
        log_bytes: config.watch_log_bytes,
        bypass: bypass.map(|prefix| prefix.clone().into()).collect(),
        // etcd's bound on a request, and what it adds for what is around one.
        part_bytes: usize::try_from(config.max_send_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(512 * 1024),
        progress_notify: config.watch_progress_notify.max(LEAST_PROGRESS_NOTIFY),
    }
}

/// What holds for clients' connections.
fn http2_options(config: &Config) -> Http2Options {
    let (time, timeout) = (config.client_ping_interval, config.client_ping_timeout);
    Http2Options {
        max_streams: config.max_concurrent_streams.min(limits::MAX_STREAMS),
        least_ping: config.client_ping_least,
        keepalive: (!time.is_zero()).then(|| KeepaliveOptions {
            time: time.max(limits::LEAST_CLIENT_PING),
            timeout: match timeout {
                Duration::ZERO => Duration::MAX,
                timeout => timeout,
            },
            without_calls: true,
        }),
    }
}

/// The namespace that clients are in, if there is one.
fn gate(config: &Config) -> Option<NamespacePolicy> {
    let namespace = Namespace::new(config.namespace.as_bytes())?;
    let opened = config.namespace_allow.iter();
    let opened: Vec<_> = opened.filter_map(|path| method::lookup(path)).collect();
    Some(NamespacePolicy::new(namespace, &opened))
}

/// The name by which this proxy's host is shown to clients.
fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Raises the descriptor limit as far as it goes, and keeps the connections below it.
fn most_connections(pages: bool) -> usize {
    let reserved = match pages {
        true => limits::RESERVED_DESCRIPTORS + 2 * limits::MAX_PAGE_CONNECTIONS,
        false => limits::RESERVED_DESCRIPTORS,
    };
    let wanted = limits::MAX_CONNECTIONS + reserved;
    // Where the limit cannot be read, accept's own errors are the bound.
    let raised = rlimit::increase_nofile_limit(wanted as u64).unwrap_or(wanted as u64);
    let descriptors = usize::try_from(raised).unwrap_or(usize::MAX);
    descriptors
        .saturating_sub(reserved)
        .clamp(1, limits::MAX_CONNECTIONS)
}
