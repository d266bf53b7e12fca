//! Bytes read from a socket before they are asked for, in buffers that a worker's connections share.
//! When it is right to read ahead is left to the caller.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::limits;
use crate::net::stream::Stream;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read before `h2` asked for them, in a buffer of the worker's.
pub(super) struct Ahead {
    /// Of [`limits::READ_AHEAD_BYTES`]; empty only once it was given back.
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Ahead {
    /// What the socket has, into a buffer that goes back at once if that is nothing yet.
    pub(super) fn poll_read(cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<Ahead>> {
        let buffer = SPARE.with_borrow_mut(Vec::pop);
        let mut ahead = Ahead {
            buffer: buffer.unwrap_or_else(|| vec![0; limits::READ_AHEAD_BYTES].into()),
            from: 0,
            to: 0,
        };
        let mut room = ReadBuf::new(&mut ahead.buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        ahead.to = room.filled().len();
        Poll::Ready(Ok(ahead))
    }

    /// What is left.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Hands on what there is room for; true when nothing is left.
    pub(super) fn move_to(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let n = self.rest().len().min(buf.remaining());
        buf.put_slice(&self.rest()[..n]);
        self.from += n;
        self.from == self.to
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < limits::SPARE_READ_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}
