//! Calls of the proxy's own with a client's token.

use std::future::poll_fn;
use std::iter;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header, request};
use prost::Message;

use crate::driver::WorkerContext;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::upstream::attempt::{self, Answer, Attempt};
use crate::upstream::conn::Conn;
use crate::wire::frame;
use crate::wire::pb::etcdserverpb::request_op::Request as Op;
use crate::wire::pb::etcdserverpb::{RangeRequest, RequestOp, StatusResponse, TxnRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// Of one transaction: etcd takes 128 operations, unless it is told to take fewer.
pub(in crate::driver) const MOST_RANGES: usize = 64;

/// The method of [`txn`].
pub(in crate::driver) const TXN: &str = "/etcdserverpb.KV/Txn";

/// See [`nobody_or_a_client`].
const MOST_TOKENS: usize = 3;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// etcd's words for a token that it does not know, or no longer.
pub(in crate::driver) const BAD_TOKEN: &str = "etcdserver: invalid auth token";

/// A transaction that compares nothing and does nothing. What it would do if the comparison failed is
/// to read the ranges: etcd checks that this is permitted, and does not read. It costs no more than a
/// look at the permissions, and without `serializable` a round of the quorum. At most
/// [`MOST_RANGES`].
pub(in crate::driver) async fn txn(
    ctx: &Rc<WorkerContext>,
    credential: Option<&Credential>,
    ranges: &[KeyRange],
    serializable: bool,
) -> Result<Answer, Status> {
    let read = |range: &KeyRange| RequestOp {
        request: Some(Op::RequestRange(RangeRequest {
            key: range.start().clone(),
            range_end: range.range_end(),
            serializable,
            ..RangeRequest::default()
        })),
    };
    let txn = TxnRequest {
        failure: ranges.iter().map(read).collect(),
        ..TxnRequest::default()
    };
    let request = [frame::encode(&txn.encode_to_vec())];
    unary(ctx, TXN, credential, &request).await
}

/// Who asks for the proxy itself: nobody; and where nobody may ask, clients that are here, a few.
pub(in crate::driver) fn nobody_or_a_client(
    ctx: &WorkerContext,
) -> impl Iterator<Item = Option<Credential>> {
    let clients = ctx.shared.identities.credentials(MOST_TOKENS);
    iter::once(None).chain(clients.into_iter().map(Some))
}

/// A read of the proxy's own; the caller sets the time limit.
pub(in crate::driver) async fn unary(
    ctx: &Rc<WorkerContext>,
    path: &'static str,
    credential: Option<&Credential>,
    request: &[Bytes],
) -> Result<Answer, Status> {
    let head = head(path, credential);
    let read = Read {
        ctx,
        head: &head,
        deadline: None,
        request,
        untranslated: false,
    };
    read.fetch(Begun::Nothing).await
}

/// What the member at the other end of a connection says of itself; `None` when it says nothing, or may
/// not be asked.
pub(in crate::driver) async fn status(
    conn: &Rc<Conn>,
    credential: Option<&Credential>,
) -> Option<StatusResponse> {
    let head = attempt::head(conn.target(), &head(STATUS, credential), None);
    let mut attempt = Attempt::send(conn.open(head, false).ok()?, &[frame::encode(&[])], None);
    let answer = poll_fn(|cx| attempt.poll(cx)).await.ok()?;
    message(&answer).ok()
}

/// The message of a small answer, or what etcd said instead.
pub(in crate::driver) fn message<M: Message + Default>(answer: &Answer) -> Result<M, Status> {
    if let Some(status) = answer.status().filter(|status| status.code != Code::Ok) {
        return Err(status);
    }
    let mut reader = frame::Reader::new(limits::HOLD_BYTES as u64);
    answer
        .chunks
        .iter()
        .for_each(|chunk| reader.push(chunk.clone()));
    let nonsense = || Status::new(Code::Internal, "malformed response");
    let message = reader.next().ok().flatten().ok_or_else(nonsense)?;
    M::decode(message.payload).map_err(|_| nonsense())
}

/// The head of a call of our own with a client's token (P5).
pub(in crate::driver) fn head(
    path: &'static str,
    credential: Option<&Credential>,
) -> request::Parts {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(Credential { name, value }) = credential {
        let name: HeaderName = name.clone();
        headers.insert(name, value.clone());
    }
    request.into_parts().0
}
