//! Command line: arguments in, a configuration or a one-line error out.

#[path = "cli/completions.rs"]
mod completions;
#[path = "cli/config_file.rs"]
mod config_file;
#[path = "cli/shipped_files.rs"]
mod shipped_files;
#[path = "cli/warnings.rs"]
mod warnings;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use etcd_edge::call_log::{AccessLogTarget, CollectorUrl, ObserverOptions, SpanOptions};
use etcd_edge::cli::{self, Parsed};
use etcd_edge::config::{Config, MetricsAddr, ServerCertificate, ServerTls, UpstreamTls};
use etcd_edge::driver::state::fleet::{FleetOptions, ResolverOptions};
use etcd_edge::driver::state::read_cache::ReadOptions;
use etcd_edge::net::tls::policy::TlsPolicy;
use etcd_edge::server::listener::ListenAddress;
use etcd_edge::state_machine::picker::EndpointPolicy;
use etcd_edge::upstream::discovery::DiscoveryOptions;
use etcd_edge::upstream::endpoints::EndpointOptions;
use etcd_edge::wire::trace::TraceSampler;

/// Splits a command line at blanks and parses it.
fn parse(line: &str) -> Result<Parsed, String> {
    parse_args(&line.split_whitespace().collect::<Vec<_>>())
}

fn parse_args(args: &[&str]) -> Result<Parsed, String> {
    cli::parse(args.iter().map(OsString::from)).map_err(|error| error.to_string())
}

