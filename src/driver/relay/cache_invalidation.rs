//! Cache invalidation by writes that pass through the proxy (R3).
//!
//! A write raises the invalidation floors of the keys that it touches. It does so before its client
//! receives the response. It also does so if the outcome of the write is unknown.

use std::mem;
use std::time::Instant;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::relay::request_message::single_message;
use crate::wire::method::Method;
use crate::wire::status::Code;
use crate::wire::write_set::{MethodWrites, WriteSet, method_writes, request_writes};

/// A write in progress: its client has not received the response yet.
#[derive(Debug)]
pub(in crate::driver) struct PendingWrite {
    method: Option<&'static Method>,
    method_writes: MethodWrites,
    /// Keys that the write touches. All keys until the request is known.
    write_set: WriteSet,
    settled: bool,
}

impl PendingWrite {
    /// Returns `None` if the call writes no key or the cache is off.
    pub(in crate::driver) fn new(call: &Call) -> Option<PendingWrite> {
        let method_writes = method_writes(call.method);
        if method_writes == MethodWrites::Nothing || !call.ctx.process.read_cache.is_on() {
            return None;
        }
        Some(PendingWrite {
            method: call.method,
            method_writes,
            write_set: WriteSet::AllKeys,
            settled: false,
        })
    }

    /// Derives the touched keys from the sent request, if `sent` still has it.
    pub(in crate::driver) fn set_touched(
        &mut self,
        call: &Call,
        sent: impl FnOnce() -> Option<Vec<Bytes>>,
    ) {
        self.write_set = match (self.method_writes, self.method) {
            (MethodWrites::Nothing, _) => WriteSet::Nothing,
            (MethodWrites::Everything, _) => WriteSet::Everything,
            // While the cache is empty, one floor for all keys is enough and costs less.
            (MethodWrites::Request, Some(method)) if call.ctx.process.read_cache.len() > 0 => {
                let request = sent().and_then(|sent| single_message(call, sent));
                request_writes(method, request.as_deref())
            }
            (MethodWrites::AllKeys | MethodWrites::Request, _) => WriteSet::AllKeys,
        };
    }

    /// Raises the floors for a response of etcd at `revision`, if the response contains one. The
    /// client has not received the response yet.
    pub(in crate::driver) fn response_received(
        &mut self,
        ctx: &WorkerContext,
        revision: Option<i64>,
    ) {
        let read_cache = &ctx.process.read_cache;
        match revision.filter(|revision| *revision > 0) {
            Some(revision) => read_cache.raise_written(&self.write_set, revision),
            None if self.write_set == WriteSet::Everything => read_cache.flush(),
            None => return,
        }
        self.settled = true;
    }

    /// Handles the status of etcd. The client has not received it yet.
    pub(in crate::driver) fn finished(&mut self, ctx: &WorkerContext, code: Code) {
        // With these codes etcd has not applied the write. With RESOURCE_EXHAUSTED (the space
        // quota) it may have applied it.
        let refused = matches!(
            code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
        );
        if refused || code == Code::Ok && self.settled {
            self.settled = true;
        } else {
            self.outcome_unknown(ctx);
        }
    }

    /// Raises the floors for a write that etcd may have applied or may still apply.
    pub(in crate::driver) fn outcome_unknown(&mut self, ctx: &WorkerContext) {
        if !mem::replace(&mut self.settled, true) {
            ctx.process
                .read_cache
                .raise_uncertain(&self.write_set, Instant::now());
        }
    }
}
