//! What the hub says is done: messages are sent, feeds opened, tokens checked, streams ended.

use std::rc::Rc;
use std::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::etcd::client::BAD_TOKEN;
use crate::driver::state::messages::{WatchMessage, WatchStatus};
use crate::driver::state::reply;
use crate::driver::watch::link_table::{begin_line, close_shared, find_line, shared_line};
use crate::driver::watch::outbox::Input;
use crate::driver::watch::permission_checks::Answer;
use crate::driver::watch::state::{Client, Source};
use crate::driver::watch::{cache_proofs, checks, state};
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::state_machine::watch::hub::{
    Action, CheckId, CheckResult, FeedId, FeedStatus, Hub, IdentityId, Message, Stats, StreamId,
};
use crate::state_machine::watch::trunk::Trunk;
use crate::state_machine::watch::{FeedEvent, Unavailable};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// Tells the hub what waits in the inbox, and does what it asks for, until nothing is left.
pub(in crate::driver) fn run(ctx: &Rc<WorkerContext>) {
    let watches = &ctx.watches;
    if watches.running.replace(true) {
        return;
    }
    let mut hub = watches.hub.borrow_mut();
    hub.tick(Instant::now());
    tell_known(ctx, &mut hub);
    loop {
        let input = watches.out.next();
        let idle = input.is_none();
        if let Some(input) = input {
            tell(ctx, &mut hub, input);
        }
        let mut acted = false;
        for action in hub.actions() {
            acted = true;
            perform(ctx, action);
        }
        if idle && !acted {
            break;
        }
    }
    let wake = hub.wake();
    count(ctx, &hub.stats());
    drop(hub);
    watches.running.set(false);
    let armed = watches.alarm.replace(wake);
    if wake.is_some_and(|wake| armed.is_none_or(|armed| wake < armed)) {
        watches.rearm.notify_one();
    }
}

fn tell(ctx: &WorkerContext, hub: &mut Hub, input: Input) {
    match input {
        Input::Checked(check, verdict) => hub.checked(check, verdict),
        Input::Told(feed, told) => {
            if let FeedEvent::Compacted { .. } | FeedEvent::Refused(_) | FeedEvent::Lost(_) = told {
                // It is over, and the hub need not close it.
                ctx.watches.feeds.borrow_mut().remove(&feed);
            }
            hub.told(feed, told);
        }
        Input::Closed(stream) => hub.stream_closed(stream),
        Input::Synced(stream, revision) => hub.synced(stream, revision),
        Input::Reset(header) => hub.history_reset(header),
        Input::Cover(number, told) => cache_proofs::told(ctx, number, &told),
        Input::CoversSynced(identity, revision) => cache_proofs::synced(ctx, identity, revision),
    }
}

fn count(ctx: &WorkerContext, stats: &Stats) {
    let count = &ctx.count().watch;
    count.streams.set(stats.streams);
    count.client_watchers.set(stats.watchers);
    count
        .upstream_watchers
        .set(ctx.watches.out.upstream_watchers());
    count.catch_ups.set(stats.catch_ups);
    count.slow.set(stats.slow);
    count.log_bytes.set(stats.log_bytes);
    count.joined.set(stats.joined);
    count.catch_ups_opened.set(stats.catch_ups_opened);
    count.events_sent.set(stats.events_sent);
}

/// Before the hub answers anybody: what this process knows of the store (W4).
fn tell_known(ctx: &WorkerContext, hub: &mut Hub) {
    let known = ctx.shared.known.header();
    if ctx.watches.told_known.replace(known) != known {
        hub.known(known);
    }
    hub.fragment_limit(ctx.shared.part_bytes());
}

fn perform(ctx: &Rc<WorkerContext>, action: Action) {
    let watches = &ctx.watches;
    match action {
        Action::Send { stream, message } => send(ctx, stream, message),
        Action::Check {
            check,
            stream,
            range,
        } => check_range(ctx, check, stream, range),
        Action::OpenFeed {
            feed,
            identity,
            range,
            prev_kv,
            start,
        } => open_feed(ctx, feed, identity, range, prev_kv, start),
        Action::CloseFeed(feed) => close_feed(ctx, feed),
        Action::PauseFeed(feed) => pause_feed(ctx, feed, true),
        Action::ResumeFeed(feed) => pause_feed(ctx, feed, false),
        Action::Sync { stream, identity } => {
            if let Some(client) = watches.client(stream) {
                client.syncing.set(true);
            }
            let mail = WatchMessage::Sync(identity, watches.token(stream));
            to_owner(ctx, identity, mail);
        }
        Action::End { stream, why } => {
            if let Some(client) = watches.remove(stream) {
                client.stream.end(&lost(why));
            }
        }
        Action::ReadRequests(stream) => {
            if let Some(client) = watches.client(stream) {
                client.stream.wake();
            }
        }
    }
}

