//! What clients say is handed to the hub of their identity, wherever it is.

use std::rc::Rc;
use std::sync::Arc;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::{end_all, tell, turn};
use crate::driver::lease::state::Client;
use crate::driver::lease::supervisor::keep;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{LeaseInput, LeaseMessage, LeaseStatus, Word, WorkerMessage};
use crate::driver::state::reply;
use crate::state_machine::lease::{PeerId, StreamId};
use crate::state_machine::watch::hub::IdentityId;
use crate::wire::status::Code;

/// Hands in what the clients of this worker have said, wherever the hubs are.
pub(super) fn hand_in(ctx: &Rc<WorkerContext>) {
    let worker = ctx.number();
    for (login, said) in ctx.leases.take_letters() {
        let owner = ctx.shared.owner(IdentityId(login.number()));
        if owner == worker {
            hear(ctx, &login, worker, said);
        } else {
            let mail = LeaseMessage::Said {
                login,
                worker,
                said,
            };
            ctx.shared.post(owner, WorkerMessage::Lease(mail));
        }
    }
}

/// Does what another worker asks of this one.
pub(in crate::driver) fn deliver(ctx: &Rc<WorkerContext>, mail: LeaseMessage) {
    match mail {
        LeaseMessage::Said {
            login,
            worker,
            said,
        } => hear(ctx, &login, worker, said),
        LeaseMessage::Told(told) => told.into_iter().for_each(|told| tell(ctx, told)),
        LeaseMessage::TokenRefused(identity, credential, status) => {
            if let (Code::Unauthenticated, Some(credential)) = (status.code, &credential) {
                ctx.shared.identities.forget(credential);
            }
            let fits = |client: &Client| {
                let session = client.stream.session();
                session.login().number() == identity && session.credential() == credential.as_ref()
            };
            end_all(ctx, fits, &status);
        }
    }
}

/// No endpoint has a leader: whoever asked to be told is (W12).
pub(in crate::driver) fn no_leader(ctx: &Rc<WorkerContext>, identity: IdentityId) {
    let fits = |client: &Client| {
        client.stream.wants_leader() && client.stream.session().login().number() == identity.0
    };
    end_all(ctx, fits, &reply::no_leader());
}

/// The lines of this worker, for people.
pub(in crate::driver) fn report(ctx: &WorkerContext) -> Vec<LeaseStatus> {
    let lines = ctx.leases.lines.borrow();
    let status = |line: &Rc<UpstreamLink>| {
        let hub = line.hub.borrow();
        LeaseStatus {
            name: line.login.name().to_owned(),
            client_streams: hub.client_streams(),
            upstream_streams: hub.upstream_streams(),
        }
    };
    lines.values().map(status).collect()
}

/// Clients of a worker say something to the hub of their identity, which is here.
fn hear(ctx: &Rc<WorkerContext>, login: &Arc<Identity>, worker: u32, said: Vec<LeaseInput>) {
    let line = line(ctx, login);
    turn(ctx, &line, |hub, now| {
        for LeaseInput { stream, word } in said {
            let stream = StreamId { worker, stream };
            match word {
                Word::Opened(peer) => hub.opened(stream, PeerId { worker, peer }),
                Word::Beat(lease) => hub.beat(stream, lease, now),
                Word::HalfClosed => hub.half_closed(stream, now),
                Word::Closed => hub.closed(stream, now),
            }
        }
    });
}

fn line(ctx: &Rc<WorkerContext>, login: &Arc<Identity>) -> Rc<UpstreamLink> {
    let number = login.number();
    if let Some(line) = ctx.leases.lines.borrow().get(&number) {
        return line.clone();
    }
    let line = Rc::new(UpstreamLink::new(login.clone()));
    ctx.leases.lines.borrow_mut().insert(number, line.clone());
    tokio::task::spawn_local(keep(ctx.clone(), line.clone()));
    line
}
