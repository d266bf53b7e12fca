//! Translates one direction of a call: framed bytes in, framed bytes out.
//!
//! It buffers an incomplete message. No part of a message leaves before the whole message is
//! translated.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::message_schemas::{RequestType, ResponseType, message_types};
use super::prefix::Namespace;
use super::translation_error::TranslationError;
use crate::wire::compression::{self, DecompressionError, Encoding};
use crate::wire::frame::{FrameError, HEAD_LEN, Message};
use crate::wire::method::Method;
use crate::wire::status::{Code, Status};

/// The type of the messages in one direction of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// Requests of a client to etcd.
    Request(RequestType),
    /// Responses of etcd to a client.
    Response(ResponseType),
}

/// Translator for the framed messages of one direction of a call.
#[derive(Debug)]
pub struct StreamTranslator {
    namespace: Arc<Namespace>,
    message_type: MessageType,
    /// Compression of the messages. Translated requests are not compressed. Translated responses
    /// are compressed as they were.
    encoding: Encoding,
    /// Maximum payload of a message in bytes, before and after decompression and translation.
    max: u64,
    arrived: VecDeque<Bytes>,
    /// Small pieces after the last of `arrived`, copied: each would pin the whole buffer that
    /// contains it.
    small: Vec<u8>,
    /// Bytes in `arrived` and `small`.
    buffered: usize,
}

/// Minimum length in bytes of a piece that is buffered without a copy.
const MIN_SHARED_CHUNK: usize = 4 * 1024;

/// Error that ends the translation of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamTranslationError {
    /// A gRPC head is malformed, or announces too large a message.
    Frame(FrameError),
    /// A message cannot be decompressed.
    Compression(DecompressionError),
    /// The namespace rejects a message.
    Rejected(TranslationError),
}

impl StreamTranslationError {
    /// Returns the status that ends the call.
    pub fn status(&self, message_type: MessageType) -> Status {
        let is_request = matches!(message_type, MessageType::Request(_));
        let (code, text) = match (self, is_request) {
            (StreamTranslationError::Rejected(error), _) => return error.status(),
            (StreamTranslationError::Compression(error), _) => return error.status(),
            (StreamTranslationError::Frame(FrameError::TooLarge { len, max }), true) => {
                let text = format!("trying to send message larger than max ({len} vs. {max})");
                (Code::ResourceExhausted, text)
            }
            (StreamTranslationError::Frame(FrameError::TooLarge { len, max }), false) => {
                let text = format!("grpc: received message larger than max ({len} vs. {max})");
                (Code::ResourceExhausted, text)
            }
            (StreamTranslationError::Frame(error), _) => {
                let text = format!("etcd-edge: malformed gRPC frame: {error}");
                (Code::Internal, text)
            }
        };
        Status::new(code, text)
    }
}

impl StreamTranslator {
    /// Creates a translator for messages of at most `max` bytes, not compressed.
    pub fn new(namespace: Arc<Namespace>, message_type: MessageType, max: u64) -> StreamTranslator {
        StreamTranslator {
            namespace,
            message_type,
            encoding: Encoding::Identity,
            max,
            arrived: VecDeque::new(),
            small: Vec::new(),
            buffered: 0,
        }
    }

    /// Creates a translator for a method's requests. Returns `None` if they contain no key.
    pub fn for_requests(
        namespace: &Arc<Namespace>,
        method: &Method,
        max: u64,
    ) -> Option<StreamTranslator> {
        let message_type = message_types(method).0?;
        Some(StreamTranslator::new(
            namespace.clone(),
            MessageType::Request(message_type),
            max,
        ))
    }

    /// Creates a translator for a method's responses. Returns `None` if they contain no key.
    pub fn for_responses(
        namespace: &Arc<Namespace>,
        method: &Method,
        max: u64,
    ) -> Option<StreamTranslator> {
        let message_type = message_types(method).1?;
        Some(StreamTranslator::new(
            namespace.clone(),
            MessageType::Response(message_type),
            max,
        ))
    }

    /// Accepts messages that are compressed.
    pub fn with_encoding(mut self, encoding: Encoding) -> StreamTranslator {
        self.encoding = encoding;
        self
    }

