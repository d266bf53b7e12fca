//! The command lines with which etcd's end-to-end tests start a proxy.
//!
//! Their framework puts a proxy in front of a member. The proxy has the TLS flags of the member,
//! except those for peers, and the files for its connection to the member.

use crate::scene::{Client, Program, Scene, check_rows};
use crate::support::release::versions;

/// TLS flags of a member and of clients of it.
const PEER_FILES: &str = "--peer-cert-file FILE(server.pem) --peer-key-file FILE(server-key.pem) \
    --peer-trusted-ca-file FILE(ca.pem)";
const FILES: &str =
    "--cert-file FILE(server.pem) --key-file FILE(server-key.pem) --trusted-ca-file FILE(ca.pem)";
/// The certificate of a proxy, without a CA for clients.
const CERT: &str = "--cert-file FILE(server.pem) --key-file FILE(server-key.pem)";

/// One command line.
struct Row {
    name: &'static str,
    /// Flags after `--listen-addr` and `--data-dir`.
    flags: String,
    /// The client that fits.
    client: Client,
    /// A client that both programs reject.
    rejected: Option<Client>,
}

/// Returns the flags of the proxy of a member: `endpoint`, and its `TLS` flags.
fn beside(endpoint: &str, tls: &str) -> String {
    let mut flags = format!("--endpoints {endpoint} --advertise-client-url=");
    let mut words = tls.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--peer-cert-file" | "--peer-key-file" | "--peer-trusted-ca-file" => {
                words.next();
            }
            "--peer-auto-tls" | "--client-cert-auth" => {}
            "--auto-tls" => flags += " --auto-tls --insecure-skip-tls-verify",
            word => flags += &format!(" {word}"),
        }
    }
    if !tls.is_empty() {
        flags += " --cert FILE(client.pem) --key FILE(client-key.pem) --cacert FILE(ca.pem) \
                  --client-crl-file FILE(list.crl)";
    }
    flags
}

fn rows() -> Vec<Row> {
    let row = |name, flags, client, rejected| Row {
        name,
        flags,
        client,
        rejected,
    };
    use Client::{Mutual, Plain, Revoked, Tls};
    let both = format!("{FILES} {PEER_FILES}");
    let revoked = format!("{FILES} --client-crl-file FILE(list.crl) --client-cert-auth");
    let suites = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let alone = |flags: &str| format!("--endpoints HTTP --advertise-client-url ADDR {flags}");
    // The Go proxies of 3.5 and 3.6 stop unless they can verify their own certificate.
    let alone_with_tls = |flags: &str| beside("HTTP", "") + &format!(" {CERT} {flags}");
    vec![
        row("no TLS", beside("HTTP", ""), Plain, Some(Tls)),
        row("peer TLS", beside("HTTP", PEER_FILES), Plain, None),
        row(
            "peer auto TLS",
            beside("HTTP", "--peer-auto-tls"),
            Plain,
            None,
        ),
        row("client TLS", beside("HTTPS", FILES), Mutual, Some(Tls)),
        row("TLS", beside("HTTPS", &both), Mutual, Some(Plain)),
        row(
            "client certificates",
            beside("HTTPS", &format!("{both} --client-cert-auth")),
            Mutual,
            None,
        ),
        row(
            "a member with a plaintext port too",
            beside("HTTP", FILES),
            Mutual,
            None,
        ),
        row("auto TLS", beside("HTTPS", "--auto-tls"), Tls, Some(Plain)),
        row(
            "auto TLS for all",
            beside("HTTPS", "--auto-tls --peer-auto-tls"),
            Tls,
            None,
        ),
        row(
            "revoked certificates",
            beside("HTTPS", &revoked),
            Mutual,
            Some(Revoked),
        ),
        // A flag of members only: both programs refuse it.
        row(
            "cipher suites of a member",
            beside("HTTPS", &format!("{FILES} --cipher-suites {suites}")),
            Mutual,
            None,
        ),
        row(
            "pages",
            beside("HTTP", "") + " --metrics-addr http://localhost:PORT",
            Plain,
            None,
        ),
        row(
            "pages with TLS",
            beside("HTTPS", FILES) + " --metrics-addr https://localhost:PORT",
            Mutual,
            None,
        ),
        // Proxies that the tests start by themselves.
        row(
            "endpoint sync",
            alone("--endpoints-auto-sync-interval 1s"),
            Plain,
            None,
        ),
        row(
            "both TLS versions",
            alone_with_tls("--tls-min-version TLS1.2 --tls-max-version TLS1.3"),
            Tls,
            None,
        ),
        row(
            "TLS 1.3",
            alone_with_tls("--tls-min-version TLS1.3"),
            Tls,
            None,
        ),
        row(
            "TLS 1.2",
            alone_with_tls("--tls-max-version TLS1.2"),
            Tls,
            None,
        ),
        row(
            "cipher suites",
            alone_with_tls(&format!("--listen-cipher-suites {suites}")),
            Tls,
            None,
        ),
        row("namespace", alone("--namespace drop-in/"), Plain, None),
        row(
            "registration",
            alone("--resolver-prefix drop-in-fleet --resolver-ttl 60"),
            Plain,
            None,
        ),
        row(
            "switches",
            alone("--debug --enable-pprof --experimental-serializable-ordering"),
            Plain,
            None,
        ),
    ]
}

#[test]
fn command_lines_of_the_e2e_tests_have_the_same_result() {
    let scene = Scene::start();
    let mut rows_and_programs = Vec::new();
    for row in rows() {
        rows_and_programs.push((row, [Program::Edge]));
    }
    for version in versions() {
        for row in rows() {
            rows_and_programs.push((row, [Program::Go(version)]));
        }
    }
    check_rows(&rows_and_programs, |(row, [program])| {
        let clients: Vec<Client> = [row.client].into_iter().chain(row.rejected).collect();
        let run = scene.run(*program, &row.flags, &clients);
        let starts = !row.flags.contains("--cipher-suites");
        let served: Vec<bool> = clients.iter().map(|client| *client == row.client).collect();
        let expected = if starts { served } else { Vec::new() };
        match (run.started, &run.served) == (starts, &expected) {
            true => Ok(()),
            false => Err(format!(
                "{}, {program:?}: {}: started {}, clients {clients:?} {:?}\n{}",
                row.name, row.flags, run.started, run.served, run.log
            )),
        }
    });
}
