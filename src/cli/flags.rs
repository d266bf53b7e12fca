//! The flags as they were typed, each with its type but not yet with its meaning.
//!
//! The comment on each field is its help text. Groups, defaults and what is served stand in
//! [`table`](super::table); a test holds the two together. `argh` is handed every flag, given or
//! not, as `--flag value` (see [`normalise`](super::normalise)), so no default stands here. What
//! the served flags mean together is decided in `config.rs`.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::values::{boolean, duration, number, number_u32, ratio};

/// every flag of the proxy
#[derive(ArgsInfo, Clone, Debug, FromArgs)]
pub struct Flags {
    /// listen address for clients, HTTP/2 and HTTP/1.1 on one port; without a host, every address
    #[argh(option)]
    pub listen_addr: String,
    /// address of this proxy in MemberList responses and in its registration; empty: MemberList
    /// returns etcd's members
    #[argh(option)]
    pub advertise_client_url: String,

    /// etcd endpoints: host, host:port, http://, https://, unix:// or unixs://; the default port is
    /// 2379; without a scheme, TLS is used if a flag for TLS to etcd is set
    #[argh(option)]
    pub endpoints: Vec<String>,
    /// domain whose SRV records _etcd-client-ssl._tcp and _etcd-client._tcp list the endpoints,
    /// resolved at start; usable records replace --endpoints
    #[argh(option)]
    pub discovery_srv: String,
    /// service name suffix in the SRV query: _etcd-client-ssl-NAME._tcp
    #[argh(option)]
    pub discovery_srv_name: String,
    /// accept SRV records of endpoints without TLS; by default they are ignored
    #[argh(option, from_str_fn(boolean))]
    pub insecure_discovery: bool,
    /// interval between refreshes of the endpoints from the cluster's member list, at least 100ms;
    /// 0: never
    #[argh(option, from_str_fn(duration))]
    pub endpoints_auto_sync_interval: Duration,
    /// how the proxy picks the endpoint of a call: random (one endpoint until it fails),
    /// round-robin, weighted, least-loaded, or leader (the endpoint of the leader)
    #[argh(option)]
    pub endpoint_policy: String,
    /// weights of endpoints, 1 to 1000, for --endpoint-policy=weighted; an endpoint that is not
    /// listed has weight 1
    #[argh(option)]
    pub endpoint_weights: Vec<String>,
    /// idle time before the proxy pings a connection to etcd, at least 10s; 0: ping only while
    /// calls are open, at the shortest interval
    #[argh(option, from_str_fn(duration))]
    pub dial_keepalive_time: Duration,
    /// time to wait for the response to that ping before the endpoint counts as failed; 0: the
    /// default
    #[argh(option, from_str_fn(duration))]
    pub dial_keepalive_timeout: Duration,
    /// ping etcd even when no call is open
    #[argh(option, from_str_fn(boolean))]
    pub permit_without_stream: bool,

    /// client certificate for etcd; it must have no Common Name, because etcd would authenticate
    /// every client as the user of that name
    #[argh(option)]
    pub cert: String,
    /// private key of --cert
    #[argh(option)]
    pub key: String,
    /// CA bundle to verify etcd's certificates; empty: the CAs of the system
    #[argh(option)]
    pub cacert: String,
    /// do not verify etcd's certificate
    #[argh(option, from_str_fn(boolean))]
    pub insecure_skip_tls_verify: bool,

    /// certificate for clients
    #[argh(option)]
    pub cert_file: String,
    /// private key of --cert-file
    #[argh(option)]
    pub key_file: String,
    /// CA bundle; if set, clients must present a certificate signed by one of these CAs
    #[argh(option)]
    pub trusted_ca_file: String,
    /// certificate revocation list (PEM or DER): client certificates whose serial number is on it
    /// are rejected
    #[argh(option)]
    pub client_crl_file: String,
    /// serve TLS with a generated certificate, unless --cert-file is set
    #[argh(option, from_str_fn(boolean))]
    pub auto_tls: bool,
    /// validity of the generated certificate in years, 1 to 1000
    #[argh(option, from_str_fn(number_u32))]
    pub self_signed_cert_validity: u32,
    /// directory of the generated certificate, which is stored below it in fixtures/proxy
    #[argh(option)]
    pub data_dir: String,
    /// TLS 1.2 cipher suites to accept, by IANA name; empty: all secure ones
    #[argh(option)]
    pub listen_cipher_suites: Vec<String>,
    /// minimum TLS version of clients: TLS1.2 or TLS1.3
    #[argh(option)]
    pub tls_min_version: String,
    /// maximum TLS version of clients; empty: no maximum
    #[argh(option)]
    pub tls_max_version: String,

