//! The table of flags: name, type, default, help text and group of every flag.
//!
//! [`flag_table!`] builds two items from it: the struct [`Settings`], which has the typed value of
//! each flag, and the list [`FLAGS`], which describes them. Command line, configuration file,
//! help, manual page, shell completions and `docs/reference/flags.md` follow the table. Rules that
//! concern several flags are in `config.rs`.

use std::time::Duration;

use crate::cli::values::{FileMode, FlagValue, TlsVersion};

/// The description of one flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Name without dashes. The longer one if the flag has two spellings.
    pub(crate) name: &'static str,
    /// Heading under which the help lists the flag.
    pub(crate) group: &'static str,
    /// Help text. White space in it is not significant.
    pub(crate) help: &'static str,
    /// Default, in the form of the command line.
    pub(crate) default: &'static str,
    /// Placeholder of the value in the help. `None`: the flag needs no value.
    pub(crate) placeholder: Option<&'static str>,
    /// Whether the values of repeated flags are joined.
    pub(crate) is_list: bool,
    /// Reason why any value but the default is refused.
    pub(crate) refused: Option<&'static str>,
    /// Checks one value, and splits that of a list. The error is the end of a sentence.
    pub(crate) split: fn(&str) -> Result<Vec<String>, String>,
    /// Returns how a valid value is adjusted, as half a sentence.
    pub(crate) adjustment: fn(&str) -> Option<&'static str>,
    /// Sets the flag. A list has any number of values, any other flag one.
    pub(crate) set: fn(&mut Settings, &[String]) -> Result<(), String>,
    /// Sets the flag to its value in the second settings.
    pub(crate) copy: fn(&mut Settings, &Settings),
    /// Returns whether the value of the flag differs. `0` and `0s` are the same duration.
    pub(crate) differs: fn(&Settings, &Settings) -> bool,
}

/// Builds [`Settings`], [`FLAGS`] and [`GROUPS`].
///
/// The entry of a flag is `name: Type ["PLACEHOLDER"] = "default" refused REASON;` with its help
/// text as doc comment. Placeholder and refusal are optional. A name has underscores for dashes.
macro_rules! flag_table {
    ($($group:literal: $(
        $(#[doc = $help:literal])+
        $field:ident: $type:ty $([$placeholder:literal])? = $default:literal
        $(refused $refused:expr)?;
    )+)+) => {
        /// The value of every flag: from the command line, the configuration file, or the default.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($($(#[doc = $help])+ pub $field: $type,)+)+
        }

        impl Default for Settings {
            fn default() -> Settings {
                // A test checks that every default can be parsed.
                Settings {
                    $($($field: <$type as FlagValue>::parse($default).unwrap_or_default(),)+)+
                }
            }
        }

        /// Every flag, in the order of the help.
        pub(crate) const FLAGS: &[Flag] = &[$($(Flag {
            name: {
                const NAME: [u8; stringify!($field).len()] = dashed(stringify!($field));
                match std::str::from_utf8(&NAME) {
                    Ok(name) => name,
                    Err(_) => stringify!($field),
                }
            },
            group: $group,
            help: concat!($($help),+),
            default: $default,
            placeholder: [$(Some($placeholder),)? <$type as FlagValue>::PLACEHOLDER][0],
            is_list: <$type as FlagValue>::IS_LIST,
            refused: [$(Some($refused),)? None][0],
            split: <$type as FlagValue>::split,
            adjustment: <$type as FlagValue>::adjustment,
            set: |settings, values| {
                settings.$field = FlagValue::from_values(values)?;
                Ok(())
            },
            copy: |settings, other| settings.$field.clone_from(&other.$field),
            differs: |settings, other| settings.$field != other.$field,
        },)+)+];

        /// The headings of the help, in its order.
        pub(crate) const GROUPS: &[&str] = &[$($group),+];
    };
}

/// Returns the name with dashes for underscores.
const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let mut dashed = [b'-'; N];
    let mut at = 0;
    while at < N {
        if name.as_bytes()[at] != b'_' {
            dashed[at] = name.as_bytes()[at];
        }
        at += 1;
    }
    dashed
}

/// Reason why a proxy without the leasing layer must not start beside Go proxies that use it.
const NO_LEASING: &str = "refused: this proxy writes keys without revoking the ownership that Go \
    proxies with this flag hold, so a start that only warned would make them answer linearizable \
    reads with old values; remove the flag from all proxies";

