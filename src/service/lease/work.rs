//! What clients say is handed to the hub of their identity, wherever it is.

use std::rc::Rc;
use std::sync::Arc;

use crate::machine::lease::{PeerId, StreamId};
use crate::machine::watch::hub::Identity;
use crate::service::identity::Login;
use crate::service::lease::keeper::keep;
use crate::service::lease::line::Line;
use crate::service::lease::state::Client;
use crate::service::lease::turn::{end_all, tell, turn};
use crate::service::mail::{LeaseMail, LeaseStatus, Mail, Said, Word};
use crate::service::{Ctx, reply};
use crate::wire::status::Code;

/// Hands in what the clients of this worker have said, wherever the hubs are.
pub(super) fn hand_in(ctx: &Rc<Ctx>) {
    let worker = ctx.number();
    for (login, said) in ctx.leases.take_letters() {
        let owner = ctx.shared.owner(Identity(login.number()));
        if owner == worker {
            hear(ctx, &login, worker, said);
        } else {
            let mail = LeaseMail::Said {
                login,
                worker,
                said,
            };
            ctx.shared.post(owner, Mail::Lease(mail));
        }
    }
}

/// Does what another worker asks of this one.
pub(in crate::service) fn deliver(ctx: &Rc<Ctx>, mail: LeaseMail) {
    match mail {
        LeaseMail::Said {
            login,
            worker,
            said,
        } => hear(ctx, &login, worker, said),
        LeaseMail::Told(told) => told.into_iter().for_each(|told| tell(ctx, told)),
        LeaseMail::TokenRefused(identity, credential, status) => {
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
pub(in crate::service) fn no_leader(ctx: &Rc<Ctx>, identity: Identity) {
    let fits = |client: &Client| {
        client.stream.wants_leader() && client.stream.session().login().number() == identity.0
    };
    end_all(ctx, fits, &reply::no_leader());
}

/// The lines of this worker, for people.
pub(in crate::service) fn report(ctx: &Ctx) -> Vec<LeaseStatus> {
    let lines = ctx.leases.lines.borrow();
    let status = |line: &Rc<Line>| {
        let hub = line.hub.borrow();
        LeaseStatus {
            name: line.login.name().to_owned(),
            c_streams: hub.c_streams(),
            s_streams: hub.s_streams(),
        }
    };
    lines.values().map(status).collect()
}

/// Clients of a worker say something to the hub of their identity, which is here.
fn hear(ctx: &Rc<Ctx>, login: &Arc<Login>, worker: u32, said: Vec<Said>) {
    let line = line(ctx, login);
    turn(ctx, &line, |hub, now| {
        for Said { stream, word } in said {
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

fn line(ctx: &Rc<Ctx>, login: &Arc<Login>) -> Rc<Line> {
    let number = login.number();
    if let Some(line) = ctx.leases.lines.borrow().get(&number) {
        return line.clone();
    }
    let line = Rc::new(Line::new(login.clone()));
    ctx.leases.lines.borrow_mut().insert(number, line.clone());
    tokio::task::spawn_local(keep(ctx.clone(), line.clone()));
    line
}
