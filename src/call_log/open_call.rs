//! A call that is to be told of, while it is open: what passes is counted, and where its answer comes
//! from is noted.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::call_log::describe::describe;
use crate::call_log::finished_call::{ClientInfo, FinishedCall, Source, Span, Traffic};
use crate::limits;
use crate::metrics::EndpointMetrics;
use crate::upstream::conn::Conn;
use crate::wire::frame::{HEAD_LEN, Scanner};
use crate::wire::status::Code;

/// See the module.
#[derive(Debug)]
pub struct LoggedCall {
    at: SystemTime,
    began: Instant,
    path: Box<str>,
    who: Option<Arc<ClientInfo>>,
    /// The trace it belongs to.
    pub(super) trace: Option<u128>,
    /// Its span, if it is recorded.
    pub(super) span: Option<Span>,
    received: Flow,
    sent: Flow,
    source: Cell<Source>,
    endpoint: RefCell<Option<Arc<EndpointMetrics>>>,
    /// The first bytes of the request, where they are to be told.
    asks: Option<RefCell<Vec<u8>>>,
}

impl LoggedCall {
    pub(super) fn new(path: &str, who: Option<Arc<ClientInfo>>, debug: bool) -> LoggedCall {
        let cut = path.floor_char_boundary(limits::CALL_LOG_PATH_BYTES);
        LoggedCall {
            at: SystemTime::now(),
            began: Instant::now(),
            path: path[..cut].into(),
            who,
            trace: None,
            span: None,
            received: Flow::default(),
            sent: Flow::default(),
            source: Cell::new(Source::Proxy),
            endpoint: RefCell::new(None),
            asks: debug.then(RefCell::default),
        }
    }

    /// Bytes of the client's.
    pub fn received(&self, chunk: &[u8]) {
        self.received.feed(chunk);
        if let Some(asks) = &self.asks {
            let mut asks = asks.borrow_mut();
            let room = limits::CALL_LOG_REQUEST_BYTES.saturating_sub(asks.len());
            asks.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }

    /// Bytes to the client.
    pub fn sent(&self, chunk: &[u8]) {
        self.sent.feed(chunk);
    }

    /// One whole message to the client, of so many bytes with its frame.
    pub fn sent_message(&self, framed: usize) {
        self.sent.message(framed);
    }

    /// The answer is of this source, and of no endpoint for this call.
    pub fn comes_from(&self, source: Source) {
        self.source.set(source);
        *self.endpoint.borrow_mut() = None;
    }

    /// The answer is of etcd, over this connection and for this call.
    pub fn comes_over(&self, conn: &Conn) {
        self.source.set(Source::Etcd);
        *self.endpoint.borrow_mut() = Some(conn.target().metrics.clone());
    }

    /// The call is over.
    pub(super) fn ended(&self, code: Code) -> FinishedCall {
        FinishedCall {
            at: self.at,
            took: self.began.elapsed(),
            path: self.path.clone(),
            who: self.who.clone(),
            code,
            received: self.received.traffic(),
            sent: self.sent.traffic(),
            source: self.source.get(),
            endpoint: self.endpoint.borrow_mut().take(),
            trace: self.trace,
            span: self.span,
            asked: self.asks.as_ref().and_then(|asks| {
                let asks = asks.borrow();
                // A compressed message is not understood.
                let message = asks.get(HEAD_LEN..).filter(|_| asks[0] == 0)?;
                let length = asks[1..].first_chunk().map(|b| u32::from_be_bytes(*b))?;
                let length = message.len().min(length as usize);
                describe(&self.path, &message[..length])
            }),
        }
    }
}

/// Counts messages in bytes that come split anywhere.
#[derive(Debug)]
struct Flow {
    scanner: RefCell<Scanner>,
    messages: Cell<u64>,
    /// With the heads of messages.
    bytes: Cell<u64>,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            scanner: RefCell::new(Scanner::new(u64::MAX)),
            messages: Cell::new(0),
            bytes: Cell::new(0),
        }
    }
}

impl Flow {
    fn feed(&self, chunk: &[u8]) {
        self.bytes.set(self.bytes.get() + chunk.len() as u64);
        // What is no gRPC has no messages.
        let began = self.scanner.borrow_mut().feed(chunk).unwrap_or(0);
        self.messages.set(self.messages.get() + u64::from(began));
    }

    fn message(&self, framed: usize) {
        self.bytes.set(self.bytes.get() + framed as u64);
        self.messages.set(self.messages.get() + 1);
    }

    fn traffic(&self) -> Traffic {
        let messages = self.messages.get();
        let heads = messages * HEAD_LEN as u64;
        Traffic {
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
    fn messages_are_counted_however_they_come() {
        let record = LoggedCall::new("/etcdserverpb.KV/Put", None, true);
        let framed = [frame::encode(b"\x0a\x01k\x12\x02ab"), frame::encode(b"")].concat();
        framed.chunks(3).for_each(|part| record.received(part));
        record.sent(&framed[..framed.len() - 2]);
        record.sent_message(15);
        let entry = record.ended(Code::Ok);
        assert_eq!((entry.received.messages, entry.received.bytes), (2, 7));
        // The last head is not complete: its message has not begun.
        assert_eq!((entry.sent.messages, entry.sent.bytes), (2, 7 + 3 + 10));
        assert_eq!(entry.asked.unwrap(), r#"{"key":"k","value_size":2}"#);
        let quiet = LoggedCall::new("/etcdserverpb.KV/Put", None, false);
        quiet.received(&framed);
        assert_eq!(quiet.ended(Code::Ok).asked, None);
    }

    #[test]
    fn a_request_is_kept_as_far_as_it_is_told() {
        let record = LoggedCall::new(&"é".repeat(2000), None, true);
        record.received(&vec![0; 3 * limits::CALL_LOG_REQUEST_BYTES]);
        let kept = record.asks.as_ref().unwrap().borrow().len();
        assert_eq!(kept, limits::CALL_LOG_REQUEST_BYTES);
        assert!(record.path.len() <= limits::CALL_LOG_PATH_BYTES);
        let compressed = LoggedCall::new("/etcdserverpb.KV/Put", None, true);
        compressed.received(b"\x01\0\0\0\x03abc");
        assert_eq!(compressed.ended(Code::Ok).asked, None);
    }
}
