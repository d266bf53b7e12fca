//! Replay buffer: bytes of a call that were sent to etcd, for a second attempt if etcd provably did
//! not process them (E2). Bounded per call and per worker (S1).

use std::rc::Rc;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::chunk_buffer::ChunkBuffer;
use crate::limits;

/// Replay buffer of one call.
///
/// It discards all bytes when a bound is exceeded, or on [`ReplayBuffer::discard`].
pub(in crate::driver) struct ReplayBuffer {
    ctx: Rc<WorkerContext>,
    buffer: ChunkBuffer,
    complete: bool,
}

impl ReplayBuffer {
    /// Creates an empty, complete buffer.
    pub(in crate::driver) fn new(ctx: Rc<WorkerContext>) -> ReplayBuffer {
        ReplayBuffer {
            ctx,
            buffer: ChunkBuffer::default(),
            complete: true,
        }
    }

    /// Appends a chunk that is about to be sent.
    pub(in crate::driver) fn push(&mut self, chunk: &Bytes) {
        if !self.complete {
            return;
        }
        let total = self.ctx.replay_bytes.get() + chunk.len();
        let own = self.buffer.bytes() + chunk.len();
        if own > limits::REPLAY_BYTES || total > limits::REPLAY_BYTES_PER_WORKER {
            self.discard();
            return;
        }
        self.ctx.replay_bytes.set(total);
        self.buffer.push(chunk.clone());
    }

    /// Returns whether the buffer contains all bytes sent so far.
    pub(in crate::driver) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns the buffered chunks, in order.
    pub(in crate::driver) fn chunks(&mut self) -> &[Bytes] {
        self.buffer.chunks()
    }

    /// Discards all bytes; the call cannot be sent again.
    pub(in crate::driver) fn discard(&mut self) {
        self.complete = false;
        let buffer = std::mem::take(&mut self.buffer);
        self.ctx
            .replay_bytes
            .set(self.ctx.replay_bytes.get() - buffer.bytes());
    }
}

impl Drop for ReplayBuffer {
    fn drop(&mut self) {
        self.discard();
    }
}
