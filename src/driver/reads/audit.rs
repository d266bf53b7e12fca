//! Holds one in so many kept answers, as they are given, against what etcd says of that revision
//! (`--cache-audit`). One that differs is a defect of ours or of the disk's: nothing kept counts any more.

use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use tracing::error;

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::reads::request::ReadRequest;
use crate::limits;
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::frame::{self, Reader};
use crate::wire::pb::etcdserverpb::RangeResponse;
use crate::wire::status::Code;

/// An answer was given as true at a revision. What cannot be told, since that revision is compacted or
/// etcd does not answer, is not counted.
pub(super) fn audit(ctx: &Rc<WorkerContext>, asking: ReadRequest, revision: i64, given: Bytes) {
    let every = ctx.shared.answers.options().audit;
    let auditing = &ctx.reads.auditing;
    if every == 0 || fastrand::u64(..every) != 0 || auditing.get() >= limits::CACHE_AUDITS {
        return;
    }
    auditing.set(auditing.get() + 1);
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(told) = told(&ctx, &asking, revision).await {
            compare(&ctx, &asking, revision, &given, &told);
        }
        let auditing = &ctx.reads.auditing;
        auditing.set(auditing.get() - 1);
    });
}

/// What etcd says of that revision.
async fn told(ctx: &Rc<WorkerContext>, asking: &ReadRequest, revision: i64) -> Option<Answer> {
    let head = etcd_client::head(RANGE, asking.asker.credential.as_ref());
    let at = asking.asked.revision().unwrap_or(revision);
    let request = [frame::encode(&asking.asked.question_at(at))];
    let read = Read {
        ctx,
        head: &head,
        deadline: None,
        request: &request,
        untranslated: false,
    };
    let answer = read.fetch(Begun::Nothing).await.ok()?;
    let whole = answer.code() == Code::Ok && matches!(answer.rest, Rest::End(_));
    whole.then_some(answer)
}

fn compare(ctx: &WorkerContext, asking: &ReadRequest, revision: i64, given: &Bytes, told: &Answer) {
    let Some(told) = content(told.chunks.iter().cloned()) else {
        return;
    };
    let reads = &ctx.count().reads;
    reads.audits.inc();
    if content([given.clone()]).as_ref() == Some(&told) {
        return;
    }
    reads.audit_mismatches.inc();
    let key = asking.asked.range().start().escape_ascii().to_string();
    error!(
        key,
        revision, "cached response differs from etcd: cache flushed"
    );
    ctx.shared.answers.drop_all();
}

/// What an answer says of keys.
fn content(chunks: impl IntoIterator<Item = Bytes>) -> Option<RangeResponse> {
    let mut reader = Reader::new(u64::from(u32::MAX));
    chunks.into_iter().for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    let mut answer = RangeResponse::decode(message.payload).ok()?;
    answer.header = None;
    Some(answer)
}
