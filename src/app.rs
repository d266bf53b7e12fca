//! Start, run and drain of the process (S2).
//!
//! [`App::start`] builds all parts from the resolved options, [`App::serve`] runs them, and [`run`]
//! adds signals, reloads and systemd. `App::start` reads no environment, so benchmarks run it in
//! their own process on port 0.

mod adjustments;
mod admin_listeners;
mod certificates;
pub mod config_reload;
mod metrics_reference;
mod signals;
mod srv_discovery;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use self::config_reload::{ConfigReloader, ReadSettings, ReloadTargets};
use self::signals::{StopSignals, reload_on_hangup};
use crate::call_log::Observer;
use crate::cli::Settings;
use crate::config::{Config, MIN_PROGRESS_NOTIFY};
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
use crate::server::accept::ConnectionAcceptor;
use crate::server::admin::router::AdminRouter;
use crate::server::http2::Http2Options;
use crate::server::listener::{BoundListener, ListenAddress};
use crate::server::metrics_export::MetricsCollector;
use crate::server::worker::{WorkerConfig, WorkerHandle, WorkerSender};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::upstream::endpoints::Endpoints;
use crate::wire::method;
use crate::wire::namespace::Namespace;

use adjustments::log_adjustments;
use admin_listeners::AdminListener;
pub use metrics_reference::reference as metrics_reference;

/// A proxy with bound listeners and running workers. [`App::serve`] accepts connections.
pub struct App {
    listeners: Vec<BoundListener>,
    addresses: Vec<ListenAddress>,
    admin_listeners: Vec<AdminListener>,
    workers: Vec<WorkerHandle>,
    metrics: Arc<Metrics>,
    reloaders: Vec<reload::Reloader>,
    reload: Arc<Notify>,
    observer: Option<Arc<Observer>>,
    max_connections: usize,
    endpoints: Arc<Endpoints>,
    drain_timeout: Arc<Mutex<Duration>>,
}

