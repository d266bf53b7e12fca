//! Gives a kept answer, where that breaks no promise.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::limits;
use crate::machine::reads::cache::{Entry, Found, Stale, Standard, Verdict};
use crate::machine::watch::hub::Identity;
use crate::metrics::ReadMetrics;
use crate::service::Ctx;
use crate::service::call::Call;
use crate::service::grants::Wish;
use crate::service::mail::{Mail, Wanted, WatchMail};
use crate::service::reads::answers::NEVER_CHECKED;
use crate::service::reads::asking::Asking;
use crate::service::reads::audit::audit;
use crate::service::reads::kept::may_read;
use crate::service::reads::renew::renew;
use crate::service::record::entry::Source;
use crate::wire::header as wire_header;

/// What came of a look at what is kept.
pub(super) enum Given {
    /// The client has it.
    Yes,
    /// It is for the client, and too large to be sent at once.
    Large(Bytes),
    /// It is for the client if etcd says that he may read this.
    IfMay(Wish),
    /// There is nothing for him.
    No,
}

/// Gives a kept answer.
pub(super) fn give(call: &mut Call, asking: &Asking) -> Given {
    let ctx = call.ctx.clone();
    let answers = &ctx.shared.answers;
    let count = &ctx.count().reads;
    let question = asking.question();
    let now = asking.since.into_std();
    let Some(found) = answers.look(question, now) else {
        count.misses.inc();
        return Given::No;
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
        Verdict::Give { revision, asked } => (revision, asked),
        Verdict::Stale(why) => {
            stale(count, why);
            return Given::No;
        }
    };
    // Who wants to be told that there is no leader asks etcd when there is none.
    if asking.leader && ctx.shared.is_leaderless() {
        count.misses.inc();
        return Given::No;
    }
    if let Some(wish) = doubt(&ctx, asking) {
        return Given::IfMay(wish);
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
        return Given::Large(answer);
    }
    call.comes_from(Source::Cache);
    call.answer(answer);
    Given::Yes
}

fn stale(count: &ReadMetrics, why: Stale) {
    count.misses.inc();
    match why {
        Stale::Age => count.too_old.inc(),
        Stale::Written => count.written.inc(),
        Stale::Unsure => count.unsure.inc(),
        Stale::Shown => count.behind.inc(),
    }
}

/// What etcd has to say before the client is given what is kept: a token must have been taken for just
/// this range within the age of answers (R4).
fn doubt(ctx: &Rc<Ctx>, asking: &Asking) -> Option<Wish> {
    asking.asker.credential.as_ref()?;
    let wish = asking.wish();
    (!may_read(ctx, &wish)).then_some(wish)
}

/// Asks for a watch that proves the answer right from now on.
fn cover(ctx: &Ctx, asking: &Asking) {
    let shared = &ctx.shared;
    let session = shared.identities.session(asking.asker.credential.clone());
    let owner = shared.owner(Identity(session.login().number()));
    let wanted = Wanted {
        question: asking.question().clone(),
        range: asking.asked.range(),
        session,
    };
    shared.post(owner, Mail::Watch(WatchMail::Cover(Box::new(wanted))));
}

/// The answer as true at a revision.
fn at_revision(ctx: &Ctx, asking: &Asking, found: Found, revision: i64) -> Bytes {
    let entry = &found.entry;
    if revision == entry.revision {
        return entry.answer.clone();
    }
    let Some(answer) = wire_header::at_revision(&entry.answer, revision) else {
        return entry.answer.clone();
    };
    let advanced = Entry {
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
