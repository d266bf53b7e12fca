//! Observer of relayed responses. It neither changes nor delays them.
//!
//! From response headers it learns the revision of the store. From Authenticate responses it learns
//! the user of a token. It also reports the progress of a [`PendingWrite`].

use std::cell::RefCell;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::relay::cache_invalidation::PendingWrite;
use crate::driver::relay::request_message::single_message;
use crate::driver::state::connection::ClientConnection;
use crate::wire::compression::decompressed_start;
use crate::wire::frame::HEAD_LEN;
use crate::wire::method::Method;
use crate::wire::proto;
use crate::wire::status::Code;

const AUTHENTICATE: &str = "Authenticate";

/// Maximum size in bytes of a compressed Authenticate response that is read. A token has some
/// hundred bytes.
const MAX_TOKEN_RESPONSE: usize = 16 * 1024;

/// Observer of the response of one call.
#[derive(Debug)]
pub(in crate::driver) struct ResponseObserver {
    method: Option<&'static Method>,
    /// User of an Authenticate call.
    user: Option<Box<str>>,
    /// Write of the call, if it may write.
    write: RefCell<Option<PendingWrite>>,
}

impl ResponseObserver {
    /// Creates the observer of a call. `sent` returns the sent request; an Authenticate request is
    /// needed as a whole.
    pub(in crate::driver) fn new(
        call: &Call,
        sent: impl FnOnce() -> Option<Vec<Bytes>>,
    ) -> ResponseObserver {
        let method = call.method;
        let user = method
            .is_some_and(|method| method.name == AUTHENTICATE)
            .then(|| user(&single_message(call, sent()?)?))
            .flatten();
        ResponseObserver {
            method,
            user,
            write: RefCell::new(None),
        }
    }

    /// Adds the write of the call.
    pub(in crate::driver) fn with_write(mut self, write: Option<PendingWrite>) -> ResponseObserver {
        self.write = RefCell::new(write);
        self
    }

    /// Reports the status code of etcd. The client has not received it yet.
    pub(in crate::driver) fn finished(&self, ctx: &WorkerContext, code: Code) {
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.finished(ctx, code);
        }
    }

    /// Reports that the call was interrupted, so its outcome is unknown.
    pub(in crate::driver) fn aborted(&self, ctx: &WorkerContext) {
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.outcome_unknown(ctx);
        }
    }

    /// Reads a chunk that starts a message.
    pub(in crate::driver) fn observe(
        &self,
        ctx: &WorkerContext,
        connection: &ClientConnection,
        chunk: &[u8],
    ) {
        let header = ctx
            .process
            .store_revision
            .observe_response(self.method, chunk);
        if let Some(header) = header {
            connection.raise_revision_floor(&ctx.process.store_revision, header.revision);
        }
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.response_received(ctx, header.map(|header| header.revision));
        }
        if let Some(user) = &self.user {
            let decompressed = decompressed_start(chunk, MAX_TOKEN_RESPONSE);
            if let Some(token) = token(decompressed.as_deref().unwrap_or(chunk)) {
                ctx.process.identities.learn(token, user);
            }
        }
    }
}

/// Reads AuthenticateRequest { name = 1 }.
fn user(request: &[u8]) -> Option<Box<str>> {
    text(request, 1).map(Into::into)
}

/// Reads AuthenticateResponse { token = 2 } if the chunk contains the whole message. It does: the
/// message is far smaller than an HTTP/2 frame.
fn token(chunk: &[u8]) -> Option<&str> {
    let (head, message) = chunk.split_at_checked(HEAD_LEN)?;
    let len = u32::from_be_bytes(head[1..].try_into().ok()?);
    let whole = head[0] == 0 && len as usize == message.len();
    text(message, 2).filter(|_| whole)
}

fn text(message: &[u8], number: u32) -> Option<&str> {
    let field = proto::find_last(message, number).ok()??;
    let is_text_field = field.wire_type == proto::WireType::Len;
    std::str::from_utf8(field.value)
        .ok()
        .filter(|text| is_text_field && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    #[test]
    fn reads_user_and_token_of_an_authentication() {
        assert_eq!(user(b"\x0a\x03ann\x12\x02pw").unwrap().as_ref(), "ann");
        assert_eq!(user(b"\x0a\x03an"), None);
        let response = frame::encode(b"\x0a\x02\x18\x07\x12\x03tok");
        assert_eq!(token(&response), Some("tok"));
        for cut in 0..response.len() {
            assert_eq!(token(&response[..cut]), None);
        }
    }
}
