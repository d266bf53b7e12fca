//! The bytes of a call that have left for etcd, kept so that they can be sent once more when
//! etcd provably did not process them (E2). Bounded per call and per worker (S1).

use std::rc::Rc;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::chunk_buffer::ChunkBuffer;
use crate::limits;

/// What one call keeps. Forgets everything at once when a bound is met, or on [`ReplayBuffer::forget`].
pub(in crate::driver) struct ReplayBuffer {
    ctx: Rc<WorkerContext>,
    kept: ChunkBuffer,
    complete: bool,
}

impl ReplayBuffer {
    /// Empty, and so far complete.
    pub(in crate::driver) fn new(ctx: Rc<WorkerContext>) -> ReplayBuffer {
        ReplayBuffer {
            ctx,
            kept: ChunkBuffer::default(),
            complete: true,
        }
    }

    /// Keeps a chunk that is about to leave.
    pub(in crate::driver) fn keep(&mut self, chunk: &Bytes) {
        if !self.complete {
            return;
        }
        let total = self.ctx.replay_bytes.get() + chunk.len();
        let own = self.kept.bytes() + chunk.len();
        if own > limits::REPLAY_BYTES || total > limits::REPLAY_BYTES_PER_WORKER {
            self.forget();
            return;
        }
        self.ctx.replay_bytes.set(total);
        self.kept.push(chunk.clone());
    }

    /// Whether everything that has left is here.
    pub(in crate::driver) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The chunks, in order.
    pub(in crate::driver) fn chunks(&mut self) -> &[Bytes] {
        self.kept.chunks()
    }

    /// The call can not be sent again any more.
    pub(in crate::driver) fn forget(&mut self) {
        self.complete = false;
        let kept = std::mem::take(&mut self.kept);
        self.ctx
            .replay_bytes
            .set(self.ctx.replay_bytes.get() - kept.bytes());
    }
}

impl Drop for ReplayBuffer {
    fn drop(&mut self) {
        self.forget();
    }
}
