//! The resolved options: what the rest of the program reads, every question of flags settled.
//!
//! Pure: no file is opened and no name resolved here, so a missing certificate shows itself
//! when the program starts, not here.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::flags::Flags;
use crate::cli::usage::UsageError;
use crate::machine::picker::Policy;
use crate::net::tls::offer::Offer;
use crate::service::fleet::state::{FleetOptions, ResolverOptions};
use crate::service::reads::answers::ReadOptions;
use crate::upstream::discovery::Discovery;
use crate::upstream::endpoint::{Endpoint, is_host};
use crate::upstream::endpoints::EndpointOptions;
use crate::wire::method::{self, Method};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `host:port` to listen on. The host may be a name, an address, one in brackets, or nothing
    /// (every address); port 0 lets the system choose.
    pub listen_addr: String,
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
    /// Log debug events too.
    pub debug: bool,
}

/// How to speak TLS to etcd. The paths are as typed, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Client certificate; given exactly when `key` is.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// CA bundle; none: the system's roots.
    pub cacert: Option<PathBuf>,
    /// Take any certificate of etcd's for good, which is worth a warning in the log.
    pub insecure_skip_verify: bool,
}

/// How to speak TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What is presented.
    pub certificate: ServerCertificate,
    /// When given, a client must present a certificate that this CA bundle signed.
    pub trusted_ca_file: Option<PathBuf>,
    /// Such certificates that are refused all the same; given only with the bundle.
    pub client_crl_file: Option<PathBuf>,
    /// Versions and suites.
    pub offer: Offer,
}

/// Where the certificate comes from that clients are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    /// Files of the operator's.
    Files {
        /// Certificate chain.
        cert_file: PathBuf,
        /// Its private key.
        key_file: PathBuf,
    },
    /// `--auto-tls`.
    Generated {
        /// Where it is kept.
        folder: PathBuf,
        /// How long it is valid once it is made, 1 to [`MAX_VALIDITY`].
        years: u32,
    },
}

/// More worker threads than this are a slip of the finger: no machine gains by them.
pub const MAX_WORKERS: usize = 1024;

/// Largest `--self-signed-cert-validity`, in years: far beyond, certificates have no dates.
pub const MAX_VALIDITY: u32 = 1000;

/// Where `--auto-tls` keeps its certificate, below `--data-dir`.
const GENERATED: &str = "fixtures/proxy";

/// Largest weight of an endpoint.
const MAX_WEIGHT: u32 = 1000;

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
/// In seconds: the longest lease that etcd grants is one shorter.
const TOO_LONG_TTL: u64 = 9_000_000_001;
/// A thousandth of what machines have that run proxies, and seconds of a busy cluster's events.
const DEFAULT_WATCH_LOG_BYTES: u64 = 16 * 1024 * 1024;

impl Config {
    /// Settles what the flags mean. Flags that are not served yet play no part.
    ///
    /// # Errors
    /// An address or endpoint that is none, a certificate without its key or the reverse, a
    /// number out of its range.
    pub fn resolve(flags: Flags) -> Result<Config, UsageError> {
        check_listen_addr(&flags.listen_addr)?;
        let server_tls = server_tls(&flags)?;
        let upstream_tls = upstream_tls(&flags)?;
        let endpoints = endpoints(&flags.endpoints, upstream_tls != UpstreamTls::default())?;
        let resolver = resolver(&flags)?;
        let policy = policy(&flags.endpoint_policy)?;
        let endpoint_options = EndpointOptions {
            sync: flags.endpoints_auto_sync_interval,
            policy,
            weights: weights(&flags.endpoint_weights, policy)?,
        };
        Ok(Config {
            workers: workers(flags.workers)?,
            listen_addr: flags.listen_addr,
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
            watch_bypass: once(flags.watch_bypass),
            watch_progress_notify: or_default(
                flags.experimental_watch_progress_notify_interval,
                DEFAULT_WATCH_PROGRESS_NOTIFY,
            ),
            namespace_allow: opened(&flags.namespace_allow, &flags.namespace)?,
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
            debug: flags.debug,
        })
    }
}

