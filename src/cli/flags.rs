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
    /// where clients connect, HTTP/2 and HTTP/1.1 on one port; no host means every address
    #[argh(option)]
    pub listen_addr: String,
    /// where clients find this proxy: what MemberList tells of it; empty: MemberList is etcd's own
    /// answer
    #[argh(option)]
    pub advertise_client_url: String,

    /// etcd endpoints: host, host:port, http://, https://, unix:// or unixs://; no port means
    /// 2379, no scheme TLS if a flag for TLS to etcd is given
    #[argh(option)]
    pub endpoints: Vec<String>,
    /// domain whose SRV records _etcd-client-ssl._tcp and _etcd-client._tcp list the endpoints, asked
    /// for at start; they stand in the place of --endpoints when there are any
    #[argh(option)]
    pub discovery_srv: String,
    /// service name suffix in the SRV query: _etcd-client-ssl-NAME._tcp
    #[argh(option)]
    pub discovery_srv_name: String,
    /// take endpoints without TLS from SRV records too, else they are left out
    #[argh(option, from_str_fn(boolean))]
    pub insecure_discovery: bool,
    /// how often to refresh the endpoints from the cluster's member list, at least 100ms; 0: never
    #[argh(option, from_str_fn(duration))]
    pub endpoints_auto_sync_interval: Duration,
    /// which endpoint a call goes to: random (one, until it fails), round-robin, weighted, least-loaded,
    /// or leader (the one that leads)
    #[argh(option)]
    pub endpoint_policy: String,
    /// weights of endpoints, 1 to 1000, for --endpoint-policy=weighted; who is not named has 1
    #[argh(option)]
    pub endpoint_weights: Vec<String>,
    /// how long a connection to etcd is silent before it is pinged, at least 10s;
    /// 0: while calls are open, as often as that allows
    #[argh(option, from_str_fn(duration))]
    pub dial_keepalive_time: Duration,
    /// how long to wait for that ping's answer before the endpoint counts as failed; 0: the default
    #[argh(option, from_str_fn(duration))]
    pub dial_keepalive_timeout: Duration,
    /// ping etcd even when no call is open
    #[argh(option, from_str_fn(boolean))]
    pub permit_without_stream: bool,

    /// client certificate for etcd, without a Common Name: etcd would take it as the user of every
    /// client
    #[argh(option)]
    pub cert: String,
    /// private key of --cert
    #[argh(option)]
    pub key: String,
    /// CA bundle that signs etcd's certificates; none: the system's
    #[argh(option)]
    pub cacert: String,
    /// do not verify etcd's certificate
    #[argh(option, from_str_fn(boolean))]
    pub insecure_skip_tls_verify: bool,

    /// certificate served to clients
    #[argh(option)]
    pub cert_file: String,
    /// private key of --cert-file
    #[argh(option)]
    pub key_file: String,
    /// CA bundle; with it, clients must present a certificate it signed
    #[argh(option)]
    pub trusted_ca_file: String,
    /// revoked client certificates (PEM or DER): one whose serial number is on the list is refused
    #[argh(option)]
    pub client_crl_file: String,
    /// serve TLS with a generated certificate, unless --cert-file names one
    #[argh(option, from_str_fn(boolean))]
    pub auto_tls: bool,
    /// years the generated certificate is valid, 1 to 1000
    #[argh(option, from_str_fn(number_u32))]
    pub self_signed_cert_validity: u32,
    /// folder that keeps the generated certificate, in fixtures/proxy below it
    #[argh(option)]
    pub data_dir: String,
    /// TLS 1.2 cipher suites to take, by their IANA names; none: all that are safe
    #[argh(option)]
    pub listen_cipher_suites: Vec<String>,
    /// oldest TLS version to take from clients: TLS1.2 or TLS1.3
    #[argh(option)]
    pub tls_min_version: String,
    /// newest TLS version to take from clients; empty: no bound
    #[argh(option)]
    pub tls_max_version: String,

    /// largest message sent to etcd, in bytes; 0: the default
    #[argh(option, from_str_fn(number))]
    pub max_send_bytes: u64,
    /// largest message accepted from etcd, in bytes; 0: the default
    #[argh(option, from_str_fn(number))]
    pub max_recv_bytes: u64,
    /// streams one client connection may have open, never more than 16384; 0: the default
    #[argh(option, from_str_fn(number_u32))]
    pub max_concurrent_streams: u32,
    /// least interval a client may ping at while it has a call open, else 2h: one that does so more
    /// often is sent away (GOAWAY, too_many_pings); 0: any
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_min_time: Duration,
    /// how long a client is silent before it is pinged, at least 1s; 0: it never is
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_interval: Duration,
    /// how long to wait for that ping's answer before its connection is closed; 0: for ever
    #[argh(option, from_str_fn(duration))]
    pub grpc_keepalive_timeout: Duration,

    /// memory for events that slow or late watches may still ask for, in bytes, over all ranges;
    /// 0: the default
    #[argh(option, from_str_fn(number))]
    pub watch_log_bytes: u64,
    /// prefixes of keys: a stream whose first watch lies within one goes to etcd as it is,
    /// shared with nobody
    #[argh(option)]
    pub watch_bypass: Vec<String>,
    /// how often a watch that asks for it is told how far it has come, at least 100ms;
    /// 0: the default
    #[argh(option, from_str_fn(duration))]
    pub experimental_watch_progress_notify_interval: Duration,

    /// etcd prefix under which this proxy registers its --advertise-client-url, and under which
    /// MemberList finds the others; needs --resolver-ttl
    #[argh(option)]
    pub resolver_prefix: String,
    /// how long that registration outlives a proxy that dies, in seconds, at least 1
    #[argh(option, from_str_fn(number))]
    pub resolver_ttl: u64,

    /// prefix put on every key: clients see nothing outside of it
    #[argh(option)]
    pub namespace: String,
    /// methods that are open to clients although they show or change what is outside of it, such as
    /// Snapshot or etcdserverpb.KV/Compact
    #[argh(option)]
    pub namespace_allow: Vec<String>,

    /// memory for answers to serializable reads, in bytes; 0: none is kept
    #[argh(option, from_str_fn(number))]
    pub cache_bytes: u64,
    /// how old such an answer may be: so long it may not show what was written, or whose permission
    /// was revoked, past this proxy; 0: none is kept
    #[argh(option, from_str_fn(duration))]
    pub cache_max_age: Duration,
    /// one in so many kept answers that are given is compared with what etcd answers, which costs etcd
    /// a read; 0: none
    #[argh(option, from_str_fn(number))]
    pub cache_audit: u64,
    /// serializable reads of one connection never go back in revision: one that would is asked again as
    /// a linearizable one
    #[argh(option, from_str_fn(boolean))]
    pub experimental_serializable_ordering: bool,
    /// linearizable reads by leases on single keys, as the Go client has them: every writer would have to
    /// go through them, and a proxy that is cut off would stop all that write; reads are shared and kept
    /// without it
    #[argh(option)]
    pub experimental_leasing_prefix: String,

    /// further addresses for the HTTP pages, and nothing else: http://host:port, or https:// with the
    /// certificate and the demands of the client port
    #[argh(option)]
    pub metrics_addr: Vec<String>,
    /// pages under /debug/pprof/ for go tool pprof: CPU time, and memory since the start
    #[argh(option, from_str_fn(boolean))]
    pub enable_pprof: bool,
    /// log each call when it ends: method, client, code, sizes, time; with --debug also what it asked,
    /// never a value
    #[argh(option, from_str_fn(boolean))]
    pub experimental_enable_grpc_logging: bool,
    /// file that gets a line of JSON for each call when it ends, or - for stdout; opened anew on SIGHUP
    #[argh(option)]
    pub access_log: String,
    /// http:// or https:// address of an OpenTelemetry collector that takes spans of calls by OTLP over
    /// HTTP, as http://localhost:4318
    #[argh(option)]
    pub otlp_endpoint: String,
    /// part of the calls whose spans are sent there, 0 to 1, of those that belong to no trace yet; of
    /// the others those whose caller is recorded
    #[argh(option, from_str_fn(ratio))]
    pub otlp_sample_ratio: f64,
    /// log at debug level
    #[argh(option, from_str_fn(boolean))]
    pub debug: bool,

    /// YAML file of flags by their names; what is typed wins over it, and a list that is typed stands in
    /// the place of the file's; read again at SIGHUP; also --config-file
    #[argh(option)]
    pub config: String,
    /// worker threads; 0: one per core
    #[argh(option, from_str_fn(number_u32))]
    pub workers: u32,
    /// how long unary calls may go on after SIGTERM or SIGINT; streams end at once
    #[argh(option, from_str_fn(duration))]
    pub drain_timeout: Duration,
}
