//! Tests of TLS files that change while the proxy runs (S3): new handshakes use the new files, open
//! connections continue, and invalid files change nothing. Also tests the reload of the
//! configuration file.

mod support;

#[path = "reload/config.rs"]
mod config;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{KeyPair, SerialNumber};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use support::cluster::Cluster;
use support::grpc::Client;
use support::http;
use support::pb::Msg;
use support::process::Process;
use support::proxy::Proxy;
use support::proxy_output::{log_entries, metric};
use support::release::{NEWEST, etcdctl_command};
use support::tls::{CertFiles, Tls, read_over};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const RANGE: &str = "/etcdserverpb.KV/Range";
const RELOADED: &str = "TLS files reloaded";
const LOAD_FAILED: &str = "TLS files changed but cannot be loaded: keeping the previous ones";
/// Time limit that exceeds the slowest poll of files without change notifications.
const LIMIT: Duration = Duration::from_secs(40);

/// Waits until the log has `count` entries with a message. Returns the last of them.
async fn wait_log(proxy: &Proxy, message: &str, count: usize) -> serde_json::Value {
    let until = Instant::now() + LIMIT;
    loop {
        let mut lines = log_entries(proxy, message);
        if lines.len() >= count {
            return lines.swap_remove(count - 1);
        }
        let log = proxy.process.log();
        assert!(Instant::now() < until, "no {count} of {message:?}:\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Replaces a file atomically with a copy of another one.
fn replace(tls: &Tls, path: &Path, with: &Path) {
    let part = tls.path("part");
    std::fs::copy(with, &part).unwrap();
    std::fs::rename(&part, path).unwrap();
}

fn replace_both(tls: &Tls, cert_files: &CertFiles, with: &CertFiles) {
    replace(tls, &cert_files.cert, &with.cert);
    replace(tls, &cert_files.key, &with.key);
}

/// Copies a certificate and its key to files that the test may change.
fn copy(tls: &Tls, name: &str, of: &CertFiles) -> CertFiles {
    let read = |path: &Path| std::fs::read(path).unwrap();
    CertFiles {
        cert: tls.write(&format!("{name}.pem"), read(&of.cert)),
        key: tls.write(&format!("{name}-key.pem"), read(&of.key)),
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn server_flags(cert_files: &CertFiles) -> Vec<String> {
    let (cert, key) = (&cert_files.cert, &cert_files.key);
    vec![flag("cert-file", cert), flag("key-file", key)]
}

async fn handshake(
    proxy: &Proxy,
    config: &Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(proxy.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(config.clone());
    connector.connect(name, socket).await
}

/// Returns the certificate of the proxy in a new handshake.
async fn served_certificate(proxy: &Proxy, tls: &Tls) -> Vec<u8> {
    let stream = handshake(proxy, &tls.client_config(None)).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].to_vec()
}

fn der(cert_files: &CertFiles) -> Vec<u8> {
    CertificateDer::from_pem_file(&cert_files.cert)
        .unwrap()
        .to_vec()
}

async fn read(client: &Client) -> Option<u32> {
    let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
    reply.code()
}

/// Sends a call on a new connection. Returns whether the TLS session was resumed, or the error.
async fn call(proxy: &Proxy, config: &Arc<ClientConfig>) -> Result<bool, String> {
    let stream = handshake(proxy, config).await.map_err(|e| e.to_string())?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    read_over(stream).await.map(|()| resumed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificate_is_served_and_open_connections_continue() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let [first, second, third] = ["first", "second", "third"]
        .map(|name| tls.issue_for_server(name, &KeyPair::generate().unwrap()));
    let current = copy(&tls, "current", &first);
    let proxy = Proxy::start(&cluster, &server_flags(&current));
    let config = tls.client_config(None);
    let open = Client::connect_tls(proxy.address(), config).await.unwrap();
    assert_eq!(read(&open).await, Some(0));
    assert_eq!(served_certificate(&proxy, &tls).await, der(&first));

    replace_both(&tls, &current, &second);
    wait_log(&proxy, RELOADED, 1).await;
    assert_eq!(served_certificate(&proxy, &tls).await, der(&second));
    assert_eq!(read(&open).await, Some(0));

    // An invalid file changes nothing, and is logged once.
    std::fs::write(&current.cert, "garbage").unwrap();
    let line = wait_log(&proxy, LOAD_FAILED, 1).await;
    assert_eq!(
        (&line["level"], &line["side"]),
        (&"warn".into(), &"clients".into())
    );
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with(&flag("cert-file", &current.cert)),
        "{error}"
    );
    assert_eq!(served_certificate(&proxy, &tls).await, der(&second));
    // A certificate without its key is invalid, too.
    replace(&tls, &current.cert, &third.cert);
    let line = wait_log(&proxy, LOAD_FAILED, 2).await;
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("does not match the certificate of --key-file="),
        "{error}"
    );
    assert_eq!(served_certificate(&proxy, &tls).await, der(&second));
    std::fs::remove_file(&current.key).unwrap();
    let line = wait_log(&proxy, LOAD_FAILED, 3).await;
    assert!(
        line["error"].as_str().unwrap().contains("No such file"),
        "{line}"
    );
    assert_eq!(served_certificate(&proxy, &tls).await, der(&second));
    // SIGHUP logs the error again.
    proxy.process.signal("HUP");
    wait_log(&proxy, LOAD_FAILED, 4).await;

    replace(&tls, &current.key, &third.key);
    wait_log(&proxy, RELOADED, 2).await;
    assert_eq!(served_certificate(&proxy, &tls).await, der(&third));
    proxy.process.signal("HUP");
    wait_log(&proxy, "TLS files unchanged", 1).await;
    assert_eq!(log_entries(&proxy, LOAD_FAILED).len(), 4);
    assert_eq!(read(&open).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangup_without_tls_files_does_not_end_the_process() {
    let cluster = Cluster::start(NEWEST, 1);
    let none: [String; 0] = [];
    let proxy = Proxy::start(&cluster, &none);
    let client = Client::connect(proxy.address()).await;
    for count in 1..3 {
        proxy.process.signal("HUP");
        wait_log(&proxy, "no TLS files to reload", count).await;
        assert_eq!(read(&client).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounted_secret_is_reloaded_as_a_whole() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let mount = tls.path("mount");
    let fill = |directory: &str, cert_files: &CertFiles| {
        let directory = mount.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(&cert_files.cert, directory.join("tls.crt")).unwrap();
        std::fs::copy(&cert_files.key, directory.join("tls.key")).unwrap();
    };
    let all_cert_files = [1, 2, 3]
        .map(|n| tls.issue_for_server(&format!("mounted-{n}"), &KeyPair::generate().unwrap()));
    fill("..1", &all_cert_files[0]);
    symlink("..1", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let named = CertFiles {
        cert: mount.join("tls.crt"),
        key: mount.join("tls.key"),
    };
    let proxy = Proxy::start(&cluster, &server_flags(&named));
    for (n, cert_files) in all_cert_files.iter().enumerate() {
        if n > 0 {
            let directory = format!("..{}", n + 1);
            fill(&directory, cert_files);
            symlink(&directory, mount.join("..data_tmp")).unwrap();
            std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
            std::fs::remove_dir_all(mount.join(format!("..{n}"))).unwrap();
            wait_log(&proxy, RELOADED, n).await;
        }
        assert_eq!(served_certificate(&proxy, &tls).await, der(cert_files));
    }
    assert_eq!(log_entries(&proxy, LOAD_FAILED).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_certificates_and_removed_authorities_are_rejected() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let numbered = |name: &str, serial: u64| {
        tls.issue(name, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
        })
    };
    let (early, late) = (numbered("early", 7), numbered("late", 8));
    let list = tls.write("list", tls.revocation_list(&[]).pem().unwrap());
    let ca = tls.write("clients-ca.pem", std::fs::read(&tls.ca).unwrap());
    let mut flags = server_flags(&tls.server);
    flags.extend([flag("trusted-ca-file", &ca), flag("client-crl-file", &list)]);
    let proxy = Proxy::start(&cluster, &flags);
    // Each configuration stores its TLS sessions, like a client.
    let early = tls.client_config(Some(&early));
    let late = tls.client_config(Some(&late));
    let foreign = tls.client_config(Some(&tls.foreign_client));
    let open = Client::connect_tls(proxy.address(), early.clone()).await;
    let open = open.unwrap();
    for config in [&early, &late] {
        assert!(call(&proxy, config).await.is_ok());
        assert_eq!(call(&proxy, config).await, Ok(true));
    }
    assert!(call(&proxy, &foreign).await.is_err());

    std::fs::write(&list, tls.revocation_list(&[7]).der()).unwrap();
    wait_log(&proxy, RELOADED, 1).await;
    for _ in 0..3 {
        let refused = call(&proxy, &early).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(call(&proxy, &late).await, Ok(false));
    assert_eq!(call(&proxy, &late).await, Ok(true));

    // After an invalid list, the previous one stays in use.
    std::fs::write(&list, "no list").unwrap();
    let line = wait_log(&proxy, LOAD_FAILED, 1).await;
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with(&flag("client-crl-file", &list)),
        "{error}"
    );
    assert!(call(&proxy, &early).await.is_err());
    assert_eq!(call(&proxy, &late).await, Ok(true));
    std::fs::write(&list, tls.revocation_list(&[]).pem().unwrap()).unwrap();
    wait_log(&proxy, RELOADED, 2).await;
    assert!(call(&proxy, &early).await.is_ok());

    // The authority is replaced, which also ends the sessions that it had authenticated.
    replace(&tls, &ca, &tls.foreign_ca);
    wait_log(&proxy, RELOADED, 3).await;
    for config in [&early, &late] {
        for _ in 0..3 {
            let refused = call(&proxy, config).await;
            assert!(refused.is_err(), "{refused:?}");
        }
    }
    assert_eq!(call(&proxy, &foreign).await, Ok(false));
    // An open connection continues.
    assert_eq!(read(&open).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_for_connections_to_etcd_are_reloaded() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let current = copy(tls, "current", &tls.foreign_client);
    let ca = tls.write("current-ca.pem", std::fs::read(&tls.ca).unwrap());
    let proxy = Proxy::start_with(&[
        format!("--endpoints=https://{}", cluster.endpoint(0)),
        flag("cert", &current.cert),
        flag("key", &current.key),
        flag("cacert", &ca),
    ]);
    let client = Client::connect(proxy.address()).await;
    let within = |time: &'static str| {
        let client = client.clone();
        async move {
            let metadata = [("grpc-timeout", time)];
            let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &metadata);
            reply.await.code()
        }
    };
    assert_eq!(within("2S").await, Some(4), "etcd rejects this certificate");
    replace_both(tls, &current, &tls.client);
    wait_log(&proxy, RELOADED, 1).await;
    assert_eq!(within("20S").await, Some(0));
    // The name in this certificate would be the user of every client.
    replace_both(tls, &current, &tls.root_client);
    let line = wait_log(&proxy, LOAD_FAILED, 1).await;
    assert_eq!(line["side"], "etcd");
    let tls_metric = |name: &str| {
        let series = format!("etcd_edge_tls_{name}{{side=\"etcd\"}}");
        metric(proxy.address(), &series)
    };
    assert_eq!(tls_metric("files_unusable"), 1.0);
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("cert has non empty Common Name (root)"),
        "{error}"
    );
    // Each page of etcd is fetched over a new connection.
    let page = || http::get(proxy.address(), "/metrics").unwrap().status;
    assert_eq!(page(), 200);
    replace_both(tls, &current, &tls.client);
    replace(tls, &ca, &tls.foreign_ca);
    wait_log(&proxy, RELOADED, 2).await;
    assert_ne!(page(), 200, "etcd's certificate is not of this authority");
    assert_eq!(
        within("20S").await,
        Some(0),
        "the open connection continues"
    );
    replace(tls, &ca, &tls.ca);
    wait_log(&proxy, RELOADED, 3).await;
    assert_eq!(page(), 200);
    assert_eq!(tls_metric("files_unusable"), 0.0);
    assert_eq!(tls_metric("reloads_total"), 3.0);
    assert_eq!(tls_metric("reload_failures_total"), 1.0);
    assert!(tls_metric("handshakes_total") >= 2.0);
    assert!(tls_metric("handshake_failures_total") >= 1.0);
    assert!(tls_metric("certificate_not_after_timestamp_seconds") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_call() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let servers = ["a", "b"].map(|name| tls.issue_for_server(name, &KeyPair::generate().unwrap()));
    let clients = ["c", "d"].map(|name| tls.issue(name, |_| {}));
    let server = copy(tls, "server-now", &servers[0]);
    let client = copy(tls, "client-now", &clients[0]);
    let mut flags = server_flags(&server);
    flags.extend([
        format!("--endpoints=https://{}", cluster.endpoint(0)),
        flag("trusted-ca-file", &tls.ca),
        flag("cert", &client.cert),
        flag("key", &client.key),
        flag("cacert", &tls.ca),
    ]);
    let proxy = Arc::new(Proxy::start_with(&flags));
    // The Go client uses one connection for the whole test.
    let mut args = vec!["watch", "last"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let tls_flags = [
        ("cacert", &tls.ca),
        ("cert", &tls.client.cert),
        ("key", &tls.client.key),
    ];
    args.extend(tls_flags.map(|(name, path)| flag(name, path)));
    let endpoint = format!("https://{}", proxy.address());
    let mut watch = Process::spawn("etcdctl", &mut etcdctl_command(&endpoint, &args));

    let config = tls.client_config(Some(&tls.client));
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let mut load = Vec::new();
    for n in 0..6 {
        let (proxy, stop, calls) = (proxy.clone(), stop.clone(), calls.clone());
        let config = config.clone();
        load.push(tokio::spawn(async move {
            let open = Client::connect_tls(proxy.address(), config.clone()).await;
            let open = open.map_err(|e| e.to_string())?;
            while !stop.load(Ordering::Relaxed) {
                // Half of the clients reuse a connection, the others connect for each call.
                match n % 2 {
                    0 => match read(&open).await {
                        Some(0) => {}
                        code => return Err(format!("code {code:?}")),
                    },
                    _ => drop(call(&proxy, &config).await?),
                }
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        }));
    }
    let wait_calls = |more: usize| {
        let calls = calls.clone();
        async move {
            let goal = calls.load(Ordering::Relaxed) + more;
            let until = Instant::now() + LIMIT;
            while calls.load(Ordering::Relaxed) < goal && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    for round in 1..=ROUNDS {
        wait_calls(30).await;
        replace_both(tls, &server, &servers[round % 2]);
        replace_both(tls, &client, &clients[round % 2]);
        wait_log(&proxy, RELOADED, 2 * round).await;
        // The proxy fetches a page from etcd with the current files.
        let page = page(&proxy, &config).await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    }
    wait_calls(30).await;
    stop.store(true, Ordering::Relaxed);
    for each in load {
        let result = tokio::time::timeout(LIMIT, each).await;
        assert_eq!(result.expect("no call hangs").unwrap(), Ok(()));
    }
    let calls = calls.load(Ordering::Relaxed);
    println!("{calls} calls during {ROUNDS} changes of certificates");
    assert!(calls > 30 * ROUNDS);
    let last = Client::connect_tls(proxy.address(), config).await.unwrap();
    let put = Msg::new().bytes(1, "last").bytes(2, "seen");
    let put = last.unary("/etcdserverpb.KV/Put", put, &[]).await;
    assert_eq!(put.code(), Some(0));
    let seen = watch.wait_line(LIMIT, |line| line.contains("seen").then_some(()));
    seen.unwrap_or_else(|error| panic!("the watch did not continue: {error}"));
}

/// Fetches etcd's metrics page through the proxy.
async fn page(proxy: &Proxy, config: &Arc<ClientConfig>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut config = (**config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = handshake(proxy, &Arc::new(config)).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    String::from_utf8_lossy(&response).into_owned()
}
