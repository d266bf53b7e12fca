//! What comes back from etcd is kept, and what it says of clients' tokens.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::{Call, RANGE};
use crate::driver::reads::request::ReadRequest;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::read_cache::NEVER_CHECKED;
use crate::limits;
use crate::state_machine::reads::cache::CachedResponse;
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::frame::HEAD_LEN;
use crate::wire::status::Code;
use crate::wire::{method, response_header};

/// Whether etcd has said so lately.
pub(super) fn may_read(ctx: &WorkerContext, wish: &PermissionKey) -> bool {
    let reads = &ctx.reads;
    let dropped = ctx.shared.answers.dropped();
    if reads.granted_after.replace(dropped) != dropped {
        reads.grants.borrow_mut().clear();
    }
    reads.grants.borrow().holds(wish, Instant::now())
}

/// etcd has said so when it was asked.
pub(super) fn granted(ctx: &WorkerContext, wish: PermissionKey, asked: Instant, dropped: u64) {
    if ctx.reads.granted_after.get() != dropped {
        return;
    }
    let counts = match ctx.shared.answers.options().max_age {
        age if age.is_zero() => limits::CACHE_MAX_AGE,
        age => age,
    };
    let mut grants = ctx.reads.grants.borrow_mut();
    grants.remember(wish, asked, asked + counts);
}

/// Keeps what came back, and what it says of the client's token. Whether it was kept and may be given.
pub(in crate::driver) fn keep(
    ctx: &Rc<WorkerContext>,
    asking: &ReadRequest,
    answer: &Answer,
) -> bool {
    let answers = &ctx.shared.answers;
    let has_token = asking.asker.credential.is_some();
    // A linearizable answer is kept in the place of one that is there, and begins none: most reads are
    // linearizable, and nobody asks for them otherwise.
    let kept = answers.is_on() && (asking.asked.is_serializable() || answers.count() > 0);
    if !(has_token || kept) || answer.code() != Code::Ok {
        return false;
    }
    if has_token {
        granted(ctx, asking.wish(), asking.since.into_std(), asking.dropped);
    }
    let question = || asking.question();
    if kept
        && (asking.asked.is_serializable() || answers.has(question()))
        && let Some(entry) = entry(ctx, asking, answer)
    {
        let good = answers.floor(&entry).is_under(&entry);
        answers.store(question().clone(), entry, asking.dropped) && good
    } else {
        false
    }
}

/// Whether an answer is older than what the client has been shown, where it asked for that not to be
/// (R5).
pub(in crate::driver) fn is_behind(call: &Call, asking: &ReadRequest, answer: &Answer) -> bool {
    let ctx = &call.ctx;
    if !ctx.shared.answers.options().ordering || !asking.asked.is_serializable() {
        return false;
    }
    let header = answer.chunks.front().and_then(|first| {
        let header = ctx.shared.known.see_answer(call.method, first)?;
        Some(header.revision)
    });
    header.is_some_and(|revision| revision < call.peer.shown(&ctx.shared.known))
}

/// The answer as it is kept; `None` when it is not whole, or is one of another cluster.
fn entry(ctx: &WorkerContext, asking: &ReadRequest, answer: &Answer) -> Option<CachedResponse> {
    let Rest::End(_) = answer.rest else {
        return None;
    };
    let first = answer.chunks.front()?;
    let head = response_header::peek(method::lookup(RANGE)?, first)?;
    ctx.shared.known.see(&head);
    let known = ctx.shared.known.header();
    if head.revision <= 0 || head.cluster_id != known.cluster_id {
        return None;
    }
    let bytes: usize = answer.chunks.iter().map(Bytes::len).sum();
    let length = first.get(1..HEAD_LEN)?.try_into().ok()?;
    if u32::from_be_bytes(length) as usize + HEAD_LEN != bytes || bytes > limits::CACHE_ENTRY_BYTES
    {
        return None;
    }
    // The buffers it came in hold whatever else came with it.
    let mut whole = Vec::with_capacity(bytes);
    answer
        .chunks
        .iter()
        .for_each(|chunk| whole.extend_from_slice(chunk));
    Some(CachedResponse {
        range: asking.asked.range(),
        at: asking.asked.revision(),
        revision: head.revision,
        asked: asking.since.into_std(),
        answer: whole.into(),
        checked: AtomicU64::new(NEVER_CHECKED),
    })
}
