//! What a hub says is done: heartbeats are sent, answers delivered, streams ended.

use std::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::lease::state::Client;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::messages::{Answer, LeaseMessage, Told, WorkerMessage};
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::state_machine::lease::{Action, Counts, End, Hub, StreamId};
use crate::wire::lease;
use crate::wire::status::{Code, Status};

/// Gives a hub an input, lets it decide, and does what it says.
pub(super) fn turn(
    ctx: &WorkerContext,
    line: &UpstreamLink,
    input: impl FnOnce(&mut Hub, Instant),
) {
    let now = Instant::now();
    let mut hub = line.hub.borrow_mut();
    input(&mut hub, now);
    hub.settle(now);
    let mut letters: Vec<Vec<Told>> = Vec::new();
    while let Some(action) = hub.next_action() {
        perform(ctx, line, action, &mut letters);
    }
    count(ctx, line, &mut hub);
    let wake = hub.wake_at(now);
    let over = hub.is_over();
    drop(hub);
    for (worker, told) in letters.into_iter().enumerate() {
        if !told.is_empty() {
            // Bounded by MAX_WORKERS.
            let mail = WorkerMessage::Lease(LeaseMessage::Told(told));
            ctx.shared.post(worker as u32, mail);
        }
    }
    let armed = line.wake_at.replace(wake);
    if over || wake.is_some_and(|wake| armed.is_none_or(|armed| wake < armed)) {
        line.rearm.notify_one();
    }
}

fn perform(ctx: &WorkerContext, line: &UpstreamLink, action: Action, letters: &mut Vec<Vec<Told>>) {
    let mut told = |stream: StreamId, answer| {
        let told = Told {
            stream: stream.stream,
            answer,
        };
        if stream.worker == ctx.number() {
            return tell(ctx, told);
        }
        let worker = stream.worker as usize;
        if letters.len() <= worker {
            letters.resize_with(worker + 1, Vec::new);
        }
        letters[worker].push(told);
    };
    match action {
        Action::Connect {
            lane: id,
            generation,
            because,
        } => {
            line.lane(id).want(Some((generation, because)));
        }
        Action::Close { lane } => {
            if let Some(lane) = line.lanes.borrow_mut().remove(&lane) {
                lane.want(None);
            }
        }
        Action::Examine { lease } => line.examine(lease),
        Action::Send { lane, leases } => {
            if let Some(lane) = line.lanes.borrow().get(&lane) {
                lane.send(lease::requests(&leases));
            }
        }
        Action::Answer {
            stream,
            message,
            times,
        } => told(stream, Answer::Message(message, times)),
        Action::End { stream, why } => told(stream, Answer::End(why)),
    }
}

/// Tells a client of this worker.
pub(super) fn tell(ctx: &WorkerContext, told: Told) {
    let Some(client) = ctx.leases.client(told.stream) else {
        return;
    };
    match told.answer {
        Answer::Message(message, times) => {
            client
                .pending
                .set(client.pending.get().saturating_sub(times));
            for _ in 0..times {
                let payload = Payload::from(message.clone());
                if !client.stream.send(&ctx.shared.known, ctx.count(), payload) {
                    ctx.count().hit(Limit::StalledBytes);
                    return;
                }
            }
            // It may have stopped reading requests.
            client.stream.wake();
        }
        Answer::End(why) => {
            let status = match why {
                End::Done => Status::new(Code::Ok, ""),
                End::Unavailable => Status::new(
                    Code::Unavailable,
                    "etcd-edge: no endpoint can serve the heartbeat",
                ),
                End::Refused(status) => status,
            };
            end(ctx, &client, &status);
        }
    }
}

fn count(ctx: &WorkerContext, line: &UpstreamLink, hub: &mut Hub) {
    let count = &ctx.count().lease;
    let Counts {
        sent,
        merged,
        resent,
        expired,
        isolated,
    } = hub.take_counts();
    count.sent.add(sent);
    count.merged.add(merged);
    count.resent.add(resent);
    count.expired.add(expired);
    count.isolated.add(isolated);
    let streams = hub.upstream_streams();
    let before = line.counted.replace(streams);
    if before != streams {
        let lines = ctx.leases.lines.borrow();
        let all: usize = lines.values().map(|line| line.counted.get()).sum();
        count.upstream.set(all);
    }
}

/// Ends every client's stream that fits.
pub(super) fn end_all(ctx: &WorkerContext, fits: impl Fn(&Client) -> bool, status: &Status) {
    for client in ctx.leases.select(fits) {
        end(ctx, &client, status);
    }
}

/// Ends a client's stream; the hub is told by the task that reads it.
pub(super) fn end(ctx: &WorkerContext, client: &Client, status: &Status) {
    if ctx.leases.client(client.number).is_some() {
        client.stream.end(status);
    }
}