/// One message to a client. No stream keeps more than its room here but for one message.
fn send(ctx: &Rc<WorkerContext>, stream: StreamId, message: Message) {
    let Some(client) = ctx.watches.client(stream) else {
        return;
    };
    let payload = match message {
        Message::Whole(bytes) => Payload::from(bytes),
        Message::Shared { head, tail } => Payload::new(&head, tail),
    };
    if !client.stream.send(&ctx.shared.known, ctx.count(), payload) {
        ctx.count().hit(Limit::StalledBytes);
    }
}

/// What a client is told when its stream cannot go on.
pub(super) fn lost(why: Unavailable) -> Status {
    match why {
        Unavailable::NoLeader => reply::no_leader(),
        Unavailable::Unavailable => Status::new(
            Code::Unavailable,
            "etcd-edge: no endpoint can serve the watch",
        ),
    }
}

/// Ends streams without the hub's word.
pub(super) fn end_streams(ctx: &WorkerContext, fits: impl Fn(&Client) -> bool, status: &Status) {
    for stream in ctx.watches.streams(fits) {
        if let Some(client) = ctx.watches.remove(stream) {
            ctx.watches.out.note(Input::Closed(stream));
            client.stream.end(status);
        }
    }
}

fn check_range(ctx: &Rc<WorkerContext>, check: CheckId, stream: StreamId, range: KeyRange) {
    let Some(client) = ctx.watches.client(stream) else {
        return;
    };
    let wish = (client.stream.session().credential().cloned(), range);
    let now = Instant::now();
    let answer = ctx.watches.granted.borrow_mut().look(&wish, check, now);
    match answer {
        Answer::Granted => answer_check(ctx, check, CheckResult::Granted),
        Answer::Asked => {}
        Answer::Ask => {
            let ctx = ctx.clone();
            tokio::task::spawn_local(async move {
                let verdict = checks::may_read(&ctx, &wish).await;
                let granted = verdict == CheckResult::Granted;
                let watches = &ctx.watches;
                let checks = watches.granted.borrow_mut().answered(wish, granted, now);
                for check in checks {
                    answer_check(&ctx, check, verdict.clone());
                }
                ctx.watches.work.notify_one();
            });
        }
    }
}

/// A token that was good and is not any more was lost by a member, or is old. The client's stream ends
/// so that it logs in and comes again, as it does when its member dies (W10).
fn answer_check(ctx: &WorkerContext, check: CheckId, verdict: CheckResult) {
    let client = ctx.watches.client(check.stream());
    let was_good = client.as_ref().is_some_and(|client| client.granted.get());
    let verdict = match verdict {
        CheckResult::Refused(reason) if was_good && reason.contains(BAD_TOKEN) => {
            CheckResult::Lost(Unavailable::Unavailable)
        }
        verdict => verdict,
    };
    if let (CheckResult::Granted, Some(client)) = (&verdict, client) {
        client.granted.set(true);
    }
    ctx.watches.out.note(Input::Checked(check, verdict));
}

fn open_feed(
    ctx: &Rc<WorkerContext>,
    feed: FeedId,
    identity: IdentityId,
    range: KeyRange,
    prev_kv: bool,
    start: Option<i64>,
) {
    let watches = &ctx.watches;
    let Some(login) = watches.login(identity) else {
        // It has a stream open, or nobody would want this.
        return;
    };
    let sub = watches.sub(feed);
    let source = match start {
        None => {
            let mail = WatchMessage::Open {
                identity,
                login,
                sub,
                range,
                prev_kv,
            };
            to_owner(ctx, identity, mail);
            Source::Shared(identity)
        }
        Some(start) => {
            let trunk = Trunk::catch_up(sub, range.clone(), prev_kv, start);
            Source::Own(begin_line(ctx, login, range, trunk))
        }
    };
    watches.feeds.borrow_mut().insert(feed, source);
}

