//! One side of an HTTP/2 connection over a blocking socket. Outgoing frames are buffered and
//! written at once. Incoming frames are read until the round is complete.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::calls::{Call, METADATA};
use super::hpack::Encoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const FRAME_HEAD: usize = 9;

/// Size of an empty message: the proxy asks etcd for its status with it. Calls have larger ones.
const EMPTY_MESSAGE: usize = 5;

/// The client or etcd, with its connection to the proxy.
pub(super) struct Http2Peer {
    socket: TcpStream,
    /// Frames to send.
    out: Vec<u8>,
    /// Received bytes that are not parsed yet.
    arrived: Vec<u8>,
    hpack: Encoder,
    next_stream: u32,
}

impl Http2Peer {
    fn new(socket: TcpStream) -> Http2Peer {
        socket.set_nodelay(true).expect("a TCP socket");
        let mut peer = Http2Peer {
            socket,
            out: Vec::new(),
            arrived: Vec::new(),
            hpack: Encoder::default(),
            next_stream: 1,
        };
        peer.frame(SETTINGS, 0, 0, &[]);
        // A window larger than all data of a run.
        peer.frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        peer
    }

    /// Starts the client side.
    pub(super) fn client(mut socket: TcpStream) -> Http2Peer {
        socket.write_all(PREFACE).expect("the proxy reads");
        Http2Peer::new(socket)
    }

    /// Starts the side of etcd.
    pub(super) fn etcd(mut socket: TcpStream) -> Http2Peer {
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).expect("the proxy writes");
        assert!(preface == PREFACE, "not HTTP/2");
        let mut peer = Http2Peer::new(socket);
        // The proxy sends no call before it has these settings.
        peer.flush();
        peer
    }

    /// Buffers a request and returns its stream.
    pub(super) fn request(&mut self, call: &Call) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", call.path),
            (":authority", "127.0.0.1:2379"),
        ];
        fields.extend(METADATA);
        self.headers(stream, END_HEADERS, &fields);
        self.frame(DATA, END_STREAM, stream, &call.request);
        stream
    }

    /// Buffers the response to a call.
    pub(super) fn respond(&mut self, stream: u32, call: &Call) {
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        self.headers(stream, END_HEADERS, &head);
        self.frame(DATA, 0, stream, &call.response);
        let trailers = [("grpc-status", "0"), ("grpc-message", "")];
        self.headers(stream, END_HEADERS | END_STREAM, &trailers);
    }

    /// Writes the buffer in one system call.
    pub(super) fn flush(&mut self) {
        self.socket.write_all(&self.out).expect("the proxy reads");
        self.out.clear();
    }

    /// Serves a connection that is only for the check of the endpoint.
    pub(super) fn respond_to_check(&mut self) {
        loop {
            let (kind, _, stream, payload) = self.next();
            if kind == DATA && payload.len() == EMPTY_MESSAGE {
                return self.refuse(stream);
            }
        }
    }

    /// Refuses a request for the status of the member.
    fn refuse(&mut self, stream: u32) {
        let unimplemented = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
        ];
        self.headers(stream, END_HEADERS | END_STREAM, &unimplemented);
        self.flush();
    }

    /// Waits until `streams` streams have ended, each with `bytes` bytes, and returns their ids.
    pub(super) fn read_responses(&mut self, streams: usize, bytes: usize) -> Vec<u32> {
        let mut ended = Vec::new();
        let mut received = 0;
        while ended.len() < streams {
            let (kind, flags, stream, payload) = self.next();
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload),
                DATA if payload.len() == EMPTY_MESSAGE => {
                    self.refuse(stream);
                    continue;
                }
                DATA => received += payload.len(),
                HEADERS | SETTINGS | PING | WINDOW_UPDATE => {}
                other => panic!("an unexpected frame of type {other}"),
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                ended.push(stream);
            }
        }
        assert!(received == streams * bytes, "{received} bytes arrived");
        ended
    }

    /// Reads the next frame: type, flags, stream, payload.
    fn next(&mut self) -> (u8, u8, u32, Vec<u8>) {
        loop {
            if let Some((head, rest)) = self.arrived.split_first_chunk::<FRAME_HEAD>() {
                let [a, b, c, kind, flags, stream @ ..] = *head;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if let Some(payload) = rest.get(..length) {
                    let frame = (kind, flags, u32::from_be_bytes(stream), payload.to_vec());
                    self.arrived.drain(..FRAME_HEAD + length);
                    return frame;
                }
            }
            let mut chunk = [0; 64 * 1024];
            let count = self.socket.read(&mut chunk).expect("the proxy writes");
            assert!(count > 0, "the proxy has closed the connection");
            self.arrived.extend_from_slice(&chunk[..count]);
        }
    }

    fn headers(&mut self, stream: u32, flags: u8, fields: &[(&'static str, &'static str)]) {
        let mut block = Vec::new();
        for (name, value) in fields {
            self.hpack.field(&mut block, name, value);
        }
        self.frame(HEADERS, flags, stream, &block);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // Far below the limit of the length field.
        let length = payload.len() as u32;
        self.out.extend_from_slice(&length.to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }
}
