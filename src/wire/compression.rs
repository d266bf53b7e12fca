//! Compression of gRPC messages as etcd supports it: gzip, or none (P6).
//!
//! A call whose requests have `grpc-encoding: gzip` may send compressed and uncompressed messages.
//! etcd compresses the responses of such a call, whatever `grpc-accept-encoding` contains.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::limits;
use crate::wire::frame::{self, HEAD_LEN, Message};
use crate::wire::gzip::{self, GzipError};
use crate::wire::metadata::GRPC_ENCODING;
use crate::wire::status::{Code, Status};

/// Compression of the messages of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// No message is compressed.
    #[default]
    Identity,
    /// Messages may be compressed with gzip.
    Gzip,
}

/// Error of a compressed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecompressionError {
    /// The headers of the call name no compression.
    NoEncoding,
    /// The message is not gzip, or too large.
    Gzip {
        /// Reason.
        error: GzipError,
        /// Maximum size in bytes of the decompressed message.
        max: u64,
    },
}

impl DecompressionError {
    /// Returns whether the decompressed message exceeds the limit.
    pub fn is_too_large(&self) -> bool {
        let DecompressionError::Gzip { error, .. } = self else {
            return false;
        };
        *error == GzipError::TooLarge
    }

    /// Returns the status that etcd returns for the same message.
    pub fn status(&self) -> Status {
        let (error, max) = match self {
            DecompressionError::NoEncoding => {
                let text = "grpc: compressed flag set with identity or empty encoding";
                return Status::new(Code::Internal, text);
            }
            DecompressionError::Gzip { error, max } => (error, max),
        };
        match error {
            GzipError::Header(fault) => {
                let text = format!("grpc: failed to decompress the message: {fault}");
                Status::new(Code::Internal, text)
            }
            GzipError::Content(fault) => {
                let text = format!("grpc: failed to read decompressed data: {fault}");
                Status::new(Code::Internal, text)
            }
            GzipError::TooLarge => {
                let text =
                    format!("grpc: received message after decompression larger than max {max}");
                Status::new(Code::ResourceExhausted, text)
            }
        }
    }
}

impl Encoding {
    /// Reads the compression from the headers of a request. The last value counts, as at etcd.
    ///
    /// # Errors
    /// The status of etcd for a compression that it does not support.
    pub fn from_headers(headers: &HeaderMap) -> Result<Encoding, Status> {
        let value = headers.get_all(GRPC_ENCODING).iter().next_back();
        match value.map_or(&b""[..], HeaderValue::as_bytes) {
            b"" | b"identity" => Ok(Encoding::Identity),
            b"gzip" => Ok(Encoding::Gzip),
            other => {
                // Go's %q.
                let name = String::from_utf8_lossy(other);
                let text =
                    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
                Err(Status::new(Code::Unimplemented, text))
            }
        }
    }

    /// Adds the headers of a response with messages in this encoding.
    pub fn write(self, headers: &mut HeaderMap) {
        if self == Encoding::Gzip {
            headers.insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
        }
    }

    /// Returns the payload of a message, decompressed if it is compressed. A decompressed payload
    /// has at most `max` bytes.
    ///
    /// # Errors
    /// The message is invalid or too large.
    pub fn decode(self, message: Message, max: u64) -> Result<Bytes, DecompressionError> {
        match (message.compressed, self) {
            (false, _) => Ok(message.payload),
            (true, Encoding::Identity) => Err(DecompressionError::NoEncoding),
            (true, Encoding::Gzip) => {
                gzip::decompress(&message.payload, usize::try_from(max).unwrap_or(usize::MAX))
                    .map(Bytes::from)
                    .map_err(|error| DecompressionError::Gzip { error, max })
            }
        }
    }
}

/// Returns a framed message, compressed with gzip. `pieces` are the parts of the same message,
/// framed and not compressed.
///
/// Returns `None` if the message should stay as it is: it is empty, or larger than
/// [`limits::COMPRESSED_MESSAGE_BYTES`]. Clients accept an uncompressed message at any time.
pub fn compress<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Bytes> {
    let len: usize = pieces.clone().map(<[u8]>::len).sum();
    if !(HEAD_LEN + 1..=HEAD_LEN + limits::COMPRESSED_MESSAGE_BYTES).contains(&len) {
        return None;
    }
    let mut head = HEAD_LEN;
    let payload = pieces.map(|piece| {
        let skipped = head.min(piece.len());
        head -= skipped;
        &piece[skipped..]
    });
    let mut out = gzip::compress(payload, vec![0; HEAD_LEN]);
    let compressed = u32::try_from(out.len() - HEAD_LEN).ok()?;
    out[..HEAD_LEN].copy_from_slice(&frame::head(true, compressed));
    Some(out.into())
}

