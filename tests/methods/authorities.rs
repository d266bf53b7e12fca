//! Values of `:authority` that etcd accepts, and which of them the proxy refuses. The `h2` crate
//! parses the value as that of a URL and resets other streams; it has no option for that.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::h2_frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, frame, header_block,
};
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

/// Authorities that the proxy accepts.
const ACCEPTED: [&str; 13] = [
    "localhost",
    "127.0.0.1:2379",
    "[::1]:2379",
    "[fe80::1%25eth0]:2379",
    "etcd.example.com",
    "a_b:2379",
    // Several endpoints without a port.
    "a,b",
    // gRPC naming of etcd with these prefixes.
    "apps.prod.edge",
    "apps-prod-edge",
    "___grpc_proxy_endpoint",
    "user@host",
    "unix:edge",
    "a!$&'()*+,;=~",
];

/// Authorities that etcd accepts and the proxy refuses.
const REFUSED: [&str; 12] = [
    // The Go client 3.5.0: etcdctl 3.5.0, Kubernetes 1.22.
    "#initially=[127.0.0.1:2379]",
    "#initially=[10.0.0.1:2379;10.0.0.2:2379]",
    // gRPC naming of etcd with a slash in the prefix.
    "apps%2Fprod%2Fedge",
    "apps/prod/edge",
    // gRPC core and gRPC for Java over a Unix socket.
    "%2Frun%2Fedge.sock",
    "/run/edge.sock",
    "unix:/run/edge.sock",
    // Several endpoints with ports.
    "10.0.0.1:2379,10.0.0.2:2379",
    "etcd1:2379;etcd2:2379",
    "::1",
    "a b",
    "",
];

/// The first frame of a response to a read, or a reset.
fn first_frame(address: &str, authority: &str) -> (u8, Vec<u8>) {
    let mut client = Raw::connect(address, &[]);
    let block = header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    client.write(&frame(HEADERS, END_HEADERS, 1, &block));
    client.write(&frame(DATA, END_STREAM, 1, b"\0\0\0\0\x03\x0a\x01a"));
    let first = client.wait(Duration::from_secs(10), |frame| {
        frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)
    });
    match first.kind {
        RST_STREAM => (RST_STREAM, first.payload),
        kind => (kind, Vec::new()),
    }
}

/// When this test fails because the proxy accepts more, correct the pages on migrating, on fleets
/// and on troubleshooting.
#[test]
fn known_limit_authorities_that_are_no_host_are_refused() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let answered = (HEADERS, Vec::new());
    for authority in ACCEPTED.iter().chain(&REFUSED) {
        let at_etcd = first_frame(&cluster.endpoint(0), authority);
        assert_eq!(at_etcd, answered, "etcd: {authority}");
    }
    for authority in ACCEPTED {
        assert_eq!(
            first_frame(proxy.address(), authority),
            answered,
            "{authority}"
        );
    }
    let protocol_error = (RST_STREAM, vec![0, 0, 0, 1]);
    for authority in REFUSED {
        let ours = first_frame(proxy.address(), authority);
        assert_eq!(ours, protocol_error, "{authority}");
    }
}
