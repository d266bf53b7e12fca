//! Open call that is logged: counts its messages and records the source of its response.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::call_log::describe::describe;
use crate::call_log::finished_call::{
    CallTraffic, ClientInfo, FinishedCall, ResponseSource, SpanIds,
};
use crate::limits;
use crate::metrics::EndpointMetrics;
use crate::upstream::conn::Conn;
use crate::wire::frame::{HEAD_LEN, Scanner};
use crate::wire::status::Code;

/// Open call that is logged.
#[derive(Debug)]
pub struct LoggedCall {
    arrived: SystemTime,
    started: Instant,
    path: Box<str>,
    client: Option<Arc<ClientInfo>>,
    /// Trace id.
    pub(super) trace: Option<u128>,
    /// Span ids, if the call is sampled.
    pub(super) span: Option<SpanIds>,
    received: ByteCounter,
    sent: ByteCounter,
    source: Cell<ResponseSource>,
    endpoint: RefCell<Option<Arc<EndpointMetrics>>>,
    /// First bytes of the request stream, if the request is described in the log.
    request: Option<RefCell<Vec<u8>>>,
}

impl LoggedCall {
    pub(super) fn new(path: &str, client: Option<Arc<ClientInfo>>, debug: bool) -> LoggedCall {
        let cut = path.floor_char_boundary(limits::CALL_LOG_PATH_BYTES);
        LoggedCall {
            arrived: SystemTime::now(),
            started: Instant::now(),
            path: path[..cut].into(),
            client,
            trace: None,
            span: None,
            received: ByteCounter::default(),
            sent: ByteCounter::default(),
            source: Cell::new(ResponseSource::Proxy),
            endpoint: RefCell::new(None),
            request: debug.then(RefCell::default),
        }
    }

    /// Counts bytes received from the client.
    pub fn count_received(&self, chunk: &[u8]) {
        self.received.feed(chunk);
        if let Some(request) = &self.request {
            let mut request = request.borrow_mut();
            let capacity = limits::CALL_LOG_REQUEST_BYTES.saturating_sub(request.len());
            request.extend_from_slice(&chunk[..chunk.len().min(capacity)]);
        }
    }

    /// Counts bytes sent to the client.
    pub fn count_sent(&self, chunk: &[u8]) {
        self.sent.feed(chunk);
    }

    /// Counts one whole message sent to the client. `framed` is its length with its gRPC header.
    pub fn count_sent_message(&self, framed: usize) {
        self.sent.message(framed);
    }

    /// Sets the source of the response, which is no endpoint for this call only.
    pub fn set_source(&self, source: ResponseSource) {
        self.source.set(source);
        *self.endpoint.borrow_mut() = None;
    }

    /// Sets etcd as the source of the response, over `conn` and for this call only.
    pub fn set_upstream(&self, conn: &Conn) {
        self.source.set(ResponseSource::Etcd);
        *self.endpoint.borrow_mut() = Some(conn.target().metrics.clone());
    }

    /// Returns the data of the call at its end.
    pub(super) fn finish(&self, code: Code) -> FinishedCall {
        FinishedCall {
            arrived: self.arrived,
            duration: self.started.elapsed(),
            path: self.path.clone(),
            client: self.client.clone(),
            code,
            received: self.received.traffic(),
            sent: self.sent.traffic(),
            source: self.source.get(),
            endpoint: self.endpoint.borrow_mut().take(),
            trace: self.trace,
            span: self.span,
            request: self.request.as_ref().and_then(|request| {
                let request = request.borrow();
                // Compressed messages are not described.
                let message = request.get(HEAD_LEN..).filter(|_| request[0] == 0)?;
                let length = request[1..].first_chunk().map(|b| u32::from_be_bytes(*b))?;
                let length = message.len().min(length as usize);
                describe(&self.path, &message[..length])
            }),
        }
    }
}

/// Counter of gRPC messages and bytes in a stream of chunks with any boundaries.
#[derive(Debug)]
struct ByteCounter {
    scanner: RefCell<Scanner>,
    messages: Cell<u64>,
    /// Including the headers of messages.
    bytes: Cell<u64>,
}

impl Default for ByteCounter {
    fn default() -> ByteCounter {
        ByteCounter {
            scanner: RefCell::new(Scanner::new(u64::MAX)),
            messages: Cell::new(0),
            bytes: Cell::new(0),
        }
    }
}

impl ByteCounter {
    fn feed(&self, chunk: &[u8]) {
        self.bytes.set(self.bytes.get() + chunk.len() as u64);
        // A stream that is not gRPC has no messages.
        let began = self.scanner.borrow_mut().feed(chunk).unwrap_or(0);
        self.messages.set(self.messages.get() + u64::from(began));
    }

    fn message(&self, framed: usize) {
        self.bytes.set(self.bytes.get() + framed as u64);
        self.messages.set(self.messages.get() + 1);
    }

    fn traffic(&self) -> CallTraffic {
        let messages = self.messages.get();
        let heads = messages * HEAD_LEN as u64;
        CallTraffic {
            messages,
            bytes: self.bytes.get().saturating_sub(heads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    #[test]
    fn messages_are_counted_across_chunks() {
        let call = LoggedCall::new("/etcdserverpb.KV/Put", None, true);
        let framed = [frame::encode(b"\x0a\x01k\x12\x02ab"), frame::encode(b"")].concat();
        framed.chunks(3).for_each(|part| call.count_received(part));
        call.count_sent(&framed[..framed.len() - 2]);
        call.count_sent_message(15);
        let finished = call.finish(Code::Ok);
        assert_eq!(
            (finished.received.messages, finished.received.bytes),
            (2, 7)
        );
        // The last header is incomplete, so its message has not begun.
        assert_eq!(
            (finished.sent.messages, finished.sent.bytes),
            (2, 7 + 3 + 10)
        );
        assert_eq!(finished.request.unwrap(), r#"{"key":"k","value_size":2}"#);
        let quiet = LoggedCall::new("/etcdserverpb.KV/Put", None, false);
        quiet.count_received(&framed);
        assert_eq!(quiet.finish(Code::Ok).request, None);
    }

    #[test]
    fn request_is_buffered_up_to_its_limit() {
        let call = LoggedCall::new(&"é".repeat(2000), None, true);
        call.count_received(&vec![0; 3 * limits::CALL_LOG_REQUEST_BYTES]);
        let buffered = call.request.as_ref().unwrap().borrow().len();
        assert_eq!(buffered, limits::CALL_LOG_REQUEST_BYTES);
        assert!(call.path.len() <= limits::CALL_LOG_PATH_BYTES);
        let compressed = LoggedCall::new("/etcdserverpb.KV/Put", None, true);
        compressed.count_received(b"\x01\0\0\0\x03abc");
        assert_eq!(compressed.finish(Code::Ok).request, None);
    }
}
