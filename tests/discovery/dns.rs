//! A small name server: SRV records over UDP on loopback, and a `resolv.conf` that points to it.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SRV: [u8; 2] = [0, 33];
const NO_SUCH_NAME: u8 = 3;
const FAILURE: u8 = 2;

/// The response for a name.
#[derive(Clone)]
pub(crate) enum Lookup {
    /// SRV records, each `host:port`.
    Records(Vec<String>),
    /// SERVFAIL.
    Fails,
}

/// A name server that runs until the test ends.
pub(crate) struct Dns {
    dir: tempfile::TempDir,
    queries: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Starts a server for these names. Any other name does not exist.
    pub(crate) fn start(zone: &[(&str, Lookup)]) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("a bound socket");
        let zone: HashMap<String, Lookup> = zone
            .iter()
            .map(|(name, lookup)| ((*name).to_owned(), lookup.clone()))
            .collect();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let log = queries.clone();
        std::thread::spawn(move || serve(&socket, &zone, &log));
        let dir = tempfile::tempdir().expect("a folder");
        let file = format!(
            "# An unusual port.\nnameserver [{}]:{}\noptions timeout:1 attempts:2\n",
            address.ip(),
            address.port()
        );
        std::fs::write(dir.path().join("resolv.conf"), file).expect("a file");
        Dns { dir, queries }
    }

    /// Returns the path of a file in the format of `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        Path::new(self.dir.path()).join("resolv.conf")
    }

    /// Returns the queried names, sorted and without duplicates.
    pub(crate) fn queries(&self) -> Vec<String> {
        let mut queries = self.queries.lock().unwrap().clone();
        queries.sort();
        queries.dedup();
        queries
    }
}

fn serve(socket: &UdpSocket, zone: &HashMap<String, Lookup>, log: &Mutex<Vec<String>>) {
    let mut buffer = [0; 1500];
    // No test takes longer.
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a timeout");
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        respond(socket, from, &buffer[..len], zone, log);
    }
}

fn respond(
    socket: &UdpSocket,
    from: SocketAddr,
    query: &[u8],
    zone: &HashMap<String, Lookup>,
    log: &Mutex<Vec<String>>,
) {
    let mut name = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let len = usize::from(query[at]);
        let label = &query[at + 1..at + 1 + len];
        name.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + len;
    }
    let name = name.join(".");
    let question = &query[12..at + 5];
    log.lock().unwrap().push(name.clone());
    let lookup = zone.get(&name).filter(|_| query[at + 1..at + 3] == SRV);
    let (code, records): (u8, &[String]) = match lookup {
        None => (NO_SUCH_NAME, &[]),
        Some(Lookup::Fails) => (FAILURE, &[]),
        Some(Lookup::Records(records)) => (0, records),
    };
    let mut reply = query[..2].to_vec();
    // A response with recursion available, one question, and only answer records.
    reply.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    reply.extend(question);
    for record in records {
        let (host, port) = record.rsplit_once(':').expect("host:port");
        let port: u16 = port.parse().expect("a port");
        let mut data = vec![0, 1, 0, 1];
        data.extend(port.to_be_bytes());
        for label in host.split('.').filter(|label| !label.is_empty()) {
            data.push(label.len() as u8);
            data.extend(label.as_bytes());
        }
        data.push(0);
        // Pointer to the question's name, type SRV, class IN, TTL 60 s.
        reply.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    socket.send_to(&reply, from).expect("loopback accepts it");
}
