//! Unary calls through the whole proxy, in this process: client and etcd are played by the main
//! thread over loopback TCP, the proxy is the library's own [`App`] with one worker.
//!
//! The players answer only when all of a round has arrived, so the worker's steps follow one another
//! in the same order each time. Only threads other than the main one are counted: the worker, and
//! the acceptor, which has nothing to do once all are connected.

pub(crate) mod calls;
mod hpack;
mod peer;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use etcd_edge::app::App;
use etcd_edge::cli::{self, Parsed};
use tokio::time::timeout;

use crate::cases::IN_FLIGHT;
use calls::Call;
use peer::Peer;

/// Reads that go their way one by one.
pub(crate) fn read(rounds: u64) {
    relay(&[calls::range(0, false)], rounds, |_| &[1]);
}

/// Reads of as many keys.
pub(crate) fn read_in_flight(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|n| calls::range(n, false)).collect();
    relay(&calls, rounds, |_| &[IN_FLIGHT as usize]);
}

/// Reads of one key: the first goes, the others share the next.
pub(crate) fn shared(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|_| calls::range(0, false)).collect();
    relay(&calls, rounds, |_| &[1, 1]);
}

/// Reads of one key that any member may answer: etcd is asked once.
pub(crate) fn kept(rounds: u64) {
    let calls: Vec<Call> = (0..IN_FLIGHT).map(|_| calls::range(0, true)).collect();
    relay(&calls, rounds, |round| if round == 0 { &[1] } else { &[] });
}

pub(crate) fn put(rounds: u64) {
    relay(&[calls::put()], rounds, |_| &[1]);
}

/// Sends all calls in each round; `at_etcd` says how many of them reach etcd together, and how many after
/// those were answered. All calls are of a length, and so are their answers.
fn relay(calls: &[Call], rounds: u64, at_etcd: impl Fn(u64) -> &'static [usize]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = start(listener.local_addr().expect("a bound socket"));
    let mut client = Peer::client(TcpStream::connect(proxy).expect("the proxy listens"));
    let mut etcd = None;
    let call = &calls[0];
    for round in 0..rounds {
        let streams: Vec<u32> = calls.iter().map(|call| client.request(call)).collect();
        client.flush();
        for count in at_etcd(round) {
            // The proxy connects when it has its first call.
            let etcd = etcd.get_or_insert_with(|| {
                Peer::etcd(listener.accept().expect("the proxy connects").0)
            });
            for stream in etcd.arrived(*count, call.request.len()) {
                etcd.answer(stream, call);
            }
            etcd.flush();
        }
        let mut answered = client.arrived(streams.len(), call.answer.len());
        answered.sort_unstable();
        assert!(
            answered == streams,
            "answers to {answered:?}, not {streams:?}"
        );
    }
}

/// Even under callgrind a run takes seconds; on a busy machine perhaps a minute.
const TOO_LONG: Duration = Duration::from_secs(300);

/// A proxy with one worker in front of this endpoint; lives as long as the process.
fn start(etcd: SocketAddr) -> SocketAddr {
    let flags = [
        "start".to_owned(),
        format!("--endpoints={etcd}"),
        "--listen-addr=127.0.0.1:0".to_owned(),
        "--workers=1".to_owned(),
        // What is kept is not asked for again in the middle of a count.
        "--cache-max-age=1h".to_owned(),
    ];
    let Ok(Parsed::Run(config, _)) = cli::parse(flags.into_iter().map(Into::into)) else {
        panic!("flags the proxy does not know");
    };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let app = App::start(&config).expect("the proxy starts");
            tell.send(app.address()).expect("somebody waits for it");
            // Its drain would wait for the players, who wait for it.
            let served = timeout(TOO_LONG, app.serve(std::future::pending())).await;
            eprintln!("micro: not everything was relayed within {TOO_LONG:?}: {served:?}");
            std::process::exit(1);
        });
    });
    told.recv().expect("the proxy starts")
}
