//! Versions and cipher suites: who can speak with the proxy, and in what.

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

/// A handshake and a call of a client that speaks one suite only.
async fn speaks(proxy: &Proxy, tls: &Tls, suite: SupportedCipherSuite) -> Result<(), String> {
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
        "what was offered"
    );
    read_over(stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_suites_are_those_that_were_asked_for() {
    const AES: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    const CHACHA: &str = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let new = |suite: CipherSuite| suite.as_str().unwrap().starts_with("TLS13_");
    // The test's certificate has a key of this kind.
    let fits = |suite: CipherSuite| new(suite) || suite.as_str().unwrap().contains("ECDSA");
    type Wanted<'a> = &'a dyn Fn(CipherSuite) -> bool;
    let cases: [(&[String], Wanted<'_>); 7] = [
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
    for (flags, wanted) in cases {
        let proxy = super::secure_with(&cluster, &tls.server, flags);
        for suite in ALL_CIPHER_SUITES {
            let spoke = speaks(&proxy, &tls, *suite).await;
            assert_eq!(
                spoke.is_ok(),
                wanted(suite.suite()),
                "{flags:?} {suite:?}: {spoke:?}"
            );
        }
    }
}

/// Another implementation of TLS, where the machine has it.
#[test]
fn openssl_finds_the_same() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    if Command::new("openssl").arg("version").output().is_err() {
        println!("there is no openssl on this machine");
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
    let asked = |proxy: &Proxy, args: &[&str]| {
        let run = Command::new("openssl")
            .args(["s_client", "-brief", "-verify_return_error", "-CAfile"])
            .arg(&tls.ca)
            .args(["-alpn", "h2", "-connect", proxy.address()])
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl starts");
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        (
            run.status.success() && said.contains("CONNECTION ESTABLISHED"),
            said,
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
        let (spoke, said) = asked(proxy, args);
        assert_eq!(spoke, good, "{args:?}: {said}");
    }
    let (_, said) = asked(&old, &["-verify_hostname", "localhost"]);
    assert!(said.contains("ECDHE-ECDSA-AES256-GCM-SHA384"), "{said}");
    assert!(said.contains("Verification: OK"), "{said}");
}
