//! HTTP/2 frame by frame, for clients that no library implements: bytes are written in one piece
//! and in the given order, legal or not.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Frame type DATA.
pub const DATA: u8 = 0;
/// Frame type HEADERS.
pub const HEADERS: u8 = 1;
/// Frame type RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// Frame type SETTINGS.
pub const SETTINGS: u8 = 4;
/// Frame type PING.
pub const PING: u8 = 6;
/// Frame type GOAWAY.
pub const GOAWAY: u8 = 7;
/// Frame type WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;

/// Flag END_STREAM.
pub const END_STREAM: u8 = 1;
/// Flag END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Frame type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream id; 0 is the connection.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// A connection that is read and written by frames.
pub struct Raw {
    /// The socket, for bytes that are not even frames.
    pub socket: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connects in plain text and sends the preface with these settings.
    pub fn connect(address: &str, settings: &[(u16, u32)]) -> Raw {
        let socket = TcpStream::connect(address).expect("a listening proxy");
        socket.set_nodelay(true).expect("a TCP socket");
        let mut raw = Raw {
            socket,
            read: Vec::new(),
        };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        first.extend(frame(SETTINGS, 0, 0, &payload));
        raw.write(&first);
        raw
    }

    /// Writes bytes as given.
    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("an open connection");
    }

    /// Returns the next frame; `None` at the end of the connection or after `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<Frame> {
        let until = Instant::now() + limit;
        loop {
            if let Some(head) = self.read.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.read.len() >= 9 + length {
                    let [_, _, _, kind, flags, a, b, c, d] = *head;
                    let rest = self.read.split_off(9 + length);
                    let whole = std::mem::replace(&mut self.read, rest);
                    return Some(Frame {
                        kind,
                        flags,
                        stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
                        payload: whole[9..].to_vec(),
                    });
                }
            }
            let left = until.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            let mut some = vec![0; 64 * 1024];
            match self.socket.read(&mut some) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.read.extend_from_slice(&some[..n]),
            }
        }
    }

    /// Reads frames until one passes `wanted`; panics if none does within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let frame = self.next(left);
            let frame = frame.unwrap_or_else(|| panic!("the connection ended or is silent"));
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Checks that the proxy still answers a PING on this connection.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.write(&frame(PING, 0, 0, b"hostile?"));
        self.wait(Duration::from_secs(20), |frame| {
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            frame.kind == PING && frame.payload == b"hostile?"
        });
    }

    /// Reads DATA until each of `streams` streams has received `bytes`. The connection's window is
    /// extended by the bytes read, as a client does.
    #[track_caller]
    pub fn read_all(&mut self, streams: usize, bytes: usize, limit: Duration) {
        let until = Instant::now() + limit;
        let mut received: HashMap<u32, usize> = HashMap::new();
        let (mut unacknowledged, mut complete) = (0, 0);
        while complete < streams {
            let left = until.saturating_duration_since(Instant::now());
            let Some(frame_read) = self.next(left) else {
                panic!("{complete} of {streams} streams are complete");
            };
            assert!(
                !matches!(frame_read.kind, RST_STREAM | GOAWAY),
                "{frame_read:?}"
            );
            if frame_read.kind != DATA {
                continue;
            }
            let length = frame_read.payload.len();
            let stream = received.entry(frame_read.stream).or_default();
            complete += usize::from(*stream < bytes && *stream + length >= bytes);
            *stream += length;
            unacknowledged += length;
            if unacknowledged >= 16 * 1024 {
                let by = u32::try_from(unacknowledged).expect("a window");
                self.write(&window_update(0, by));
                unacknowledged = 0;
            }
        }
    }
}

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Encodes HEADERS of a gRPC call.
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "hostile"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    frame(HEADERS, END_HEADERS, stream, &header_block(&fields))
}

/// Encodes request trailers, which no gRPC client sends.
pub fn trailers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let block = header_block(fields);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// Encodes HEADERS of a request without a body.
pub fn request(stream: u32, method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "hostile"),
    ];
    let block = header_block(&fields);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// Encodes RST_STREAM with CANCEL.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// Encodes WINDOW_UPDATE.
pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// Encodes fields as HPACK literals without index or Huffman code.
pub fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short field"));
            assert!(text.len() < 127, "a short field");
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
