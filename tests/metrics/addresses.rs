//! Tests of `--metrics-addr`: the same pages on other addresses and nothing else, with and without
//! TLS, until the end of a drain.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etcd_edge::limits;

use crate::page::Page;
use crate::support::grpc::Client;
use crate::support::heartbeats;
use crate::support::http;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::tls::CertFiles;
use crate::{LIMIT, RANGE, cluster, urls};

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";

/// Fetches a URL with curl. Returns the status, the HTTP version and the body.
fn curl(args: &[&str], url: &str) -> Option<(String, String, String)> {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "10", "--noproxy", "*"])
        .args(["--write-out", "\n%{response_code} %{http_version}"])
        .args(args)
        .arg(url)
        .output()
        .expect("curl starts");
    if !output.status.success() {
        return None;
    }
    let output = String::from_utf8(output.stdout).expect("text");
    let (body, about) = output.rsplit_once('\n')?;
    let (code, version) = about.split_once(' ')?;
    Some((code.to_owned(), version.to_owned(), body.to_owned()))
}

fn server_flags(identity: &CertFiles) -> [String; 2] {
    [
        format!("--cert-file={}", identity.cert.display()),
        format!("--key-file={}", identity.key.display()),
    ]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pages_are_served_on_every_address() {
    let tls = cluster().tls();
    let mut flags = server_flags(&tls.server).to_vec();
    flags.push("--metrics-addr=http://127.0.0.1:0,https://127.0.0.1:0/".to_owned());
    // The values of several flags are combined.
    flags.push("--metrics-addr=http://localhost:0".to_owned());
    let proxy = Proxy::start(cluster(), &flags);
    let urls = urls(&proxy);
    let [plain, secure, named] = &urls[..] else {
        panic!("{urls:?}")
    };
    assert!(plain.starts_with("http://127.0.0.1:") && named.starts_with("http://"));
    assert!(secure.starts_with("https://127.0.0.1:"));
    let trust = ["--cacert", text(&tls.ca)];
    for (url, args, version) in [
        (plain, &["--http1.1"][..], "1.1"),
        (plain, &["--http2-prior-knowledge"], "2"),
        (named, &["--http1.1"], "1.1"),
        (secure, &["--http1.1"], "1.1"),
        (secure, &["--http2"], "2"),
    ] {
        let get = |path: &str, more: &[&str]| {
            let args = [args, &trust, more].concat();
            let response = curl(&args, &format!("{url}{path}"));
            response.unwrap_or_else(|| panic!("{url}{path} {args:?}"))
        };
        let healthy = r#"{"health":"true","reason":""}"#;
        for (path, code, part) in [
            ("/health", "200", healthy),
            ("/proxy/health", "200", healthy),
            ("/livez?verbose", "200", "[+]serializable_read ok\nok\n"),
            ("/readyz?verbose", "200", "[+]data_corruption ok\n"),
            ("/readyz/linearizable_read", "200", "ok"),
            ("/readyz/unknown", "404", "404 page not found"),
            ("/proxy/livez", "200", "ok"),
            ("/proxy/readyz?verbose", "200", "[+]watch ok\n"),
            ("/metrics", "200", "etcd_server_has_leader 1"),
            ("/proxy/metrics", "200", "etcd_edge_build_info{"),
            ("/proxy/status", "200", "\"endpoints\""),
            ("/nothing", "404", "404 page not found"),
        ] {
            let (status, by, body) = get(path, &[]);
            assert_eq!((&status[..], &by[..]), (code, version), "{url}{path}");
            assert!(body.contains(part), "{url}{path}: {body}");
        }
        let refused = get("/health", &["--request", "POST"]);
        assert_eq!(refused.0, "405", "{url}");
        for path in ["/", "/nothing", "/health", "/readyz", "/proxy/livez"] {
            let options = get(path, &["--request", "OPTIONS"]);
            assert_eq!(options.0, "200", "{url}{path}");
        }
        let any_path = get("", &["--request", "OPTIONS", "--request-target", "*"]);
        assert_eq!(any_path.0, "200", "{url}");
        let head = get("/health", &["--head"]);
        assert_eq!(head.0, "200", "{url}");
    }
    // Only pages are served on these addresses: a gRPC call is refused.
    let pages = plain.trim_start_matches("http://");
    let client = Client::connect(pages).await;
    let mut call = client.call(RANGE, &[]).await;
    call.send(Msg::new().bytes(1, "k")).await;
    call.half_close();
    let (reply, _page) = call.finish_cut().await;
    assert_eq!((reply.http_status, reply.code()), (404, None));
    let page = Page::of(pages);
    assert_eq!(page.sum("grpc_server_started_total"), 0.0);
    assert_eq!(page.sum("etcd_edge_connections_accepted_total"), 0.0);
    assert_eq!(page.sum("etcd_edge_admin_connections"), 2.0);
}

#[test]
fn https_pages_require_client_certificates_like_the_client_port() {
    let tls = cluster().tls();
    let mut flags = server_flags(&tls.server).to_vec();
    flags.push(format!("--trusted-ca-file={}", tls.ca.display()));
    flags.push("--metrics-addr=https://127.0.0.1:0,http://127.0.0.1:0".to_owned());
    let proxy = Proxy::start(cluster(), &flags);
    let urls = urls(&proxy);
    let get = |url: &str, args: &[&str]| {
        let args = [&["--cacert", text(&tls.ca)], args].concat();
        curl(&args, &format!("{url}/proxy/metrics")).map(|(code, ..)| code)
    };
    let get_with = |identity: &CertFiles| {
        let (cert, key) = (text(&identity.cert), text(&identity.key));
        get(&urls[0], &["--cert", cert, "--key", key])
    };
    assert_eq!(get(&urls[0], &[]), None);
    assert_eq!(get_with(&tls.foreign_client), None);
    assert_eq!(get_with(&tls.client).as_deref(), Some("200"));
    assert_eq!(get(&urls[1], &[]).as_deref(), Some("200"));
    let pages = urls[1].trim_start_matches("http://");
    let side = r#"{side="clients"}"#;
    let page = Page::of(pages);
    let of = |name: &str| page.series[&format!("{name}{side}")];
    assert_eq!(of("etcd_edge_tls_handshakes_total"), 1.0);
    assert_eq!(of("etcd_edge_tls_handshake_failures_total"), 2.0);
    // The certificates of the tests are valid for a day at least.
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    assert!(of("etcd_edge_tls_certificate_not_after_timestamp_seconds") > now as f64 + 80_000.0);
}

#[test]
fn unusable_metrics_address_is_named_in_the_error() {
    let used = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let used = format!("http://{}", used.local_addr().expect("its address"));
    for (value, error) in [
        (&used[..], "ddress already in use"),
        ("http://no.such.host.invalid:1", ""),
    ] {
        let flag = format!("--metrics-addr=http://127.0.0.1:0,{value}");
        let mut process = Proxy::spawn(&["--endpoints=127.0.0.1:1", &flag]);
        assert!(!process.wait(LIMIT).success());
        let log = process.log();
        assert!(
            log.contains(&format!("--metrics-addr={value}")) && log.contains(error),
            "{log}"
        );
    }
}

/// Requests a page on a persistent connection, like Prometheus. Returns the status line.
fn get_page(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("an open connection");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("a response");
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_served_until_the_end_of_a_drain() {
    let flags = ["--metrics-addr=http://127.0.0.1:0", "--drain-timeout=30s"];
    let mut proxy = Proxy::start(cluster(), &flags);
    let pages = urls(&proxy).remove(0);
    let pages = pages.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&pages).expect("a listener");
    assert_eq!(get_page(&mut stream, "/health"), "HTTP/1.1 200 OK");

    // A call that stays open: it waits for a lock that a client of another proxy owns.
    let other_proxy = Proxy::start(cluster(), &["--advertise-client-url="]);
    let owner = Client::connect(other_proxy.address()).await;
    let name = |lease| Msg::new().bytes(1, "lock").int(2, lease);
    let lease = heartbeats::grant(&owner, 60).await;
    let held = owner.unary(LOCK, name(lease), &[]).await;
    let key = pb::bytes(held.only(), &[2]);
    let client = Client::connect(proxy.address()).await;
    let mut waiting = client.call(LOCK, &[]).await;
    waiting
        .send(name(heartbeats::grant(&owner, 60).await))
        .await;
    waiting.half_close();
    Page::when(&pages, |page| page.sum("etcd_edge_open_calls") == 1.0);

    proxy.process.signal("TERM");
    let until = std::time::Instant::now() + LIMIT;
    while TcpStream::connect(proxy.address()).is_ok() {
        assert!(
            std::time::Instant::now() < until,
            "clients can still connect"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    for path in [
        "/health",
        "/livez",
        "/readyz",
        "/proxy/health",
        "/proxy/livez",
        "/proxy/metrics",
    ] {
        let page = http::get(&pages, path).expect("a response");
        assert_eq!(page.status, 200, "{path}: {}", page.body);
    }
    let page = http::get(&pages, "/proxy/readyz").expect("a response");
    let reason = "[-]accepts_calls failed: etcd-edge is shutting down\n";
    assert!(
        page.status == 503 && page.body.starts_with(reason),
        "{page:?}"
    );
    let by_http2 = curl(
        &["--http2-prior-knowledge"],
        &format!("http://{pages}/health"),
    );
    assert_eq!(by_http2.expect("a response").0, "200");
    let page = Page::of(&pages);
    assert_eq!(page.sum("etcd_edge_open_calls"), 1.0);

    let unlocked = owner.unary(UNLOCK, Msg::new().bytes(1, &key), &[]).await;
    assert_eq!(unlocked.code(), Some(0), "{unlocked:?}");
    let reply = waiting.finish().await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    assert!(proxy.process.wait(LIMIT).success());
    assert!(proxy.process.log().contains("\"drained\""));
    TcpStream::connect(&pages).expect_err("no listener");
}

#[test]
fn limit_on_page_connections_does_not_affect_clients() {
    let proxy = Proxy::start(cluster(), &["--metrics-addr=http://127.0.0.1:0"]);
    let pages = urls(&proxy).remove(0);
    let pages = pages.trim_start_matches("http://");
    let connect = || {
        let stream = TcpStream::connect(pages).expect("a listener");
        stream.set_read_timeout(Some(LIMIT)).expect("a socket");
        stream
    };
    let open: Vec<TcpStream> = (0..limits::MAX_ADMIN_CONNECTIONS)
        .map(|_| connect())
        .collect();
    let most = limits::MAX_ADMIN_CONNECTIONS as f64;
    // All of them have been accepted, so the next one exceeds the limit.
    let all = |page: &Page| page.sum("etcd_edge_admin_connections") == most;
    Page::when(proxy.address(), all);
    let mut late = connect();
    assert!(matches!(late.read(&mut [0]), Ok(0) | Err(_)));
    let page = Page::of(proxy.address());
    assert_eq!(page.sum("etcd_edge_admin_connections_refused_total"), 1.0);
    assert_eq!(page.sum("etcd_edge_connections_refused_total"), 0.0);
    assert_eq!(page.sum("etcd_edge_admin_connections"), most);
    drop(open);
    Page::when(proxy.address(), |page| {
        page.sum("etcd_edge_admin_connections") == 0.0
    });
    assert_eq!(http::get(pages, "/health").expect("its page").status, 200);
}
