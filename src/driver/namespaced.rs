//! Calls that a namespace refuses, and those of which only the request tells whether they may pass (N1).

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use prost::Message as _;

use crate::driver::call::request_body::{Gathered, gather};
use crate::driver::call::{Call, while_wanted};
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::first_attempt::cut_short;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::relay;
use crate::driver::state::identity::Credential;
use crate::driver::state::reply;
use crate::limits;
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::frame::{self, Reader};
use crate::wire::namespace::{NamespaceAccess, only_asks};
use crate::wire::pb::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use crate::wire::proto;
use crate::wire::status::{Code, Status};

/// The method whose requests ask or act.
const ALARM: &str = "Alarm";

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// What is said of a call that its method does not let pass; `None` when it may be served, or be looked
/// at by [`serve`].
pub(super) fn refused(call: &Call) -> Option<Status> {
    let gate = call.ctx.shared.gate()?;
    let closed = gate.passage(call.method) == NamespaceAccess::Closed;
    closed.then(|| gate.refusal(call.head.uri.path(), ""))
}

/// Whether a call is served by [`serve`]: only its request tells whether it may pass.
pub(super) fn is_looked_at(call: &Call) -> bool {
    let gate = call.ctx.shared.gate();
    let passage = gate.map(|gate| gate.passage(call.method));
    matches!(
        passage,
        Some(NamespaceAccess::Asking | NamespaceAccess::Lease)
    )
}

/// Serves such a call.
pub(super) async fn serve(call: &mut Call) -> Code {
    let request = match gather(call).await {
        Gathered::Whole(request) => request,
        // These are a few numbers each.
        Gathered::Larger(_) => {
            return refuse(call, ": request too large");
        }
        Gathered::Over(code) => return code,
    };
    let mut reader = Reader::new(call.ctx.max.send);
    request.iter().for_each(|chunk| reader.push(chunk.clone()));
    // What is behind the message would not have been looked at.
    let message = match reader.next() {
        Ok(Some(message)) if !message.compressed && reader.buffered() == 0 => message.payload,
        _ => return refuse(call, ": malformed request"),
    };
    let why = if call.method.is_some_and(|method| method.name == ALARM) {
        (!only_asks(&message)).then_some(": only GET is allowed")
    } else {
        match keeps_inside(call, &message).await {
            Ok(true) => None,
            Ok(false) => Some(": the lease has keys outside the namespace"),
            Err(code) => return code,
        }
    };
    match why {
        None => relay::serve(call, request).await,
        Some(why) => refuse(call, why),
    }
}

fn refuse(call: &mut Call, why: &str) -> Code {
    let path = call.head.uri.path();
    let status = call.ctx.shared.gate().map_or_else(
        || Status::new(Code::Internal, "etcd-edge: no namespace"),
        |gate| gate.refusal(path, why),
    );
    reply::trailers_only(&mut call.respond, &status)
}

/// Whether the lease that a LeaseRevokeRequest names is of no key outside, as etcd says with the client's
/// own token. Where it does not say, the call ends with what it said instead. A key that gets the lease
/// after that is not seen: whoever may put a key outside may also end its lease.
async fn keeps_inside(call: &mut Call, request: &[u8]) -> Result<bool, Code> {
    let Some(question) = question(request) else {
        return Ok(false);
    };
    let ctx = call.ctx.clone();
    let head = etcd_client::head(TIME_TO_LIVE, Credential::of(&call.head.headers).as_ref());
    let request = [frame::encode_message(&question)];
    let read = Read {
        ctx: &ctx,
        head: &head,
        deadline: call.deadline,
        request: &request,
        untranslated: true,
    };
    let mut fetch = pin!(read.fetch(Begun::Nothing));
    let answer = match while_wanted(call, |cx| fetch.as_mut().poll(cx)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => return Err(reply::trailers_only(&mut call.respond, &status)),
        Err(cut) => return Err(cut_short(call, cut)),
    };
    if let Some(status) = answer.status().filter(|status| status.code != Code::Ok) {
        return Err(reply::trailers_only(&mut call.respond, &status));
    }
    let prefix = ctx.shared.gate().map(|gate| gate.namespace());
    Ok(keys(answer).is_some_and(|keys| {
        let mut keys = keys.iter();
        prefix.is_some_and(|prefix| keys.all(|key| prefix.strip(key).is_some()))
    }))
}

/// LeaseRevokeRequest { ID = 1 } as a question for the lease's keys; `None` for one that is not plain.
fn question(request: &[u8]) -> Option<LeaseTimeToLiveRequest> {
    let mut id = None;
    for field in proto::fields(request) {
        let field = field.ok()?;
        if field.number == 1 && id.replace(field.varint()?).is_some() {
            return None;
        }
    }
    Some(LeaseTimeToLiveRequest {
        id: id.unwrap_or(0).cast_signed(),
        keys: true,
    })
}

/// The keys of an answer that is all here.
fn keys(answer: Answer) -> Option<Vec<Bytes>> {
    if !matches!(answer.rest, Rest::End(_)) {
        return None;
    }
    let mut reader = Reader::new(limits::HOLD_BYTES as u64);
    answer
        .chunks
        .into_iter()
        .for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    Some(LeaseTimeToLiveResponse::decode(message.payload).ok()?.keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_asked_for_as_it_was_named() {
        let asks = |id| Some(LeaseTimeToLiveRequest { id, keys: true });
        assert_eq!(question(b"\x08\x07"), asks(7));
        assert_eq!(question(b""), asks(0));
        assert_eq!(
            question(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            asks(-1)
        );
        for unclear in [&b"\x08\x07\x08\x08"[..], b"\x0a\x01\x07", b"\x08"] {
            assert_eq!(question(unclear), None, "{unclear:?}");
        }
    }
}
