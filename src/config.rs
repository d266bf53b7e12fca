//! The resolved options of the program: validated, with defaults applied.
//!
//! [`Config::resolve`] combines the values of all flags. Files are not opened and names are not
//! resolved here, so a missing certificate is an error at start and not here.

mod endpoints;
mod keys;
mod listen_addr;
mod tls;
pub(crate) mod warnings;

use std::time::Duration;

use crate::call_log::{AccessLogTarget, CollectorUrl, ObserverOptions, SpanOptions};
use crate::cli::flags::Settings;
use crate::cli::usage::{UsageError, UsageWarning};
use crate::driver::state::fleet::FleetOptions;
use crate::driver::state::read_cache::ReadOptions;
use crate::server::listener::ListenAddress;
use crate::upstream::discovery::DiscoveryOptions;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::EndpointOptions;
use crate::wire::trace::TraceSampler;

pub use listen_addr::MetricsAddr;
pub use tls::{MAX_VALIDITY, ServerCertificate, ServerTls, UpstreamTls};

/// The options of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The addresses to listen on. Never empty, no duplicates.
    pub listen_addr: Vec<ListenAddress>,
    /// Permissions of the file of a Unix socket, at most 0o777.
    pub listen_socket_mode: u32,
    /// Additional addresses that serve only the HTTP pages. No duplicates.
    pub metrics_addr: Vec<MetricsAddr>,
    /// The etcd endpoints in the configured order. Never empty, no duplicates, every scheme
    /// `Plain` or `Tls`.
    pub endpoints: Vec<Endpoint>,
    /// The SRV query for endpoints. Its result replaces [`endpoints`](Config::endpoints).
    pub discovery: Option<DiscoveryOptions>,
    /// Endpoint policy, weights, and synchronization with the member list.
    pub endpoint_options: EndpointOptions,
    /// TLS towards endpoints with the scheme `Tls`.
    pub upstream_tls: UpstreamTls,
    /// TLS towards clients. `None`: plaintext.
    pub server_tls: Option<ServerTls>,
    /// Maximum size of a message to etcd in bytes (P6). Never 0.
    pub max_send_bytes: u64,
    /// Maximum size of a message from etcd in bytes. Never 0.
    pub max_recv_bytes: u64,
    /// Maximum open streams of one client connection, as configured. Never 0. The proxy caps it at
    /// [`MAX_STREAMS`](crate::limits::MAX_STREAMS).
    pub max_concurrent_streams: u32,
    /// Minimum time between two pings of a client. Zero: no minimum.
    pub min_client_ping_interval: Duration,
    /// Silence after which a client is pinged, as configured. Zero: never. The proxy raises it to
    /// [`MIN_CLIENT_PING`](crate::limits::MIN_CLIENT_PING).
    pub client_ping_interval: Duration,
    /// Time to wait for the response to that ping. Zero: no limit.
    pub client_ping_timeout: Duration,
    /// Silence after which a connection to etcd is pinged, as configured. Zero: the interval of
    /// (E5), [`UPSTREAM_PING`](crate::limits::UPSTREAM_PING), to which a smaller value is raised.
    pub dial_keepalive_time: Duration,
    /// Time to wait for the response to that ping. Never zero.
    pub dial_keepalive_timeout: Duration,
    /// Whether etcd is pinged while no call is open.
    pub permit_without_stream: bool,
    /// Bytes of events buffered for slow and late client watchers, over all ranges. Never 0.
    pub watch_log_bytes: usize,
    /// Key prefixes below which watches are not shared (W13). None is empty. No duplicates.
    pub watch_bypass: Vec<String>,
    /// Interval of progress notifications of watches that request them (W7), as configured. The
    /// proxy raises it to [`MIN_PROGRESS_NOTIFY`].
    pub watch_progress_notify: Duration,
    /// Prefix that etcd's keys have and the clients' keys do not. Empty: no namespace.
    pub namespace: String,
    /// Paths of the methods that are allowed although they reach outside the namespace. Empty
    /// without a namespace.
    pub namespace_allow: Vec<&'static str>,
    /// Size, maximum age and audit rate of the read cache.
    pub reads: ReadOptions,
    /// The registration of this proxy, and how it finds the others.
    pub fleet: FleetOptions,
    /// Number of worker threads, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// Time for open calls to finish after the signal to stop (S2). Zero: none.
    pub drain_timeout: Duration,
    /// Access log, call log and spans.
    pub observer: ObserverOptions,
    /// Whether `/debug/pprof/` is served and allocations are sampled for it.
    pub enable_pprof: bool,
    /// Whether debug events are logged.
    pub debug: bool,
    /// Settings without their full effect. The log has them at start (S5).
    pub warnings: Vec<UsageWarning>,
}

/// Maximum number of worker threads. No machine benefits from more.
pub const MAX_WORKERS: usize = 1024;

/// The default request limit of etcd (`--max-request-bytes`).
const DEFAULT_MAX_SEND_BYTES: u64 = 1536 * 1024;
/// The default of the Go client, 2^31 − 1: no limit in practice.
const DEFAULT_MAX_RECV_BYTES: u64 = i32::MAX as u64;
/// The default of the Go client.
const DEFAULT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The default of etcd.
const DEFAULT_WATCH_PROGRESS_NOTIFY: Duration = Duration::from_secs(600);
/// Minimum interval of progress notifications, as in etcd.
pub const MIN_PROGRESS_NOTIFY: Duration = Duration::from_millis(100);
/// About a thousandth of the memory of a typical host, and seconds of the events of a busy cluster.
const DEFAULT_WATCH_LOG_BYTES: u64 = 16 * 1024 * 1024;