    /// Returns the compression of the messages.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let first = self.buffered == 0;
        self.buffered += chunk.len();
        if first || chunk.len() >= MIN_SHARED_CHUNK {
            self.flush_small();
            self.arrived.push_back(chunk);
        } else {
            self.small.extend_from_slice(&chunk);
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.arrived
                .push_back(std::mem::take(&mut self.small).into());
        }
    }

    /// Drops all buffered bytes.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.small.clear();
        self.buffered = 0;
    }

    /// Returns the type of the messages.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// Returns the number of bytes that are buffered.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Returns the next translated message, framed, in pieces that are not empty. Returns `None` if
    /// more bytes are needed.
    ///
    /// # Errors
    /// [`StreamTranslationError`] if the message must not pass. A rejected message is dropped, and
    /// the stream must end.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<Bytes>>, StreamTranslationError> {
        let Some(head) = self.head() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if head[0] > 1 {
            return Err(StreamTranslationError::Frame(FrameError::BadFlag(head[0])));
        }
        if u64::from(len) > self.max {
            let (len, max) = (u64::from(len), self.max);
            return Err(StreamTranslationError::Frame(FrameError::TooLarge {
                len,
                max,
            }));
        }
        if self.buffered - HEAD_LEN < len as usize {
            return Ok(None);
        }
        self.take(HEAD_LEN);
        let mut message = self.take(len as usize);
        let compressed = head[0] == 1;
        if compressed {
            message = self.decompressed(message)?;
        }
        let translated = match self.message_type {
            MessageType::Request(message_type) => {
                self.namespace.framed_request(message_type, &message)
            }
            MessageType::Response(message_type) => {
                self.namespace.framed_response(message_type, &message)
            }
        };
        let pieces = translated.map_err(StreamTranslationError::Rejected)?;
        // The receiver has the same limit, and the prefix makes a message longer.
        let len = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() - HEAD_LEN as u64;
        if len > self.max {
            let max = self.max;
            return Err(StreamTranslationError::Frame(FrameError::TooLarge {
                len,
                max,
            }));
        }
        if compressed && matches!(self.message_type, MessageType::Response(_)) {
            return Ok(Some(recompressed(pieces)));
        }
        Ok(Some(pieces))
    }

    /// Decompresses a message, which may be empty then.
    #[cold]
    fn decompressed(&self, message: Vec<Bytes>) -> Result<Vec<Bytes>, StreamTranslationError> {
        let message = Message {
            compressed: true,
            payload: message.concat().into(),
        };
        let payload = self.encoding.decode(message, self.max);
        let payload = payload.map_err(StreamTranslationError::Compression)?;
        Ok(vec![payload])
    }

    /// Translates a complete stream.
    ///
    /// # Errors
    /// Like [`StreamTranslator::next`], and if the stream ends inside a message.
    pub fn translate_all<'a>(
        mut self,
        chunks: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<Bytes>, StreamTranslationError> {
        chunks
            .into_iter()
            .for_each(|chunk| self.push(chunk.clone()));
        let mut out = Vec::new();
        while let Some(mut pieces) = self.next()? {
            out.append(&mut pieces);
        }
        match self.buffered {
            0 => Ok(out),
            _ => Err(StreamTranslationError::Frame(FrameError::Truncated)),
        }
    }

    fn head(&self) -> Option<[u8; HEAD_LEN]> {
        let mut head = [0; HEAD_LEN];
        let arrived = self.arrived.iter().flat_map(|chunk| chunk.iter());
        let mut bytes = arrived.chain(&self.small);
        for slot in &mut head {
            *slot = *bytes.next()?;
        }
        Some(head)
    }

    /// Removes the next `count` bytes, which must be buffered.
    fn take(&mut self, mut count: usize) -> Vec<Bytes> {
        let mut taken = Vec::with_capacity(1);
        self.buffered -= count;
        self.flush_small();
        while let Some(first) = self.arrived.front_mut().filter(|_| count > 0) {
            let len = count.min(first.remaining());
            taken.push(first.split_to(len));
            count -= len;
            if first.is_empty() {
                self.arrived.pop_front();
            }
        }
        taken
    }
}

