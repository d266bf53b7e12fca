//! Drives the watch hub of a worker: sends its messages, opens its feeds, checks tokens, ends
//! streams.

use std::rc::Rc;
use std::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::etcd::client::INVALID_AUTH_TOKEN;
use crate::driver::state::messages::{WatchMessage, WatchStatus};
use crate::driver::state::reply;
use crate::driver::watch::link_table::{close_shared_feed, find_link, shared_link, start_link};
use crate::driver::watch::outbox::HubInput;
use crate::driver::watch::permission_checks::Lookup;
use crate::driver::watch::state::{Client, FeedSource};
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

/// Passes the inputs in the inbox to the hub and carries out its actions, until none is left. An
/// action may add inputs.
pub(super) fn drive_hub(ctx: &Rc<WorkerContext>) {
    let watches = &ctx.watches;
    let mut hub = watches.hub.borrow_mut();
    hub.tick(Instant::now());
    watches.observe_store(&mut hub);
    loop {
        let input = watches.outbox.pop();
        let idle = input.is_none();
        if let Some(input) = input {
            handle_input(ctx, &mut hub, input);
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
    let wake = hub.wake_at();
    update_metrics(ctx, &hub.stats());
    drop(hub);
    watches.outbox.work_done();
    let armed = watches.wake_at.replace(wake);
    if wake.is_some_and(|wake| armed.is_none_or(|armed| wake < armed)) {
        watches.timer_changed.notify_one();
    }
}

fn handle_input(ctx: &WorkerContext, hub: &mut Hub, input: HubInput) {
    match input {
        HubInput::Checked(check, result) => hub.check_result(check, result),
        HubInput::FeedEvent(feed, event) => {
            if let FeedEvent::Compacted { .. } | FeedEvent::Refused(_) | FeedEvent::Lost(_) = event
            {
                // The feed has ended, and the hub does not close it.
                ctx.watches.feeds.borrow_mut().remove(&feed);
            }
            hub.feed_event(feed, event);
        }
        HubInput::StreamClosed(stream) => hub.stream_closed(stream),
        HubInput::BarrierReached(stream, revision) => hub.barrier_answered(stream, revision),
        HubInput::HistoryReset(header) => hub.history_reset(header),
        HubInput::CacheProofEvent(number, event) => cache_proofs::handle_event(ctx, number, &event),
        HubInput::CacheProofBarrier(identity_id, revision) => {
            cache_proofs::handle_barrier(ctx, identity_id, revision)
        }
    }
}

fn update_metrics(ctx: &WorkerContext, stats: &Stats) {
    let count = &ctx.counters().watch;
    count.streams.set(stats.streams);
    count.client_watchers.set(stats.watchers);
    count
        .upstream_watchers
        .set(ctx.watches.outbox.upstream_watchers());
    count.catch_ups.set(stats.catch_ups);
    count.slow.set(stats.slow);
    count.log_bytes.set(stats.log_bytes);
    count.joined.set(stats.joined);
    count.catch_ups_opened.set(stats.catch_ups_opened);
    count.events_sent.set(stats.events_sent);
}

fn perform(ctx: &Rc<WorkerContext>, action: Action) {
    let watches = &ctx.watches;
    match action {
        Action::Send { stream, message } => send(ctx, stream, message),
        Action::Check {
            check,
            stream,
            range,
        } => check_permission(ctx, check, stream, range),
        Action::OpenFeed {
            feed,
            identity: identity_id,
            range,
            prev_kv,
            start,
        } => open_feed(ctx, feed, identity_id, range, prev_kv, start),
        Action::CloseFeed(feed) => close_feed(ctx, feed),
        Action::PauseFeed(feed) => pause_feed(ctx, feed, true),
        Action::ResumeFeed(feed) => pause_feed(ctx, feed, false),
        Action::RequestBarrier {
            stream,
            identity: identity_id,
        } => {
            if let Some(client) = watches.client(stream) {
                client.barrier_pending.set(true);
            }
            let message = WatchMessage::RequestBarrier(identity_id, watches.waiter(stream));
            deliver_to_owner(ctx, identity_id, message);
        }
        Action::EndStream { stream, reason } => {
            if let Some(client) = watches.remove(stream) {
                client.stream.end(&unavailable_status(reason));
            }
        }
        Action::ReadRequests(stream) => {
            if let Some(client) = watches.client(stream) {
                client.stream.wake();
            }
        }
    }
}

/// Sends one message to a client. A stream queues at most one message more than its send capacity.
fn send(ctx: &Rc<WorkerContext>, stream: StreamId, message: Message) {
    let Some(client) = ctx.watches.client(stream) else {
        return;
    };
    let payload = match message {
        Message::Whole(bytes) => Payload::from(bytes),
        Message::Shared { head, tail } => Payload::new(&head, tail),
    };
    if !client
        .stream
        .send(&ctx.process.store_revision, ctx.counters(), payload)
    {
        ctx.counters().limit_hit(Limit::StalledBytes);
    }
}

/// Returns the status for a client stream that the hub cannot serve any longer.
pub(super) fn unavailable_status(reason: Unavailable) -> Status {
    match reason {
        Unavailable::NoLeader => reply::no_leader(),
        Unavailable::Unavailable => Status::new(
            Code::Unavailable,
            "etcd-edge: no endpoint can serve the watch",
        ),
    }
}

/// Ends matching client streams without an action of the hub, and notifies the hub.
pub(super) fn end_streams(ctx: &WorkerContext, matches: impl Fn(&Client) -> bool, status: &Status) {
    for stream in ctx.watches.matching_streams(matches) {
        if let Some(client) = ctx.watches.remove(stream) {
            ctx.watches.outbox.push(HubInput::StreamClosed(stream));
            client.stream.end(status);
        }
    }
}

fn check_permission(ctx: &Rc<WorkerContext>, check: CheckId, stream: StreamId, range: KeyRange) {
    let Some(client) = ctx.watches.client(stream) else {
        return;
    };
    let key = (client.stream.session().credential().cloned(), range);
    let now = Instant::now();
    let lookup = ctx
        .watches
        .permission_checks
        .borrow_mut()
        .lookup(&key, check, now);
    match lookup {
        Lookup::Granted => finish_check(ctx, check, CheckResult::Granted, 0),
        Lookup::Pending => {}
        Lookup::CheckNeeded => {
            let ctx = ctx.clone();
            tokio::task::spawn_local(async move {
                let losses = ctx.pool.endpoints().losses();
                let result = checks::check_permission(&ctx, &key).await;
                let granted = result == CheckResult::Granted;
                let watches = &ctx.watches;
                let checks = watches
                    .permission_checks
                    .borrow_mut()
                    .complete(key, granted, now);
                for check in checks {
                    finish_check(&ctx, check, result.clone(), losses);
                }
            });
        }
    }
}

/// Passes the result of a check to the hub. `losses` is the number of lost endpoints when the check
/// began, or 0 if the result is older.
///
/// A create that etcd refuses is canceled with etcd's reason, and the stream goes on. An exception:
/// etcd accepted the token before, and an endpoint was lost since. Each member has tokens in its own
/// memory, so the next member may not know this one, although it has not expired. Then the client
/// stream ends with UNAVAILABLE: the client authenticates again and resumes (W10).
fn finish_check(ctx: &WorkerContext, check: CheckId, result: CheckResult, losses: u64) {
    let client = ctx.watches.client(check.stream());
    let endpoints = ctx.pool.endpoints();
    let may_be_lost = client.as_ref().is_some_and(|client| {
        client.token_accepted.get().is_some_and(|accepted| {
            accepted != endpoints.losses() || client.stream.session().identity().is_resuming()
        })
    });
    let result = match result {
        CheckResult::Refused(reason) if may_be_lost && reason.contains(INVALID_AUTH_TOKEN) => {
            CheckResult::Lost(Unavailable::Unavailable)
        }
        result => result,
    };
    if let (CheckResult::Granted, Some(client)) = (&result, client) {
        // Under a balancing policy, only the first acceptance counts: the next check may go to a
        // member that has lost the token before.
        let before = client.token_accepted.get();
        if before.is_none() || losses > 0 && !endpoints.options().policy.balances() {
            client.token_accepted.set(Some(losses));
        }
    }
    ctx.watches.outbox.push(HubInput::Checked(check, result));
}

fn open_feed(
    ctx: &Rc<WorkerContext>,
    feed: FeedId,
    identity_id: IdentityId,
    range: KeyRange,
    prev_kv: bool,
    start: Option<i64>,
) {
    let watches = &ctx.watches;
    let Some(identity) = watches.identity(identity_id) else {
        // Cannot happen: the feed is for an open client stream of this identity.
        return;
    };
    let subscriber = watches.subscriber(feed);
    let source = match start {
        None => {
            let message = WatchMessage::Open {
                id: identity_id,
                identity,
                subscriber,
                range,
                prev_kv,
            };
            deliver_to_owner(ctx, identity_id, message);
            FeedSource::Shared(identity_id)
        }
        Some(start) => {
            let trunk = Trunk::catch_up(subscriber, range.clone(), prev_kv, start);
            FeedSource::Private(start_link(ctx, identity, range, trunk))
        }
    };
    watches.feeds.borrow_mut().insert(feed, source);
}

fn close_feed(ctx: &Rc<WorkerContext>, feed: FeedId) {
    let watches = &ctx.watches;
    let Some(source) = watches.feeds.borrow_mut().remove(&feed) else {
        return;
    };
    let subscriber = watches.subscriber(feed);
    match source {
        FeedSource::Shared(identity_id) => deliver_to_owner(
            ctx,
            identity_id,
            WatchMessage::Close(identity_id, subscriber),
        ),
        FeedSource::Private(link) => {
            link.with_trunk(&watches.outbox, |trunk| trunk.close(subscriber));
        }
    }
}

fn pause_feed(ctx: &Rc<WorkerContext>, feed: FeedId, paused: bool) {
    let source = ctx.watches.feeds.borrow().get(&feed).cloned();
    if let Some(FeedSource::Private(link)) = source {
        link.set_paused(paused);
    }
}

/// Delivers a message to the worker that owns the shared link of the identity, possibly this one.
fn deliver_to_owner(ctx: &Rc<WorkerContext>, identity_id: IdentityId, message: WatchMessage) {
    if ctx.process.owner(identity_id) == ctx.watches.worker {
        deliver(ctx, message);
    } else {
        ctx.watches.send_to_owner(identity_id, message);
    }
}

/// Handles a message of another worker, or of this one.
pub(in crate::driver) fn deliver(ctx: &Rc<WorkerContext>, message: WatchMessage) {
    let watches = &ctx.watches;
    match message {
        WatchMessage::Open {
            id: identity_id,
            identity,
            subscriber,
            range,
            prev_kv,
        } => {
            let link = shared_link(ctx, identity_id, identity, &range);
            link.with_trunk(&watches.outbox, |trunk| {
                trunk.open(subscriber, range, prev_kv);
            });
        }
        WatchMessage::Close(identity_id, subscriber) => {
            close_shared_feed(ctx, identity_id, subscriber)
        }
        WatchMessage::ProveResponse(request) => cache_proofs::open(ctx, *request),
        WatchMessage::RequestBarrier(identity_id, waiter) => match find_link(ctx, identity_id) {
            Some(link) => link.with_trunk(&watches.outbox, |trunk| {
                trunk.request_barrier(waiter, Instant::now())
            }),
            // Revision 0 proves nothing: the hub repeats the request while the stream has watchers.
            None => watches.outbox.send_barrier(waiter, 0),
        },
        WatchMessage::CancelBarrier(identity_id, waiter) => {
            if let Some(link) = find_link(ctx, identity_id) {
                link.with_trunk(&watches.outbox, |trunk| trunk.cancel_barrier(waiter));
            }
        }
        WatchMessage::FeedEvent(feed, event) => {
            watches
                .outbox
                .push(HubInput::FeedEvent(FeedId::from_number(feed), event));
        }
        WatchMessage::BarrierReached(stream, revision) => {
            watches.outbox.push(HubInput::BarrierReached(
                StreamId::from_number(stream),
                revision,
            ));
        }
        WatchMessage::Reset(header) => {
            let links: Vec<_> = watches.links.borrow().values().cloned().collect();
            for link in links {
                link.with_trunk(&watches.outbox, |trunk| trunk.history_reset(header));
            }
            let feeds: Vec<_> = watches.feeds.borrow().values().cloned().collect();
            for feed in feeds {
                if let FeedSource::Private(link) = feed {
                    link.with_trunk(&watches.outbox, |trunk| trunk.history_reset(header));
                }
            }
            watches.outbox.push(HubInput::HistoryReset(header));
        }
    }
}

/// Ends the client streams of an identity that require a leader (`hasleader`), because no endpoint
/// has a leader.
///
/// A Go client does not resume its watches after `no leader`, so other streams do not receive it
/// (W12, E6).
pub(in crate::driver) fn no_leader(ctx: &WorkerContext, identity_id: IdentityId) {
    let matches = |client: &Client| {
        client.stream.requires_leader()
            && state::identity_id(client.stream.session().identity()) == identity_id
    };
    end_streams(ctx, matches, &unavailable_status(Unavailable::NoLeader));
}

/// Returns the watches of this worker for the status page.
pub(in crate::driver) fn report(ctx: &WorkerContext) -> WatchStatus {
    let watches = &ctx.watches;
    let hub = watches.hub.borrow();
    let name = |feed: &FeedStatus| {
        let identity = watches.identity(feed.identity);
        identity.map_or_else(String::new, |identity| identity.name().to_owned())
    };
    WatchStatus {
        stats: hub.stats(),
        upstream_watchers: watches.outbox.upstream_watchers(),
        feeds: hub.feeds().map(|feed| (name(&feed), feed)).collect(),
    }
}
