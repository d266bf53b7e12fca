//! Cache audit (`--cache-audit`): compares one in N cache hits with etcd at the same revision.
//!
//! A difference is a defect of the proxy or of etcd's storage. The proxy then logs an error and
//! flushes the cache.

use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use tracing::error;

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client::OwnCall;
use crate::driver::reads::request::ReadRequest;
use crate::limits;
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::wire::frame::{self, Reader};
use crate::wire::pb::etcdserverpb::RangeResponse;
use crate::wire::status::Code;

/// Audits a cache hit that was returned as valid at `revision`. An audit is not counted if it has
/// no result: the revision is compacted, or etcd does not respond.
pub(super) fn audit(ctx: &Rc<WorkerContext>, read: ReadRequest, revision: i64, returned: Bytes) {
    let one_in = ctx.process.read_cache.options().audit;
    let audits = &ctx.reads.audits;
    if one_in == 0 || fastrand::u64(..one_in) != 0 || audits.get() >= limits::CACHE_AUDITS {
        return;
    }
    audits.set(audits.get() + 1);
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(current) = fetch_at_revision(&ctx, &read, revision).await {
            compare(&ctx, &read, revision, &returned, &current);
        }
        let audits = &ctx.reads.audits;
        audits.set(audits.get() - 1);
    });
}

/// Reads the range from etcd at `revision`.
async fn fetch_at_revision(
    ctx: &Rc<WorkerContext>,
    read: &ReadRequest,
    revision: i64,
) -> Option<BufferedResponse> {
    let at = read.request.revision().unwrap_or(revision);
    let request = frame::encode(&read.request.normalized_at(at));
    let etcd_call = OwnCall::new(RANGE, read.caller.credential.as_ref(), request);
    let answer = etcd_call.send(ctx).await.ok()?;
    let whole = answer.code() == Code::Ok && matches!(answer.rest, Rest::End(_));
    whole.then_some(answer)
}

fn compare(
    ctx: &WorkerContext,
    read: &ReadRequest,
    revision: i64,
    returned: &Bytes,
    current: &BufferedResponse,
) {
    let Some(current) = content(current.chunks.iter().cloned()) else {
        return;
    };
    let reads = &ctx.counters().reads;
    reads.audits.inc();
    if content([returned.clone()]).as_ref() == Some(&current) {
        return;
    }
    reads.audit_mismatches.inc();
    let key = read.request.range().start().escape_ascii().to_string();
    error!(
        key,
        revision, "cached response differs from etcd: cache flushed"
    );
    ctx.process.read_cache.flush();
}

/// Decodes a response and removes its header, which differs between reads.
fn content(chunks: impl IntoIterator<Item = Bytes>) -> Option<RangeResponse> {
    let mut reader = Reader::new(u64::from(u32::MAX));
    chunks.into_iter().for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    let mut answer = RangeResponse::decode(message.payload).ok()?;
    answer.header = None;
    Some(answer)
}
