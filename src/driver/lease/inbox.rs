//! Delivers inputs of client streams to the hub of their identity, on any worker.

use std::rc::Rc;
use std::sync::Arc;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::{deliver_output, drive_hub, end_stream, end_streams};
use crate::driver::lease::state::Client;
use crate::driver::lease::supervisor::supervise;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{
    LeaseInput, LeaseInputKind, LeaseMessage, LeaseStatus, WorkerMessage,
};
use crate::driver::state::reply;
use crate::state_machine::lease::{ConnectionId, StreamId};
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::status::Code;

/// Delivers the queued inputs of this worker's client streams to their hubs.
pub(super) fn send_inputs(ctx: &Rc<WorkerContext>) {
    let worker = ctx.worker_number();
    for (identity, inputs) in ctx.leases.take_inbox() {
        let owner = ctx.process.owner(IdentityId(identity.number()));
        if owner == worker {
            handle_inputs(ctx, &identity, worker, inputs);
        } else {
            let message = LeaseMessage::Inputs {
                identity,
                worker,
                inputs,
            };
            ctx.process.send(owner, WorkerMessage::Lease(message));
        }
    }
}

/// Handles a message of another worker.
pub(in crate::driver) fn deliver(ctx: &Rc<WorkerContext>, message: LeaseMessage) {
    match message {
        LeaseMessage::Inputs {
            identity,
            worker,
            inputs,
        } => handle_inputs(ctx, &identity, worker, inputs),
        LeaseMessage::Outputs(outputs) => {
            outputs
                .into_iter()
                .for_each(|output| deliver_output(ctx, output));
        }
        LeaseMessage::TokenRefused(identity_number, credential, status) => {
            if let (Code::Unauthenticated, Some(credential)) = (status.code, &credential) {
                ctx.process.identities.forget_token(credential);
            }
            let has_token = |client: &Client| {
                let session = client.stream.session();
                session.identity().number() == identity_number
                    && session.credential() == credential.as_ref()
            };
            // etcd ends a stream at its next heartbeat, and not before. A token of an old revision
            // still renews leases without keys, so each heartbeat decides.
            for client in ctx.leases.matching_clients(has_token) {
                if client.pending.get() > 0 {
                    end_stream(ctx, &client, &status);
                } else if status.code == Code::Unauthenticated {
                    client.token_refused.replace(Some(status.clone()));
                }
            }
        }
    }
}

/// Ends the client streams of an identity that require a leader (`hasleader`), because no endpoint
/// has a leader (W12).
pub(in crate::driver) fn no_leader(ctx: &Rc<WorkerContext>, identity_id: IdentityId) {
    let matches = |client: &Client| {
        client.stream.requires_leader()
            && client.stream.session().identity().number() == identity_id.0
    };
    end_streams(ctx, matches, &reply::no_leader());
}

/// Returns the links that this worker owns for the status page.
pub(in crate::driver) fn report(ctx: &WorkerContext) -> Vec<LeaseStatus> {
    let links = ctx.leases.links.borrow();
    let status = |link: &Rc<UpstreamLink>| {
        let hub = link.hub.borrow();
        LeaseStatus {
            name: link.identity.name().to_owned(),
            client_streams: hub.client_streams(),
            upstream_streams: hub.upstream_streams(),
        }
    };
    links.values().map(status).collect()
}

/// Passes inputs of a worker's client streams to the hub of their identity. This worker owns the
/// hub.
fn handle_inputs(
    ctx: &Rc<WorkerContext>,
    identity: &Arc<Identity>,
    worker: u32,
    inputs: Vec<LeaseInput>,
) {
    let link = shared_link(ctx, identity);
    drive_hub(ctx, &link, |hub, now| {
        for LeaseInput { stream, kind } in inputs {
            let stream = StreamId { worker, stream };
            match kind {
                LeaseInputKind::Opened(peer) => hub.opened(
                    stream,
                    ConnectionId {
                        worker,
                        connection: peer,
                    },
                ),
                LeaseInputKind::Heartbeat(lease) => hub.heartbeat(stream, lease, now),
                LeaseInputKind::HalfClosed => hub.half_closed(stream, now),
                LeaseInputKind::Closed => hub.closed(stream, now),
            }
        }
    });
}

fn shared_link(ctx: &Rc<WorkerContext>, identity: &Arc<Identity>) -> Rc<UpstreamLink> {
    let number = identity.number();
    if let Some(link) = ctx.leases.links.borrow().get(&number) {
        return link.clone();
    }
    let link = Rc::new(UpstreamLink::new(identity.clone()));
    ctx.leases.links.borrow_mut().insert(number, link.clone());
    tokio::task::spawn_local(supervise(ctx.clone(), link.clone()));
    link
}
