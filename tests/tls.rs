//! Tests of TLS on both sides: endpoints with and without TLS, the authorities that the proxy
//! trusts, client authentication, and the negotiated protocol.

mod support;

#[path = "tls/auto_tls.rs"]
mod auto_tls;
#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/endpoint_hints.rs"]
mod endpoint_hints;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/negotiation.rs"]
mod negotiation;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use support::cluster::Cluster;
use support::grpc::{Client, Reply};
use support::http as raw;
use support::pb::{self, Msg};
use support::proxy::Proxy;
use support::proxy_output::log_entries;
use support::release::NEWEST;
use support::scripted_etcd::framed;
use support::tls::{CertFiles, Tls, read_over};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsConnector;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Sends a plaintext read through a proxy.
async fn read(proxy: &Proxy) -> Reply {
    let client = Client::connect(proxy.address()).await;
    client
        .unary(RANGE, Msg::new().bytes(1, "k"), &[("grpc-timeout", "2S")])
        .await
}

fn cert_flags(identity: &CertFiles) -> [String; 2] {
    [
        format!("--cert={}", identity.cert.display()),
        format!("--key={}", identity.key.display()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_to_etcd_needs_a_trusted_ca_and_an_accepted_certificate() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let https = format!("--endpoints=https://{}", cluster.endpoint(0));
    let bare = format!("--endpoints={}", cluster.endpoint(0));
    let localhost = https.replace("127.0.0.1", "localhost");
    let http = https.replace("https", "http");
    let ca = format!("--cacert={}", tls.ca.display());
    let foreign_ca = format!("--cacert={}", tls.foreign_ca.display());
    let skip = "--insecure-skip-tls-verify".to_owned();
    let none: [String; 0] = [];
    let own = cert_flags(&tls.client).to_vec();
    let foreign = cert_flags(&tls.foreign_client).to_vec();
    let works = |first: &String, more: &[&[String]]| {
        let flags: Vec<String> = [&[first.clone()][..], &more.concat()].concat();
        (flags, true)
    };
    let fails = |first: &String, more: &[&[String]]| {
        let (flags, _) = works(first, more);
        (flags, false)
    };
    let (ca, foreign_ca, skip) = ([ca], [foreign_ca], [skip]);
    let cases = [
        works(&https, &[&ca, &own]),
        // The certificate is valid for this name, too.
        works(&localhost, &[&ca, &own]),
        // An endpoint without a scheme uses TLS if any TLS flag is set.
        works(&bare, &[&ca, &own]),
        works(&bare, &[&skip, &own]),
        works(&https, &[&skip, &own]),
        fails(&https, &[&foreign_ca, &own]),
        // The system's authorities have not signed this certificate.
        fails(&https, &[&own]),
        fails(&https, &[&ca, &none]),
        fails(&https, &[&ca, &foreign]),
        // http is plaintext, regardless of other flags.
        fails(&http, &[&ca, &own]),
        fails(&bare, &[&none]),
    ];
    for (flags, good) in cases {
        let proxy = Proxy::start_with(&flags);
        let begun = Instant::now();
        let reply = read(&proxy).await;
        let warned = log_entries(
            &proxy,
            "--insecure-skip-tls-verify: etcd's certificate is not verified",
        );
        let skips = flags.iter().any(|flag| flag.contains("skip"));
        assert_eq!(warned.len(), usize::from(skips), "{flags:?}");
        if good {
            assert_eq!(reply.code(), Some(0), "{flags:?}: {reply:?}");
            let page = raw::get(proxy.address(), "/metrics").unwrap();
            assert_eq!(
                page.status, 200,
                "pages of a member need TLS too: {}",
                page.body
            );
            continue;
        }
        // The deadline is shorter than the wait for an endpoint.
        assert_eq!(reply.code(), Some(4), "{flags:?}: {reply:?}");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{flags:?}");
        let trouble: Vec<_> = ["endpoint unreachable", "connection to endpoint lost"]
            .iter()
            .flat_map(|message| log_entries(&proxy, message))
            .collect();
        let [first, ..] = &trouble[..] else {
            panic!("{flags:?}: nothing in the log:\n{}", proxy.process.tail())
        };
        assert_eq!(first["level"], "warn");
        assert!(
            first["error"].as_str().is_some_and(|e| !e.is_empty()),
            "{first}"
        );
        println!("{}", first["error"]);
        let port = cluster.endpoint(0).split_off(10);
        assert!(
            first["endpoint"].as_str().unwrap().ends_with(&port),
            "{first}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untrusted_etcd_certificate_ends_in_unavailable_and_a_logged_error() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let mut flags = vec![
        format!("--endpoints=https://{}", cluster.endpoint(0)),
        format!("--cacert={}", tls.foreign_ca.display()),
    ];
    flags.extend(cert_flags(&tls.client));
    let proxy = Proxy::start_with(&flags);
    let connection = support::load::H2Connection::connect(proxy.address())
        .await
        .unwrap();
    let result = connection
        .unary(PUT, Msg::new().bytes(1, "k").as_ref(), None)
        .await;
    assert_eq!(result.code, Some(14), "{result:?}");
    let dials = log_entries(&proxy, "endpoint unreachable");
    let error = dials[0]["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_socket_is_accepted_as_an_endpoint() {
    let cluster = Cluster::start(NEWEST, 1);
    let dir = support::exit_cleanup::temp_dir();
    let path = dir.path().join("etcd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let etcd = cluster.endpoint(0);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&etcd).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let proxy = Proxy::start_with(&[format!("--endpoints=unix://{}", path.display())]);
    let reply = read(&proxy).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    assert_eq!(raw::get(proxy.address(), "/health").unwrap().status, 200);
    assert_eq!(raw::get(proxy.address(), "/metrics").unwrap().status, 200);
}

/// Starts a TLS proxy in front of a plaintext etcd.
fn secure(cluster: &Cluster, tls: &Tls, server: &CertFiles, ca: bool) -> Proxy {
    let ca = ca.then(|| format!("--trusted-ca-file={}", tls.ca.display()));
    secure_with(cluster, server, ca.as_slice())
}

fn secure_with(cluster: &Cluster, server: &CertFiles, flags: &[String]) -> Proxy {
    Proxy::start(cluster, &[&server_flags(server)[..], flags].concat())
}

/// Checks that a proxy with these flags does not start, and that its output begins with `line`.
fn assert_start_fails(flags: &[String], line: &str) {
    let mut process = Proxy::spawn(flags);
    let line = format!("etcd-edge: {line}");
    let found = process.wait_line(Duration::from_secs(20), |output| {
        output.starts_with(&line).then_some(())
    });
    found.unwrap_or_else(|error| panic!("no {line:?} from {error}"));
    assert_eq!(process.wait(Duration::from_secs(20)).code(), Some(1));
}

fn server_flags(server: &CertFiles) -> [String; 2] {
    [
        format!("--cert-file={}", server.cert.display()),
        format!("--key-file={}", server.key.display()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_required_only_with_a_trusted_ca() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let clients = [
        None,
        Some(&tls.client),
        Some(&tls.root_client),
        Some(&tls.foreign_client),
    ];
    for (requires, accepted) in [(false, [true; 4]), (true, [false, true, true, false])] {
        let proxy = secure(&cluster, &tls, &tls.server, requires);
        for (identity, accepted) in clients.iter().zip(accepted) {
            let call = call_tls(&proxy, &tls, *identity).await;
            assert_eq!(
                call.is_ok(),
                accepted,
                "requires {requires}, {identity:?}: {call:?}"
            );
            // HTTP pages have the same requirement.
            let page = page_tls(&proxy, &tls, *identity).await;
            assert_eq!(
                page.is_ok(),
                accepted,
                "requires {requires}, {identity:?}: {page:?}"
            );
        }
        // A plaintext connection fails.
        assert!(raw::get(proxy.address(), "/health").is_err());
        let page = page_tls(&proxy, &tls, Some(&tls.client)).await;
        assert!(page.is_ok_and(|page| page.contains(r#"{"health":"true""#)));
        let again = call_tls(&proxy, &tls, Some(&tls.client)).await;
        assert!(again.is_ok(), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alpn_offers_both_protocols_and_prefers_h2() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let proxy = secure(&cluster, &tls, &tls.server, false);
    type Name = &'static [u8];
    let cases: [(&[Name], Option<Name>); 5] = [
        (&[b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"h2", b"http/1.1"], Some(b"h2")),
        (&[], None),
    ];
    for (offered, chosen) in cases {
        let stream = handshake(&proxy, &tls, None, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        if chosen != Some(b"h2") {
            let response = http1(stream, "/proxy/metrics").await.unwrap();
            assert!(
                response.starts_with("HTTP/1.1 200"),
                "{offered:?}: {response}"
            );
        }
    }
    // An unsupported protocol.
    let spdy = handshake(&proxy, &tls, None, &[b"spdy/3"]).await;
    assert!(spdy.is_err(), "no protocol in common");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_both_sides_carries_much_data() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let flags = [
        format!("--cert-file={}", tls.server.cert.display()),
        format!("--key-file={}", tls.server.key.display()),
        format!("--trusted-ca-file={}", tls.ca.display()),
    ];
    let proxy = Proxy::start(&cluster, &flags);
    let config = tls.client_config(Some(&tls.client));
    let client = Client::connect_tls(proxy.address(), config).await.unwrap();
    for n in 0..20usize {
        let value: Vec<u8> = (0..n * 70_000).map(|at| (at * (n + 1)) as u8).collect();
        let put = Msg::new().bytes(1, "k").bytes(2, &value);
        assert_eq!(client.unary(PUT, put, &[]).await.code(), Some(0));
        let reply = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
        assert!(
            pb::bytes(reply.only(), &[2, 5]) == value,
            "{n}: the value changed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_that_does_not_speak_tls_is_skipped() {
    // One member uses TLS. The other endpoint sends data of another protocol.
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let noise = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = noise.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = noise.accept().await {
            let _ = stream.write_all(b"220 smtp ready\r\n").await;
        }
    });
    let mut flags = vec![
        format!(
            "--endpoints=https://{address},https://{}",
            cluster.endpoint(0)
        ),
        format!("--cacert={}", tls.ca.display()),
    ];
    flags.extend(cert_flags(&tls.client));
    for _ in 0..4 {
        let proxy = Proxy::start_with(&flags);
        let reply = read(&proxy).await;
        assert_eq!(reply.code(), Some(0), "{reply:?}");
    }
}

async fn handshake(
    proxy: &Proxy,
    tls: &Tls,
    identity: Option<&CertFiles>,
    protocols: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = (*tls.client_config(identity)).clone();
    config.alpn_protocols = protocols.iter().map(|each| each.to_vec()).collect();
    handshake_with(proxy, Arc::new(config), "localhost").await
}

async fn handshake_with(
    proxy: &Proxy,
    config: Arc<rustls::ClientConfig>,
    name: &'static str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy.address()).await?;
    let name = ServerName::try_from(name).expect("a name");
    TlsConnector::from(config).connect(name, stream).await
}

/// Sends one call over TLS. With TLS 1.3, a client learns of a rejection only with the first
/// response.
async fn call_tls(proxy: &Proxy, tls: &Tls, identity: Option<&CertFiles>) -> Result<(), String> {
    let stream = handshake(proxy, tls, identity, &[b"h2"])
        .await
        .map_err(|e| e.to_string())?;
    read_over(stream).await
}

async fn page_tls(
    proxy: &Proxy,
    tls: &Tls,
    identity: Option<&CertFiles>,
) -> Result<String, String> {
    let stream = handshake(proxy, tls, identity, &[b"http/1.1"]).await;
    let stream = stream.map_err(|e| e.to_string())?;
    let response = http1(stream, "/health").await.map_err(|e| e.to_string())?;
    match response.starts_with("HTTP/1.1 200") {
        true => Ok(response),
        false => Err(response),
    }
}

async fn http1<T>(mut stream: T, path: &str) -> std::io::Result<String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// TLS may encrypt more data at once than a socket accepts. All of it arrives once the client reads
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffered_tls_data_is_sent_to_a_client_that_paused() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let flags = [
        format!("--endpoints=https://{}", cluster.endpoint(0)),
        format!("--cacert={}", tls.ca.display()),
        format!("--cert={}", tls.client.cert.display()),
        format!("--key={}", tls.client.key.display()),
        format!("--cert-file={}", tls.server.cert.display()),
        format!("--key-file={}", tls.server.key.display()),
    ];
    let proxy = Proxy::start_with(&flags);
    let writer = Client::connect_tls(proxy.address(), tls.client_config(None)).await;
    let value: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let put = Msg::new().bytes(1, "k").bytes(2, &value);
    let put = writer.expect("a handshake").unary(PUT, put, &[]).await;
    assert_eq!(put.code(), Some(0), "{put:?}");

    let stream = handshake(&proxy, tls, None, &[b"h2"]).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 24)
        .initial_connection_window_size(1 << 30);
    let (send, mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let responses: Vec<_> = (0..32)
        .map(|_| {
            let request = http::Request::post(format!("https://localhost{RANGE}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let (response, mut body) = send.clone().send_request(request, false).unwrap();
            body.send_data(framed(Msg::new().bytes(1, "k").as_ref()), true)
                .unwrap();
            response
        })
        .collect();
    // The client sends its requests, then stops reading: every buffer on the path fills up.
    let _ = tokio::time::timeout(Duration::from_millis(50), &mut connection).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::spawn(connection);
    for response in responses {
        let whole = async {
            let mut body = response.await.unwrap().into_body();
            let mut bytes = 0;
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                bytes += chunk.len();
            }
            assert!(bytes > value.len(), "{bytes}");
        };
        let read = tokio::time::timeout(Duration::from_secs(20), whole).await;
        read.expect("the response arrives");
    }
}