/// The form only: whether the host exists shows itself at listening.
fn check_listen_addr(addr: &str) -> Result<(), UsageError> {
    let refuse = |reason| Err(UsageError::value("listen-addr", addr, reason));
    let Some((host, port)) = addr.rsplit_once(':') else {
        return refuse("not host:port");
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return refuse("the port is a number from 0 to 65535");
    }
    if !host.is_empty() && !is_host(host) {
        return refuse("not a host name or an address; an IPv6 address needs brackets");
    }
    Ok(())
}

/// Each endpoint once, an unspecified scheme settled by `tls`.
fn endpoints(texts: &[String], tls: bool) -> Result<Vec<Endpoint>, UsageError> {
    let mut endpoints = Vec::with_capacity(texts.len());
    for text in texts {
        let endpoint = Endpoint::parse(text)
            .map_err(|reason| UsageError::value("endpoints", text, reason))?
            .with_default_tls(tls);
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(UsageError::value(
            "endpoints",
            "",
            "at least one endpoint is needed",
        ));
    }
    Ok(endpoints)
}

fn policy(text: &str) -> Result<Policy, UsageError> {
    if text.is_empty() {
        return Ok(Policy::default());
    }
    let named = Policy::ALL.iter().find(|(name, _)| *name == text);
    named.map(|(_, policy)| *policy).ok_or_else(|| {
        let names = Policy::ALL.map(|(name, _)| name).join(", ");
        UsageError::value("endpoint-policy", text, format!("not one of {names}"))
    })
}

/// Of `host:port=weight`, by how an endpoint's `:authority` has the host and port.
fn weights(texts: &[String], policy: Policy) -> Result<Vec<(String, u32)>, UsageError> {
    let mut weights: Vec<(String, u32)> = Vec::with_capacity(texts.len());
    for text in texts {
        let refuse = |reason: String| Err(UsageError::value("endpoint-weights", text, reason));
        if policy != Policy::Weighted {
            return refuse("needs --endpoint-policy=weighted".to_owned());
        }
        let Some((endpoint, weight)) = text.rsplit_once('=') else {
            return refuse("not HOST:PORT=WEIGHT".to_owned());
        };
        let endpoint = match Endpoint::parse(endpoint) {
            Ok(endpoint) => endpoint.authority(),
            Err(reason) => return refuse(reason.to_string()),
        };
        let weight = match weight.parse() {
            Ok(weight) if (1..=MAX_WEIGHT).contains(&weight) => weight,
            _ => return refuse(format!("a weight is a number from 1 to {MAX_WEIGHT}")),
        };
        // Of anything given twice the last counts.
        weights.retain(|(name, _)| *name != endpoint);
        weights.push((endpoint, weight));
    }
    Ok(weights)
}

fn upstream_tls(flags: &Flags) -> Result<UpstreamTls, UsageError> {
    pair(("cert", &flags.cert), ("key", &flags.key))?;
    Ok(UpstreamTls {
        cert: path(&flags.cert),
        key: path(&flags.key),
        cacert: path(&flags.cacert),
        insecure_skip_verify: flags.insecure_skip_tls_verify,
    })
}

