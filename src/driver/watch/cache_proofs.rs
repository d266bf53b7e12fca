//! Watch proofs: watches that keep frequently used cached responses current, so that they need no
//! refresh from etcd (R2).
//!
//! An event raises the invalidation floor at once. A barrier, requested before the previous one
//! expires, proves that no event is missing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::messages::ProofRequest;
use crate::driver::watch::cache_proof_table::{Barrier, CacheProof, subscriber, waiter};
use crate::driver::watch::link_table::{close_shared_feed, find_link, shared_link};
use crate::limits;
use crate::state_machine::reads::watch_proof::{WatchEnded, WatchProof};
use crate::state_machine::watch::FeedEvent;
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::range::KeyRange;
use crate::wire::status::Code;

/// Opens a watch proof for a cached response, unless it exists or the worker has its maximum.
pub(super) fn open(ctx: &Rc<WorkerContext>, request: ProofRequest) {
    let watches = &ctx.watches;
    let ProofRequest {
        question,
        range,
        session,
    } = request;
    if watches.cache_proofs.len() >= limits::CACHE_WATCH_BACKED / ctx.process.workers() {
        return;
    }
    let identity = session.identity().clone();
    let entry = CacheProof {
        question,
        proof: WatchProof::new(range.clone()),
        session,
        flushes: ctx.process.read_cache.flush_count(),
        opened_at: Instant::now(),
        checked_at: Instant::now(),
    };
    let identity_id = entry.identity_id();
    let Some(number) = watches.cache_proofs.insert(entry) else {
        return;
    };
    update_metrics(ctx);
    if watches.cache_proofs.len() == 1 {
        watches.cache_proofs.opened.notify_one();
    }
    let link = shared_link(ctx, identity_id, identity, &range);
    link.with_trunk(&watches.outbox, |trunk| {
        trunk.open(subscriber(number), range, false)
    });
}

/// Applies an event of the watch of a proof.
pub(super) fn handle_event(ctx: &WorkerContext, number: u64, event: &FeedEvent) {
    let table = &ctx.watches.cache_proofs;
    let over = {
        let mut open = table.open.borrow_mut();
        let Some(entry) = open.get_mut(&number) else {
            return;
        };
        if let FeedEvent::Events(batch) = event {
            ctx.process
                .read_cache
                .raise_from_events(entry.proof.writes(batch));
        }
        entry.proof.apply(event) == Err(WatchEnded)
    };
    match event {
        FeedEvent::TokenRefused(_) => close(ctx, number),
        // The feed has ended, so the trunk needs no close.
        _ if over => drop(remove(ctx, number)),
        _ => {}
    }
}

/// Applies a barrier: the proofs of an identity have received all events up to `revision`, as of
/// the time of the request. Revision 0 means that the link ended first.
pub(super) fn handle_barrier(ctx: &WorkerContext, identity_id: IdentityId, revision: i64) {
    let (table, cache) = (&ctx.watches.cache_proofs, &ctx.process.read_cache);
    let Some(barrier) = table.pending_barriers.borrow_mut().remove(&identity_id) else {
        return;
    };
    // An abandoned barrier proves nothing, nor does a revision of a history that has been reset.
    if revision == 0 || barrier.flushes != cache.flush_count() {
        return;
    }
    let mut finished = Vec::new();
    for (number, entry) in &*table.open.borrow() {
        if entry.identity_id() == identity_id
            && entry.flushes == barrier.flushes
            && entry.opened_at <= barrier.requested_at
            && let Some(proof) = entry.proof.proof(revision, barrier.requested_at)
            && !cache.set_proof(&entry.question, Some(proof))
        {
            finished.push(*number);
        }
    }
    finished.into_iter().for_each(|number| close(ctx, number));
}

/// Closes a proof on this worker and its watch at etcd.
fn close(ctx: &WorkerContext, number: u64) {
    if let Some(identity_id) = remove(ctx, number) {
        close_shared_feed(ctx, identity_id, subscriber(number));
    }
}

/// Removes a proof on this worker. Returns the identity it belonged to.
fn remove(ctx: &WorkerContext, number: u64) -> Option<IdentityId> {
    let entry = ctx.watches.cache_proofs.remove(number)?;
    ctx.process.read_cache.set_proof(&entry.question, None);
    update_metrics(ctx);
    Some(entry.identity_id())
}

fn update_metrics(ctx: &WorkerContext) {
    ctx.counters()
        .reads
        .watch_backed
        .set(ctx.watches.cache_proofs.len());
}

