//! The message of a unary request that has been relayed, for inspection.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::wire::compression::Encoding;
use crate::wire::frame::Reader;

/// Returns the message of a unary request, decompressed.
pub(super) fn single_message(call: &Call, sent: Vec<Bytes>) -> Option<Bytes> {
    let mut reader = Reader::new(u64::from(u32::MAX));
    sent.into_iter().for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    if !message.compressed {
        return Some(message.payload);
    }
    let encoding = Encoding::from_headers(&call.head.headers).ok()?;
    encoding.decode(message, call.ctx.max.send).ok()
}