    /// maximum size of a message to etcd, in bytes; 0: the default
    #[argh(option, from_str_fn(number))]
    pub max_send_bytes: u64,
    /// maximum size of a message from etcd, in bytes; 0: the default
    #[argh(option, from_str_fn(number))]
    pub max_recv_bytes: u64,
    /// maximum concurrent streams of a client connection, at most 16384; 0: the default
    #[argh(option, from_str_fn(number_u32))]
    pub max_concurrent_streams: u32,
    /// minimum interval between the pings of a client while it has an open call, else 2h; the proxy
    /// closes the connection of a client that pings more often (GOAWAY, too_many_pings); 0: no
    /// minimum
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_min_time: Duration,
    /// idle time before the proxy pings a client, at least 1s; 0: never
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_interval: Duration,
    /// time to wait for the response to that ping before the proxy closes the connection; 0: no
    /// limit
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_timeout: Duration,

    /// memory for events buffered for slow and late watchers, in bytes, over all ranges; 0: the
    /// default
    #[argh(option, from_str_fn(number))]
    pub watch_log_bytes: u64,
    /// key prefixes that watch sharing skips: a watch stream whose first watch is below one of them
    /// is forwarded to etcd unchanged
    #[argh(option)]
    pub watch_bypass: Vec<String>,
    /// interval between progress notifications of watches that request them, at least 100ms; 0: the
    /// default
    #[argh(option, from_str_fn(duration))]
    pub experimental_watch_progress_notify_interval: Duration,

    /// etcd prefix under which this proxy registers --advertise-client-url and finds the proxies
    /// for MemberList; needs --resolver-ttl
    #[argh(option)]
    pub resolver_prefix: String,
    /// lease TTL of that registration in seconds, at least 1: how long it outlives a proxy that
    /// crashes
    #[argh(option, from_str_fn(number))]
    pub resolver_ttl: u64,

    /// prefix of every key: clients see only keys below it
    #[argh(option)]
    pub namespace: String,
    /// methods to allow although they expose or change data outside the namespace, such as Snapshot
    /// or etcdserverpb.KV/Compact
    #[argh(option)]
    pub namespace_allow: Vec<String>,

    /// memory for cached responses to serializable reads, in bytes; 0: no cache
    #[argh(option, from_str_fn(number))]
    pub cache_bytes: u64,
    /// maximum age of a cached response: the bound on how long it may miss a write, or a revoked
    /// permission, that did not pass through this proxy; 0: no cache
    #[argh(option, from_str_fn(duration))]
    pub cache_max_age: Duration,
    /// compare one in N cached responses with the response of etcd, which costs etcd one read each;
    /// 0: off
    #[argh(option, from_str_fn(number))]
    pub cache_audit: u64,
    /// serializable reads of one connection never go back in revision: a read that would is
    /// repeated as a linearizable read
    #[argh(option, from_str_fn(boolean))]
    pub experimental_serializable_ordering: bool,
    /// linearizable reads by leases on single keys, as in the Go client; every writer would have to
    /// use the same leases, and a proxy that is cut off would block all writes; the proxy shares
    /// and caches reads without leases
    #[argh(option)]
    pub experimental_leasing_prefix: String,

    /// additional listen addresses for the HTTP pages only: http://host:port, or https:// with the
    /// TLS settings of the client port
    #[argh(option)]
    pub metrics_addr: Vec<String>,
    /// serve CPU and memory profiles for go tool pprof under /debug/pprof/
    #[argh(option, from_str_fn(boolean))]
    pub enable_pprof: bool,
    /// log each call when it ends: method, client, code, sizes, duration; with --debug also keys
    /// and ranges, never values
    #[argh(option, from_str_fn(boolean))]
    pub experimental_enable_grpc_logging: bool,
    /// file for one line of JSON per finished call, or - for stdout; reopened on SIGHUP
    #[argh(option)]
    pub access_log: String,
    /// http:// or https:// address of an OpenTelemetry collector that receives the spans of calls
    /// by OTLP over HTTP, such as http://localhost:4318
    #[argh(option)]
    pub otlp_endpoint: String,
    /// share of calls without a trace context that are sampled, 0 to 1; a call with a trace context
    /// follows the decision of its caller
    #[argh(option, from_str_fn(ratio))]
    pub otlp_sample_ratio: f64,
    /// log at debug level
    #[argh(option, from_str_fn(boolean))]
    pub debug: bool,

    /// YAML file of flags by name; flags on the command line take precedence, and a list on the
    /// command line replaces the list of the file; reloaded on SIGHUP; alias --config-file
    #[argh(option)]
    pub config: String,
    /// worker threads; 0: one per CPU core
    #[argh(option, from_str_fn(number_u32))]
    pub workers: u32,
    /// time for unary calls to finish after SIGTERM or SIGINT; streams end at once
    #[argh(option, from_str_fn(duration))]
    pub drain_timeout: Duration,
}
