//! `--dial-keepalive-time`, `--dial-keepalive-timeout` and `--permit-without-stream`: when the
//! proxy pings etcd, and when it closes the connection (E5). The endpoint is made of frames,
//! because it must not respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::STREAM;
use crate::support::grpc::{Call, Client};
use crate::support::proxy::Proxy;
use crate::support::raw_h2_client::{HEADERS, PING, PREFACE, RST_STREAM, SETTINGS};
use crate::support::scripted_etcd::frame;

const ACK: u8 = 1;

/// Counters of an endpoint that never responds to a call.
#[derive(Default)]
struct Counters {
    opened: AtomicUsize,
    cancelled: AtomicUsize,
    pings: AtomicUsize,
    closed: AtomicBool,
}

/// Such an endpoint and a proxy that uses it.
struct Scene {
    counters: Arc<Counters>,
    // Dropping the call would cancel it.
    _call: Option<Call>,
    _proxy: Proxy,
    _client: Client,
}

impl Scene {
    /// Opens one call, and cancels it unless `call_stays`.
    async fn start(answers_pings: bool, call_stays: bool, flags: &[&str]) -> Scene {
        let counters = Arc::new(Counters::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = counters.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let counters = shared.clone();
                tokio::spawn(async move {
                    let pinged = AtomicBool::new(false);
                    let _ = serve(socket, answers_pings, &counters, &pinged).await;
                    // The check at the start has a connection of its own, without pings.
                    counters.closed.fetch_or(pinged.into_inner(), SeqCst);
                });
            }
        });
        let mut all = vec![
            format!("--endpoints={address}"),
            "--advertise-client-url=".to_owned(),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let proxy = Proxy::start_with(&all);
        let client = Client::connect(proxy.address()).await;
        let mut call = client.call(STREAM, &[]).await;
        call.send("x").await;
        // The other call is that of the check at the start.
        until(|| counters.opened.load(SeqCst) > 1).await;
        if !call_stays {
            call.cancel();
            until(|| counters.cancelled.load(SeqCst) > 1).await;
        }
        Scene {
            counters,
            _call: call_stays.then_some(call),
            _proxy: proxy,
            _client: client,
        }
    }

    fn pings(&self) -> usize {
        self.counters.pings.load(SeqCst)
    }

    fn closed(&self) -> bool {
        self.counters.closed.load(SeqCst)
    }
}

async fn serve(
    mut socket: TcpStream,
    answers_pings: bool,
    counters: &Counters,
    pinged: &AtomicBool,
) -> std::io::Result<()> {
    let mut preface = vec![0; PREFACE.len()];
    socket.read_exact(&mut preface).await?;
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await?;
        match (head[3], head[4]) {
            (SETTINGS, 0) => socket.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            (HEADERS, _) => _ = counters.opened.fetch_add(1, SeqCst),
            (RST_STREAM, _) => _ = counters.cancelled.fetch_add(1, SeqCst),
            (PING, 0) => {
                counters.pings.fetch_add(1, SeqCst);
                pinged.store(true, SeqCst);
                if answers_pings {
                    socket.write_all(&frame(PING, ACK, 0, &payload)).await?;
                }
            }
            _ => {}
        }
    }
}

/// Waits until a condition is true.
async fn until(condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "not true in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All cases run at the same time, because a ping is due after ten seconds of silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_to_etcd_follow_the_flags() {
    let seldom = Scene::start(true, true, &["--dial-keepalive-time=60s"]).await;
    let without_call = Scene::start(true, false, &[]).await;
    let default = Scene::start(true, true, &[]).await;
    let permitted = Scene::start(true, false, &["--permit-without-stream"]).await;
    let patient = Scene::start(false, true, &[]).await;
    let hasty = Scene::start(false, true, &["--dial-keepalive-timeout=1s"]).await;

    until(|| hasty.closed()).await;
    until(|| default.pings() > 0 && permitted.pings() > 0 && patient.pings() > 0).await;
    assert!(!patient.closed(), "the default timeout is 20 seconds");
    assert_eq!(hasty.pings(), 1);
    assert_eq!(seldom.pings(), 0, "the interval is a minute");
    assert_eq!(
        without_call.pings(),
        0,
        "etcd closes a connection after such pings"
    );
    assert!(!default.closed() && !permitted.closed());
}
