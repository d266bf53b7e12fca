//! The HTTP pages on the client port: over HTTP/1.1 and HTTP/2, plaintext and TLS, with a running,
//! a killed and a stopped etcd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::RANGE;
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::http as http1;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::tls::Tls;

/// HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    Http1,
    Http2,
}

struct Page {
    status: u16,
    headers: HeaderMap,
    body: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_equal_over_every_protocol() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let plain = Proxy::start(&cluster, &["--advertise-client-url="]);
    let secure = Proxy::start(
        &cluster,
        &[
            format!("--cert-file={}", tls.server.cert.display()),
            format!("--key-file={}", tls.server.key.display()),
        ],
    );
    for (proxy, config) in [(&plain, None), (&secure, Some(&tls))] {
        for version in [Version::Http1, Version::Http2] {
            let get = |path: &'static str| fetch(proxy, config, version, Method::GET, path);
            let what = format!("{version:?}, TLS {}", config.is_some());

            for path in ["/health", "/proxy/health"] {
                let page = get(path).await;
                assert_eq!(
                    (page.status, &page.body[..]),
                    (200, r#"{"health":"true","reason":""}"#),
                    "{what} {path}"
                );
                let page = get("/health?serializable=true").await;
                assert_eq!(page.status, 200, "{what}: a query changes nothing");
            }
            let page = get("/metrics").await;
            assert_eq!(page.status, 200, "{what}");
            assert!(
                page.body.contains("etcd_server_has_leader 1"),
                "{what}: etcd's metrics"
            );
            let page = get("/proxy/metrics").await;
            assert_eq!(page.status, 200, "{what}");
            assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4");
            assert!(
                !page.body.contains("etcd_server_has_leader"),
                "{what}: no metrics of etcd"
            );
            for family in [
                "process_resident_memory_bytes",
                "etcd_edge_connections ",
                "etcd_edge_open_calls ",
                "etcd_edge_endpoint_picked_total{",
            ] {
                assert!(page.body.contains(family), "{what}: {family}");
            }
            for path in [
                "/",
                "/nothing",
                "/healthz",
                "/metrics/",
                "/debug/pprof/",
                "/etcdserverpb.KV/Range",
            ] {
                let page = get(path).await;
                assert_eq!(
                    (page.status, page.body.trim_end()),
                    (404, "404 page not found"),
                    "{what} {path}"
                );
            }
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                for path in ["/health", "/proxy/health"] {
                    let page = fetch(proxy, config, version, method.clone(), path).await;
                    assert_eq!(page.status, 405, "{what} {method} {path}");
                    let allowed = &page.headers["allow"];
                    assert_eq!(allowed, "GET, HEAD, OPTIONS", "{what} {method} {path}");
                }
                let page = fetch(proxy, config, version, method.clone(), "/nothing").await;
                assert_eq!(page.status, 404, "{what} {method}");
            }
            for path in ["/livez", "/readyz", "/proxy/livez", "/proxy/readyz"] {
                let page = get(path).await;
                assert_eq!(
                    (page.status, &page.body[..]),
                    (200, "ok\n"),
                    "{what} {path}"
                );
                let page = fetch(proxy, config, version, Method::HEAD, path).await;
                assert_eq!((page.status, &page.body[..]), (200, ""), "{what} {path}");
            }
            for path in ["*", "/", "/nothing", "/health", "/readyz"] {
                if path == "*" && version == Version::Http2 {
                    // The client crate does not send it; tests of `--metrics-addr` do, with curl.
                    continue;
                }
                let page = fetch(proxy, config, version, Method::OPTIONS, path).await;
                assert_eq!(page.status, 200, "{what} OPTIONS {path}");
            }
            for method in [Method::HEAD, Method::POST] {
                for path in ["/metrics", "/proxy/metrics"] {
                    let page = fetch(proxy, config, version, method.clone(), path).await;
                    assert_eq!(page.status, 200, "{what} {method} {path}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_pages_share_a_connection_and_are_counted() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let client = Client::connect(proxy.address()).await;
    for _ in 0..7 {
        let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
        assert_eq!(reply.code(), Some(0));
    }
    let page = fetch(&proxy, None, Version::Http1, Method::GET, "/proxy/metrics")
        .await
        .body;
    let labels = r#"grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    for line in [
        format!("grpc_server_started_total{{{labels}}} 7"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 7"),
        "etcd_edge_open_calls 0".to_owned(),
    ] {
        assert!(page.lines().any(|each| each == line), "{line}:\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_http1_connection_serves_many_pages() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        for (path, status) in [("/proxy/metrics", 200), ("/nothing", 404)] {
            send.ready().await.unwrap();
            let request = http::Request::get(path)
                .header("host", "x")
                .body(Empty::<Bytes>::new());
            let response = send.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_http_gets_no_response_and_affects_no_other() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"\0\0\0\0\n",
        b"PRI * HTTP/9\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, noise)
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream)
            .await
            .unwrap();
        let mut received = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut received);
        let read = tokio::time::timeout(Duration::from_secs(15), read).await;
        assert!(read.is_ok(), "the connection stays open after {noise:?}");
        let received = String::from_utf8_lossy(&received).into_owned();
        assert!(
            received.is_empty() || received.starts_with("HTTP/1.1 400"),
            "{noise:?}: {received}"
        );
    }
    assert_eq!(
        http1::get(proxy.address(), "/proxy/metrics")
            .unwrap()
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_pages_report_an_outage_in_time() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    assert_eq!(http1::get(proxy.address(), "/health").unwrap().status, 200);
    for state in ["stopped", "down"] {
        match state {
            "stopped" => cluster.stop(0),
            _ => cluster.kill(0),
        }
        // A result stays valid for a moment.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for path in ["/health", "/proxy/health"] {
            let begun = Instant::now();
            let page = http1::get(proxy.address(), path).unwrap();
            let took = begun.elapsed();
            assert_eq!(page.status, 503, "{state} {path}: {}", page.body);
            let body: serde_json::Value = serde_json::from_str(&page.body).unwrap();
            assert_eq!(body["health"], "false");
            let reason = body["reason"].as_str().unwrap();
            assert!(
                reason.starts_with("GET ERROR:") && reason.len() > 12,
                "{reason}"
            );
            println!("{state}: {path} after {took:?}: {reason}");
            assert!(
                took < Duration::from_secs(4),
                "{state} {path} took {took:?}"
            );
        }
        if state == "down" {
            let page = http1::get(proxy.address(), "/metrics").unwrap();
            assert_eq!(page.status, 503);
            assert!(
                page.body.contains(&cluster.endpoint(0)),
                "no member address: {}",
                page.body
            );
        }
        let page = http1::get(proxy.address(), "/proxy/metrics").unwrap();
        assert_eq!(page.status, 200, "the proxy's metrics need no etcd");
        if state == "stopped" {
            cluster.resume(0);
            cluster.wait_healthy(0);
        } else {
            cluster.restart(0);
        }
        let until = Instant::now() + Duration::from_secs(20);
        while http1::get(proxy.address(), "/health").unwrap().status != 200 {
            assert!(Instant::now() < until, "{state}: no recovery");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_auth_is_healthy() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    for path in ["/health", "/proxy/health"] {
        let page = http1::get(proxy.address(), path).unwrap();
        assert_eq!(
            (page.status, &page.body[..]),
            (200, r#"{"health":"true","reason":""}"#),
            "{path}"
        );
    }
}

async fn fetch(
    proxy: &Proxy,
    tls: Option<&Tls>,
    version: Version,
    method: Method,
    path: &str,
) -> Page {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    match tls {
        None => send(stream, "http", version, method, path).await,
        Some(tls) => {
            let mut config = (*tls.client_config(None)).clone();
            let alpn: &[u8] = if version == Version::Http2 {
                b"h2"
            } else {
                b"http/1.1"
            };
            config.alpn_protocols = vec![alpn.to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = "localhost".try_into().unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
            send(stream, "https", version, method, path).await
        }
    }
}

async fn send<T>(stream: T, scheme: &str, version: Version, method: Method, path: &str) -> Page
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = http::Request::builder().method(method);
    match version {
        Version::Http1 => {
            let (mut send, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request = request.uri(path).header("host", "localhost");
            let response = send
                .send_request(request.body(Empty::<Bytes>::new()).unwrap())
                .await
                .unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            page(head.status.as_u16(), head.headers, &body)
        }
        Version::Http2 => {
            let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let request = request
                .uri(format!("{scheme}://localhost{path}"))
                .body(())
                .unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                let _ = body.flow_control().release_capacity(data.len());
                all.extend_from_slice(&data);
            }
            page(head.status.as_u16(), head.headers, &all)
        }
    }
}

fn page(status: u16, headers: HeaderMap, body: &[u8]) -> Page {
    let body = String::from_utf8(body.to_vec()).expect("text");
    Page {
        status,
        headers,
        body,
    }
}