fn close_feed(ctx: &Rc<WorkerContext>, feed: FeedId) {
    let watches = &ctx.watches;
    let Some(source) = watches.feeds.borrow_mut().remove(&feed) else {
        return;
    };
    let sub = watches.sub(feed);
    match source {
        Source::Shared(identity) => to_owner(ctx, identity, WatchMessage::Close(identity, sub)),
        Source::Own(line) => {
            line.with(&watches.out, |trunk| trunk.close(sub));
        }
    }
}

fn pause_feed(ctx: &Rc<WorkerContext>, feed: FeedId, paused: bool) {
    let source = ctx.watches.feeds.borrow().get(&feed).cloned();
    if let Some(Source::Own(line)) = source {
        line.pause(paused);
    }
}

/// To the worker that owns the identity's shared line, which may be this one.
fn to_owner(ctx: &Rc<WorkerContext>, identity: IdentityId, mail: WatchMessage) {
    if ctx.shared.owner(identity) == ctx.watches.worker {
        deliver(ctx, mail);
    } else {
        ctx.watches.send(identity, mail);
    }
}

/// Does what a worker asks of this one.
pub(in crate::driver) fn deliver(ctx: &Rc<WorkerContext>, mail: WatchMessage) {
    let watches = &ctx.watches;
    match mail {
        WatchMessage::Open {
            identity,
            login,
            sub,
            range,
            prev_kv,
        } => {
            let line = shared_line(ctx, identity, login, &range);
            line.with(&watches.out, |trunk| {
                trunk.open(sub, range, prev_kv);
            });
        }
        WatchMessage::Close(identity, sub) => close_shared(ctx, identity, sub),
        WatchMessage::Cover(wanted) => cache_proofs::begin(ctx, *wanted),
        WatchMessage::Sync(identity, token) => match find_line(ctx, identity) {
            Some(line) => line.with(&watches.out, |trunk| trunk.sync(token, Instant::now())),
            // Nothing is known: the hub asks again while the stream has watchers.
            None => watches.out.synced(token, 0),
        },
        WatchMessage::Unsync(identity, token) => {
            if let Some(line) = find_line(ctx, identity) {
                line.with(&watches.out, |trunk| trunk.unsync(token));
            }
        }
        WatchMessage::Told(feed, told) => {
            watches
                .out
                .note(Input::Told(FeedId::from_number(feed), told));
        }
        WatchMessage::Synced(stream, revision) => {
            watches
                .out
                .note(Input::Synced(StreamId::from_number(stream), revision));
        }
        WatchMessage::Reset(header) => {
            let lines: Vec<_> = watches.lines.borrow().values().cloned().collect();
            for line in lines {
                line.with(&watches.out, |trunk| trunk.history_reset(header));
            }
            let feeds: Vec<_> = watches.feeds.borrow().values().cloned().collect();
            for feed in feeds {
                if let Source::Own(line) = feed {
                    line.with(&watches.out, |trunk| trunk.history_reset(header));
                }
            }
            watches.out.note(Input::Reset(header));
        }
    }
}

/// No endpoint has a leader: it halts a Go client's watches for good, so nobody is told who has not
/// asked to be (W12, E6).
pub(in crate::driver) fn no_leader(ctx: &WorkerContext, identity: IdentityId) {
    let asks = |client: &Client| {
        client.stream.wants_leader() && state::identity(client.stream.session().login()) == identity
    };
    end_streams(ctx, asks, &lost(Unavailable::NoLeader));
}

/// The watches of this worker, for people.
pub(in crate::driver) fn report(ctx: &WorkerContext) -> WatchStatus {
    let watches = &ctx.watches;
    let hub = watches.hub.borrow();
    let name = |feed: &FeedStatus| {
        let login = watches.login(feed.identity);
        login.map_or_else(String::new, |login| login.name().to_owned())
    };
    WatchStatus {
        stats: hub.stats(),
        upstream_watchers: watches.out.upstream_watchers(),
        feeds: hub.feeds().map(|feed| (name(&feed), feed)).collect(),
    }
}
