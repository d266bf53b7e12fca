//! A server under load, and the check that it is ready.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::process::{self, Cpu, Server};

/// A ready server and its process.
pub(crate) struct Target {
    /// Name in the report and for `--target`.
    pub(crate) name: String,
    /// Address for the load.
    pub(crate) address: Address,
    /// Whether it is etcd itself.
    pub(crate) is_etcd: bool,
    /// Process of the proxy. `None` for etcd itself, and if it is not known.
    pub(crate) pid: Option<u32>,
    /// The proxy if the harness has started it.
    pub(crate) _server: Option<Server>,
}

impl Target {
    /// Requests the version of etcd through the target.
    pub(crate) fn etcd_version(&self) -> Result<String, String> {
        let body = call(&self.address, etcdpb::STATUS, etcdpb::empty())?;
        etcdpb::version(&body)
    }

    /// Returns the processor time of the proxy.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        self.pid.and_then(process::cpu)
    }
}

/// A key and its value.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

impl Pair {
    /// Adds a prefix to the key.
    pub(crate) fn under(self, prefix: &str) -> Pair {
        Pair {
            key: [prefix.as_bytes(), &self.key].concat().into(),
            value: self.value,
        }
    }
}

/// Returns the pair that is read to check whether a server is ready.
pub(crate) fn probe() -> Pair {
    Pair {
        key: Bytes::from_static(b"bench/probe"),
        value: Bytes::from_static(
            b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ),
    }
}

/// Makes a verified read through `address`.
pub(crate) fn get(address: &Address, pair: &Pair) -> Result<(), String> {
    let frame = etcdpb::range(&pair.key, false);
    let body = call(address, etcdpb::RANGE, frame)?;
    etcdpb::check_range(&body, &pair.key, &pair.value)
}

/// Makes a put through `address`.
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
            .map_err(|_| "no response in 5 s".to_string())?
    })
}

/// Repeats `attempt` until it succeeds, the server has exited or 15 s have passed.
///
/// # Errors
///
/// Returns the last error with the end of the server's log.
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
            let log_tail = server.map_or(String::new(), |server| server.log_tail());
            return Err(format!("{error}; {log_tail}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns a loopback address with a port that is currently free.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| e.to_string())
}
