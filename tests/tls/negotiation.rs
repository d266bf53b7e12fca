//! Tests of TLS negotiation: the versions and cipher suites that the proxy accepts.

use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite};

use super::handshake_with;
use super::support::cluster::Cluster;
use super::support::proxy::Proxy;
use super::support::release::NEWEST;
use super::support::tls::{Tls, read_over};

/// Performs a handshake and a call as a client with a single cipher suite.
async fn call_with_suite(
    proxy: &Proxy,
    tls: &Tls,
    suite: SupportedCipherSuite,
) -> Result<(), String> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let version = match suite.version().version {
        ProtocolVersion::TLSv1_3 => &TLS13,
        _ => &TLS12,
    };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("the suite is of the version")
        .with_root_certificates(tls.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = handshake_with(proxy, Arc::new(config), "localhost").await;
    let stream = stream.map_err(|e| e.to_string())?;
    assert_eq!(
        stream.get_ref().1.negotiated_cipher_suite(),
        Some(suite),
        "the only offered suite"
    );
    read_over(stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_flags_select_versions_and_cipher_suites() {
    const AES: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    const CHACHA: &str = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let new = |suite: CipherSuite| suite.as_str().unwrap().starts_with("TLS13_");
    // These suites match the key type of the test's certificate.
    let fits = |suite: CipherSuite| new(suite) || suite.as_str().unwrap().contains("ECDSA");
    type Accepts<'a> = &'a dyn Fn(CipherSuite) -> bool;
    let cases: [(&[String], Accepts<'_>); 7] = [
        (&[], &fits),
        (&["--tls-min-version=TLS1.3".to_owned()], &new),
        (&["--tls-max-version=TLS1.2".to_owned()], &|suite| {
            fits(suite) && !new(suite)
        }),
        (&["--tls-max-version=TLS1.3".to_owned()], &fits),
        (&[format!("--listen-cipher-suites={AES}")], &|suite| {
            new(suite) || suite.as_str() == Some(AES)
        }),
        (
            &[
                format!("--listen-cipher-suites={AES},{CHACHA}"),
                "--tls-max-version=TLS1.2".to_owned(),
            ],
            &|suite| matches!(suite.as_str(), Some(AES | CHACHA)),
        ),
        (
            &["--listen-cipher-suites=TLS_AES_256_GCM_SHA384".to_owned()],
            &new,
        ),
    ];
    for (flags, accepts) in cases {
        let proxy = super::secure_with(&cluster, &tls.server, flags);
        for suite in ALL_CIPHER_SUITES {
            let call = call_with_suite(&proxy, &tls, *suite).await;
            assert_eq!(
                call.is_ok(),
                accepts(suite.suite()),
                "{flags:?} {suite:?}: {call:?}"
            );
        }
    }
}

/// Checks the negotiation with another TLS implementation, if it is installed.
#[test]
fn openssl_negotiates_the_configured_versions_and_suites() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    if Command::new("openssl").arg("version").output().is_err() {
        println!("openssl is not installed");
        return;
    }
    let flags = [
        "--tls-max-version=TLS1.2".to_owned(),
        "--listen-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".to_owned(),
    ];
    let old = super::secure_with(&cluster, &tls.server, &flags);
    let new = super::secure_with(
        &cluster,
        &tls.server,
        &["--tls-min-version=TLS1.3".to_owned()],
    );
    let connect = |proxy: &Proxy, args: &[&str]| {
        let run = Command::new("openssl")
            .args(["s_client", "-brief", "-verify_return_error", "-CAfile"])
            .arg(&tls.ca)
            .args(["-alpn", "h2", "-connect", proxy.address()])
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl starts");
        let output = String::from_utf8_lossy(&run.stderr).into_owned();
        (
            run.status.success() && output.contains("CONNECTION ESTABLISHED"),
            output,
        )
    };
    for (proxy, args, good) in [
        (&old, &["-tls1_2"][..], true),
        (&old, &[], true),
        (&old, &["-tls1_3"], false),
        (
            &old,
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            false,
        ),
        (&new, &["-tls1_3"], true),
        (&new, &["-tls1_2"], false),
    ] {
        let (connected, output) = connect(proxy, args);
        assert_eq!(connected, good, "{args:?}: {output}");
    }
    let (_, output) = connect(&old, &["-verify_hostname", "localhost"]);
    assert!(output.contains("ECDHE-ECDSA-AES256-GCM-SHA384"), "{output}");
    assert!(output.contains("Verification: OK"), "{output}");
}