impl App {
    /// Binds the listeners, reads the TLS files and starts the workers. etcd may be unreachable
    /// (E4).
    ///
    /// # Errors
    /// A listener cannot be bound, a file cannot be used, or a thread cannot be started.
    pub fn start(config: &Config) -> Result<App, StartError> {
        let mut listeners = Vec::with_capacity(config.listen_addr.len());
        let mut addresses = Vec::with_capacity(config.listen_addr.len());
        for address in &config.listen_addr {
            let error = |e| StartError::new(format!("--listen-addr={address}"), e);
            let mode = config.listen_socket_mode;
            let listener = BoundListener::bind(address, mode).map_err(error)?;
            addresses.push(listener.address().map_err(error)?);
            listeners.push(listener);
        }
        let admin_listeners = config.metrics_addr.iter().map(AdminListener::bind);
        let admin_listeners = admin_listeners.collect::<Result<Vec<_>, _>>()?;
        let metrics = metrics_reference::new_metrics(config.workers);
        let tls = certificates::load(config, &host(), &metrics.tls)?;
        let observer = Observer::start(&config.observer, &host(), &metrics.call_log)?;
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
        let admin = AdminRouter::new(collector, config.enable_pprof)
            .map_err(|e| StartError::new("metrics", e))?;
        let worker_config = WorkerConfig {
            endpoints: endpoints.clone(),
            metrics: metrics.clone(),
            process: Arc::new(ProcessState::new(
                config.workers,
                watch_options(config),
                config.reads,
                metrics.cache.clone(),
                namespace_policy(config),
                observer.clone(),
                Fleet::new(config.fleet.clone(), host(), metrics.fleet.clone()),
            )),
            admin: Arc::new(admin),
            tls: tls.acceptor,
            max: MaxBytes {
                send: config.max_send_bytes,
                recv: config.max_recv_bytes,
            },
            http2: http2_options(config),
        };
        let workers = (0..config.workers)
            .map(|n| WorkerHandle::start(n, worker_config.clone()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| StartError::new("worker failed to start", e))?;
        let max_connections = max_connections(!admin_listeners.is_empty());
        let drain_timeout = Arc::new(Mutex::new(config.drain_timeout));
        Ok(App {
            listeners,
            addresses,
            admin_listeners,
            workers,
            metrics,
            reloaders: tls.reloaders,
            reload: Arc::new(Notify::new()),
            observer,
            max_connections,
            endpoints,
            drain_timeout,
        })
    }

    /// Returns the addresses for clients, in the configured order, with the ports that the system
    /// chose. Never empty.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Returns the parts that a reload of the configuration file changes.
    fn reload_targets(&self) -> ReloadTargets {
        ReloadTargets {
            observer: self.observer.clone(),
            endpoints: self.endpoints.clone(),
            drain_timeout: self.drain_timeout.clone(),
        }
    }

    /// Returns the trigger of a reload of the TLS files: a notification checks them at once (S3).
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Returns the recorder of calls, if the access log, the call log or spans are enabled.
    pub fn observer(&self) -> Option<Arc<Observer>> {
        self.observer.clone()
    }

    /// Serves until `stop` returns, then drains: open calls may finish within the drain timeout
    /// (S2). Returns whether all calls ended in time.
    ///
    /// # Errors
    /// The runtime cannot use a listener.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> io::Result<bool> {
        let senders: Arc<[WorkerSender]> = self.workers.iter().map(WorkerHandle::sender).collect();
        let acceptor = |listener, kind, max_connections| {
            let (workers, metrics) = (senders.clone(), self.metrics.clone());
            ConnectionAcceptor::new(listener, kind, workers, max_connections, metrics)
        };
        let (close_clients, mut clients) = (CloseSignal::new(), JoinSet::new());
        for listener in self.listeners {
            let acceptor = acceptor(listener, ListenerKind::Clients, self.max_connections)?;
            clients.spawn(acceptor.accept(close_clients.closed()));
        }
        let (close_admin, mut admin) = (CloseSignal::new(), JoinSet::new());
        for listener in self.admin_listeners {
            let kind = ListenerKind::Admin { tls: listener.tls };
            let acceptor = acceptor(listener.listener, kind, limits::MAX_ADMIN_CONNECTIONS)?;
            admin.spawn(acceptor.accept(close_admin.closed()));
        }
        let reloaders = std::mem::take(&mut self.reloaders);
        // Reloads continue during the drain: calls may still need a new connection to etcd.
        let _reload = AbortOnDrop(tokio::spawn(reload::run(reloaders, self.reload.clone())));
        stop.await;
        drop(close_clients);
        while clients.join_next().await.is_some() {}
        self.workers.iter().for_each(WorkerHandle::drain);
        let all = async {
            for worker in &mut self.workers {
                worker.drained().await;
            }
            // The admin listeners close after the last client.
            drop(close_admin);
            while admin.join_next().await.is_some() {}
            self.workers.iter().for_each(WorkerHandle::stop);
            for worker in &mut self.workers {
                worker.stopped().await;
            }
        };
        let drain_timeout = *self.drain_timeout.lock();
        let drained = timeout(drain_timeout, all).await.is_ok();
        if let Some(observer) = self.observer {
            // An error is a panic of that thread. Nothing remains to be written.
            let _ = tokio::task::spawn_blocking(move || observer.finish()).await;
        }
        Ok(drained)
    }
}

/// Checks whether the proxy could start with these options. The check reads the TLS files, but
/// binds no address, opens no connection and writes no file.
///
/// # Errors
/// A file cannot be used.
pub fn check(config: &Config) -> Result<(), StartError> {
    certificates::check(config)?;
    log_adjustments(config);
    Ok(())
}

/// Runs the program until SIGTERM or SIGINT. A second of these signals exits immediately, but not
/// within a second after the first. On SIGHUP, `read_settings` returns the new settings, which
/// replace `settings` as far as they are reloadable.
///
/// # Errors
/// The program cannot start, or a listener fails.
pub fn run(
    config: &Config,
    settings: Settings,
    read_settings: ReadSettings,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::new("cannot start the runtime", e))?;
    if config.enable_pprof {
        heap::enable();
    }
    // Workers and signal handlers need the runtime.
    runtime.block_on(async {
        let mut stop_signals = StopSignals::new()?;
        let config = &srv_discovery::discover_endpoints(config).await?;
        let app = App::start(config)?;
        let drain_timeout = app.drain_timeout.clone();
        let reloader = ConfigReloader::new(
            app.reload_targets(),
            config.clone(),
            settings,
            read_settings,
        );
        reload_on_hangup(app.reload(), app.observer(), reloader)?;
        log_adjustments(config);
        log_start(config, &app);
        notify_systemd(sd_notify::NotifyState::Ready);
        let stop = async {
            let name = stop_signals.recv().await;
            info!(signal = name, drain_timeout = ?*drain_timeout.lock(), "draining");
            notify_systemd(sd_notify::NotifyState::Stopping);
            tokio::spawn(stop_signals.exit_at_second());
        };
        let drained = app.serve(stop).await;
        match drained.map_err(|e| StartError::new("the listening socket", e))? {
            true => info!("drained"),
            false => warn!("drain timeout expired with calls still open"),
        }
        Ok(())
    })
}

