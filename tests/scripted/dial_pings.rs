//! Test of the pings to etcd with `--dial-keepalive-time`, `--dial-keepalive-timeout` and
//! `--permit-without-stream`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::support::raw_h2_client::{PING, PREFACE, SETTINGS};
use crate::support::scripted_etcd::frame;

/// Pings that an etcd receives on one connection.
#[derive(Debug, Default)]
struct Observed {
    /// Time of each ping since the start of the connection.
    pings: Vec<Duration>,
    closed: Option<Duration>,
}

/// Observes a connection for some time. The server sends its settings and responds to no ping.
async fn observe(mut stream: TcpStream, time: Duration) -> Observed {
    let (begun, mut observed) = (Instant::now(), Observed::default());
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut preface = vec![0; PREFACE.len()];
    stream.read_exact(&mut preface).await.unwrap();
    let reading = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == PING && head[4] == 0 {
                observed.pings.push(begun.elapsed());
            }
        }
        observed.closed = Some(begun.elapsed());
    };
    let _ = tokio::time::timeout(time, reading).await;
    observed
}

/// Observes a proxy with these flags, with an open call or without.
async fn observe_proxy(flags: &[&str], call: bool) -> Observed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = format!("--endpoints={}", listener.local_addr().unwrap());
    let one = "--workers=1";
    let proxy = Proxy::start_with(&[&[&endpoints[..], one], flags].concat());
    let client = Client::connect(proxy.address()).await;
    // The call makes the proxy connect. It is cancelled at once if no call may be open.
    let mut open = client.call("/future.Service/New", &[]).await;
    let (first, _) = listener.accept().await.unwrap();
    let (second, _) = listener.accept().await.unwrap();
    if !call {
        open.cancel();
    }
    // One of the connections is that of the check at the start, which ends first.
    let time = Duration::from_secs(13);
    let both = tokio::join!(observe(first, time), observe(second, time));
    let end = |seen: &Observed| seen.closed.unwrap_or(Duration::MAX);
    match end(&both.0) > end(&both.1) {
        true => both.0,
        false => both.1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_keepalive_flags_control_the_pings() {
    let short = ["--dial-keepalive-time=10s", "--dial-keepalive-timeout=1s"];
    let idle = [&short[..], &["--permit-without-stream"]].concat();
    let long = ["--dial-keepalive-time=1h"];
    let (busy, quiet, permitted, rare) = tokio::join!(
        observe_proxy(&short, true),
        observe_proxy(&short, false),
        observe_proxy(&idle, false),
        observe_proxy(&long, true),
    );
    for seen in [&busy, &permitted] {
        assert_eq!(seen.pings.len(), 1, "{seen:?}");
        let (pinged, closed) = (seen.pings[0], seen.closed.expect("a lost connection"));
        let (least, most) = (Duration::from_millis(9_900), Duration::from_secs(12));
        assert!(pinged >= least && pinged <= most, "{seen:?}");
        let waited = closed - pinged;
        assert!(waited >= Duration::from_millis(900), "{seen:?}");
        assert!(waited <= Duration::from_secs(3), "{seen:?}");
    }
    // Without a call there is no ping, unless `--permit-without-stream` is set.
    assert_eq!((quiet.pings.len(), quiet.closed), (0, None), "{quiet:?}");
    assert_eq!((rare.pings.len(), rare.closed), (0, None), "{rare:?}");
}
