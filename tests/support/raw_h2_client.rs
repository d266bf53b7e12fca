//! An asynchronous HTTP/2 client made of frames, for clients that no library implements.
//!
//! It writes the given bytes, legal or not, and counts the frames it receives. Header lists are
//! sent as literals, so that no HPACK table is needed. Received header lists are not decoded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
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
    received: Arc<Mutex<Received>>,
    /// The read half, until reading starts.
    unread: Option<OwnedReadHalf>,
    next_stream: u32,
}

/// Everything received so far.
#[derive(Debug, Default, Clone)]
pub struct Received {
    /// Number of frames by type.
    pub frames: BTreeMap<u8, u64>,
    /// Error code of the last GOAWAY.
    pub go_away: Option<u32>,
    /// Debug data of the last GOAWAY.
    pub debug_data: String,
    /// Error code of each stream's first reset.
    pub resets: BTreeMap<u32, u32>,
    /// Number of streams that ended with END_STREAM.
    pub ended: u64,
    /// Settings of the server, by id.
    pub settings: BTreeMap<u16, u32>,
    /// Payload bytes of DATA frames.
    pub data: u64,
    /// Whether the server has closed the connection.
    pub closed: bool,
}

impl RawClient {
    /// Connects, sends the preface and these settings, and reads everything that arrives.
    pub async fn connect(address: &str, settings: &[(u16, u32)]) -> RawClient {
        let mut client = RawClient::connect_unread(address, settings).await;
        client.start_reading();
        client
    }

    /// Like [`RawClient::connect`], but reads nothing until [`RawClient::start_reading`].
    pub async fn connect_unread(address: &str, settings: &[(u16, u32)]) -> RawClient {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("a TCP socket");
        let (read, write) = stream.into_split();
        let mut client = RawClient {
            write,
            received: Arc::default(),
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

    /// Starts to read.
    pub fn start_reading(&mut self) {
        if let Some(read) = self.unread.take() {
            tokio::spawn(collect(read, self.received.clone()));
        }
    }

    /// Writes bytes as given; false once the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// Allocates the id of a new stream.
    pub fn stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Allocates a stream and returns its id and the frames of a unary call with one message.
    pub fn call(&mut self, path: &str, message: &[u8]) -> (u32, Bytes) {
        let stream = self.stream();
        let head = frame(HEADERS, END_HEADERS, stream, &grpc_head(path));
        let body = frame(DATA, END_STREAM, stream, &framed(message));
        (stream, [head, body].concat().into())
    }

    /// Returns everything received so far.
    pub fn received(&self) -> Received {
        lock(&self.received).clone()
    }

    /// Waits until the received frames pass `good`. `what` names the condition in the panic
    /// message.
    pub async fn wait(
        &self,
        limit: Duration,
        what: &str,
        good: impl Fn(&Received) -> bool,
    ) -> Received {
        let until = Instant::now() + limit;
        loop {
            let received = self.received();
            if good(&received) {
                return received;
            }
            assert!(
                Instant::now() < until,
                "{what}: not within {limit:?}: {received:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Encodes the header list of a gRPC request.
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

/// Encodes a header block of literals.
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
    // An integer with a prefix of seven bits. The eighth bit, for Huffman, is 0.
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

async fn collect(read: OwnedReadHalf, received: Arc<Mutex<Received>>) {
    // The server acknowledges floods frame by frame. A client that reads slowly slows its own
    // flood.
    let mut read = BufReader::with_capacity(64 * 1024, read);
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
        let mut received = lock(&received);
        *received.frames.entry(kind).or_default() += 1;
        match kind {
            DATA => received.data += length as u64,
            RST_STREAM => {
                // The first reset has the reason. Frames that were already on their way may cause
                // more.
                received
                    .resets
                    .entry(stream)
                    .or_insert(number(0).expect("a code"));
            }
            7 => {
                received.go_away = number(4);
                received.debug_data = String::from_utf8_lossy(&payload[8..]).into_owned();
            }
            SETTINGS if flags & 1 == 0 => {
                for each in payload.chunks_exact(6) {
                    let name = u16::from_be_bytes([each[0], each[1]]);
                    let value = u32::from_be_bytes([each[2], each[3], each[4], each[5]]);
                    received.settings.insert(name, value);
                }
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            received.ended += 1;
        }
    }
    lock(&received).closed = true;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
