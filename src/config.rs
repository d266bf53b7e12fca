//! The resolved options: what the rest of the program reads, every question of flags settled.
//!
//! Pure: no file is opened and no name resolved here, so a missing certificate shows itself
//! when the program starts, not here.

mod endpoints;
mod keys;
mod listening;
mod tls;

use std::time::Duration;

use crate::call_log::{CollectorUrl, ObserverOptions, SpanOptions, Target};
use crate::cli::flags::Flags;
use crate::cli::usage::UsageError;
use crate::driver::state::fleet::FleetOptions;
use crate::driver::state::read_cache::ReadOptions;
use crate::upstream::discovery::Discovery;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::EndpointOptions;
use crate::wire::trace::Sampler;

pub use listening::MetricsAddr;
pub use tls::{MAX_VALIDITY, ServerCertificate, ServerTls, UpstreamTls};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `host:port` to listen on. The host may be a name, an address, one in brackets, or nothing
    /// (every address); port 0 lets the system choose.
    pub listen_addr: String,
    /// Where else the HTTP pages are served, and only they; each once.
    pub metrics_addr: Vec<MetricsAddr>,
    /// The etcd endpoints in the order given, each once, every scheme `Plain` or `Tls`. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// Where else they may be found: what is found stands in their place.
    pub discovery: Option<Discovery>,
    /// How the list of endpoints changes.
    pub endpoint_options: EndpointOptions,
    /// For the endpoints whose scheme is `Tls`.
    pub upstream_tls: UpstreamTls,
    /// Clients are served in plaintext when there is none.
    pub server_tls: Option<ServerTls>,
    /// Largest message sent to etcd (P6), in bytes; never 0.
    pub max_send_bytes: u64,
    /// Largest message accepted from etcd, in bytes; never 0.
    pub max_recv_bytes: u64,
    /// Streams one client connection may have open; never 0. An upper bound: `limits.rs` may have a
    /// lower one.
    pub max_concurrent_streams: u32,
    /// Least time between two pings of a client; zero: they may ping as they like.
    pub client_ping_least: Duration,
    /// Silence after which a client is pinged, as it was asked for: [`LEAST_CLIENT_PING`] is the least
    /// whatever stands here. Zero: it never is.
    ///
    /// [`LEAST_CLIENT_PING`]: crate::limits::LEAST_CLIENT_PING
    pub client_ping_interval: Duration,
    /// How long to wait for that ping's answer; zero: for ever.
    pub client_ping_timeout: Duration,
    /// Silence after which a connection to etcd is pinged, as it was asked for: E5's 10 s are the
    /// least whatever stands here. Zero: E5's own pings.
    pub dial_keepalive_time: Duration,
    /// How long to wait for that ping's answer; never zero.
    pub dial_keepalive_timeout: Duration,
    /// Ping also while no call is open.
    pub permit_without_stream: bool,
    /// Bytes of events kept for watches that are slow or late, over all ranges; never 0.
    pub watch_log_bytes: usize,
    /// Watches within these prefixes share nothing (W13). None of them is empty, each is there once.
    pub watch_bypass: Vec<String>,
    /// How often a watch that asks for it is told its progress (W7), as it was asked for:
    /// [`LEAST_PROGRESS_NOTIFY`] is the least whatever stands here.
    pub watch_progress_notify: Duration,
    /// What all keys of clients begin with at etcd; empty: they are as clients have them.
    pub namespace: String,
    /// Paths of the methods that are open in it though they reach beyond; none without a namespace.
    pub namespace_allow: Vec<&'static str>,
    /// Which answers to reads are kept, and for how long.
    pub reads: ReadOptions,
    /// How this proxy and others find one another.
    pub fleet: FleetOptions,
    /// Worker threads, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// How long open calls may go on once the process is told to stop (S2); zero: not at all.
    pub drain_timeout: Duration,
    /// What is told of calls, and where.
    pub observer: ObserverOptions,
    /// The pages under `/debug/pprof/` are there, and allocations are noted for them.
    pub enable_pprof: bool,
    /// Log debug events too.
    pub debug: bool,
}

/// More worker threads than this are a slip of the finger: no machine gains by them.
pub const MAX_WORKERS: usize = 1024;

/// What etcd itself takes (`--max-request-bytes`).
const DEFAULT_MAX_SEND_BYTES: u64 = 1536 * 1024;
/// 2^31 − 1, the Go client's: no limit in practice.
const DEFAULT_MAX_RECV_BYTES: u64 = i32::MAX as u64;
/// The Go client's.
const DEFAULT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// etcd's own.
const DEFAULT_WATCH_PROGRESS_NOTIFY: Duration = Duration::from_secs(600);
/// etcd's own bound on it.
pub const LEAST_PROGRESS_NOTIFY: Duration = Duration::from_millis(100);
/// A thousandth of what machines have that run proxies, and seconds of a busy cluster's events.
const DEFAULT_WATCH_LOG_BYTES: u64 = 16 * 1024 * 1024;

