//! Unix sockets and several addresses of `--listen-addr`.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::RANGE;
use crate::support::cluster::{Cluster, stdout_of};
use crate::support::exit_cleanup::temp_dir;
use crate::support::grpc::Client;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::log_entries;
use crate::support::release::{NEWEST, etcdctl};
use crate::support::tls::Tls;
use crate::support::{http, ports};

const LIMIT: Duration = Duration::from_secs(20);

fn flag(path: &Path) -> String {
    format!("--listen-addr=unix://{}", path.display())
}

/// Sends a request for a page over a Unix socket with curl. `None`: curl is missing.
fn curl(path: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--unix-socket"]);
    command.arg(path).args(args);
    Some(stdout_of(&command.output().ok()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_use_a_unix_socket_and_several_ports() {
    let cluster = Cluster::start(NEWEST, 1);
    let dir = temp_dir();
    let path = dir.path().join("edge.sock");
    let other = format!("127.0.0.1:{}", ports::take());
    let flags = [
        format!("--listen-addr=127.0.0.1:0,{other}"),
        flag(&path),
        "--listen-socket-mode=0600".to_owned(),
        "--advertise-client-url=".to_owned(),
    ];
    let mut proxy = Proxy::start(&cluster, &flags);
    let mode = path.metadata().expect("the socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    // etcdctl is a client with grpc-go.
    let unix = format!("unix://{}", path.display());
    for endpoint in [proxy.address(), &other, &unix] {
        assert_eq!(
            stdout_of(&etcdctl(endpoint, &["put", "k", endpoint])),
            "OK\n"
        );
        let value = stdout_of(&etcdctl(endpoint, &["get", "k", "--print-value-only"]));
        assert_eq!(value, format!("{endpoint}\n"));
    }
    let stream = tokio::net::UnixStream::connect(&path)
        .await
        .expect("a connection");
    let client = Client::over(stream, "localhost", "http").await;
    let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        if let Some(page) = curl(&path, &[version, "http://localhost/health"]) {
            assert_eq!(page, "{\"health\":\"true\",\"reason\":\"\"}", "{version}");
        }
    }
    let started = &log_entries(&proxy, "started gRPC proxy")[0];
    let expected = format!("{},{other},{unix}", proxy.address());
    assert_eq!(started["address"], expected);

    // The file is removed when the drain begins.
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(LIMIT).success());
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_socket_serves_tls() {
    let cluster = Cluster::start(NEWEST, 1);
    let (dir, tls) = (temp_dir(), Tls::generate());
    let path = dir.path().join("edge.sock");
    let _proxy = Proxy::start(
        &cluster,
        &[
            flag(&path),
            format!("--cert-file={}", tls.server.cert.display()),
            format!("--key-file={}", tls.server.key.display()),
        ],
    );
    let stream = tokio::net::UnixStream::connect(&path)
        .await
        .expect("a connection");
    let name = "localhost".try_into().expect("a host name");
    let connector = tokio_rustls::TlsConnector::from(tls.client_config(None));
    let stream = connector.connect(name, stream).await.expect("a handshake");
    let client = Client::over(stream, "localhost", "https").await;
    let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

#[test]
fn stale_socket_is_replaced_and_anything_else_is_refused() {
    let dir = temp_dir();
    let path = dir.path().join("edge.sock");
    let start = || Proxy::spawn(&["--endpoints=127.0.0.1:1".to_owned(), flag(&path)]);

    // Dropping a listener of the standard library leaves its file.
    drop(UnixListener::bind(&path).expect("a socket"));
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1".to_owned(), flag(&path)]);
    UnixStream::connect(&path).expect("a listener");
    let mut second = start();
    assert_eq!(second.wait(LIMIT).code(), Some(1));
    let log = second.log();
    assert!(
        log.contains("in use") && log.contains(&flag(&path)),
        "{log}"
    );
    UnixStream::connect(&path).expect("the first listener");
    drop(proxy);

    // A killed process leaves its file, too.
    assert!(path.exists());
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1".to_owned(), flag(&path)]);
    drop(proxy);

    std::fs::remove_file(&path).expect("the file of the killed process");
    std::fs::write(&path, "data").expect("a file");
    let mut refused = start();
    assert_eq!(refused.wait(LIMIT).code(), Some(1));
    assert!(refused.log().contains("not a socket"), "{}", refused.log());
    assert_eq!(std::fs::read(&path).expect("the file"), b"data");
}

#[test]
fn pages_are_served_on_every_port() {
    let other = format!("127.0.0.1:{}", ports::take());
    let flags = ["--endpoints=127.0.0.1:1", "--listen-addr=127.0.0.1:0"];
    let flags = [&flags[..], &["--listen-addr", &other]].concat();
    let proxy = Proxy::start_with(&flags);
    for address in [proxy.address(), &other] {
        assert_eq!(
            http::get(address, "/proxy/livez").expect("a page").status,
            200
        );
    }
}