flag_table! {
    "Listening":
    /// listen addresses for clients, HTTP/2 and HTTP/1.1 on each: host:port (without a host, every
    /// address), or a Unix socket as unix:///path or unix:path
    listen_addr: Vec<String> ["ADDRESS,..."] = "127.0.0.1:23790";
    /// permissions of the file of a Unix socket, in octal; clients need the permission to write
    listen_socket_mode: FileMode = "0660";
    /// address of this proxy in MemberList responses and in its registration; empty: MemberList
    /// returns etcd's members
    advertise_client_url: String ["URL"] = "127.0.0.1:23790";

    "etcd endpoints":
    /// etcd endpoints: host, host:port, http://, https://, unix:// or unixs://; the default port is
    /// 2379; without a scheme, TLS is used if a flag for TLS to etcd is set
    endpoints: Vec<String> ["ENDPOINT,..."] = "127.0.0.1:2379";
    /// domain with the SRV records _etcd-client-ssl._tcp and _etcd-client._tcp of the endpoints,
    /// resolved at start; usable records replace --endpoints
    discovery_srv: String ["DOMAIN"] = "";
    /// service name suffix in the SRV query: _etcd-client-ssl-NAME._tcp
    discovery_srv_name: String ["NAME"] = "";
    /// accept SRV records of endpoints without TLS; by default they are ignored
    insecure_discovery: bool = "false";
    /// interval between refreshes of the endpoints from the cluster's member list, at least 100ms;
    /// 0: never
    endpoints_auto_sync_interval: Duration = "0";
    /// how the proxy picks the endpoint of a call: random (one endpoint until it fails),
    /// round-robin, weighted, least-loaded, or leader (the endpoint of the leader)
    endpoint_policy: String ["POLICY"] = "random";
    /// weights of endpoints, 1 to 1000, for --endpoint-policy=weighted; an endpoint that is not
    /// listed has weight 1
    endpoint_weights: Vec<String> ["HOST:PORT=N,..."] = "";
    /// idle time before the proxy pings a connection to etcd, at least 10s; 0: ping only while
    /// calls are open, at the shortest interval
    dial_keepalive_time: Duration = "0";
    /// time to wait for the response to that ping before the endpoint counts as failed; 0: the
    /// default
    dial_keepalive_timeout: Duration = "20s";
    /// ping etcd even when no call is open
    permit_without_stream: bool = "false";

    "TLS to etcd":
    /// client certificate for etcd; it must have no Common Name, because etcd would authenticate
    /// every client as the user of that name
    cert: String ["PATH"] = "";
    /// private key of --cert
    key: String ["PATH"] = "";
    /// CA bundle to verify etcd's certificates; empty: the CAs of the system
    cacert: String ["PATH"] = "";
    /// do not verify etcd's certificate
    insecure_skip_tls_verify: bool = "false";

    "TLS to clients":
    /// certificate for clients
    cert_file: String ["PATH"] = "";
    /// private key of --cert-file
    key_file: String ["PATH"] = "";
    /// CA bundle; if set, clients must present a certificate signed by one of these CAs
    trusted_ca_file: String ["PATH"] = "";
    /// certificate revocation list (PEM or DER): client certificates with a serial number on it
    /// are rejected
    client_crl_file: String ["PATH"] = "";
    /// serve TLS with a generated certificate, unless --cert-file is set
    auto_tls: bool = "false";
    /// validity of the generated certificate in years, 1 to 1000
    self_signed_cert_validity: u32 = "1";
    /// directory of the generated certificate, which is stored below it in fixtures/proxy
    data_dir: String ["PATH"] = "default.proxy";
    /// TLS 1.2 cipher suites to accept, by IANA name; empty: all secure ones
    listen_cipher_suites: Vec<String> ["NAME,..."] = "";
    /// minimum TLS version of clients: TLS1.2 or TLS1.3
    tls_min_version: TlsVersion = "TLS1.2";
    /// maximum TLS version of clients; empty: no maximum
    tls_max_version: TlsVersion = "";

    "Limits":
    /// maximum size of a message to etcd, in bytes; 0: the default
    max_send_bytes: u64 = "1572864";
    /// maximum size of a message from etcd, in bytes; 0: the default
    max_recv_bytes: u64 = "2147483647";
    /// maximum concurrent streams of a client connection, at most 16384; 0: the default
    max_concurrent_streams: u32 = "4294967295";
    /// minimum interval between the pings of a client while it has an open call, else 2h; the proxy
    /// closes the connection of a client that pings more often (GOAWAY, too_many_pings); 0: no
    /// minimum
    grpc_keepalive_min_time: Duration = "5s";
    /// idle time before the proxy pings a client, at least 1s; 0: never
    grpc_keepalive_interval: Duration = "2h";
    /// time to wait for the response to that ping before the proxy closes the connection; 0: no
    /// limit
    grpc_keepalive_timeout: Duration = "20s";

    "Watches":
    /// memory for events buffered for slow and late watchers, in bytes, over all ranges; 0: the
    /// default
    watch_log_bytes: u64 = "16777216";
    /// key prefixes that watch sharing skips: a watch stream with its first watch below one of them
    /// is forwarded to etcd unchanged
    watch_bypass: Vec<String> ["PREFIX,..."] = "";
    /// interval between progress notifications of watches that request them, at least 100ms; 0: the
    /// default
    experimental_watch_progress_notify_interval: Duration = "10m";

    "Fleet":
    /// etcd prefix under which this proxy registers --advertise-client-url and finds the proxies
    /// for MemberList; needs --resolver-ttl
    resolver_prefix: String ["PREFIX"] = "";
    /// lease TTL of that registration in seconds, at least 1: how long it outlives a proxy that
    /// crashes
    resolver_ttl: u64 = "0";

    "Namespace":
    /// prefix of every key: clients see only keys below it
    namespace: String ["PREFIX"] = "";
    /// methods to allow although they expose or change data outside the namespace, such as Snapshot
    /// or etcdserverpb.KV/Compact
    namespace_allow: Vec<String> ["METHOD,..."] = "";

    "Cache and experimental":
    /// memory for cached responses to serializable reads, in bytes; 0: no cache
    cache_bytes: u64 = "67108864";
    /// maximum age of a cached response: the bound on how long it may miss a write, or a revoked
    /// permission, that did not pass through this proxy; 0: no cache
    cache_max_age: Duration = "1s";
    /// compare one in N cached responses with the response of etcd, which costs etcd one read each;
    /// 0: off
    cache_audit: u64 = "0";
    /// serializable reads of one connection never go back in revision: a read that would is
    /// repeated as a linearizable read
    experimental_serializable_ordering: bool = "false";
    /// linearizable reads by leases on single keys, as in the Go client; every writer would have to
    /// use the same leases, and a proxy that is cut off would block all writes; the proxy shares
    /// and caches reads without leases
    experimental_leasing_prefix: String ["PREFIX"] = "" refused NO_LEASING;

    "Observability":
    /// additional listen addresses for the HTTP pages only: http://host:port, or https:// with the
    /// TLS settings of the client port
    metrics_addr: Vec<String> ["URL,..."] = "";
    /// serve CPU and memory profiles for go tool pprof under /debug/pprof/
    enable_pprof: bool = "false";
    /// log each call when it ends: method, client, code, sizes, duration; with --debug also keys
    /// and ranges, never values
    experimental_enable_grpc_logging: bool = "false";
    /// file for one line of JSON per finished call, or - for stdout; reopened on SIGHUP
    access_log: String ["PATH|-"] = "";
    /// http:// or https:// address of an OpenTelemetry collector that receives the spans of calls
    /// by OTLP over HTTP, such as http://localhost:4318
    otlp_endpoint: String ["URL"] = "";
    /// share of calls without a trace context that are sampled, 0 to 1; a call with a trace context
    /// follows the decision of its caller
    otlp_sample_ratio: f64 = "0.01";
    /// log at debug level
    debug: bool = "false";

    "Process":
    /// YAML file of flags by name; flags on the command line take precedence, and a list on the
    /// command line replaces the list of the file; reloaded on SIGHUP; alias --config-file
    config: String ["PATH"] = "";
    /// worker threads; 0: one per CPU core
    workers: u32 = "0";
    /// time for unary calls to finish after SIGTERM or SIGINT; streams end at once
    drain_timeout: Duration = "5s";
}

