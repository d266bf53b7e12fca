//! Cache lookup: returns a cached response where a client may receive it under all guarantees (R2
//! to R6).

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::reads::audit::audit;
use crate::driver::reads::refresh::refresh;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::is_permitted;
use crate::driver::state::messages::{ProofRequest, WatchMessage, WorkerMessage};
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::read_cache::NEVER_CHECKED;
use crate::metrics::ReadMetrics;
use crate::state_machine::reads::cache::{
    CacheDecision, CachedResponse, FoundEntry, ServeConditions, StaleReason,
};
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::response_header as wire_header;

/// Result of a cache lookup.
pub(super) enum LookupResult {
    /// The cached response, framed, with the revision that it is valid at.
    Hit(Bytes),
    /// A cache hit that the client may receive if etcd permits it to read the range (R4).
    NeedsPermission(PermissionKey),
    /// The cache has no usable response.
    Miss,
}

/// Looks up the response to a read. A hit raises the revision floor of the connection (R5), and may
/// start a refresh, a watch or an audit.
pub(super) fn lookup(call: &Call, read: &ReadRequest) -> LookupResult {
    let ctx = &call.ctx;
    let read_cache = &ctx.process.read_cache;
    let metrics = &ctx.counters().reads;
    let question = read.question();
    let now = read.started.into_std();
    let Some(found) = read_cache.lookup(question, now) else {
        metrics.misses.inc();
        return LookupResult::Miss;
    };
    let max_age = read_cache.options().max_age;
    let floor = read_cache.floor(&found.entry);
    let standard = ServeConditions {
        now,
        max_age,
        written: floor.written,
        uncertain: floor.uncertain,
        connection_floor: call.connection.revision_floor(&ctx.process.store_revision),
        proof: found.proof,
    };
    let (revision, started) = match found.entry.decide(&standard) {
        CacheDecision::Serve { revision, sent } => (revision, sent),
        CacheDecision::Stale(reason) => {
            count_stale(metrics, reason);
            return LookupResult::Miss;
        }
    };
    // A client that requires a leader must get the error of etcd if there is none.
    if read.requires_leader && ctx.process.is_leaderless() {
        metrics.misses.inc();
        return LookupResult::Miss;
    }
    if let Some(permission) = missing_permission(ctx, read) {
        return LookupResult::NeedsPermission(permission);
    }
    metrics.observe_hit(now.saturating_duration_since(started));
    call.connection
        .raise_revision_floor(&ctx.process.store_revision, revision);
    if found.needs_refresh {
        refresh(ctx, read.detached(ctx));
    }
    if found.needs_watch {
        request_proof(ctx, read);
    }
    let answer = at_revision(ctx, read, found, revision);
    if read_cache.options().audit > 0 {
        audit(ctx, read.detached(ctx), revision, answer.clone());
    }
    LookupResult::Hit(answer)
}

fn count_stale(metrics: &ReadMetrics, reason: StaleReason) {
    metrics.misses.inc();
    match reason {
        StaleReason::Age => metrics.expired.inc(),
        StaleReason::Written => metrics.written.inc(),
        StaleReason::Uncertain => metrics.write_uncertain.inc(),
        StaleReason::ConnectionFloor => metrics.connection_floor.inc(),
    }
}

/// Returns the permission that the client lacks. etcd must have accepted its token for exactly this
/// range within the maximum age of cached responses (R4).
fn missing_permission(ctx: &Rc<WorkerContext>, read: &ReadRequest) -> Option<PermissionKey> {
    read.caller.credential.as_ref()?;
    let permission = read.permission_key();
    (!is_permitted(ctx, &permission)).then_some(permission)
}

/// Requests a watch that keeps the cached response current from now on.
fn request_proof(ctx: &WorkerContext, read: &ReadRequest) {
    let process = &ctx.process;
    let session = process.identities.session(read.caller.credential.clone());
    let owner = process.owner(IdentityId(session.identity().number()));
    let proof_request = ProofRequest {
        question: read.question().clone(),
        range: read.request.range(),
        session,
    };
    process.send(
        owner,
        WorkerMessage::Watch(WatchMessage::ProveResponse(Box::new(proof_request))),
    );
}

/// Returns the cached response with `revision` in its header, and advances the cached entry to it.
fn at_revision(ctx: &WorkerContext, read: &ReadRequest, found: FoundEntry, revision: i64) -> Bytes {
    let entry = &found.entry;
    if revision == entry.revision {
        return entry.response.clone();
    }
    let Some(answer) = wire_header::with_revision(&entry.response, revision) else {
        return entry.response.clone();
    };
    let advanced = CachedResponse {
        range: entry.range.clone(),
        requested_revision: entry.requested_revision,
        revision,
        sent: entry.sent,
        response: answer.clone(),
        checked: AtomicU64::new(NEVER_CHECKED),
    };
    ctx.process.read_cache.advance(read.question(), advanced);
    answer
}