#[track_caller]
fn config(line: &str) -> Config {
    match parse(line) {
        Ok(Parsed::Run(config, _)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn start(args: &[&str]) -> Config {
    match parse_args(&[&["start"], args].concat()) {
        Ok(Parsed::Run(config, _)) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn tcp(address: &str) -> ListenAddress {
    ListenAddress::Tcp(address.to_owned())
}

#[track_caller]
fn parse_error(line: &str) -> String {
    parse(line).expect_err(line)
}

#[track_caller]
fn printed(line: &str) -> String {
    match parse(line) {
        Ok(Parsed::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn endpoints(config: &Config) -> Vec<String> {
    config.endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn every_flag_has_its_default() {
    let config = config("start");
    assert_eq!(config.listen_addr, [tcp("127.0.0.1:23790")]);
    assert_eq!(config.metrics_addr, []);
    assert_eq!(endpoints(&config), ["http://127.0.0.1:2379"]);
    assert_eq!(config.upstream_tls, UpstreamTls::default());
    assert_eq!(config.server_tls, None);
    assert_eq!(config.max_send_bytes, 1_572_864);
    assert_eq!(config.max_recv_bytes, 2_147_483_647);
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(config.min_client_ping_interval, Duration::from_secs(5));
    assert_eq!(config.client_ping_interval, Duration::from_secs(7200));
    assert_eq!(config.client_ping_timeout, Duration::from_secs(20));
    assert_eq!(config.observer, ObserverOptions::default());
    assert_eq!(config.dial_keepalive_time, Duration::ZERO);
    assert_eq!(config.dial_keepalive_timeout, Duration::from_secs(20));
    assert!(!config.permit_without_stream && !config.debug);
    assert_eq!(config.discovery, None);
    assert_eq!(config.endpoint_options, EndpointOptions::default());
    assert_eq!(config.watch_log_bytes, 16 << 20);
    assert_eq!(config.watch_bypass, [""; 0]);
    assert_eq!(config.watch_progress_notify, Duration::from_secs(600));
    let reads = config.reads;
    assert_eq!((reads.cache_bytes, reads.audit), (64 << 20, 0));
    assert_eq!(
        (reads.max_age, reads.ordering),
        (Duration::from_secs(1), false)
    );
    assert_eq!(
        config.workers,
        std::thread::available_parallelism().unwrap().get()
    );
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
}

#[test]
fn grpc_proxy_start_parses_like_start() {
    let flags = "--listen-addr=:2379 --endpoints=a:1,b --debug --max-send-bytes 7";
    assert_eq!(
        parse(&format!("grpc-proxy start {flags}")).unwrap(),
        parse(&format!("start {flags}")).unwrap()
    );
}

#[test]
fn every_supported_flag_reaches_the_configuration() {
    let config = config(
        "start --listen-addr [::1]:0 --listen-socket-mode 0600 --endpoints https://a,unix:///e --dial-keepalive-time 30s \
         --dial-keepalive-timeout 1.5s --permit-without-stream --max-send-bytes 0x10 \
         --max-recv-bytes 12 --max-concurrent-streams 100 --cert c --key k --cacert ca \
         --insecure-skip-tls-verify --cert-file cf --key-file kf --trusted-ca-file tf --client-crl-file rf --debug \
         --listen-cipher-suites TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 --tls-max-version TLS1.2 \
         --workers 3 --drain-timeout 1m30s --watch-log-bytes 4096 --watch-bypass a,b/ \
         --watch-bypass c --watch-progress-notify-interval 1s --cache-bytes 1048576 \
         --cache-max-age 200ms --cache-audit 50 --serializable-ordering --namespace p/ \
         --namespace-allow Snapshot,etcdserverpb.KV/Compact \
         --namespace-allow /etcdserverpb.Auth/RoleGet \
         --advertise-client-url a:1 --resolver-prefix p --resolver-ttl 60 \
         --endpoints-auto-sync-interval 1m30s --discovery-srv example.com --discovery-srv-name blue \
         --grpc-keepalive-min-time 1s --grpc-keepalive-interval 2s --grpc-keepalive-timeout 3s \
         --enable-grpc-logging --access-log a.log --otlp-endpoint http://o --otlp-sample-ratio 0.5 \
         --insecure-discovery --endpoint-policy weighted --endpoint-weights a:1=2,http://b=3,a:1=7 \
         --metrics-addr http://:9000,HTTPS://[::1]:0/ --metrics-addr http://a:1,http://:9000 \
         --metrics-addr http://[fe80::1%25eth0]:1",
    );
    let pages = |text: &str, addr: &str, tls| MetricsAddr {
        text: text.to_owned(),
        addr: addr.to_owned(),
        tls,
    };
    let expected = Config {
        listen_addr: vec![tcp("[::1]:0")],
        listen_socket_mode: 0o600,
        metrics_addr: vec![
            pages("http://:9000", ":9000", false),
            pages("HTTPS://[::1]:0/", "[::1]:0", true),
            pages("http://a:1", "a:1", false),
            pages("http://[fe80::1%25eth0]:1", "[fe80::1%eth0]:1", false),
        ],
        endpoints: config.endpoints.clone(),
        discovery: Some(DiscoveryOptions {
            domain: "example.com".to_owned(),
            name: "blue".to_owned(),
            insecure: true,
        }),
        endpoint_options: EndpointOptions {
            sync: Duration::from_secs(90),
            policy: EndpointPolicy::Weighted,
            weights: vec![("b:2379".to_owned(), 3), ("a:1".to_owned(), 7)],
        },
        upstream_tls: UpstreamTls {
            cert: Some(PathBuf::from("c")),
            key: Some(PathBuf::from("k")),
            cacert: Some(PathBuf::from("ca")),
            insecure_skip_verify: true,
        },
        server_tls: Some(ServerTls {
            certificate: ServerCertificate::Files {
                cert_file: PathBuf::from("cf"),
                key_file: PathBuf::from("kf"),
            },
            trusted_ca_file: Some(PathBuf::from("tf")),
            client_crl_file: Some(PathBuf::from("rf")),
            policy: TlsPolicy::new(
                "",
                "TLS1.2",
                &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()],
            )
            .unwrap()
            .0,
        }),
        max_send_bytes: 16,
        max_recv_bytes: 12,
        max_concurrent_streams: 100,
        min_client_ping_interval: Duration::from_secs(1),
        client_ping_interval: Duration::from_secs(2),
        client_ping_timeout: Duration::from_secs(3),
        dial_keepalive_time: Duration::from_secs(30),
        dial_keepalive_timeout: Duration::from_millis(1500),
        permit_without_stream: true,
        watch_log_bytes: 4096,
        watch_bypass: vec!["a".to_owned(), "b/".to_owned(), "c".to_owned()],
        watch_progress_notify: Duration::from_secs(1),
        namespace: "p/".to_owned(),
        namespace_allow: vec![
            "/etcdserverpb.Maintenance/Snapshot",
            "/etcdserverpb.KV/Compact",
            "/etcdserverpb.Auth/RoleGet",
        ],
        reads: ReadOptions {
            cache_bytes: 1 << 20,
            max_age: Duration::from_millis(200),
            audit: 50,
            ordering: true,
        },
        fleet: FleetOptions {
            advertise: "a:1".to_owned(),
            resolver: Some(ResolverOptions {
                prefix: "p".to_owned(),
                ttl: Duration::from_secs(60),
            }),
        },
        warnings: config.warnings.clone(),
        workers: 3,
        drain_timeout: Duration::from_secs(90),
        observer: ObserverOptions {
            log: true,
            debug: true,
            access_log: Some(AccessLogTarget::File(PathBuf::from("a.log"))),
            spans: Some(SpanOptions {
                collector: CollectorUrl::parse("http://o:4318").unwrap(),
                sampler: TraceSampler::new(0.5),
            }),
        },
        enable_pprof: false,
        debug: true,
    };
    assert_eq!(config, expected);
    assert_eq!(endpoints(&config), ["https://a:2379", "unixs:///e"]);
}

#[test]
fn every_spelling_of_a_flag_is_accepted() {
    for debug in [
        &["--debug"][..],
        &["-debug"],
        &["--debug=true"],
        &["-debug=T"],
        &["--debug=1"],
        &["--debug=false", "--debug"],
        &["--debug", "--"],
    ] {
        assert!(start(debug).debug, "{debug:?}");
    }
    for quiet in [
        &["--debug=false"][..],
        &["--debug=0"],
        &["--debug", "-debug=F"],
        &["--"],
    ] {
        assert!(!start(quiet).debug, "{quiet:?}");
    }
    for address in [
        &["--listen-addr", "h:1"][..],
        &["--listen-addr=h:1"],
        &["-listen-addr", "h:1"],
        &["-listen-addr=h:1"],
        &["--listen-addr=h:1", "--listen-addr", "h:1"],
    ] {
        assert_eq!(start(address).listen_addr, [tcp("h:1")]);
    }
    // An equals sign or a dash inside a value belongs to the value.
    assert_eq!(
        start(&["--cert=a=b", "--key", "--debug"]).upstream_tls.key,
        Some(PathBuf::from("--debug"))
    );
}

#[test]
fn listen_addresses_are_a_list_of_ports_and_unix_sockets() {
    let unix = |path: &str| ListenAddress::Unix(PathBuf::from(path));
    let config = start(&[
        "--listen-addr=h:1,unix:///run/edge.sock",
        "--listen-addr=unix:edge.sock,h:1,:2",
        "--listen-socket-mode=0600",
    ]);
    let expected = [
        tcp("h:1"),
        unix("/run/edge.sock"),
        unix("edge.sock"),
        tcp(":2"),
    ];
    assert_eq!(config.listen_addr, expected);
    assert_eq!(config.listen_socket_mode, 0o600);
    assert_eq!(start(&[]).listen_socket_mode, 0o660);
    for (flag, reason) in [
        ("--listen-addr=", "at least one address"),
        ("--listen-addr=unix://", "needs a path"),
        ("--listen-addr=unixs:///a", "must be unix:///path"),
        ("--listen-socket-mode=888", "octal"),
    ] {
        let error = parse_error(&format!("start {flag}"));
        assert!(error.contains(reason), "{flag}: {error}");
    }
}

#[test]
fn repeated_lists_accumulate_and_scalars_do_not() {
    let config = start(&[
        "--endpoints=a, b",
        "--endpoints",
        "c",
        "--endpoints=",
        "--endpoints=a",
    ]);
    assert_eq!(
        endpoints(&config),
        ["http://a:2379", "http://b:2379", "http://c:2379"]
    );
    assert_eq!(
        start(&["--cacert=a", "--cacert="]).upstream_tls,
        UpstreamTls::default()
    );
}

#[test]
fn zero_means_the_default_where_it_does_in_go() {
    let zero = "start --max-send-bytes=0 --max-recv-bytes=0 --max-concurrent-streams=0 \
                --dial-keepalive-timeout=0 --workers=0";
    assert_eq!(config(zero), config("start"));
    assert_eq!(
        config("start --drain-timeout=0").drain_timeout,
        Duration::ZERO
    );
}

#[test]
fn any_client_tls_flag_makes_endpoints_without_scheme_tls() {
    for flags in [
        "--cert=c --key=k",
        "--cacert=ca",
        "--insecure-skip-tls-verify",
    ] {
        let config = config(&format!("start --endpoints a,http://b,https://c {flags}"));
        assert_eq!(
            endpoints(&config),
            ["https://a:2379", "http://b:2379", "https://c:2379"]
        );
    }
    let config = config("start --endpoints a,https://c");
    assert_eq!(endpoints(&config), ["http://a:2379", "https://c:2379"]);
}

#[test]
fn errors_name_the_flag_and_the_value() {
    for (flags, expected) in [
        ("--listen-addr=a", "--listen-addr=a: must be host:port"),
        (
            "--listen-addr=a:65536",
            "--listen-addr=a:65536: the port must be a number from 0 to 65535",
        ),
        (
            "--listen-addr=a:+1",
            "--listen-addr=a:+1: the port must be a number from 0 to 65535",
        ),
        (
            "--listen-addr=::1:80",
            "--listen-addr=::1:80: invalid host name or address; an IPv6 address needs brackets",
        ),
        (
            "--listen-addr=http://a:1",
            "--listen-addr=http://a:1: invalid host name or address; an IPv6 address needs brackets",
        ),
        (
            "--endpoints=",
            "--endpoints=: at least one endpoint is required",
        ),
        (
            "--endpoints=a,b:x/c",
            "--endpoints=b:x/c: the port must be a number from 1 to 65535",
        ),
        ("--debug=yes", "--debug=yes: must be true or false"),
        (
            "--otlp-sample-ratio=1.5",
            "--otlp-sample-ratio=1.5: must be a number from 0 to 1",
        ),
        (
            "--otlp-endpoint=a:4317",
            "--otlp-endpoint=a:4317: must be http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "--max-send-bytes=1k",
            "--max-send-bytes=1k: must be a whole number, 0 or more",
        ),
        (
            "--max-concurrent-streams -1",
            "--max-concurrent-streams=-1: must be a whole number, 0 or more",
        ),
        (
            "--max-concurrent-streams=4294967296",
            "--max-concurrent-streams=4294967296: must be at most 4294967295",
        ),
        (
            "--drain-timeout=5",
            "--drain-timeout=5: a duration needs a unit: ns, us, ms, s, m or h",
        ),
        (
            "--drain-timeout=-5",
            "--drain-timeout=-5: a duration needs a unit: ns, us, ms, s, m or h",
        ),
        (
            "--tls-min-version=1.2",
            "--tls-min-version=1.2: must be TLS1.2 or TLS1.3",
        ),
        ("--cert=c", "--cert=c: needs --key"),
        ("--key=k", "--key=k: needs --cert"),
        ("--cert-file=c", "--cert-file=c: needs --key-file"),
        ("--key-file=k", "--key-file=k: needs --cert-file"),
        (
            "--trusted-ca-file=t",
            "--trusted-ca-file=t: needs --cert-file and --key-file, or --auto-tls",
        ),
        (
            "--metrics-addr=127.0.0.1:9000",
            "--metrics-addr=127.0.0.1:9000: must be http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "--metrics-addr=http://a:1,unix://b",
            "--metrics-addr=unix://b: must be http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "--metrics-addr=http://a",
            "--metrics-addr=http://a: must be host:port",
        ),
        (
            "--metrics-addr=https://a:1",
            "--metrics-addr=https://a:1: needs --cert-file and --key-file, or --auto-tls",
        ),
        ("--cert", "--cert: missing value"),
        ("--nothing=1", "--nothing=1: unknown flag"),
        ("-d", "-d: unknown flag"),
        ("--=1", "--=1: unknown flag"),
        ("---debug", "---debug: unknown flag"),
        ("--experimental-debug", "--experimental-debug: unknown flag"),
        ("--help=1", "--help=1: unknown flag"),
        (
            "--namespace-allow=Snapshot",
            "--namespace-allow=Snapshot: needs --namespace, without which every method reaches every key",
        ),
    ] {
        assert_eq!(parse_error(&format!("start {flags}")), expected);
    }
}

#[test]
fn unsupported_flags_are_accepted_with_their_defaults() {
    let nothing = "start --advertise-client-url=127.0.0.1:23790 --discovery-srv= --discovery-srv-name= \
                   --insecure-discovery=false --endpoints-auto-sync-interval=0s --client-crl-file= \
                   --auto-tls=f --self-signed-cert-validity=1 --data-dir=default.proxy \
                   --listen-cipher-suites= --tls-min-version=TLS1.2 --tls-max-version= \
                   --grpc-keepalive-min-time=5s --grpc-keepalive-interval=2h --access-log= \
                   --otlp-endpoint= --otlp-sample-ratio=0.01 --grpc-keepalive-timeout=20s --resolver-prefix= --resolver-ttl=0 --namespace= \
                   --experimental-serializable-ordering=false --serializable-ordering=false \
                   --experimental-leasing-prefix= --leasing-prefix= --metrics-addr= \
                   --enable-pprof=false --experimental-enable-grpc-logging=false \
                   --enable-grpc-logging=false";
    assert_eq!(config(nothing), config("start"));
    let nothing = "start --endpoint-policy= --endpoint-weights= --endpoint-policy=random";
    assert_eq!(config(nothing), config("start"));
    // The last value of a scalar counts.
    assert_eq!(
        config("start --enable-pprof --enable-pprof=false"),
        config("start")
    );
}

#[test]
fn endpoint_policy_and_weights_are_validated() {
    for (name, policy) in EndpointPolicy::ALL {
        let line = format!("start --endpoint-policy={name}");
        assert_eq!(config(&line).endpoint_options.policy, policy);
    }
    for (flags, expected) in [
        (
            "--endpoint-policy=fastest",
            "--endpoint-policy=fastest: must be one of random, round-robin, weighted, least-loaded, leader",
        ),
        (
            "--endpoint-weights=a:1",
            "--endpoint-weights=a:1: must be HOST:PORT=WEIGHT",
        ),
        (
            "--endpoint-policy=weighted --endpoint-weights=a:1=0",
            "--endpoint-weights=a:1=0: the weight must be a number from 1 to 1000",
        ),
        (
            "--endpoint-policy=weighted --endpoint-weights=a:x=5",
            "--endpoint-weights=a:x=5: the port must be a number from 1 to 65535",
        ),
    ] {
        assert_eq!(parse_error(&format!("start {flags}")), expected);
    }
}

#[test]
fn leasing_prefix_is_refused_with_a_reason() {
    for spelling in ["leasing-prefix", "experimental-leasing-prefix"] {
        assert_eq!(
            parse_error(&format!("start --{spelling}=p")),
            "--experimental-leasing-prefix=p: refused: this proxy writes keys without revoking the \
             ownership that Go proxies with this flag hold, so a start that only warned would make \
             them answer linearizable reads with old values; remove the flag from all proxies"
        );
        assert_eq!(config(&format!("start --{spelling}=")), config("start"));
    }
}

#[test]
fn registration_flags_require_each_other() {
    for (flags, expected) in [
        (
            "--resolver-prefix=p",
            "--resolver-prefix=p: needs --resolver-ttl of at least 1",
        ),
        (
            "--resolver-prefix=p --resolver-ttl=0",
            "--resolver-prefix=p: needs --resolver-ttl of at least 1",
        ),
        (
            "--resolver-ttl=5",
            "--resolver-ttl=5: needs --resolver-prefix",
        ),
        (
            "--resolver-prefix=p --resolver-ttl=5 --advertise-client-url=",
            "--resolver-prefix=p: needs --advertise-client-url, which is empty",
        ),
        (
            "--resolver-ttl=5 --advertise-client-url=",
            "--resolver-ttl=5: needs --resolver-prefix",
        ),
    ] {
        assert_eq!(parse_error(&format!("start {flags}")), expected);
    }
    // etcd grants no longer lease.
    for ttl in ["9000000000", "9000000001"] {
        let config = config(&format!("start --resolver-prefix=p --resolver-ttl={ttl}"));
        let ttl = config.fleet.resolver.unwrap().ttl;
        assert_eq!(ttl, Duration::from_secs(9_000_000_000));
    }
}

#[test]
fn impossible_tls_settings_are_refused() {
    for (flags, expected) in [
        (
            "--auto-tls --self-signed-cert-validity=0",
            "--self-signed-cert-validity=0: --auto-tls needs at least one year",
        ),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "--tls-min-version=TLS1.3: above --tls-max-version=TLS1.2",
        ),
        (
            "--auto-tls --tls-min-version=TLS1.3 --listen-cipher-suites=A,B",
            "--listen-cipher-suites=A,B: TLS 1.3 cipher suites are not configurable",
        ),
        // A list accumulates, so a later empty value removes nothing.
        (
            "--auto-tls --listen-cipher-suites=A --listen-cipher-suites=",
            "--listen-cipher-suites=A: unknown cipher suite",
        ),
        (
            "--auto-tls --listen-cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256",
            "--listen-cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256: none is supported: \
             TLS_RSA_WITH_AES_128_GCM_SHA256 (no forward secrecy, not supported)",
        ),
        (
            "--auto-tls --listen-cipher-suites=TLS_AES_128_GCM_SHA256 --tls-max-version=TLS1.2",
            "--listen-cipher-suites=TLS_AES_128_GCM_SHA256: none is a TLS 1.2 suite, and \
             --tls-max-version=TLS1.2",
        ),
    ] {
        assert_eq!(parse_error(&format!("start {flags}")), expected);
    }
    let folder = |config: &Config| match &config.server_tls.as_ref().unwrap().certificate {
        ServerCertificate::Generated { folder, years } => (folder.clone(), *years),
        other => panic!("{other:?}"),
    };
    for (flags, expected) in [
        ("--auto-tls", ("default.proxy/fixtures/proxy", 1)),
        ("--auto-tls --data-dir=", ("fixtures/proxy", 1)),
        (
            "--auto-tls --data-dir=/d --self-signed-cert-validity=7 --trusted-ca-file=t",
            ("/d/fixtures/proxy", 7),
        ),
        (
            "--auto-tls --self-signed-cert-validity=20000",
            ("default.proxy/fixtures/proxy", 1000),
        ),
    ] {
        let config = config(&format!("start {flags}"));
        assert_eq!(folder(&config), (PathBuf::from(expected.0), expected.1));
    }
    // Certificate files take precedence over --auto-tls.
    let config = config("start --auto-tls --cert-file=c --key-file=k");
    let certificate = config.server_tls.unwrap().certificate;
    assert!(matches!(certificate, ServerCertificate::Files { .. }));
}

#[test]
fn unknown_commands_are_reported() {
    assert_eq!(
        parse_error(""),
        "missing command: try etcd-edge start or etcd-edge help"
    );
    assert_eq!(
        parse_error("grpc-proxy"),
        "grpc-proxy: missing command: try grpc-proxy start"
    );
    assert_eq!(
        parse_error("stop"),
        "\"stop\": unknown command; etcd-edge help lists the commands"
    );
    assert_eq!(
        parse_error("grpc-proxy stop"),
        "\"grpc-proxy stop\": unknown command; etcd-edge help lists the commands"
    );
    assert_eq!(parse_error("version now"), "\"now\": unexpected argument");
    assert_eq!(
        parse_error("help me"),
        "\"me\": unknown command; etcd-edge help lists the commands"
    );
}

#[test]
fn help_and_version_exist_at_each_level() {
    for line in ["version", "--version", "-version"] {
        assert_eq!(
            printed(line),
            concat!("etcd-edge ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
    for line in ["help", "--help", "-help", "-h"] {
        assert!(
            printed(line).contains("Usage: etcd-edge COMMAND\n"),
            "{line}"
        );
    }
    for line in [
        "grpc-proxy help",
        "grpc-proxy --help",
        "grpc-proxy -h",
        "help grpc-proxy",
    ] {
        assert!(
            printed(line).contains("Usage: etcd-edge grpc-proxy start"),
            "{line}"
        );
    }
    for line in [
        "start --help",
        "start -h",
        "start help",
        "help start",
        "grpc-proxy start --help",
        "help grpc-proxy start",
        "start --debug --namespace n --help --nothing",
    ] {
        assert!(
            printed(line).contains("Usage: etcd-edge start [FLAGS]"),
            "{line}"
        );
    }
}

#[test]
fn help_is_well_formatted() {
    for line in ["help", "grpc-proxy help", "start help"] {
        let text = printed(line);
        assert!(text.ends_with('\n') && !text.contains("\n\n\n"), "{text}");
        assert!(
            text.lines()
                .all(|line| line.len() <= 80 && line.trim_end() == line),
            "{text}"
        );
    }
    let text = printed("start help");
    let flags: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("  --"))
        .collect();
    assert_eq!(flags.len(), 55);
    assert!(text.contains("\nTLS to etcd:\n"));
    assert!(text.contains("  --max-send-bytes N\n"));
    assert!(text.contains("(default 1572864)"));
    // The description follows each flag.
    for pair in text.lines().collect::<Vec<_>>().windows(2) {
        assert!(
            !pair[0].starts_with("  --") || pair[1].starts_with("        "),
            "{pair:?}"
        );
    }
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    let bytes = OsString::from_vec(b"--cert=\xff\n".to_vec());
    let error = cli::parse([OsString::from("start"), bytes].into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "--cert=\u{fffd}\\n: not valid UTF-8");
}

/// `UPDATE_DOCS=1 cargo test --test cli` rewrites the page.
#[test]
fn flags_page_matches_the_help() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/flags.md");
    let page = format!(
        "# Flags\n\nWhat `etcd-edge start --help` prints; `UPDATE_DOCS=1 cargo test --test cli` \
         writes this page.\n\n```text\n{}```\n",
        printed("start --help")
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        page,
        "{path} is out of date"
    );
}
