//! Drives the lease hub of an identity: sends heartbeats, delivers responses, ends streams.

use std::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::lease::state::Client;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::messages::{LeaseMessage, LeaseOutput, LeaseOutputKind, WorkerMessage};
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::state_machine::lease::{Action, ClientStreamEnd, Counts, Hub, StreamId};
use crate::wire::lease;
use crate::wire::status::{Code, Status};

/// Passes an input to a hub and carries out its actions, until none is left.
///
/// Outputs for clients of other workers are sent as one message per worker.
pub(super) fn drive_hub(
    ctx: &WorkerContext,
    link: &UpstreamLink,
    input: impl FnOnce(&mut Hub, Instant),
) {
    let now = Instant::now();
    let mut hub = link.hub.borrow_mut();
    input(&mut hub, now);
    hub.settle(now);
    let mut outboxes: Vec<Vec<LeaseOutput>> = Vec::new();
    while let Some(action) = hub.next_action() {
        perform(ctx, link, action, &mut outboxes);
    }
    update_metrics(ctx, link, &mut hub);
    let wake = hub.wake_at(now);
    let over = hub.is_finished();
    drop(hub);
    for (worker, outputs) in outboxes.into_iter().enumerate() {
        if !outputs.is_empty() {
            // At most MAX_WORKERS.
            let message = WorkerMessage::Lease(LeaseMessage::Outputs(outputs));
            ctx.process.send(worker as u32, message);
        }
    }
    let armed = link.wake_at.replace(wake);
    if over || wake.is_some_and(|wake| armed.is_none_or(|armed| wake < armed)) {
        link.changed.notify_one();
    }
}

fn perform(
    ctx: &WorkerContext,
    link: &UpstreamLink,
    action: Action,
    outboxes: &mut Vec<Vec<LeaseOutput>>,
) {
    let mut send_output = |stream: StreamId, kind| {
        let output = LeaseOutput {
            stream: stream.stream,
            kind,
        };
        if stream.worker == ctx.worker_number() {
            return deliver_output(ctx, output);
        }
        let worker = stream.worker as usize;
        if outboxes.len() <= worker {
            outboxes.resize_with(worker + 1, Vec::new);
        }
        outboxes[worker].push(output);
    };
    match action {
        Action::Connect {
            slot: id,
            generation,
            reason: because,
        } => {
            link.slot(id).request(Some((generation, because)));
        }
        Action::Close { slot } => {
            if let Some(slot) = link.slots.borrow_mut().remove(&slot) {
                slot.request(None);
            }
        }
        Action::CheckTtl { lease } => link.request_ttl_check(lease),
        Action::Send { slot, leases } => {
            if let Some(slot) = link.slots.borrow().get(&slot) {
                slot.send(lease::encode_requests(&leases));
            }
        }
        Action::Respond {
            stream,
            message,
            count: times,
        } => send_output(stream, LeaseOutputKind::Message(message, times)),
        Action::End { stream, reason } => send_output(stream, LeaseOutputKind::End(reason)),
    }
}

/// Delivers an output of a hub to a client of this worker.
pub(super) fn deliver_output(ctx: &WorkerContext, output: LeaseOutput) {
    let Some(client) = ctx.leases.client(output.stream) else {
        return;
    };
    match output.kind {
        LeaseOutputKind::Message(message, times) => {
            client
                .pending
                .set(client.pending.get().saturating_sub(times));
            for _ in 0..times {
                let payload = Payload::from(message.clone());
                if !client
                    .stream
                    .send(&ctx.process.store_revision, ctx.counters(), payload)
                {
                    ctx.counters().limit_hit(Limit::StalledBytes);
                    return;
                }
            }
            // The task may have suspended reading of requests.
            client.stream.wake();
        }
        LeaseOutputKind::End(why) => {
            let status = match why {
                ClientStreamEnd::Done => Status::new(Code::Ok, ""),
                ClientStreamEnd::Unavailable => Status::new(
                    Code::Unavailable,
                    "etcd-edge: no endpoint can serve the heartbeat",
                ),
                ClientStreamEnd::Refused(status) => status,
            };
            end_stream(ctx, &client, &status);
        }
    }
}

fn update_metrics(ctx: &WorkerContext, link: &UpstreamLink, hub: &mut Hub) {
    let count = &ctx.counters().lease;
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
    let before = link.counted_streams.replace(streams);
    if before != streams {
        let links = ctx.leases.links.borrow();
        let all: usize = links.values().map(|link| link.counted_streams.get()).sum();
        count.upstream.set(all);
    }
}

/// Ends matching client streams of this worker.
pub(super) fn end_streams(ctx: &WorkerContext, matches: impl Fn(&Client) -> bool, status: &Status) {
    for client in ctx.leases.matching_clients(matches) {
        end_stream(ctx, &client, status);
    }
}

/// Ends a client stream. The task that reads the stream notifies the hub.
pub(super) fn end_stream(ctx: &WorkerContext, client: &Client, status: &Status) {
    if ctx.leases.client(client.id).is_some() {
        client.stream.end(status);
    }
}
