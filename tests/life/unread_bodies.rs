//! Responses that begin before the request has ended: pages for requests with a body, and refused
//! calls. Clients receive their status, as from etcd (RFC 9113 section 8.1).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::h2_frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, frame, header_block,
};
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::tls::{CertFiles, Tls};

const LIMIT: Duration = Duration::from_secs(5);

/// Sends a file as the body of a POST. Returns the status, and whether curl reports success.
fn curl(identity: &CertFiles, protocol: &str, url: &str, body: &Path) -> (String, bool) {
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--noproxy", "*", "--max-time"])
        .args(["20", "--output", "/dev/null", "--write-out", "%{http_code}"])
        // Without it, curl waits for `100 Continue` over HTTP/1.1 and does not send large bodies.
        .args(["--header", "Expect:", protocol, url])
        .arg("--cert")
        .arg(&identity.cert)
        .arg("--key")
        .arg(&identity.key)
        .arg("--data-binary")
        .arg(format!("@{}", body.display()))
        .output()
        .expect("curl starts");
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    (status, output.status.success())
}

/// curl 7.88 lost about half of these responses over HTTP/2.
#[test]
fn curl_gets_the_status_of_a_page_for_every_body() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("curl is not installed");
        return;
    }
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = Tls::generate();
    let mut flags = cluster.proxy_flags();
    let plain = Proxy::start_with(&flags);
    flags.push(format!("--cert-file={}", tls.server.cert.display()));
    flags.push(format!("--key-file={}", tls.server.key.display()));
    let secure = Proxy::start_with(&flags);
    let plain_url = format!("http://{}", plain.address());
    let secure_url = format!("https://{}", secure.address());
    let etcd_url = format!("https://{}", cluster.endpoint(0));
    // etcd requires a certificate, the proxy requests none.
    let curl =
        |protocol: &str, url: &str, body: &Path| curl(&cluster.tls().client, protocol, url, body);
    std::thread::scope(|scope| {
        for size in [1, 100 * 1024, 1024 * 1024] {
            let (plain_url, secure_url, etcd_url, curl) =
                (&plain_url, &secure_url, &etcd_url, &curl);
            let body = tls.write(&format!("body-{size}"), vec![b'x'; size]);
            scope.spawn(move || {
                for n in 0..50 {
                    let at_etcd = curl("--http2", &format!("{etcd_url}/health"), &body);
                    assert_eq!(at_etcd, ("405".to_owned(), true), "etcd, {size}");
                    for (protocol, url) in [
                        ("--http2-prior-knowledge", plain_url),
                        ("--http2", secure_url),
                        ("--http1.1", plain_url),
                    ] {
                        let what = format!("{protocol} {url} {size}, request {n}");
                        let page = curl(protocol, &format!("{url}/health"), &body);
                        assert_eq!(page, at_etcd, "{what}");
                        let page = curl(protocol, &format!("{url}/v3/kv/range"), &body);
                        assert_eq!(page, ("404".to_owned(), true), "{what}");
                        let page = curl(protocol, &format!("{url}/proxy/metrics"), &body);
                        // On a busy machine the body may end after the response. curl 7.88 then
                        // reports an error even after status 200, with etcd too.
                        assert_eq!(page.0, "200", "{what}");
                    }
                }
            });
        }
    });
}

fn post(stream: u32, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ];
    let block = header_block(&[&pseudo, fields].concat());
    frame(HEADERS, END_HEADERS, stream, &block)
}

#[test]
fn slow_body_does_not_hold_back_the_response() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    // A body that ends in time: the response is complete and nothing is reset.
    let mut client = Raw::connect(proxy.address(), &[]);
    client.write(&post(1, "/nothing", &[]));
    let begun = Instant::now();
    client.write(&frame(DATA, 0, 1, b"x"));
    let head = client.wait(LIMIT, |frame| frame.stream == 1);
    println!("response after {:?}", begun.elapsed());
    assert_eq!(head.kind, HEADERS);
    let end = client.wait(LIMIT, |frame| frame.stream == 1);
    assert_eq!((end.kind, end.flags & END_STREAM), (DATA, END_STREAM));
    for _ in 0..10 {
        client.write(&frame(DATA, 0, 1, b"x"));
        std::thread::sleep(Duration::from_millis(50));
    }
    client.write(&frame(DATA, END_STREAM, 1, b"x"));
    while let Some(frame) = client.next(Duration::from_millis(300)) {
        assert_ne!(frame.stream, 1, "{frame:?}");
    }
    // A body without end is cut off, after the response and without an error.
    client.write(&post(3, "/nothing", &[]));
    let mut last = None;
    client.wait(Duration::from_secs(15), |frame| {
        if frame.stream == 3 && frame.kind != RST_STREAM {
            last = Some((frame.kind, frame.flags & END_STREAM));
        }
        assert!(
            frame.kind != RST_STREAM || frame.payload == [0; 4],
            "{frame:?}"
        );
        frame.kind == RST_STREAM
    });
    assert_eq!(last, Some((DATA, END_STREAM)));
    client.assert_alive();
}

