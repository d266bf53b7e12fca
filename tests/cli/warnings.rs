//! Settings that have no effect, or less effect than requested: a warning, and no error (S5).

use super::{config, parse, parse_args, parse_error};
use etcd_edge::cli::Parsed;

/// The flags of a proxy without any warning.
const BASE: &str = "start --advertise-client-url=a:1";
const TLS: &str = "--cert-file=c --key-file=k";
const NO_TLS: &str =
    "no effect: the port does not use TLS; set --cert-file and --key-file, or --auto-tls";
const NEGATIVE: &str = "a negative value is treated as 0";
const STRAY: &str = "ignored: the argument belongs to no flag";

/// Returns each warning as `SETTING: REASON`.
fn warnings(line: &str) -> Vec<String> {
    let config = config(line);
    let shown = config.warnings.iter();
    shown
        .map(|warning| format!("{}: {}", warning.setting, warning.reason))
        .collect()
}

#[test]
fn settings_without_their_full_effect_are_warnings() {
    let tls = |flags: &str| format!("{TLS} {flags}");
    let cases: Vec<(String, String)> = vec![
        // TLS to clients.
        (
            "--client-crl-file=r".into(),
            format!("--client-crl-file: {NO_TLS}, and --trusted-ca-file"),
        ),
        (
            tls("--client-crl-file=r"),
            "--client-crl-file: no effect: without --trusted-ca-file clients present no certificate"
                .into(),
        ),
        (
            "--tls-min-version=TLS1.3".into(),
            format!("--tls-min-version: {NO_TLS}"),
        ),
        (
            "--tls-max-version=TLS1.2".into(),
            format!("--tls-max-version: {NO_TLS}"),
        ),
        (
            "--listen-cipher-suites=UNKNOWN".into(),
            format!("--listen-cipher-suites: {NO_TLS}"),
        ),
        (
            tls("--listen-cipher-suites=TLS_RSA_WITH_RC4_128_SHA,TLS_AES_128_GCM_SHA256"),
            "--listen-cipher-suites: left out: TLS_RSA_WITH_RC4_128_SHA (insecure cipher, not \
             supported)"
                .into(),
        ),
        (
            "--auto-tls --self-signed-cert-validity=1001".into(),
            "--self-signed-cert-validity: lowered to 1000 years".into(),
        ),
        (
            "--self-signed-cert-validity=0".into(),
            "--self-signed-cert-validity: no effect without --auto-tls".into(),
        ),
        (
            tls("--auto-tls"),
            "--auto-tls: no effect: --cert-file is set".into(),
        ),
        // TLS to etcd.
        (
            "--cert=c --key=k --cacert=a --endpoints=http://b,http://c".into(),
            "--cacert, --cert, --key: no effect: no endpoint uses TLS; write endpoints with TLS as \
             https://HOST:PORT"
                .into(),
        ),
        // Endpoints.
        (
            "--endpoints=http://a:1/path,b".into(),
            "--endpoints: the path in http://a:1/path is ignored: gRPC calls have their own".into(),
        ),
        (
            "--endpoint-weights=a:1=2".into(),
            "--endpoint-weights: no effect without --endpoint-policy=weighted".into(),
        ),
        (
            "--discovery-srv-name=n".into(),
            "--discovery-srv-name: no effect without --discovery-srv".into(),
        ),
        (
            "--insecure-discovery".into(),
            "--insecure-discovery: no effect without --discovery-srv".into(),
        ),
        // Others.
        (
            "--otlp-sample-ratio=1".into(),
            "--otlp-sample-ratio: no effect without --otlp-endpoint".into(),
        ),
        (
            "--metrics-addr=http://a:1/metrics".into(),
            "--metrics-addr: the path in http://a:1/metrics is ignored: the pages have fixed paths"
                .into(),
        ),
        (
            "--resolver-prefix=p --resolver-ttl=9000000001".into(),
            "--resolver-ttl: lowered to 9000000000, the longest lease of etcd".into(),
        ),
        (
            "--workers=2000".into(),
            "--workers: lowered to 1024".into(),
        ),
        // Values that no flag has a use for.
        (
            "--resolver-ttl=-5".into(),
            format!("--resolver-ttl: {NEGATIVE}"),
        ),
        (
            "--grpc-keepalive-interval -1s".into(),
            format!("--grpc-keepalive-interval: {NEGATIVE}"),
        ),
        // Arguments that belong to no flag.
        ("stray".into(), format!("stray: {STRAY}")),
        ("-".into(), format!("-: {STRAY}")),
        ("-- --debug".into(), format!("--debug: {STRAY}")),
        (
            "--debug false".into(),
            format!("false: {STRAY}; write a boolean as --flag or --flag=false"),
        ),
    ];
    assert!(warnings(BASE).is_empty());
    for (flags, expected) in cases {
        assert_eq!(warnings(&format!("{BASE} {flags}")), [expected], "{flags}");
    }
    assert_eq!(config(&format!("{BASE} --workers=2000")).workers, 1024);
    let several = warnings(&format!("{BASE} a -- b --c"));
    assert_eq!(
        several,
        ["a", "b", "--c"].map(|arg| format!("{arg}: {STRAY}"))
    );
    assert!(!config(&format!("{BASE} -- --debug")).debug);
}

