//! Tests of client authentication: revoked, expired, foreign and missing certificates.

use std::path::Path;
use std::process::Command;

use rcgen::{SerialNumber, date_time_ymd};
use tokio::io::AsyncReadExt;

use super::support::cluster::Cluster;
use super::support::proxy::Proxy;
use super::support::proxy_output::log_entries;
use super::support::release::{NEWEST, etcdctl};
use super::support::tls::{CertFiles, Tls};
use super::{assert_start_fails, call_tls, handshake, secure_with};

fn with_list(cluster: &Cluster, tls: &Tls, list: &Path) -> Proxy {
    let flags = [
        format!("--trusted-ca-file={}", tls.ca.display()),
        format!("--client-crl-file={}", list.display()),
    ];
    secure_with(cluster, &tls.server, &flags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_on_the_revocation_list_are_rejected() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let numbered = |name: &str, serial: u64| {
        tls.issue(name, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
        })
    };
    let (good, bad) = (numbered("good", 7), numbered("bad", 8));
    let (chain, bad_chain) = (
        tls.issue_from_intermediate("chain", 20, 21),
        tls.issue_from_intermediate("bad-chain", 22, 9),
    );
    let bad_head = tls.issue_from_intermediate("bad-head", 8, 23);
    let expired = tls.issue("expired", |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let list = tls.revocation_list(&[8, 9]);
    let pem = tls.write("list.pem", list.pem().unwrap());
    let der = tls.write("list.der", list.der());
    let clients: [(Option<&CertFiles>, bool); 8] = [
        (Some(&good), true),
        (Some(&bad), false),
        (Some(&chain), true),
        // The authority that issued this certificate is on the list.
        (Some(&bad_chain), false),
        (Some(&bad_head), false),
        (Some(&expired), false),
        (Some(&tls.foreign_client), false),
        (None, false),
    ];
    for path in [pem, der] {
        let proxy = with_list(&cluster, &tls, &path);
        for (identity, accepted) in clients {
            let call = call_tls(&proxy, &tls, identity).await;
            assert_eq!(call.is_ok(), accepted, "{identity:?}: {call:?}");
        }
        // A client that reads gets the reason as a TLS alert.
        let mut stream = handshake(&proxy, &tls, Some(&bad), &[b"h2"]).await.unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err().to_string();
        assert!(error.contains("Revoked"), "{error}");
        // The Go client gets the same result.
        for (identity, accepted) in [(&good, true), (&bad, false)] {
            let endpoint = format!("https://{}", proxy.address());
            let files = [
                ("cacert", &tls.ca),
                ("cert", &identity.cert),
                ("key", &identity.key),
            ];
            let mut args = files
                .map(|(flag, path)| format!("--{flag}={}", path.display()))
                .to_vec();
            args.extend(["get", "k", "--command-timeout=2s"].map(str::to_owned));
            let run = etcdctl(&endpoint, &args);
            assert_eq!(run.status.success(), accepted, "{run:?}");
        }
    }
}

#[test]
fn unusable_revocation_list_stops_the_start() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let none = tls.path("none.pem");
    let empty = tls.write("empty.pem", "");
    let garbage = tls.write(
        "garbage.pem",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    );
    for (path, error) in [
        (&none, "No such file"),
        (&empty, "the file contains no certificate revocation list"),
        (&garbage, "malformed certificate revocation list"),
        (&tls.ca, "the file contains no certificate revocation list"),
    ] {
        let mut flags = cluster.proxy_flags();
        flags.extend(super::server_flags(&tls.server));
        flags.push(format!("--trusted-ca-file={}", tls.ca.display()));
        flags.push(format!("--client-crl-file={}", path.display()));
        let line = format!("--client-crl-file={}: {error}", path.display());
        assert_start_fails(&flags, &line);
    }
}

#[test]
fn certificate_for_etcd_must_have_no_common_name() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    for scheme in ["https", "http"] {
        let start = |identity: &CertFiles| {
            let mut flags = super::cert_flags(identity).to_vec();
            flags.push(format!("--endpoints={scheme}://{}", cluster.endpoint(0)));
            flags.push(format!("--cacert={}", tls.ca.display()));
            flags
        };
        let path = tls.root_client.cert.display();
        let line = format!("--cert={path}: cert has non empty Common Name (root)");
        assert_start_fails(&start(&tls.root_client), &line);
        let proxy = Proxy::start_with(&start(&tls.client));
        assert!(log_entries(&proxy, "started gRPC proxy").len() == 1);
    }
}

/// Fetches pages like a script, over either protocol, if curl is installed.
#[test]
fn curl_gets_pages_over_both_protocols() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let ca = [format!("--trusted-ca-file={}", tls.ca.display())];
    let proxy = secure_with(&cluster, &tls.server, &ca);
    let curl = |args: &[&str]| {
        Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--cacert",
            ])
            .arg(&tls.ca)
            .args(args)
            .arg(format!("https://{}/metrics", proxy.address()))
            .output()
    };
    if curl(&["--version"]).is_err() {
        println!("curl is not installed");
        return;
    }
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key) = (path(&tls.client.cert), path(&tls.client.key));
    for protocol in ["--http1.1", "--http2"] {
        let output = curl(&[protocol, "--cert", &cert, "--key", &key]).unwrap();
        let body = String::from_utf8_lossy(&output.stdout);
        assert!(
            body.contains("etcd_server_has_leader 1"),
            "{protocol}: {output:?}"
        );
        let refused = curl(&[protocol]).unwrap();
        assert!(!refused.status.success(), "{protocol}: {refused:?}");
    }
}
