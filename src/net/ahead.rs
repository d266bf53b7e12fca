//! Reads ahead from a socket into buffers that the connections of a worker share.
//!
//! The caller decides when reading ahead is useful.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::limits;
use crate::net::stream::ByteStream;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read before `h2` requested them, in a buffer of the worker.
pub(super) struct Ahead {
    /// Buffer of [`limits::READ_AHEAD_BYTES`]. Empty only after it was returned to the worker.
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Ahead {
    /// Reads the available bytes of the socket. The buffer is returned at once if there are none.
    pub(super) fn poll_read(
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
    ) -> Poll<io::Result<Ahead>> {
        let buffer = SPARE.with_borrow_mut(Vec::pop);
        let mut ahead = Ahead {
            buffer: buffer.unwrap_or_else(|| vec![0; limits::READ_AHEAD_BYTES].into()),
            from: 0,
            to: 0,
        };
        let mut read_buf = ReadBuf::new(&mut ahead.buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut read_buf))?;
        ahead.to = read_buf.filled().len();
        Poll::Ready(Ok(ahead))
    }

    /// Returns the bytes that are not read yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Moves as many bytes to `buf` as it can take. Returns true if none is left.
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
