//! Compressed requests of unary reads.
//!
//! Reads that the proxy interprets are decompressed here and sent to etcd uncompressed, so that they
//! share responses with uncompressed reads. Other reads pass unchanged.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::limits;
use crate::wire::compression::Encoding;
use crate::wire::frame::{self, Reader};
use crate::wire::metadata::GRPC_ENCODING;
use crate::wire::status::Status;

/// Reason why a request is not decompressed.
pub(in crate::driver) enum Rejection {
    /// The decompressed request exceeds [`limits::REQUEST_BUFFER_BYTES`]. The call must be relayed
    /// as it is.
    TooLargeToBuffer,
    /// The request is invalid.
    Refused(Status),
}

/// Decompresses the complete request of a unary read, if the proxy interprets the read. Returns the
/// encoding of the response.
///
/// # Errors
/// The request is invalid, or too large. A large request is not changed.
pub(in crate::driver) fn decompress_request(
    call: &mut Call,
    request: &mut Vec<Bytes>,
) -> Result<Encoding, Rejection> {
    if !call.head.headers.contains_key(GRPC_ENCODING) {
        return Ok(Encoding::Identity);
    }
    decompress(call, request)
}

#[cold]
fn decompress(call: &mut Call, request: &mut Vec<Bytes>) -> Result<Encoding, Rejection> {
    if !call.is_interpreted_read() {
        return Ok(Encoding::Identity);
    }
    let encoding = Encoding::from_headers(&call.head.headers).map_err(Rejection::Refused)?;
    let mut reader = Reader::new(call.ctx.max.send);
    request.iter().for_each(|chunk| reader.push(chunk.clone()));
    let mut decompressed = Vec::with_capacity(1);
    let mut max = limits::REQUEST_BUFFER_BYTES;
    while let Ok(Some(message)) = reader.next() {
        let payload = encoding.decode(message, max as u64);
        let payload = payload.map_err(|error| match error.is_too_large() {
            true => Rejection::TooLargeToBuffer,
            false => Rejection::Refused(error.status()),
        })?;
        max = max.saturating_sub(payload.len());
        decompressed.push(frame::encode(&payload));
    }
    if reader.finish().is_err() {
        // The request is malformed. It is refused later, by the proxy or by etcd.
        return Ok(Encoding::Identity);
    }
    // etcd would compress its response.
    call.head.headers.remove(GRPC_ENCODING);
    *request = decompressed;
    Ok(encoding)
}
