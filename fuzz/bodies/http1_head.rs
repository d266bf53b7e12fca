//! Fuzz body for HTTP/1.1 from a client. For any input the connection ends, and the response is
//! HTTP/1.1 with a status of the proxy.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_edge::driver::state::fleet::{Fleet, FleetOptions};
use etcd_edge::driver::state::process::{ProcessState, WatchOptions};
use etcd_edge::driver::state::read_cache::ReadOptions;
use etcd_edge::driver::{MaxBytes, WorkerContext};
use etcd_edge::metrics::{CODE_COUNT, Metrics};
use etcd_edge::net::socket::Socket;
use etcd_edge::net::stream::ByteStream;
use etcd_edge::server::admin::router::AdminRouter;
use etcd_edge::server::http1;
use etcd_edge::server::metrics_export::MetricsCollector;
use etcd_edge::state_machine::keepalive::KeepaliveOptions;
use etcd_edge::upstream::endpoint::Endpoint;
use etcd_edge::upstream::endpoints::{EndpointOptions, Endpoints};
use etcd_edge::upstream::pool::Pool;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Sends the whole input as a client that then closes its sending side.
pub(crate) fn run(data: &[u8]) {
    // These pages send a request to etcd, and there is no etcd.
    if [&b"health"[..], b"/metrics", b"/proxy/status"]
        .iter()
        .any(|page| contains(data, page))
    {
        return;
    }
    let (mut client, server) = StdStream::pair().unwrap();
    client.write_all(data).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    server.set_nonblocking(true).unwrap();
    RUNTIME.with(|runtime| runtime.block_on(serve(server)));
    let mut responses = Vec::new();
    client.read_to_end(&mut responses).unwrap();
    check(&responses);
}

async fn serve(server: StdStream) {
    let shared = ProcessState::new(
        1,
        WatchOptions {
            log_bytes: 0,
            bypass: Vec::new(),
            fragment_bytes: 0,
            progress_notify: Duration::from_secs(600),
        },
        ReadOptions {
            cache_bytes: 0,
            max_age: Duration::ZERO,
            audit: 0,
            ordering: false,
        },
        metrics().cache.clone(),
        None,
        None,
        Fleet::new(
            FleetOptions::default(),
            String::new(),
            metrics().fleet.clone(),
        ),
    );
    let ctx = Rc::new(WorkerContext::new(
        Pool::new(endpoints().clone(), 0),
        metrics().clone(),
        Arc::new(shared),
        0,
        MaxBytes {
            send: 1 << 20,
            recv: 1 << 20,
        },
    ));
    let shown = MetricsCollector::new(metrics().clone(), endpoints().clone());
    let admin = Arc::new(AdminRouter::new(shown, false).unwrap());
    let stream = ByteStream::Plain(Socket::Unix(UnixStream::from_std(server).unwrap()));
    let served = http1::serve(&ctx, &admin, stream);
    let ended = tokio::time::timeout(Duration::from_secs(2), served).await;
    // An error is the client's fault. A connection that does not end is the proxy's fault.
    assert!(ended.is_ok(), "the connection does not end");
}

/// Checks that a response starts with the version and is no success: the input requests no page.
fn check(responses: &[u8]) {
    if responses.is_empty() {
        return;
    }
    let version = &responses[..responses.len().min(9)];
    assert!(
        version == b"HTTP/1.1 " || version == b"HTTP/1.0 ",
        "{}",
        responses.escape_ascii()
    );
    let status = std::str::from_utf8(&responses[9..12]).unwrap();
    let status: u16 = status.parse().unwrap();
    assert!(matches!(status, 400..=499), "{}", responses.escape_ascii());
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

thread_local! {
    static RUNTIME: LocalRuntime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
}

fn metrics() -> &'static Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    METRICS.get_or_init(|| Arc::new(Metrics::new(1, Vec::new(), ["code"; CODE_COUNT])))
}

fn endpoints() -> &'static Arc<Endpoints> {
    static ENDPOINTS: OnceLock<Arc<Endpoints>> = OnceLock::new();
    ENDPOINTS.get_or_init(|| {
        let nowhere = Endpoint::parse("unix:///nowhere").unwrap();
        let keepalive = KeepaliveOptions {
            time: Duration::from_secs(10),
            timeout: Duration::from_secs(20),
            without_calls: false,
        };
        Arc::new(Endpoints::new(
            vec![nowhere],
            None,
            keepalive,
            EndpointOptions::default(),
            metrics().endpoints.clone(),
        ))
    })
}
