//! A server under load, and how it is seen that it answers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::process::{self, Cpu, Server};

/// A server that answers, and what to measure of it.
pub(crate) struct Target {
    /// In the report and for `--target`.
    pub(crate) name: String,
    /// Where the load goes.
    pub(crate) address: Address,
    /// Whether it is etcd itself.
    pub(crate) is_etcd: bool,
    /// The process between; none for etcd itself, and where it is not known.
    pub(crate) pid: Option<u32>,
    /// The same, where it was started here.
    pub(crate) _server: Option<Server>,
}

impl Target {
    /// The version that etcd tells through it.
    pub(crate) fn etcd_version(&self) -> Result<String, String> {
        let body = call(&self.address, etcdpb::STATUS, etcdpb::empty())?;
        etcdpb::version(&body)
    }

    /// Processor time of the process between.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        self.pid.and_then(process::cpu)
    }
}

/// A key and what it holds.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

impl Pair {
    /// The same with a longer key.
    pub(crate) fn under(self, prefix: &str) -> Pair {
        Pair {
            key: [prefix.as_bytes(), &self.key].concat().into(),
            value: self.value,
        }
    }
}

/// The pair by which it is seen whether a server answers.
pub(crate) fn probe() -> Pair {
    Pair {
        key: Bytes::from_static(b"bench/probe"),
        value: Bytes::from_static(
            b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ),
    }
}

/// One checked read through `address`.
pub(crate) fn get(address: &Address, pair: &Pair) -> Result<(), String> {
    let frame = etcdpb::range(&pair.key, false);
    let body = call(address, etcdpb::RANGE, frame)?;
    etcdpb::check_range(&body, &pair.key, &pair.value)
}

/// One put through `address`.
pub(crate) fn put(address: &Address, pair: &Pair) -> Result<(), String> {
    let frame = etcdpb::put(&pair.key, &pair.value);
    call(address, etcdpb::PUT, frame).map(drop)
}

fn call(address: &Address, path: &str, frame: Vec<u8>) -> Result<Vec<u8>, String> {
    let head = client::head(address, path)?;
    client::runtime()?.block_on(async {
        let exchange = async {
            let mut client = Client::open(address, DEFAULT_WINDOWS).await?;
            let mut body = Vec::new();
            client.unary(&head, &Bytes::from(frame), &mut body).await?;
            Ok(body)
        };
        tokio::time::timeout(Duration::from_secs(5), exchange)
            .await
            .map_err(|_| "no answer in 5 s".to_string())?
    })
}

/// Tries until it succeeds, the server has ended or 15 s are over; then says why not.
pub(crate) fn ready(
    server: Option<&mut Server>,
    attempt: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let limit = Instant::now() + Duration::from_secs(15);
    let mut server = server;
    loop {
        let Err(error) = attempt() else {
            return Ok(());
        };
        let ended = server.as_deref_mut().is_some_and(Server::ended);
        if ended || Instant::now() >= limit {
            let words = server.map_or(String::new(), |server| server.last_words());
            return Err(format!("{error}; {words}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A loopback address whose port was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| e.to_string())
}