#[test]
fn slow_http1_body_does_not_hold_back_the_response() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut request = |rest: &str| {
        let head = "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        client
            .write_all(format!("{rest}{head}x").as_bytes())
            .unwrap();
        let mut response = [0; 512];
        let length = client.read(&mut response).unwrap();
        assert!(response[..length].starts_with(b"HTTP/1.1 404 "));
    };
    request("");
    // The rest of the body arrives after the response, and the connection is still of use.
    request("xx");
}

#[test]
fn body_without_end_does_not_delay_a_drain() {
    let flags = ["--endpoints=127.0.0.1:1", "--drain-timeout=30s"];
    let mut proxy = Proxy::start_with(&flags);
    let mut client = Raw::connect(proxy.address(), &[]);
    client.write(&post(1, "/nothing", &[]));
    client.write(&frame(DATA, 0, 1, b"x"));
    client.wait(LIMIT, |frame| frame.stream == 1 && frame.kind == DATA);
    proxy.process.signal("TERM");
    // The proxy ends the connection when the client has seen its GOAWAY.
    let ping = client.wait(LIMIT, |frame| frame.kind == PING);
    client.write(&frame(PING, 1, 0, &ping.payload));
    let reset = client.wait(LIMIT, |frame| frame.kind == RST_STREAM);
    assert_eq!((reset.stream, reset.payload), (1, vec![0; 4]));
    drop(client);
    assert!(proxy.process.wait(LIMIT).success());
}

/// Frames of a stream until it ends: type, END_STREAM, and the code of a reset.
fn end_of_call(address: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<Shape> {
    let mut client = Raw::connect(address, &[]);
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    client.write(&post(1, path, &[&grpc, fields].concat()));
    client.write(&frame(DATA, 0, 1, body));
    let mut shapes = Vec::new();
    client.wait(LIMIT, |frame| {
        let wanted = frame.stream == 1 && matches!(frame.kind, HEADERS | DATA | RST_STREAM);
        if wanted {
            let is_reset = frame.kind == RST_STREAM;
            let ends = !is_reset && frame.flags & END_STREAM != 0;
            let code = is_reset.then(|| frame.payload.clone());
            shapes.push((frame.kind, ends, code));
        }
        wanted && frame.kind == RST_STREAM
    });
    shapes
}

type Shape = (u8, bool, Option<Vec<u8>>);

/// A call that ends while its request still comes ends with its status, then with NO_ERROR.
#[test]
fn refused_calls_end_with_the_same_frames_as_at_etcd() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let namespaced = Proxy::start(&cluster, &["--namespace=n/"]);
    let too_large = [&[0, 0x10, 0, 0, 0][..], &[b'x'; 1000]].concat();
    let incomplete = [&[0, 0, 0, 0x10, 0][..], &[b'x'; 100]].concat();
    let malformed = b"\0\0\0\0\x03\xff\xff\xff".to_vec();
    let status = vec![(HEADERS, true, None), (RST_STREAM, false, Some(vec![0; 4]))];
    let snappy: &[(&str, &str)] = &[("grpc-encoding", "snappy")];
    for (path, fields, body) in [
        ("/etcdserverpb.KV/Range", &[][..], &too_large),
        ("/etcdserverpb.KV/Put", &[], &too_large),
        ("/etcdserverpb.KV/Txn", &[], &too_large),
        ("/etcdserverpb.KV/Put", snappy, &incomplete),
        ("/etcdserverpb.Watch/Watch", &[], &too_large),
        ("/etcdserverpb.Watch/Watch", &[], &malformed),
        ("/etcdserverpb.Lease/LeaseKeepAlive", &[], &too_large),
        ("/etcdserverpb.Lease/LeaseKeepAlive", &[], &malformed),
        ("/etcdserverpb.Cluster/MemberList", &[], &too_large),
        ("/etcdserverpb.Maintenance/Snapshot", &[], &too_large),
        ("/grpc.health.v1.Health/Check", &[], &too_large),
        ("/unknown.Service/Method", &[], &incomplete),
    ] {
        let at_etcd = end_of_call(&cluster.endpoint(0), path, fields, body);
        assert_eq!(at_etcd, status, "etcd: {path}");
        let ours = end_of_call(proxy.address(), path, fields, body);
        assert_eq!(ours, status, "{path}");
        let ours = end_of_call(namespaced.address(), path, fields, body);
        assert_eq!(ours, status, "in a namespace: {path}");
    }
    // Refusals of the proxy itself: the namespace, the number of header fields.
    let path = "/etcdserverpb.Maintenance/HashKV";
    let ours = end_of_call(namespaced.address(), path, &[], &incomplete);
    assert_eq!(ours, status, "{path}");
    let many = [("a", "b"); 150];
    let ours = end_of_call(proxy.address(), "/etcdserverpb.KV/Put", &many, &incomplete);
    assert_eq!(ours, status, "150 fields");
}
