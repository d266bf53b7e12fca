//! What is to be done about a read.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::driver::fleet;
use crate::driver::reads::coalesce::{Admission, InFlight, Waiter, enter};
use crate::driver::reads::lookup::{LookupResult, give};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::may_read;
use crate::driver::state::permission_cache::PermissionKey;
use crate::wire::status::Code;

/// What is done about a read.
pub(in crate::driver) enum Plan {
    /// It was answered.
    Given(Code),
    /// This is its answer, whole and framed.
    Here(Bytes),
    /// It asks for the proxy's own health.
    Health,
    /// It goes to etcd now, on its own.
    Plain(Option<ReadRequest>),
    /// The same, and whoever asks the same meanwhile waits for it to come back.
    Alone(ReadRequest, InFlight),
    /// It is not plain: see [`waiting`](super::waiting).
    Waits(Box<(ReadRequest, Wait)>),
}

/// What it waits for.
pub(in crate::driver) enum Wait {
    /// The next read of this.
    Turn(Waiter),
    /// Etcd's word that the client may be given what is kept.
    Word(PermissionKey),
    /// That the client has taken what came before: this is for it, and large.
    Client(Bytes),
}

/// What is to be done about a call's read, its request gathered.
pub(in crate::driver) fn plan(call: &mut Call, request: &[Bytes]) -> Plan {
    let Some(asking) = ReadRequest::of(call, request) else {
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
            LookupResult::Yes => return Plan::Given(Code::Ok),
            LookupResult::Large(answer) => return waits(asking, Wait::Client(answer)),
            LookupResult::IfMay(wish) => return waits(asking, Wait::Word(wish)),
            LookupResult::No => {}
        }
    }
    if !may_share(call, &asking) {
        return Plan::Plain(Some(asking));
    }
    match enter(&call.ctx, &asking, call.peer.number) {
        Admission::Go(flight) => Plan::Alone(asking, flight),
        Admission::Wait(ticket) => waits(asking, Wait::Turn(ticket)),
    }
}

fn waits(asking: ReadRequest, wait: Wait) -> Plan {
    Plan::Waits(Box::new((asking, wait)))
}

/// Whether what others read may be shown to the client: a token must have been taken for just this
/// range lately (R4).
fn may_share(call: &Call, asking: &ReadRequest) -> bool {
    asking.asker.credential.is_none() || may_read(&call.ctx, &asking.wish())
}