fn server_tls(flags: &Flags) -> Result<Option<ServerTls>, UsageError> {
    pair(
        ("cert-file", &flags.cert_file),
        ("key-file", &flags.key_file),
    )?;
    let (min, max) = (&flags.tls_min_version, &flags.tls_max_version);
    let offer = Offer::new(min, max, &flags.listen_cipher_suites)
        .map_err(|refused| UsageError::value(refused.flag, &refused.value, refused.reason))?;
    let years = flags.self_signed_cert_validity;
    if flags.auto_tls && !(1..=MAX_VALIDITY).contains(&years) {
        let reason = match years {
            0 => "--auto-tls needs at least one year".to_owned(),
            _ => format!("more than {MAX_VALIDITY}"),
        };
        let years = years.to_string();
        return Err(UsageError::value(
            "self-signed-cert-validity",
            &years,
            reason,
        ));
    }
    let certificate = match (path(&flags.cert_file), path(&flags.key_file)) {
        (Some(cert_file), Some(key_file)) => Some(ServerCertificate::Files {
            cert_file,
            key_file,
        }),
        _ => flags.auto_tls.then(|| ServerCertificate::Generated {
            folder: PathBuf::from(&flags.data_dir).join(GENERATED),
            years,
        }),
    };
    let trusted_ca_file = path(&flags.trusted_ca_file);
    let client_crl_file = path(&flags.client_crl_file);
    // Who asks for more than is checked would think that strangers are kept out.
    if trusted_ca_file.is_some() && certificate.is_none() {
        let reason = "needs --cert-file and --key-file";
        let file = &flags.trusted_ca_file;
        return Err(UsageError::value("trusted-ca-file", file, reason));
    }
    if client_crl_file.is_some() && trusted_ca_file.is_none() {
        let reason = "needs --trusted-ca-file: without it no certificate is asked for";
        let file = &flags.client_crl_file;
        return Err(UsageError::value("client-crl-file", file, reason));
    }
    Ok(certificate.map(|certificate| ServerTls {
        certificate,
        trusted_ca_file,
        client_crl_file,
        offer,
    }))
}

/// The prefix and its TTL come together, and with an address.
fn resolver(flags: &Flags) -> Result<Option<ResolverOptions>, UsageError> {
    let (prefix, ttl) = (flags.resolver_prefix.as_str(), flags.resolver_ttl);
    let refuse_ttl =
        |reason: &str| Err(UsageError::value("resolver-ttl", &ttl.to_string(), reason));
    if prefix.is_empty() {
        return match ttl {
            0 => Ok(None),
            _ => refuse_ttl("needs --resolver-prefix"),
        };
    }
    let reason = match ttl {
        0 => "needs --resolver-ttl of at least 1",
        _ if flags.advertise_client_url.is_empty() => {
            "needs --advertise-client-url, which is empty"
        }
        TOO_LONG_TTL.. => return refuse_ttl("etcd has no lease that long"),
        _ => {
            return Ok(Some(ResolverOptions {
                prefix: prefix.to_owned(),
                ttl: Duration::from_secs(ttl),
            }));
        }
    };
    Err(UsageError::value("resolver-prefix", prefix, reason))
}

/// Each in the order of its first mention.
fn once(texts: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let first = |text: &String| seen.insert(text.clone());
    texts.into_iter().filter(first).collect()
}

/// The paths of methods by their names: `Name` where only one has it, `service/Name`, or the path.
fn opened(names: &[String], namespace: &str) -> Result<Vec<&'static str>, UsageError> {
    let mut paths = Vec::with_capacity(names.len());
    for name in names {
        let refuse = |reason| Err(UsageError::value("namespace-allow", name, reason));
        if namespace.is_empty() {
            return refuse("needs --namespace");
        }
        let path = format!("/{}", name.trim_start_matches('/'));
        let named = |method: &&Method| method.path == path || method.name == name;
        let mut found = method::all().iter().filter(named);
        match (found.next(), found.next()) {
            (Some(method), None) => paths.push(method.path),
            (Some(_), Some(_)) => {
                return refuse("several services have it: name it as service/Method");
            }
            (None, _) => return refuse("not a method of etcd's"),
        }
    }
    Ok(paths)
}

/// A certificate and its key come together or not at all.
fn pair(cert: (&str, &str), key: (&str, &str)) -> Result<(), UsageError> {
    for ((given, value), (other, missing)) in [(cert, key), (key, cert)] {
        if !value.is_empty() && missing.is_empty() {
            return Err(UsageError::value(given, value, format!("needs --{other}")));
        }
    }
    Ok(())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn workers(asked: u32) -> Result<usize, UsageError> {
    match usize::try_from(asked) {
        // Where the system does not tell, one worker is right on any machine.
        Ok(0) => Ok(std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS))),
        Ok(count) if count <= MAX_WORKERS => Ok(count),
        _ => {
            let reason = format!("more than {MAX_WORKERS}");
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
