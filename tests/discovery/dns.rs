//! A name server of a few lines: SRV records over UDP on loopback, and the file that points to it.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SRV: [u8; 2] = [0, 33];
const NO_SUCH_NAME: u8 = 3;
const FAILURE: u8 = 2;

/// What is known of a name.
#[derive(Clone)]
pub(crate) enum Known {
    /// `host:port` of each record.
    Records(Vec<String>),
    /// The server fails.
    Fails,
}

/// Serves until the test ends.
pub(crate) struct Dns {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Answers for these names; any other does not exist.
    pub(crate) fn start(zone: &[(&str, Known)]) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("a bound socket");
        let zone: HashMap<String, Known> = zone
            .iter()
            .map(|(name, known)| ((*name).to_owned(), known.clone()))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || serve(&socket, &zone, &heard));
        let dir = tempfile::tempdir().expect("a folder");
        let file = format!(
            "# A port of its own.\nnameserver [{}]:{}\noptions timeout:1 attempts:2\n",
            address.ip(),
            address.port()
        );
        std::fs::write(dir.path().join("resolv.conf"), file).expect("a file");
        Dns { dir, asked }
    }

    /// In the form of `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        Path::new(self.dir.path()).join("resolv.conf")
    }

    /// The names that were asked for, each once, sorted.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

fn serve(socket: &UdpSocket, zone: &HashMap<String, Known>, heard: &Mutex<Vec<String>>) {
    let mut buffer = [0; 1500];
    // A test that takes longer has hung.
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a timeout");
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        answer(socket, from, &buffer[..len], zone, heard);
    }
}

fn answer(
    socket: &UdpSocket,
    from: SocketAddr,
    query: &[u8],
    zone: &HashMap<String, Known>,
    heard: &Mutex<Vec<String>>,
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
    heard.lock().unwrap().push(name.clone());
    let known = zone.get(&name).filter(|_| query[at + 1..at + 3] == SRV);
    let (code, records): (u8, &[String]) = match known {
        None => (NO_SUCH_NAME, &[]),
        Some(Known::Fails) => (FAILURE, &[]),
        Some(Known::Records(records)) => (0, records),
    };
    let mut reply = query[..2].to_vec();
    // An answer with recursion; one question, no more than answers beside it.
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
        // The question's name, SRV, IN, a minute.
        reply.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    socket.send_to(&reply, from).expect("loopback takes it");
}
