//! When etcd is pinged, seen from its side: `--dial-keepalive-time`, `--dial-keepalive-timeout` and
//! `--permit-without-stream`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::support::raw_h2_client::{PING, PREFACE, SETTINGS};
use crate::support::scripted_etcd::frame;

/// What an etcd that answers nothing sees of one connection.
#[derive(Debug, Default)]
struct Seen {
    /// When each ping came, from the beginning of the connection.
    pings: Vec<Duration>,
    closed: Option<Duration>,
}

/// Looks at a connection for so long: it is greeted, and no ping of it is answered.
async fn watched(mut stream: TcpStream, time: Duration) -> Seen {
    let (begun, mut seen) = (Instant::now(), Seen::default());
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut preface = vec![0; PREFACE.len()];
    stream.read_exact(&mut preface).await.unwrap();
    let looking = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == PING && head[4] == 0 {
                seen.pings.push(begun.elapsed());
            }
        }
        seen.closed = Some(begun.elapsed());
    };
    let _ = tokio::time::timeout(time, looking).await;
    seen
}

/// What etcd sees of a proxy with these flags, with a call open or without.
async fn pinged(flags: &[&str], call: bool) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = format!("--endpoints={}", listener.local_addr().unwrap());
    let one = "--workers=1";
    let proxy = Proxy::start_with(&[&[&endpoints[..], one], flags].concat());
    let client = Client::connect(proxy.address()).await;
    // What opens the connection; where there is to be no call it goes away again.
    let mut open = client.call("/future.Service/New", &[]).await;
    let (stream, _) = listener.accept().await.unwrap();
    if !call {
        open.cancel();
    }
    watched(stream, Duration::from_secs(13)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_pinged_as_the_flags_say() {
    let often = ["--dial-keepalive-time=10s", "--dial-keepalive-timeout=1s"];
    let idle = [&often[..], &["--permit-without-stream"]].concat();
    let seldom = ["--dial-keepalive-time=1h"];
    let (busy, quiet, permitted, rare) = tokio::join!(
        pinged(&often, true),
        pinged(&often, false),
        pinged(&idle, false),
        pinged(&seldom, true),
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
    // No call, no ping, unless that is permitted.
    assert_eq!((quiet.pings.len(), quiet.closed), (0, None), "{quiet:?}");
    assert_eq!((rare.pings.len(), rare.closed), (0, None), "{rare:?}");
}