fn log_start(config: &Config, app: &App) {
    for listener in &app.admin_listeners {
        info!(url = listener.url, "--metrics-addr: serving HTTP pages");
    }
    let addresses: Vec<String> = app.addresses.iter().map(ToString::to_string).collect();
    let endpoints: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
    info!(
        address = addresses.join(","),
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
}

/// Sends the state to systemd. Without `NOTIFY_SOCKET` it has no effect.
fn notify_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "notifying NOTIFY_SOCKET failed");
    }
}

/// Closes listeners when dropped.
struct CloseSignal(watch::Sender<()>);

impl CloseSignal {
    fn new() -> CloseSignal {
        CloseSignal(watch::channel(()).0)
    }

    /// Returns a future that ends when the signal is dropped.
    fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut receiver = self.0.subscribe();
        // No value is ever sent.
        async move { while receiver.changed().await.is_ok() {} }
    }
}

/// Aborts a task when dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn watch_options(config: &Config) -> WatchOptions {
    let bypass = config.watch_bypass.iter();
    WatchOptions {
        log_bytes: config.watch_log_bytes,
        bypass: bypass.map(|prefix| prefix.clone().into()).collect(),
        // The limit of etcd on a request, and the overhead that etcd allows for it.
        fragment_bytes: usize::try_from(config.max_send_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(512 * 1024),
        progress_notify: config.watch_progress_notify.max(MIN_PROGRESS_NOTIFY),
    }
}

/// Returns the HTTP/2 options of client connections, with the limits applied.
fn http2_options(config: &Config) -> Http2Options {
    let (time, timeout) = (config.client_ping_interval, config.client_ping_timeout);
    Http2Options {
        max_streams: config.max_concurrent_streams.min(limits::MAX_STREAMS),
        min_ping_interval: config.min_client_ping_interval,
        keepalive: (!time.is_zero()).then(|| KeepaliveOptions {
            time: time.max(limits::MIN_CLIENT_PING),
            timeout: match timeout {
                Duration::ZERO => Duration::MAX,
                timeout => timeout,
            },
            without_calls: true,
        }),
    }
}

/// Returns the policy of `--namespace`. `None`: no namespace.
fn namespace_policy(config: &Config) -> Option<NamespacePolicy> {
    let namespace = Namespace::new(config.namespace.as_bytes())?;
    let allowed = config.namespace_allow.iter();
    let allowed: Vec<_> = allowed.filter_map(|path| method::lookup(path)).collect();
    Some(NamespacePolicy::new(namespace, &allowed))
}

/// Returns the host name of this proxy, which clients can see.
fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Raises the descriptor limit of the process as far as possible. Returns the maximum number of
/// client connections below it. `has_admin` reserves descriptors for the admin listeners.
fn max_connections(has_admin: bool) -> usize {
    let reserved = match has_admin {
        true => limits::RESERVED_DESCRIPTORS + 2 * limits::MAX_ADMIN_CONNECTIONS,
        false => limits::RESERVED_DESCRIPTORS,
    };
    let wanted = limits::MAX_CONNECTIONS + reserved;
    // If the limit cannot be read, the errors of accept limit the connections.
    let raised = rlimit::increase_nofile_limit(wanted as u64).unwrap_or(wanted as u64);
    let descriptors = usize::try_from(raised).unwrap_or(usize::MAX);
    descriptors
        .saturating_sub(reserved)
        .clamp(1, limits::MAX_CONNECTIONS)
}
