//! A write on its way, and the floors it raises for kept answers (R3): before its client is told that it
//! is done, and when it is not known whether it is.

use std::mem;
use std::time::Instant;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::wire::frame::Reader;
use crate::wire::method::Method;
use crate::wire::status::Code;
use crate::wire::write_set::{Touched, WriteSet, ranges, writes};

/// See the module.
#[derive(Debug)]
pub(in crate::driver) struct Write {
    method: Option<&'static Method>,
    writes: WriteSet,
    /// Once it is known.
    touched: Touched,
    settled: bool,
}

impl Write {
    /// `None`: it touches no key, or nothing is kept.
    pub(in crate::driver) fn of(call: &Call) -> Option<Write> {
        let writes = writes(call.method);
        if writes == WriteSet::Nothing || !call.ctx.shared.answers.is_on() {
            return None;
        }
        Some(Write {
            method: call.method,
            writes,
            touched: Touched::AllKeys,
            settled: false,
        })
    }

    /// This has been sent, if it is still here.
    pub(in crate::driver) fn learn(
        &mut self,
        ctx: &WorkerContext,
        sent: impl FnOnce() -> Option<Vec<Bytes>>,
    ) {
        self.touched = match (self.writes, self.method) {
            (WriteSet::Nothing, _) => Touched::Nothing,
            (WriteSet::Everything, _) => Touched::Everything,
            // With nothing kept one floor for all does as well, and costs less.
            (WriteSet::Request, Some(method)) if ctx.shared.answers.count() > 0 => {
                let request = sent().and_then(whole);
                ranges(method, request.as_deref())
            }
            (WriteSet::AllKeys | WriteSet::Request, _) => Touched::AllKeys,
        };
    }

    /// etcd answers, as of this revision if it says one; the client has not been told.
    pub(in crate::driver) fn answered(&mut self, ctx: &WorkerContext, revision: Option<i64>) {
        let answers = &ctx.shared.answers;
        match revision.filter(|revision| *revision > 0) {
            Some(revision) => answers.wrote(&self.touched, revision),
            None if self.touched == Touched::Everything => answers.drop_all(),
            None => return,
        }
        self.settled = true;
    }

    /// etcd has ended the call with this code, and the client has not been told.
    pub(in crate::driver) fn ended(&mut self, ctx: &WorkerContext, code: Code) {
        // What it refuses for these reasons it has not done. It may have done what exceeds its space.
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
            self.unsure(ctx);
        }
    }

    /// It is not known whether etcd has done it, or will.
    pub(in crate::driver) fn unsure(&mut self, ctx: &WorkerContext) {
        if !mem::replace(&mut self.settled, true) {
            ctx.shared.answers.unsure(&self.touched, Instant::now());
        }
    }
}

/// The one message of a request.
fn whole(sent: Vec<Bytes>) -> Option<Bytes> {
    let mut reader = Reader::new(u64::from(u32::MAX));
    sent.into_iter().for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    (!message.compressed).then_some(message.payload)
}
