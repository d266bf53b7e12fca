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

pub(crate) fn read(rounds: u64) {
    relay(&calls::range(), rounds, 1);
}

pub(crate) fn read_in_flight(rounds: u64) {
    relay(&calls::range(), rounds, IN_FLIGHT);
}

pub(crate) fn put(rounds: u64) {
    relay(&calls::put(), rounds, 1);
}

fn relay(call: &Call, rounds: u64, in_flight: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = start(listener.local_addr().expect("a bound socket"));
    let mut client = Peer::client(TcpStream::connect(proxy).expect("the proxy listens"));
    let mut etcd = None;
    for _ in 0..rounds {
        let streams: Vec<u32> = (0..in_flight).map(|_| client.request(call)).collect();
        client.flush();
        // The proxy connects when it has its first call.
        let etcd = etcd
            .get_or_insert_with(|| Peer::etcd(listener.accept().expect("the proxy connects").0));
        for stream in etcd.arrived(streams.len(), call.request.len()) {
            etcd.answer(stream, call);
        }
        etcd.flush();
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
    ];
    let Ok(Parsed::Run(config)) = cli::parse(flags.into_iter().map(Into::into)) else {
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