/// Returns the start of the compressed message at the start of `framed`, framed and decompressed, to
/// read its first fields. Its payload has at most `max` bytes. The end of the message may be missing.
///
/// Returns `None` if the message is not compressed or not gzip.
pub fn decompressed_start(framed: &[u8], max: usize) -> Option<Bytes> {
    let (head, payload) = framed.split_at_checked(HEAD_LEN)?;
    let start = (head[0] == 1).then(|| gzip::decompress_prefix(payload, max))??;
    Some(frame::encode(&start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::gzip::GzipFault;

    fn encoding(values: &[&'static str]) -> Result<Encoding, Status> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(GRPC_ENCODING, HeaderValue::from_static(value));
        }
        Encoding::from_headers(&headers)
    }

    #[test]
    fn reads_the_encoding_as_etcd() {
        for values in [&[][..], &[""], &["identity"], &["gzip", "identity"]] {
            assert_eq!(encoding(values), Ok(Encoding::Identity));
        }
        for values in [&["gzip"][..], &["identity", "gzip"]] {
            assert_eq!(encoding(values), Ok(Encoding::Gzip));
        }
        for other in ["GZIP", "deflate", "gzip,identity"] {
            let status = encoding(&[other]).unwrap_err();
            let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{other}\"");
            assert_eq!(status, Status::new(Code::Unimplemented, text));
        }
    }

    #[test]
    fn a_compressed_message_is_the_same_message() {
        let payload = b"some text, some text, some text, some text";
        let framed = frame::encode(payload);
        for cut in 0..=framed.len() {
            let (first, second) = framed.split_at(cut);
            let compressed = compress([first, second].into_iter()).unwrap();
            assert!(compressed.len() < framed.len());
            let message = Message {
                compressed: true,
                payload: compressed.slice(HEAD_LEN..),
            };
            assert_eq!(
                compressed[..HEAD_LEN],
                frame::head(true, message.payload.len() as u32)
            );
            let decoded = Encoding::Gzip.decode(message.clone(), payload.len() as u64);
            assert_eq!(decoded.unwrap(), &payload[..]);
            assert_eq!(
                Encoding::Identity.decode(message.clone(), 100),
                Err(DecompressionError::NoEncoding)
            );
            let too_large = Encoding::Gzip.decode(message, payload.len() as u64 - 1);
            assert!(too_large.unwrap_err().is_too_large());
            for part in HEAD_LEN + 10..=compressed.len() {
                let start = decompressed_start(&compressed[..part], 9).unwrap();
                assert!(frame::encode(&payload[..9])[HEAD_LEN..].starts_with(&start[HEAD_LEN..]));
            }
            let start = decompressed_start(&compressed, 9).unwrap();
            assert_eq!(start, frame::encode(&payload[..9]));
        }
        assert_eq!(decompressed_start(&framed, 9), None);
    }

    #[test]
    fn empty_and_large_messages_are_not_compressed() {
        let largest = frame::encode(&vec![0; limits::COMPRESSED_MESSAGE_BYTES]);
        assert!(compress([&largest[..]].into_iter()).is_some());
        let larger = frame::encode(&vec![0; limits::COMPRESSED_MESSAGE_BYTES + 1]);
        assert_eq!(compress([&larger[..]].into_iter()), None);
        assert_eq!(compress([&frame::encode(b"")[..]].into_iter()), None);
    }

    #[test]
    fn statuses_are_those_of_etcd() {
        let status = |error| DecompressionError::Gzip { error, max: 7 }.status();
        assert_eq!(
            status(GzipError::Header(GzipFault::Empty)),
            Status::new(
                Code::Internal,
                "grpc: failed to decompress the message: EOF"
            )
        );
        assert_eq!(
            status(GzipError::Content(GzipFault::InvalidChecksum)),
            Status::new(
                Code::Internal,
                "grpc: failed to read decompressed data: gzip: invalid checksum"
            )
        );
        assert_eq!(
            status(GzipError::TooLarge),
            Status::new(
                Code::ResourceExhausted,
                "grpc: received message after decompression larger than max 7"
            )
        );
    }
}