/// Compresses a framed message, if it is small enough for that.
#[cold]
fn recompressed(pieces: Vec<Bytes>) -> Vec<Bytes> {
    match compression::compress(pieces.iter().map(|piece| &piece[..])) {
        Some(compressed) => vec![compressed],
        None => pieces,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    fn stream(message_type: MessageType, max: u64) -> StreamTranslator {
        StreamTranslator::new(Arc::new(Namespace::new(b"p/").unwrap()), message_type, max)
    }

    fn put(key: &str) -> Bytes {
        let message = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
        frame::encode(&message)
    }

    const PUTS: MessageType = MessageType::Request(RequestType::Put);

    #[test]
    fn accepts_any_split() {
        let both = [put("a"), put("bc")].concat();
        let translated = [put("p/a"), put("p/bc")].concat();
        for cut in 0..=both.len() {
            let both = Bytes::from(both.clone());
            let chunks = [both.slice(..cut), both.slice(cut..)];
            let out = stream(PUTS, 100).translate_all(&chunks).unwrap();
            assert_eq!(out.concat(), translated);
            // Each message is one piece.
            assert_eq!(out.len(), 2);
        }
    }

    #[test]
    fn outputs_nothing_before_a_message_is_complete() {
        let message = put("a");
        let mut stream = stream(PUTS, 100);
        for (n, byte) in message.iter().enumerate() {
            assert_eq!(stream.next(), Ok(None));
            assert_eq!(stream.buffered(), n);
            stream.push(Bytes::copy_from_slice(&[*byte]));
        }
        assert!(stream.next().unwrap().is_some());
        assert_eq!((stream.next(), stream.buffered()), (Ok(None), 0));
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let value = Bytes::from(vec![b'v'; 100_000]);
        let mut head = vec![0x0a, 1, b'k'];
        crate::wire::proto::put_len_head(&mut head, 2, value.len());
        let frame = frame::head(false, (head.len() + value.len()) as u32);
        let chunks = [Bytes::from([&frame[..], &head].concat()), value.clone()];
        let out = stream(PUTS, 1 << 20).translate_all(&chunks).unwrap();
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].as_ptr(), value.as_ptr());
        assert_eq!(
            out[0][1..5],
            (head.len() as u32 + 2 + 100_000).to_be_bytes()
        );
    }

    #[test]
    fn rejects_a_message_that_grows_past_the_limit() {
        // Three bytes become five.
        assert!(stream(PUTS, 5).translate_all(&[put("a")]).is_ok());
        let too_large = FrameError::TooLarge { len: 5, max: 4 };
        assert_eq!(
            stream(PUTS, 4).translate_all(&[put("a")]),
            Err(StreamTranslationError::Frame(too_large))
        );
    }

    #[test]
    fn translates_compressed_messages() {
        let gzip = |framed: &Bytes| compression::compress([&framed[..]].into_iter()).unwrap();
        let requests = [gzip(&put("a")), put("bc")];
        let translated = stream(PUTS, 100)
            .with_encoding(Encoding::Gzip)
            .translate_all(&requests);
        let expected = [put("p/a"), put("p/bc")].concat();
        assert_eq!(translated.unwrap().concat(), expected);

        let responses = MessageType::Response(ResponseType::Range);
        let key = |key: &str| {
            let kv = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
            frame::encode(&[&[0x12, kv.len() as u8], &kv[..]].concat())
        };
        let translated = stream(responses, 100)
            .with_encoding(Encoding::Gzip)
            .translate_all(&[gzip(&key("p/a")), key("p/b")]);
        assert_eq!(translated.unwrap(), [gzip(&key("a")), key("b")]);

        // The maximum applies to the decompressed message.
        let large = gzip(&frame::encode(
            &[&[0x0a, 0, 0x12, 100][..], &[0; 100]].concat(),
        ));
        let error = stream(PUTS, 100)
            .with_encoding(Encoding::Gzip)
            .translate_all(&[large])
            .unwrap_err();
        let StreamTranslationError::Compression(error) = error else {
            panic!("{error:?}");
        };
        assert!(error.is_too_large());
    }

    #[test]
    fn rejects_malformed_compressed_and_foreign_messages() {
        let too_large = FrameError::TooLarge { len: 3, max: 2 };
        assert_eq!(
            stream(PUTS, 2).translate_all(&[put("a")]),
            Err(StreamTranslationError::Frame(too_large))
        );
        let mut compressed = put("a").to_vec();
        compressed[0] = 1;
        let compressed = Bytes::from(compressed);
        assert_eq!(
            stream(PUTS, 100).translate_all(&[compressed]),
            Err(StreamTranslationError::Compression(
                DecompressionError::NoEncoding
            ))
        );
        let junk = Bytes::from_static(&[7, 0, 0, 0, 0]);
        let flag = StreamTranslationError::Frame(FrameError::BadFlag(7));
        assert_eq!(stream(PUTS, 100).translate_all(&[junk]), Err(flag));
        let part = put("a").slice(..6);
        let cut = StreamTranslationError::Frame(FrameError::Truncated);
        assert_eq!(stream(PUTS, 100).translate_all(&[part]), Err(cut));
        let outside = frame::encode(b"\x12\x06\x0a\x04q/ab");
        let shown =
            stream(MessageType::Response(ResponseType::Range), 100).translate_all(&[outside]);
        assert!(matches!(
            shown,
            Err(StreamTranslationError::Rejected(
                TranslationError::Response(_)
            ))
        ));
    }
}
