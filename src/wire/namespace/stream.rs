//! One direction of a call, translated message by message: framed bytes in, framed bytes out. What is in
//! a message that is not whole yet is kept here, and none of it is shown or sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::message_shapes::{Answer, Request, forms};
use super::prefix::Namespace;
use super::refusal::Refusal;
use crate::wire::frame::{FrameError, HEAD_LEN};
use crate::wire::method::Method;
use crate::wire::status::{Code, Status};

/// Which messages pass here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// A client's, to etcd.
    Requests(Request),
    /// etcd's, to a client.
    Answers(Answer),
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    namespace: Arc<Namespace>,
    messages: Messages,
    /// Largest message.
    max: u64,
    arrived: VecDeque<Bytes>,
    /// Small pieces after the last of `arrived`, copied: each would keep alive the whole buffer it came in.
    small: Vec<u8>,
    /// Bytes in both.
    held: usize,
}

/// Pieces of this size and more are kept as they come.
const LARGE: usize = 4 * 1024;

/// Why nothing more passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamError {
    /// A head that is none, or one of too large a message.
    Frame(FrameError),
    /// What is compressed cannot be looked at.
    Compressed,
    /// The namespace does not let a message pass.
    Refused(Refusal),
}

impl StreamError {
    /// What ends the call.
    pub fn status(&self, messages: Messages) -> Status {
        let requests = matches!(messages, Messages::Requests(_));
        let (code, text) = match (self, requests) {
            (StreamError::Refused(refusal), _) => return refusal.status(),
            (StreamError::Compressed, true) => (
                Code::Unimplemented,
                "etcd-edge: compressed requests are not supported in a namespace".to_owned(),
            ),
            (StreamError::Compressed, false) => (
                Code::Internal,
                "etcd-edge: compressed responses are not supported in a namespace".to_owned(),
            ),
            (StreamError::Frame(FrameError::TooLarge { len, max }), true) => {
                let text = format!("trying to send message larger than max ({len} vs. {max})");
                (Code::ResourceExhausted, text)
            }
            (StreamError::Frame(FrameError::TooLarge { len, max }), false) => {
                let text = format!("grpc: received message larger than max ({len} vs. {max})");
                (Code::ResourceExhausted, text)
            }
            (StreamError::Frame(error), _) => {
                let text = format!("etcd-edge: malformed gRPC frame: {error}");
                (Code::Internal, text)
            }
        };
        Status::new(code, text)
    }
}

impl Stream {
    /// Of messages of at most `max` bytes.
    pub fn new(namespace: Arc<Namespace>, messages: Messages, max: u64) -> Stream {
        Stream {
            namespace,
            messages,
            max,
            arrived: VecDeque::new(),
            small: Vec::new(),
            held: 0,
        }
    }

    /// The requests of a method; `None`: they hold no key.
    pub fn requests(namespace: &Arc<Namespace>, method: &Method, max: u64) -> Option<Stream> {
        let form = forms(method).0?;
        Some(Stream::new(
            namespace.clone(),
            Messages::Requests(form),
            max,
        ))
    }