impl Config {
    /// Returns the options that result from the settings. Refused flags have no effect. A setting
    /// without its full effect is a warning (S5).
    ///
    /// # Errors
    /// A setting that is impossible, or that would be less secure than requested: an invalid
    /// address or endpoint, a certificate without its key or the reverse, or a flag for client
    /// certificates without TLS.
    pub fn resolve(settings: Settings) -> Result<Config, UsageError> {
        let listen_addr = listen_addr::listen_addrs(&settings.listen_addr)?;
        let mut warnings = Vec::new();
        let server_tls = tls::server_tls(&settings, &mut warnings)?;
        let tls = server_tls.is_some();
        let metrics_addr = listen_addr::metrics_addrs(&settings.metrics_addr, tls, &mut warnings)?;
        let upstream_tls = tls::upstream_tls(&settings)?;
        let tls = upstream_tls != UpstreamTls::default();
        let endpoints = endpoints::endpoints(&settings.endpoints, tls, &mut warnings)?;
        let resolver = keys::resolver(&settings, &mut warnings)?;
        let policy = endpoints::policy(&settings.endpoint_policy)?;
        let endpoint_options = EndpointOptions {
            sync: settings.endpoints_auto_sync_interval,
            policy,
            weights: endpoints::weights(&settings.endpoint_weights, policy, &mut warnings)?,
        };
        warnings.extend(warnings::between_flags(&settings, &endpoints));
        Ok(Config {
            workers: workers(settings.workers, &mut warnings),
            listen_addr,
            listen_socket_mode: settings.listen_socket_mode.0,
            metrics_addr,
            endpoints,
            discovery: (!settings.discovery_srv.is_empty()).then_some(DiscoveryOptions {
                domain: settings.discovery_srv,
                name: settings.discovery_srv_name,
                insecure: settings.insecure_discovery,
            }),
            endpoint_options,
            upstream_tls,
            server_tls,
            max_send_bytes: or_default(settings.max_send_bytes, DEFAULT_MAX_SEND_BYTES),
            max_recv_bytes: or_default(settings.max_recv_bytes, DEFAULT_MAX_RECV_BYTES),
            max_concurrent_streams: or_default(settings.max_concurrent_streams, u32::MAX),
            min_client_ping_interval: settings.grpc_keepalive_min_time,
            client_ping_interval: settings.grpc_keepalive_interval,
            client_ping_timeout: settings.grpc_keepalive_timeout,
            dial_keepalive_time: settings.dial_keepalive_time,
            dial_keepalive_timeout: or_default(
                settings.dial_keepalive_timeout,
                DEFAULT_KEEPALIVE_TIMEOUT,
            ),
            watch_log_bytes: usize::try_from(or_default(
                settings.watch_log_bytes,
                DEFAULT_WATCH_LOG_BYTES,
            ))
            .unwrap_or(usize::MAX),
            watch_bypass: keys::deduplicate(settings.watch_bypass),
            watch_progress_notify: or_default(
                settings.experimental_watch_progress_notify_interval,
                DEFAULT_WATCH_PROGRESS_NOTIFY,
            ),
            namespace_allow: keys::allowed_methods(&settings.namespace_allow, &settings.namespace)?,
            namespace: settings.namespace,
            reads: ReadOptions {
                cache_bytes: usize::try_from(settings.cache_bytes).unwrap_or(usize::MAX),
                max_age: settings.cache_max_age,
                audit: settings.cache_audit,
                ordering: settings.experimental_serializable_ordering,
            },
            fleet: FleetOptions {
                advertise: settings.advertise_client_url,
                resolver,
            },
            permit_without_stream: settings.permit_without_stream,
            drain_timeout: settings.drain_timeout,
            observer: ObserverOptions {
                log: settings.experimental_enable_grpc_logging,
                debug: settings.debug,
                access_log: access_log(&settings.access_log),
                spans: spans(&settings.otlp_endpoint, settings.otlp_sample_ratio)?,
            },
            enable_pprof: settings.enable_pprof,
            debug: settings.debug,
            warnings,
        })
    }
}

fn access_log(text: &str) -> Option<AccessLogTarget> {
    tls::path(text).map(|path| match text {
        "-" => AccessLogTarget::Stdout,
        _ => AccessLogTarget::File(path),
    })
}

fn spans(endpoint: &str, ratio: f64) -> Result<Option<SpanOptions>, UsageError> {
    if endpoint.is_empty() {
        return Ok(None);
    }
    let collector = CollectorUrl::parse(endpoint);
    let refuse = |reason| UsageError::value("otlp-endpoint", endpoint, reason);
    Ok(Some(SpanOptions {
        collector: collector.map_err(refuse)?,
        sampler: TraceSampler::new(ratio),
    }))
}

fn workers(requested: u32, warnings: &mut Vec<UsageWarning>) -> usize {
    match usize::try_from(requested).unwrap_or(usize::MAX) {
        // If the system does not report its cores, one worker is correct on any machine.
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS)),
        count if count <= MAX_WORKERS => count,
        _ => {
            let reason = format!("lowered to {MAX_WORKERS}");
            warnings.push(UsageWarning::flags(&["workers"], reason));
            MAX_WORKERS
        }
    }
}

/// Returns the default for 0, like `etcd grpc-proxy`.
fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() {
        default
    } else {
        value
    }
}
