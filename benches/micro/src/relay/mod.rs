//! Unary calls through the whole proxy in this process. The main thread simulates the client and
//! etcd over loopback TCP. The proxy is the library's own [`App`] with one worker.
//!
//! The main thread responds only after all calls of a round have arrived, so the worker does its
//! steps in the same order each time. Only the other threads are counted: the worker, and the
//! acceptor, which is idle as soon as all connections are open.

pub(crate) mod calls;
mod hpack;
mod http2_peer;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use etcd_edge::app::App;
use etcd_edge::cli::{self, Parsed};
use tokio::time::timeout;

use crate::cases::IN_FLIGHT;
use calls::Call;
use http2_peer::Http2Peer;

/// Forwarded reads, one at a time.
pub(crate) fn read(rounds: u64) {
    relay(&[calls::range(0, false)], rounds, |_| &[1]);
}

/// Concurrent reads of different keys: each is forwarded.
pub(crate) fn read_in_flight(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|n| calls::range(n, false)).collect();
    relay(&calls, rounds, |_| &[IN_FLIGHT as usize]);
}

/// Concurrent linearizable reads of one key: the first is forwarded, the others share the next.
pub(crate) fn shared(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|_| calls::range(0, false)).collect();
    relay(&calls, rounds, |_| &[1, 1]);
}

/// Serializable reads of one key: only the first of all rounds reaches etcd.
pub(crate) fn cached(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|_| calls::range(0, true)).collect();
    relay(&calls, rounds, |round| if round == 0 { &[1] } else { &[] });
}

pub(crate) fn put(rounds: u64) {
    relay(&[calls::put()], rounds, |_| &[1]);
}

/// Sends all calls in each round. `at_etcd` returns the sizes of the batches that reach etcd: each
/// batch arrives after the responses to the one before. All requests have equal length, and all
/// responses too.
fn relay(calls: &[Call], rounds: u64, at_etcd: impl Fn(u64) -> &'static [usize]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = start(listener.local_addr().expect("a bound socket"));
    let accept = || listener.accept().expect("the proxy connects").0;
    // The proxy checks the endpoint at its start, over a connection of its own.
    let mut check = Http2Peer::etcd(accept());
    check.respond_to_check();
    let mut client = Http2Peer::client(TcpStream::connect(proxy).expect("the proxy listens"));
    let mut etcd = None;
    let call = &calls[0];
    for round in 0..rounds {
        let streams: Vec<u32> = calls.iter().map(|call| client.request(call)).collect();
        client.flush();
        for count in at_etcd(round) {
            // The proxy connects at its first call.
            let etcd = etcd.get_or_insert_with(|| Http2Peer::etcd(accept()));
            for stream in etcd.read_responses(*count, call.request.len()) {
                etcd.respond(stream, call);
            }
            etcd.flush();
        }
        let mut ended = client.read_responses(streams.len(), call.response.len());
        ended.sort_unstable();
        assert!(ended == streams, "responses to {ended:?}, not {streams:?}");
    }
}

/// Time limit of a run. Even under callgrind a run takes seconds, on a busy machine about a minute.
const TOO_LONG: Duration = Duration::from_secs(300);

/// Starts a proxy with one worker in front of this endpoint. The proxy runs as long as the process.
fn start(etcd: SocketAddr) -> String {
    let flags = [
        "start".to_owned(),
        format!("--endpoints={etcd}"),
        "--listen-addr=127.0.0.1:0".to_owned(),
        "--workers=1".to_owned(),
        // Long enough that no entry is refreshed during a count.
        "--cache-max-age=1h".to_owned(),
    ];
    let Ok(Parsed::Run(config, _)) = cli::parse(flags.into_iter().map(Into::into)) else {
        panic!("the proxy rejects its flags");
    };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let app = App::start(&config).expect("the proxy starts");
            sender
                .send(app.addresses()[0].to_string())
                .expect("the caller waits");
            // No shutdown: draining would wait for the main thread, which waits for responses.
            let served = timeout(TOO_LONG, app.serve(std::future::pending())).await;
            eprintln!("micro: not all calls were relayed within {TOO_LONG:?}: {served:?}");
            std::process::exit(1);
        });
    });
    receiver.recv().expect("the proxy starts")
}