impl Config {
    /// Settles what the flags mean. Flags that are refused play no part.
    ///
    /// # Errors
    /// An address or endpoint that is none, a certificate without its key or the reverse, a
    /// number out of its range.
    pub fn resolve(flags: Flags) -> Result<Config, UsageError> {
        listening::check_addr("listen-addr", &flags.listen_addr, &flags.listen_addr)?;
        let server_tls = tls::server_tls(&flags)?;
        let metrics_addr = listening::metrics_addrs(&flags.metrics_addr, server_tls.is_some())?;
        let upstream_tls = tls::upstream_tls(&flags)?;
        let endpoints =
            endpoints::endpoints(&flags.endpoints, upstream_tls != UpstreamTls::default())?;
        let resolver = keys::resolver(&flags)?;
        let policy = endpoints::policy(&flags.endpoint_policy)?;
        let endpoint_options = EndpointOptions {
            sync: flags.endpoints_auto_sync_interval,
            policy,
            weights: endpoints::weights(&flags.endpoint_weights, policy)?,
        };
        Ok(Config {
            workers: workers(flags.workers)?,
            listen_addr: flags.listen_addr,
            metrics_addr,
            endpoints,
            discovery: (!flags.discovery_srv.is_empty()).then_some(Discovery {
                domain: flags.discovery_srv,
                name: flags.discovery_srv_name,
                insecure: flags.insecure_discovery,
            }),
            endpoint_options,
            upstream_tls,
            server_tls,
            max_send_bytes: or_default(flags.max_send_bytes, DEFAULT_MAX_SEND_BYTES),
            max_recv_bytes: or_default(flags.max_recv_bytes, DEFAULT_MAX_RECV_BYTES),
            max_concurrent_streams: or_default(flags.max_concurrent_streams, u32::MAX),
            client_ping_least: flags.grpc_keepalive_min_time,
            client_ping_interval: flags.grpc_keepalive_interval,
            client_ping_timeout: flags.grpc_keepalive_timeout,
            dial_keepalive_time: flags.dial_keepalive_time,
            dial_keepalive_timeout: or_default(
                flags.dial_keepalive_timeout,
                DEFAULT_KEEPALIVE_TIMEOUT,
            ),
            watch_log_bytes: usize::try_from(or_default(
                flags.watch_log_bytes,
                DEFAULT_WATCH_LOG_BYTES,
            ))
            .unwrap_or(usize::MAX),
            watch_bypass: keys::once(flags.watch_bypass),
            watch_progress_notify: or_default(
                flags.experimental_watch_progress_notify_interval,
                DEFAULT_WATCH_PROGRESS_NOTIFY,
            ),
            namespace_allow: keys::opened(&flags.namespace_allow, &flags.namespace)?,
            namespace: flags.namespace,
            reads: ReadOptions {
                cache_bytes: usize::try_from(flags.cache_bytes).unwrap_or(usize::MAX),
                max_age: flags.cache_max_age,
                audit: flags.cache_audit,
                ordering: flags.experimental_serializable_ordering,
            },
            fleet: FleetOptions {
                advertise: flags.advertise_client_url,
                resolver,
            },
            permit_without_stream: flags.permit_without_stream,
            drain_timeout: flags.drain_timeout,
            observer: ObserverOptions {
                log: flags.experimental_enable_grpc_logging,
                debug: flags.debug,
                access_log: access_log(&flags.access_log),
                spans: spans(&flags.otlp_endpoint, flags.otlp_sample_ratio)?,
            },
            enable_pprof: flags.enable_pprof,
            debug: flags.debug,
        })
    }
}

fn access_log(text: &str) -> Option<Target> {
    tls::path(text).map(|path| match text {
        "-" => Target::Stdout,
        _ => Target::File(path),
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
        sampler: Sampler::new(ratio),
    }))
}

fn workers(asked: u32) -> Result<usize, UsageError> {
    match usize::try_from(asked) {
        // Where the system does not tell, one worker is right on any machine.
        Ok(0) => Ok(std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS))),
        Ok(count) if count <= MAX_WORKERS => Ok(count),
        _ => {
            let reason = format!("must be at most {MAX_WORKERS}");
            Err(UsageError::value("workers", &asked.to_string(), reason))
        }
    }
}

/// Where the Go proxy takes 0 it means its default, and so does this.
fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() {
        default
    } else {
        value
    }
}