#[test]
fn settings_with_their_full_effect_cause_no_warning() {
    for flags in [
        "--data-dir=d",
        "--cacert=c",
        "--cacert=c --endpoints=http://a,https://b",
        "--cacert=c --endpoints=http://a --endpoints-auto-sync-interval=1m",
        "--cacert=c --endpoints=http://a --discovery-srv=d",
        "--discovery-srv=d --discovery-srv-name=n --insecure-discovery",
        "--cert-file=c --key-file=k --trusted-ca-file=t --client-crl-file=r --tls-min-version=TLS1.3",
        "--auto-tls --self-signed-cert-validity=1000",
        "--endpoints=http://a:1/",
        "--metrics-addr=http://a:1/",
        "--max-send-bytes=-0x0 --max-send-bytes=1_000",
    ] {
        assert!(warnings(&format!("{BASE} {flags}")).is_empty(), "{flags}");
    }
}

#[test]
fn default_advertised_address_needs_a_listener_there() {
    for (flags, warned) in [
        ("", false),
        ("--listen-addr=localhost:23790", false),
        ("--listen-addr=127.0.0.1:23791", true),
        ("--listen-addr=127.0.0.1:0", true),
        ("--listen-addr=[::1]:23790", true),
        ("--listen-addr=10.0.0.1:23790", true),
        // The operator has chosen the address.
        (
            "--listen-addr=:23790 --advertise-client-url=127.0.0.1:23790",
            false,
        ),
        // Clients on other hosts connect to their own loopback.
        ("--listen-addr=:23790", true),
        ("--listen-addr=0.0.0.0:23790", true),
        (
            "--listen-addr=0.0.0.0:23790 --advertise-client-url=a:23790",
            false,
        ),
        (
            "--listen-addr=127.0.0.1:23791 --advertise-client-url=",
            false,
        ),
    ] {
        let all = warnings(&format!("start {flags}"));
        let expected = "--advertise-client-url: MemberList sends clients to the default, \
            127.0.0.1:23790, which is not the address of this proxy; set the address at which \
            clients reach it, or \"\" to return the members of etcd";
        match warned {
            true => assert_eq!(all, [expected], "{flags}"),
            false => assert!(all.is_empty(), "{flags}: {all:?}"),
        }
    }
}

#[test]
fn check_config_has_the_warnings_of_a_start() {
    let args = ["start", "stray", "--tls-min-version=TLS1.3"];
    let Ok(Parsed::Run(started, _)) = parse_args(&args) else {
        panic!("{args:?}")
    };
    let line = "check-config stray --tls-min-version=TLS1.3";
    let Ok(Parsed::Check(checked)) = parse(line) else {
        panic!("{line}")
    };
    assert_eq!(checked.warnings, started.warnings);
    assert_eq!(checked.warnings.len(), 2);
    // Other commands have no flags.
    assert_eq!(parse_error("version now"), "\"now\": unexpected argument");
}
