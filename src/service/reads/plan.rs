//! What is to be done about a read.

use bytes::Bytes;

use crate::service::call::Call;
use crate::service::fleet;
use crate::service::grants::Wish;
use crate::service::reads::asking::Asking;
use crate::service::reads::give::{Given, give};
use crate::service::reads::kept::may_read;
use crate::service::reads::rounds::{Flight, Ticket, Turn, enter};
use crate::wire::status::Code;

/// What is done about a read.
pub(in crate::service) enum Plan {
    /// It was answered.
    Given(Code),
    /// This is its answer, whole and framed.
    Here(Bytes),
    /// It asks for the proxy's own health.
    Health,
    /// It goes to etcd now, on its own.
    Plain(Option<Asking>),
    /// The same, and whoever asks the same meanwhile waits for it to come back.
    Alone(Asking, Flight),
    /// It is not plain: see [`waiting`](super::waiting).
    Waits(Box<(Asking, Wait)>),
}

/// What it waits for.
pub(in crate::service) enum Wait {
    /// The next read of this.
    Turn(Ticket),
    /// Etcd's word that the client may be given what is kept.
    Word(Wish),
    /// That the client has taken what came before: this is for it, and large.
    Client(Bytes),
}

/// What is to be done about a call's read, its request gathered.
pub(in crate::service) fn plan(call: &mut Call, request: &[Bytes]) -> Plan {
    let Some(asking) = Asking::of(call, request) else {
        if call.is_health() {
            return Plan::Health;
        }
        return fleet::answer(call).map_or(Plan::Plain(None), Plan::Here);
    };
    let serializable = asking.asked.is_serializable();
    if serializable {
        if !call.ctx.shared.answers.is_on() {
            return Plan::Plain(Some(asking));
        }
        match give(call, &asking) {
            Given::Yes => return Plan::Given(Code::Ok),
            Given::Large(answer) => return waits(asking, Wait::Client(answer)),
            Given::IfMay(wish) => return waits(asking, Wait::Word(wish)),
            Given::No => {}
        }
    }
    if !may_share(call, &asking) {
        return Plan::Plain(Some(asking));
    }
    match enter(&call.ctx, &asking, call.peer.number) {
        Turn::Go(flight) => Plan::Alone(asking, flight),
        Turn::Wait(ticket) => waits(asking, Wait::Turn(ticket)),
    }
}

fn waits(asking: Asking, wait: Wait) -> Plan {
    Plan::Waits(Box::new((asking, wait)))
}

/// Whether what others read may be shown to the client: a token must have been taken for just this
/// range lately (R4).
fn may_share(call: &Call, asking: &Asking) -> bool {
    asking.asker.credential.is_none() || may_read(&call.ctx, &asking.wish())
}
