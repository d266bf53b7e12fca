//! What is learned from answers as they pass, without changing or delaying them: how far the store
//! has come, and whose a token is.

use std::cell::RefCell;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::relay::cache_invalidation::Write;
use crate::driver::state::connection::ClientConnection;
use crate::wire::frame::{HEAD_LEN, Reader};
use crate::wire::method::Method;
use crate::wire::proto;
use crate::wire::status::Code;

const AUTHENTICATE: &str = "Authenticate";

/// What to look for in one call's answer.
#[derive(Debug)]
pub(in crate::driver) struct ResponseObserver {
    method: Option<&'static Method>,
    /// Who asks for a token.
    user: Option<Box<str>>,
    /// What the call may have written.
    write: RefCell<Option<Write>>,
}

impl ResponseObserver {
    /// For a call of which this much has been sent, whole if it is one to log in.
    pub(in crate::driver) fn new(
        call: &Call,
        sent: impl FnOnce() -> Option<Vec<Bytes>>,
    ) -> ResponseObserver {
        let method = call.method;
        let user = method
            .is_some_and(|method| method.name == AUTHENTICATE)
            .then(|| user(sent()?))
            .flatten();
        ResponseObserver {
            method,
            user,
            write: RefCell::new(None),
        }
    }

    /// The same, of a call that may write.
    pub(in crate::driver) fn of_write(mut self, write: Option<Write>) -> ResponseObserver {
        self.write = RefCell::new(write);
        self
    }

    /// etcd has ended the call with this code; the client has not been told.
    pub(in crate::driver) fn ended(&self, ctx: &WorkerContext, code: Code) {
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.ended(ctx, code);
        }
    }

    /// The call could not go on.
    pub(in crate::driver) fn broke_off(&self, ctx: &WorkerContext) {
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.unsure(ctx);
        }
    }

    /// Looks at a chunk that begins a message.
    pub(in crate::driver) fn see(
        &self,
        ctx: &WorkerContext,
        peer: &ClientConnection,
        chunk: &[u8],
    ) {
        let header = ctx.shared.known.see_answer(self.method, chunk);
        if let Some(header) = header {
            peer.show(&ctx.shared.known, header.revision);
        }
        if let Some(write) = &mut *self.write.borrow_mut() {
            write.answered(ctx, header.map(|header| header.revision));
        }
        if let Some(user) = &self.user
            && let Some(token) = token(chunk)
        {
            ctx.shared.identities.learn(token, user);
        }
    }
}

/// AuthenticateRequest { name = 1 }.
fn user(request: Vec<Bytes>) -> Option<Box<str>> {
    let mut reader = Reader::new(u64::from(u32::MAX));
    request.into_iter().for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    if message.compressed {
        return None;
    }
    text(&message.payload, 1).map(Into::into)
}

/// AuthenticateResponse { token = 2 }, if it is all there: far smaller than a frame, it is.
fn token(chunk: &[u8]) -> Option<&str> {
    let (head, message) = chunk.split_at_checked(HEAD_LEN)?;
    let len = u32::from_be_bytes(head[1..].try_into().ok()?);
    let whole = head[0] == 0 && len as usize == message.len();
    text(message, 2).filter(|_| whole)
}

fn text(message: &[u8], number: u32) -> Option<&str> {
    let field = proto::find_last(message, number).ok()??;
    let layout = field.wire_type == proto::WireType::Len;
    std::str::from_utf8(field.value)
        .ok()
        .filter(|text| layout && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    #[test]
    fn a_login_is_read_off_both_sides() {
        let request = frame::encode(b"\x0a\x03ann\x12\x02pw");
        let (first, rest) = (request.slice(..4), request.slice(4..));
        assert_eq!(user(vec![first, rest]).unwrap().as_ref(), "ann");
        assert_eq!(user(vec![request.slice(..9)]), None);
        let answer = frame::encode(b"\x0a\x02\x18\x07\x12\x03tok");
        assert_eq!(token(&answer), Some("tok"));
        for cut in 0..answer.len() {
            assert_eq!(token(&answer[..cut]), None);
        }
    }
}
