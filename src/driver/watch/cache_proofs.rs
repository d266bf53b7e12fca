//! Watches that prove kept answers right: an answer that is asked for often is not asked of etcd again
//! and again. Its events raise the floors at once, and a barrier asked for in time says that none is
//! missing (R2).

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::messages::Wanted;
use crate::driver::watch::cache_proof_table::{Barrier, CacheProof, sub, token};
use crate::driver::watch::link_table::{close_shared, find_line, shared_line};
use crate::limits;
use crate::state_machine::reads::watch_proof::{Over, WatchProof};
use crate::state_machine::watch::FeedEvent;
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::range::KeyRange;
use crate::wire::status::Code;

/// Begins to prove an answer right.
pub(super) fn begin(ctx: &Rc<WorkerContext>, wanted: Wanted) {
    let watches = &ctx.watches;
    let Wanted {
        question,
        range,
        session,
    } = wanted;
    if watches.covers.len() >= limits::CACHE_COVERS / ctx.shared.workers() {
        return;
    }
    let login = session.login().clone();
    let covering = CacheProof {
        question,
        cover: WatchProof::new(range.clone()),
        session,
        dropped: ctx.shared.answers.dropped(),
        begun: Instant::now(),
        looked: Instant::now(),
    };
    let identity = covering.identity();
    let Some(number) = watches.covers.insert(covering) else {
        return;
    };
    count(ctx);
    if watches.covers.len() == 1 {
        watches.covers.begun.notify_one();
    }
    let line = shared_line(ctx, identity, login, &range);
    line.with(&watches.out, |trunk| trunk.open(sub(number), range, false));
}

/// What the watch of a cover tells.
pub(super) fn told(ctx: &WorkerContext, number: u64, told: &FeedEvent) {
    let covers = &ctx.watches.covers;
    let over = {
        let mut open = covers.open.borrow_mut();
        let Some(covering) = open.get_mut(&number) else {
            return;
        };
        if let FeedEvent::Events(batch) = told {
            ctx.shared.answers.told(covering.cover.writes(batch));
        }
        covering.cover.told(told) == Err(Over)
    };
    if over {
        // It need not be closed.
        forget(ctx, number);
    }
}

/// All covers of an identity have been told everything up to a revision, as of when that was asked.
pub(super) fn synced(ctx: &WorkerContext, identity: IdentityId, revision: i64) {
    let (covers, answers) = (&ctx.watches.covers, &ctx.shared.answers);
    let Some(barrier) = covers.asked.borrow_mut().remove(&identity) else {
        return;
    };
    // What has been given up says nothing, and neither does a revision of a history that is no more.
    if revision == 0 || barrier.dropped != answers.dropped() {
        return;
    }
    let mut gone = Vec::new();
    for (number, covering) in &*covers.open.borrow() {
        if covering.identity() == identity
            && covering.dropped == barrier.dropped
            && covering.begun <= barrier.asked
            && let Some(proof) = covering.cover.proof(revision, barrier.asked)
            && !answers.prove(&covering.question, Some(proof))
        {
            gone.push(*number);
        }
    }
    gone.into_iter().for_each(|number| close(ctx, number));
}

/// Ends a cover here and at etcd.
fn close(ctx: &WorkerContext, number: u64) {
    if let Some(identity) = forget(ctx, number) {
        close_shared(ctx, identity, sub(number));
    }
}

/// Ends a cover here; says whose it was.
fn forget(ctx: &WorkerContext, number: u64) -> Option<IdentityId> {
    let covering = ctx.watches.covers.remove(number)?;
    ctx.shared.answers.prove(&covering.question, None);
    count(ctx);
    Some(covering.identity())
}

fn count(ctx: &WorkerContext) {
    ctx.count().reads.watch_backed.set(ctx.watches.covers.len());
}

