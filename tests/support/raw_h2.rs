//! An HTTP/2 client made of frames: for clients that no library would be.
//!
//! It writes what it is told, legal or not, and keeps count of what comes back. Header lists go out
//! as literals, so that no table is needed, and those that come in are not unpacked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::scripted_etcd::{frame, framed};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The client preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection.
pub struct RawClient {
    write: OwnedWriteHalf,
    seen: Arc<Mutex<Seen>>,
    /// Not reading yet.
    unread: Option<OwnedReadHalf>,
    next_stream: u32,
}

/// What came back.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Frames by type.
    pub frames: BTreeMap<u8, u64>,
    /// Error code of the last GOAWAY.
    pub go_away: Option<u32>,
    /// And its debug data.
    pub why: String,
    /// Error code of each stream's reset.
    pub resets: BTreeMap<u32, u32>,
    /// Streams that ended in good order.
    pub ended: u64,
    /// Settings of the server, by number.
    pub settings: BTreeMap<u16, u32>,
    /// Bytes of DATA.
    pub data: u64,
    /// The server has closed the connection.
    pub closed: bool,
}

impl RawClient {
    /// Connects, sends the preface and these settings, and reads whatever comes.
    pub async fn connect(address: &str, settings: &[(u16, u32)]) -> RawClient {
        let mut client = RawClient::connect_unread(address, settings).await;
        client.read_on();
        client
    }

    /// The same, but reads nothing until [`RawClient::read_on`].
    pub async fn connect_unread(address: &str, settings: &[(u16, u32)]) -> RawClient {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("a TCP socket");
        let (read, write) = stream.into_split();
        let mut client = RawClient {
            write,
            seen: Arc::default(),
            unread: Some(read),
            next_stream: 1,
        };
        let mut payload = BytesMut::new();
        for (name, value) in settings {
            payload.put_u16(*name);
            payload.put_u32(*value);
        }
        let first = [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat();
        assert!(client.send(&first).await, "a fresh connection");
        client
    }

    /// Begins to read.
    pub fn read_on(&mut self) {
        if let Some(read) = self.unread.take() {
            tokio::spawn(collect(read, self.seen.clone()));
        }
    }

    /// Writes bytes as they are; false once the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// The id of the next stream, which is then used.
    pub fn stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// The frames of a unary call with one message, on a new stream.
    pub fn call(&mut self, path: &str, message: &[u8]) -> (u32, Bytes) {
        let stream = self.stream();
        let head = frame(HEADERS, END_HEADERS, stream, &grpc_head(path));
        let body = frame(DATA, END_STREAM, stream, &framed(message));
        (stream, [head, body].concat().into())
    }

    /// What came back so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Waits until what came back is as wished.
    pub async fn wait(&self, limit: Duration, what: &str, good: impl Fn(&Seen) -> bool) -> Seen {
        let until = Instant::now() + limit;
        loop {
            let seen = self.seen();
            if good(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < until,
                "{what}: not within {limit:?}: {seen:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The header list of a gRPC request.
pub fn grpc_head(path: &str) -> Vec<u8> {
    headers(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// A header block of literals.
pub fn headers(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    // An integer with a prefix of seven bits; the eighth, for Huffman, stays 0.
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

async fn collect(mut read: OwnedReadHalf, seen: Arc<Mutex<Seen>>) {
    let mut head = [0; 9];
    let mut payload = Vec::new();
    while read.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        payload.resize(length, 0);
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        let number = |at: usize| payload[at..].first_chunk().map(|b| u32::from_be_bytes(*b));
        let mut seen = lock(&seen);
        *seen.frames.entry(kind).or_default() += 1;
        match kind {
            DATA => seen.data += length as u64,
            RST_STREAM => {
                // The first says why; what was already on its way may bring more.
                seen.resets
                    .entry(stream)
                    .or_insert(number(0).expect("a code"));
            }
            7 => {
                seen.go_away = number(4);
                seen.why = String::from_utf8_lossy(&payload[8..]).into_owned();
            }
            SETTINGS if flags & 1 == 0 => {
                for each in payload.chunks_exact(6) {
                    let name = u16::from_be_bytes([each[0], each[1]]);
                    let value = u32::from_be_bytes([each[2], each[3], each[4], each[5]]);
                    seen.settings.insert(name, value);
                }
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            seen.ended += 1;
        }
    }
    lock(&seen).closed = true;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
