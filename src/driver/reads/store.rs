//! Stores responses of etcd in the cache, and the read permissions that they prove.

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
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::wire::frame::HEAD_LEN;
use crate::wire::status::Code;
use crate::wire::{method, response_header};

/// Returns whether etcd has permitted the read lately (R4).
pub(super) fn is_permitted(ctx: &WorkerContext, permission: &PermissionKey) -> bool {
    let reads = &ctx.reads;
    let flush_count = ctx.process.read_cache.flush_count();
    if reads.permissions_flush_count.replace(flush_count) != flush_count {
        reads.permissions.borrow_mut().clear();
    }
    reads
        .permissions
        .borrow()
        .contains(permission, Instant::now())
}

/// Records that etcd permitted a read that started at `started`. Ignores permissions from before
/// the latest flush.
pub(super) fn record_permission(
    ctx: &WorkerContext,
    permission: PermissionKey,
    started: Instant,
    flush_count: u64,
) {
    if ctx.reads.permissions_flush_count.get() != flush_count {
        return;
    }
    let valid_for = match ctx.process.read_cache.options().max_age {
        age if age.is_zero() => limits::CACHE_MAX_AGE,
        age => age,
    };
    let mut permissions = ctx.reads.permissions.borrow_mut();
    permissions.insert(permission, started, started + valid_for);
}

/// Stores a response, and the permission that it proves for the client's token. Returns whether the
/// response is in the cache and other clients may receive it.
pub(in crate::driver) fn store_response(
    ctx: &Rc<WorkerContext>,
    read: &ReadRequest,
    answer: &BufferedResponse,
) -> bool {
    let read_cache = &ctx.process.read_cache;
    let has_token = read.caller.credential.is_some();
    // A linearizable response replaces a cached one, but does not add one. Most reads are
    // linearizable and never use the cache.
    let cacheable = read_cache.is_on() && (read.request.is_serializable() || read_cache.len() > 0);
    if !(has_token || cacheable) || answer.code() != Code::Ok {
        return false;
    }
    if has_token {
        record_permission(
            ctx,
            read.permission_key(),
            read.started.into_std(),
            read.flush_count,
        );
    }
    let question = || read.question();
    if cacheable
        && (read.request.is_serializable() || read_cache.contains(question()))
        && let Some(entry) = cache_entry(ctx, read, answer)
    {
        let good = read_cache.floor(&entry).is_below(&entry);
        read_cache.store(question().clone(), entry, read.flush_count) && good
    } else {
        false
    }
}

/// Returns whether a response is older than the revision floor of the connection, if the client
/// requires ordering (R5).
pub(in crate::driver) fn is_behind_connection(
    call: &Call,
    read: &ReadRequest,
    answer: &BufferedResponse,
) -> bool {
    let ctx = &call.ctx;
    if !ctx.process.read_cache.options().ordering || !read.request.is_serializable() {
        return false;
    }
    let header = answer.chunks.front().and_then(|first| {
        let header = ctx
            .process
            .store_revision
            .observe_response(call.method, first)?;
        Some(header.revision)
    });
    header.is_some_and(|revision| {
        revision < call.connection.revision_floor(&ctx.process.store_revision)
    })
}

/// Builds the cache entry of a response. Returns `None` if the response is incomplete or from
/// another cluster.
fn cache_entry(
    ctx: &WorkerContext,
    read: &ReadRequest,
    answer: &BufferedResponse,
) -> Option<CachedResponse> {
    let Rest::End(_) = answer.rest else {
        return None;
    };
    let first = answer.chunks.front()?;
    let head = response_header::peek(method::lookup(RANGE)?, first)?;
    ctx.process.store_revision.observe(&head);
    let expected = ctx.process.store_revision.header();
    if head.revision <= 0 || head.cluster_id != expected.cluster_id {
        return None;
    }
    let bytes: usize = answer.chunks.iter().map(Bytes::len).sum();
    let length = first.get(1..HEAD_LEN)?.try_into().ok()?;
    if u32::from_be_bytes(length) as usize + HEAD_LEN != bytes || bytes > limits::CACHE_ENTRY_BYTES
    {
        return None;
    }
    // Copied, because the received buffers contain unrelated bytes too.
    let mut body = Vec::with_capacity(bytes);
    answer
        .chunks
        .iter()
        .for_each(|chunk| body.extend_from_slice(chunk));
    Some(CachedResponse {
        range: read.request.range(),
        requested_revision: read.request.revision(),
        revision: head.revision,
        sent: read.started.into_std(),
        response: body.into(),
        checked: AtomicU64::new(NEVER_CHECKED),
    })
}