/// Asks for barriers in time, for as long as there are covers, and ends those that nobody asks for.
pub(super) async fn beats(ctx: Rc<WorkerContext>) {
    // A barrier counts from when it was asked for, and must stand before the one before is too old.
    let pause = (ctx.shared.answers.options().max_age / 3 * 2).min(limits::CACHE_COLD_AFTER);
    loop {
        if ctx.watches.covers.len() == 0 {
            ctx.watches.covers.begun.notified().await;
        }
        end_cold(&ctx);
        for identity in ctx.watches.covers.identities() {
            beat(&ctx, identity);
        }
        sleep(pause.max(Duration::from_millis(1))).await;
    }
}

/// Asks for one barrier. Of nobody's answers etcd must say meanwhile that nobody may read them (R4).
fn beat(ctx: &Rc<WorkerContext>, identity: IdentityId) {
    let covers = &ctx.watches.covers;
    if covers.asked.borrow().contains_key(&identity) {
        return;
    }
    let barrier = Barrier {
        asked: Instant::now(),
        dropped: ctx.shared.answers.dropped(),
    };
    covers.asked.borrow_mut().insert(identity, barrier);
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        let line = find_line(&ctx, identity);
        let may = match &line {
            Some(line) if line.login.is_nobody() => nobody_may_read(&ctx, identity).await,
            _ => true,
        };
        match line {
            Some(line) if !line.is_over() && may => {
                let (out, now) = (&ctx.watches.out, Instant::now());
                line.with(out, |trunk| trunk.sync(token(identity), now));
                ctx.watches.work.notify_one();
            }
            _ => {
                ctx.watches.covers.asked.borrow_mut().remove(&identity);
            }
        }
    });
}

/// Whether who sends no token may read all that is covered for him: etcd may ask for tokens by now, or take
/// the certificate of this proxy for a user, who may have lost a permission. What he may not read is
/// covered no more.
async fn nobody_may_read(ctx: &Rc<WorkerContext>, identity: IdentityId) -> bool {
    let mut may = true;
    for portion in portions(ctx, identity) {
        let (numbers, ranges): (Vec<u64>, Vec<KeyRange>) = portion.into_iter().unzip();
        match etcd_client::txn(ctx, None, &ranges, true).await {
            Ok(answer) if answer.code() == Code::Ok => {}
            Ok(_) => {
                may = false;
                numbers.into_iter().for_each(|number| close(ctx, number));
            }
            Err(_) => may = false,
        }
    }
    may
}

/// What is covered for an identity, in portions that one transaction can name.
fn portions(ctx: &WorkerContext, identity: IdentityId) -> Vec<Vec<(u64, KeyRange)>> {
    let mut portions: Vec<Vec<(u64, KeyRange)>> = Vec::new();
    let mut bytes = 0;
    for (number, covering) in &*ctx.watches.covers.open.borrow() {
        if covering.identity() != identity {
            continue;
        }
        let range = covering.cover.range().clone();
        bytes += range.start().len() + range.range_end().len();
        match portions.last_mut() {
            Some(last)
                if last.len() < etcd_client::MOST_RANGES && bytes <= limits::CACHE_ENTRY_BYTES =>
            {
                last.push((*number, range));
            }
            _ => {
                bytes = range.start().len() + range.range_end().len();
                portions.push(vec![(*number, range)]);
            }
        }
    }
    portions
}

/// Ends covers of answers that are not asked for any more, or were dropped.
fn end_cold(ctx: &WorkerContext) {
    let now = Instant::now();
    let dropped = ctx.shared.answers.dropped();
    let mut cold = Vec::new();
    for (number, covering) in &mut *ctx.watches.covers.open.borrow_mut() {
        if covering.dropped != dropped {
            cold.push(*number);
            continue;
        }
        if now < covering.looked + limits::CACHE_COLD_AFTER {
            continue;
        }
        covering.looked = now;
        let asked = ctx.shared.answers.take_asked(&covering.question);
        if asked.is_none_or(|asked| asked < limits::CACHE_HOT_ASKED) {
            cold.push(*number);
        }
    }
    cold.into_iter().for_each(|number| close(ctx, number));
}