    /// The answers of a method; `None`: they hold no key.
    pub fn answers(namespace: &Arc<Namespace>, method: &Method, max: u64) -> Option<Stream> {
        let form = forms(method).1?;
        Some(Stream::new(namespace.clone(), Messages::Answers(form), max))
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let first = self.held == 0;
        self.held += chunk.len();
        if first || chunk.len() >= LARGE {
            self.seal();
            self.arrived.push_back(chunk);
        } else {
            self.small.extend_from_slice(&chunk);
        }
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.arrived
                .push_back(std::mem::take(&mut self.small).into());
        }
    }

    /// Nothing has arrived.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.small.clear();
        self.held = 0;
    }

    /// Which messages pass here.
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// Bytes that have arrived and have not come out.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The next message, framed, in pieces none of which is empty; `None` until more is pushed.
    ///
    /// # Errors
    /// When nothing more may pass. The message it is about is let go.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<Bytes>>, StreamError> {
        let Some(head) = self.head() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if head[0] > 1 {
            return Err(StreamError::Frame(FrameError::BadFlag(head[0])));
        }
        if u64::from(len) > self.max {
            let (len, max) = (u64::from(len), self.max);
            return Err(StreamError::Frame(FrameError::TooLarge { len, max }));
        }
        if self.held - HEAD_LEN < len as usize {
            return Ok(None);
        }
        self.take(HEAD_LEN);
        let message = self.take(len as usize);
        if head[0] == 1 {
            return Err(StreamError::Compressed);
        }
        let translated = match self.messages {
            Messages::Requests(form) => self.namespace.framed_request(form, &message),
            Messages::Answers(form) => self.namespace.framed_answer(form, &message),
        };
        let pieces = translated.map_err(StreamError::Refused)?;
        // The other side takes no more, and a prefix makes a message longer.
        let len = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() - HEAD_LEN as u64;
        if len > self.max {
            let max = self.max;
            return Err(StreamError::Frame(FrameError::TooLarge { len, max }));
        }
        Ok(Some(pieces))
    }

    /// All of a stream that is here whole.
    ///
    /// # Errors
    /// As [`Stream::next`]; and when it ends within a message.
    pub fn whole<'a>(
        mut self,
        chunks: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<Bytes>, StreamError> {
        chunks
            .into_iter()
            .for_each(|chunk| self.push(chunk.clone()));
        let mut out = Vec::new();
        while let Some(mut pieces) = self.next()? {
            out.append(&mut pieces);
        }
        match self.held {
            0 => Ok(out),
            _ => Err(StreamError::Frame(FrameError::Truncated)),
        }
    }

    fn head(&self) -> Option<[u8; HEAD_LEN]> {
        let mut head = [0; HEAD_LEN];
        let arrived = self.arrived.iter().flat_map(|chunk| chunk.iter());
        let mut bytes = arrived.chain(&self.small);
        for place in &mut head {
            *place = *bytes.next()?;
        }
        Some(head)
    }

    /// The next bytes, all of which are here.
    fn take(&mut self, mut count: usize) -> Vec<Bytes> {
        let mut taken = Vec::with_capacity(1);
        self.held -= count;
        self.seal();
        while let Some(first) = self.arrived.front_mut().filter(|_| count > 0) {
            let some = count.min(first.remaining());
            taken.push(first.split_to(some));
            count -= some;
            if first.is_empty() {
                self.arrived.pop_front();
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    fn stream(messages: Messages, max: u64) -> Stream {
        Stream::new(Arc::new(Namespace::new(b"p/").unwrap()), messages, max)
    }

    fn put(key: &str) -> Bytes {
        let message = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
        frame::encode(&message)
    }

    const PUTS: Messages = Messages::Requests(Request::Put);

    #[test]
    fn messages_come_out_however_they_arrive() {
        let both = [put("a"), put("bc")].concat();
        let there = [put("p/a"), put("p/bc")].concat();
        for cut in 0..=both.len() {
            let both = Bytes::from(both.clone());
            let chunks = [both.slice(..cut), both.slice(cut..)];
            let out = stream(PUTS, 100).whole(&chunks).unwrap();
            assert_eq!(out.concat(), there);
            // One message, one piece.
            assert_eq!(out.len(), 2);
        }
    }

    #[test]
    fn nothing_of_a_message_comes_out_before_it_is_whole() {
        let message = put("a");
        let mut stream = stream(PUTS, 100);
        for (n, byte) in message.iter().enumerate() {
            assert_eq!(stream.next(), Ok(None));
            assert_eq!(stream.held(), n);
            stream.push(Bytes::copy_from_slice(&[*byte]));
        }
        assert!(stream.next().unwrap().is_some());
        assert_eq!((stream.next(), stream.held()), (Ok(None), 0));
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let value = Bytes::from(vec![b'v'; 100_000]);
        let mut head = vec![0x0a, 1, b'k'];
        crate::wire::proto::put_len_head(&mut head, 2, value.len());
        let frame = frame::head(false, (head.len() + value.len()) as u32);
        let chunks = [Bytes::from([&frame[..], &head].concat()), value.clone()];
        let out = stream(PUTS, 1 << 20).whole(&chunks).unwrap();
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].as_ptr(), value.as_ptr());
        assert_eq!(
            out[0][1..5],
            (head.len() as u32 + 2 + 100_000).to_be_bytes()
        );
    }

    #[test]
    fn a_message_that_outgrows_the_limit_does_not_pass() {
        // Three bytes that become five.
        assert!(stream(PUTS, 5).whole(&[put("a")]).is_ok());
        let too_large = FrameError::TooLarge { len: 5, max: 4 };
        assert_eq!(
            stream(PUTS, 4).whole(&[put("a")]),
            Err(StreamError::Frame(too_large))
        );
    }

    #[test]
    fn what_cannot_be_looked_at_does_not_pass() {
        let too_large = FrameError::TooLarge { len: 3, max: 2 };
        assert_eq!(
            stream(PUTS, 2).whole(&[put("a")]),
            Err(StreamError::Frame(too_large))
        );
        let mut compressed = put("a").to_vec();
        compressed[0] = 1;
        let compressed = Bytes::from(compressed);
        assert_eq!(
            stream(PUTS, 100).whole(&[compressed]),
            Err(StreamError::Compressed)
        );
        let junk = Bytes::from_static(&[7, 0, 0, 0, 0]);
        let flag = StreamError::Frame(FrameError::BadFlag(7));
        assert_eq!(stream(PUTS, 100).whole(&[junk]), Err(flag));
        let part = put("a").slice(..6);
        let cut = StreamError::Frame(FrameError::Truncated);
        assert_eq!(stream(PUTS, 100).whole(&[part]), Err(cut));
        let outside = frame::encode(b"\x12\x06\x0a\x04q/ab");
        let shown = stream(Messages::Answers(Answer::Range), 100).whole(&[outside]);
        assert!(matches!(
            shown,
            Err(StreamError::Refused(Refusal::Answer(_)))
        ));
    }
}