/// The name of `--config` in etcd.
const CONFIG_FILE: &str = "config-file";

/// The prefix that etcd adds to flags and removes from them between its releases.
const EXPERIMENTAL: &str = "experimental-";

/// Returns the flag of a name without dashes, in either spelling.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    let name = if name == CONFIG_FILE { "config" } else { name };
    FLAGS
        .iter()
        .find(|flag| flag.name == name || flag.short_name() == Some(name))
}

impl PartialEq for Flag {
    fn eq(&self, other: &Flag) -> bool {
        self.name == other.name
    }
}

impl Flag {
    /// Returns the name without `experimental-`, if the flag has two spellings.
    pub(crate) fn short_name(&self) -> Option<&'static str> {
        self.name.strip_prefix(EXPERIMENTAL)
    }
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, Settings, find};

    #[test]
    fn every_default_is_valid() {
        for flag in FLAGS {
            assert!((flag.split)(flag.default).is_ok(), "{}", flag.name);
        }
    }

    #[test]
    fn a_flag_is_set_copied_and_compared_by_itself() {
        let defaults = Settings::default();
        for flag in FLAGS {
            let value = match flag.placeholder {
                None if flag.default == "true" => "false",
                None => "true",
                Some("N" | "RATIO") => "1",
                Some("DURATION") => "7m",
                Some("VERSION") => "TLS1.3",
                Some("MODE") => "0600",
                Some(_) => "x",
            };
            let mut settings = Settings::default();
            assert_eq!((flag.set)(&mut settings, &[value.to_owned()]), Ok(()));
            let differing = |a: &Settings, b: &Settings| -> Vec<&str> {
                let differs = FLAGS.iter().filter(|flag| (flag.differs)(a, b));
                differs.map(|flag| flag.name).collect()
            };
            // One is the default of a single flag.
            if value != flag.default {
                assert_eq!(differing(&settings, &defaults), [flag.name]);
            }
            let mut copy = Settings::default();
            (flag.copy)(&mut copy, &settings);
            assert_eq!(copy, settings, "{}", flag.name);
        }
    }

    #[test]
    fn only_experimental_flags_have_two_spellings() {
        assert_eq!(
            find("leasing-prefix").unwrap().name,
            "experimental-leasing-prefix"
        );
        assert_eq!(
            find("experimental-leasing-prefix").unwrap().name,
            "experimental-leasing-prefix"
        );
        assert!(find("experimental-endpoints").is_none());
        assert!(find("").is_none());
    }
}