/// Requests barriers periodically while the worker has proofs, and closes proofs that are not used.
pub(super) async fn run(ctx: Rc<WorkerContext>) {
    // The age of a proof counts from the request of its barrier, so the next barrier must be
    // reached before the previous one expires.
    let pause = (ctx.process.read_cache.options().max_age / 3 * 2).min(limits::CACHE_COLD_AFTER);
    loop {
        if ctx.watches.cache_proofs.len() == 0 {
            ctx.watches.cache_proofs.opened.notified().await;
        }
        close_unused(&ctx);
        for identity_id in ctx.watches.cache_proofs.identity_ids() {
            request_barrier(&ctx, identity_id);
        }
        sleep(pause.max(Duration::from_millis(1))).await;
    }
}

/// Requests one barrier. For clients without a token, etcd first confirms that they may still read
/// the ranges (R4).
fn request_barrier(ctx: &Rc<WorkerContext>, identity_id: IdentityId) {
    let table = &ctx.watches.cache_proofs;
    if table.pending_barriers.borrow().contains_key(&identity_id) {
        return;
    }
    let barrier = Barrier {
        requested_at: Instant::now(),
        flushes: ctx.process.read_cache.flush_count(),
    };
    table
        .pending_barriers
        .borrow_mut()
        .insert(identity_id, barrier);
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        let link = find_link(&ctx, identity_id);
        let permitted = match &link {
            Some(link) if link.identity.is_anonymous() => {
                anonymous_may_read(&ctx, identity_id).await
            }
            _ => true,
        };
        match link {
            Some(link) if !link.is_over() && permitted => {
                let (outbox, now) = (&ctx.watches.outbox, Instant::now());
                link.with_trunk(outbox, |trunk| {
                    trunk.request_barrier(waiter(identity_id), now)
                });
            }
            _ => {
                ctx.watches
                    .cache_proofs
                    .pending_barriers
                    .borrow_mut()
                    .remove(&identity_id);
            }
        }
    });
}

/// Returns whether clients without a token may read all ranges that have a proof for them.
///
/// etcd may require tokens by now. etcd may also take the certificate of this proxy for a user that
/// has lost a permission. A proof of a range that is refused is closed.
async fn anonymous_may_read(ctx: &Rc<WorkerContext>, identity_id: IdentityId) -> bool {
    let mut permitted = true;
    for batch in batches(ctx, identity_id) {
        let (numbers, ranges): (Vec<u64>, Vec<KeyRange>) = batch.into_iter().unzip();
        match etcd_client::noop_txn(ctx, None, &ranges, true).await {
            Ok(response) if response.code() == Code::Ok => {}
            Ok(_) => {
                permitted = false;
                numbers.into_iter().for_each(|number| close(ctx, number));
            }
            Err(_) => permitted = false,
        }
    }
    permitted
}

/// Returns the proofs of an identity in batches of ranges that fit one transaction.
fn batches(ctx: &WorkerContext, identity_id: IdentityId) -> Vec<Vec<(u64, KeyRange)>> {
    let mut batches: Vec<Vec<(u64, KeyRange)>> = Vec::new();
    let mut bytes = 0;
    for (number, entry) in &*ctx.watches.cache_proofs.open.borrow() {
        if entry.identity_id() != identity_id {
            continue;
        }
        let range = entry.proof.range().clone();
        bytes += range.start().len() + range.range_end().len();
        match batches.last_mut() {
            Some(last)
                if last.len() < etcd_client::MAX_TXN_RANGES
                    && bytes <= limits::CACHE_ENTRY_BYTES =>
            {
                last.push((*number, range));
            }
            _ => {
                bytes = range.start().len() + range.range_end().len();
                batches.push(vec![(*number, range)]);
            }
        }
    }
    batches
}

/// Closes proofs of responses that are used too rarely or were flushed from the cache.
fn close_unused(ctx: &WorkerContext) {
    let now = Instant::now();
    let flushes = ctx.process.read_cache.flush_count();
    let mut unused = Vec::new();
    for (number, entry) in &mut *ctx.watches.cache_proofs.open.borrow_mut() {
        if entry.flushes != flushes {
            unused.push(*number);
            continue;
        }
        if now < entry.checked_at + limits::CACHE_COLD_AFTER {
            continue;
        }
        entry.checked_at = now;
        let hits = ctx.process.read_cache.take_hits(&entry.question);
        if hits.is_none_or(|hits| hits < limits::CACHE_HOT_REQUESTS) {
            unused.push(*number);
        }
    }
    unused.into_iter().for_each(|number| close(ctx, number));
}
