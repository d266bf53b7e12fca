//! Gives a kept answer, where that breaks no promise.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::call_log::finished_call::Source;
use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::reads::audit::audit;
use crate::driver::reads::refresh::renew;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::may_read;
use crate::driver::state::messages::{Wanted, WatchMessage, WorkerMessage};
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::read_cache::NEVER_CHECKED;
use crate::limits;
use crate::metrics::ReadMetrics;
use crate::state_machine::reads::cache::{CacheDecision, CachedResponse, Found, Stale, Standard};
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::response_header as wire_header;

/// What came of a look at what is kept.
pub(super) enum LookupResult {
    /// The client has it.
    Yes,
    /// It is for the client, and too large to be sent at once.
    Large(Bytes),
    /// It is for the client if etcd says that he may read this.
    IfMay(PermissionKey),
    /// There is nothing for him.
    No,
}

/// Gives a kept answer.
pub(super) fn give(call: &mut Call, asking: &ReadRequest) -> LookupResult {
    let ctx = call.ctx.clone();
    let answers = &ctx.shared.answers;
    let count = &ctx.count().reads;
    let question = asking.question();
    let now = asking.since.into_std();
    let Some(found) = answers.look(question, now) else {
        count.misses.inc();
        return LookupResult::No;
    };
    let max_age = answers.options().max_age;
    let floor = answers.floor(&found.entry);
    let standard = Standard {
        now,
        max_age,
        written: floor.written,
        unsure: floor.unsure,
        shown: call.peer.shown(&ctx.shared.known),
        proof: found.proof,
    };
    let (revision, since) = match found.entry.judge(&standard) {
        CacheDecision::Give { revision, asked } => (revision, asked),
        CacheDecision::Stale(why) => {
            stale(count, why);
            return LookupResult::No;
        }
    };
    // Who wants to be told that there is no leader asks etcd when there is none.
    if asking.leader && ctx.shared.is_leaderless() {
        count.misses.inc();
        return LookupResult::No;
    }
    if let Some(wish) = doubt(&ctx, asking) {
        return LookupResult::IfMay(wish);
    }
    count.gave(now.saturating_duration_since(since));
    call.peer.show(&ctx.shared.known, revision);
    if found.renew {
        renew(&ctx, asking.beside(&ctx));
    }
    if found.cover {
        cover(&ctx, asking);
    }
    let answer = at_revision(&ctx, asking, found, revision);
    if answers.options().audit > 0 {
        audit(&ctx, asking.beside(&ctx), revision, answer.clone());
    }
    if answer.len() > limits::FREE_SEND_BYTES {
        return LookupResult::Large(answer);
    }
    call.comes_from(Source::Cache);
    call.answer(answer);
    LookupResult::Yes
}

fn stale(count: &ReadMetrics, why: Stale) {
    count.misses.inc();
    match why {
        Stale::Age => count.expired.inc(),
        Stale::Written => count.written.inc(),
        Stale::Unsure => count.write_uncertain.inc(),
        Stale::Shown => count.connection_floor.inc(),
    }
}

/// What etcd has to say before the client is given what is kept: a token must have been taken for just
/// this range within the age of answers (R4).
fn doubt(ctx: &Rc<WorkerContext>, asking: &ReadRequest) -> Option<PermissionKey> {
    asking.asker.credential.as_ref()?;
    let wish = asking.wish();
    (!may_read(ctx, &wish)).then_some(wish)
}

/// Asks for a watch that proves the answer right from now on.
fn cover(ctx: &WorkerContext, asking: &ReadRequest) {
    let shared = &ctx.shared;
    let session = shared.identities.session(asking.asker.credential.clone());
    let owner = shared.owner(IdentityId(session.login().number()));
    let wanted = Wanted {
        question: asking.question().clone(),
        range: asking.asked.range(),
        session,
    };
    shared.post(
        owner,
        WorkerMessage::Watch(WatchMessage::Cover(Box::new(wanted))),
    );
}

/// The answer as true at a revision.
fn at_revision(ctx: &WorkerContext, asking: &ReadRequest, found: Found, revision: i64) -> Bytes {
    let entry = &found.entry;
    if revision == entry.revision {
        return entry.answer.clone();
    }
    let Some(answer) = wire_header::at_revision(&entry.answer, revision) else {
        return entry.answer.clone();
    };
    let advanced = CachedResponse {
        range: entry.range.clone(),
        at: entry.at,
        revision,
        asked: entry.asked,
        answer: answer.clone(),
        checked: AtomicU64::new(NEVER_CHECKED),
    };
    ctx.shared.answers.advance(asking.question(), advanced);
    answer
}
