//! What is asked of etcd beside the watches: whether a token may read a range (R4), how far the
//! store is, and which release an endpoint runs.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header, request};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use crate::limits;
use crate::machine::watch::Lost;
use crate::machine::watch::hub::Verdict;
use crate::service::Ctx;
use crate::service::fetch::{Begun, Read};
use crate::service::identity::Credential;
use crate::service::watch::granted::Wish;
use crate::upstream::attempt::{self, Answer};
use crate::wire::frame::Reader;
use crate::wire::pb::etcdserverpb::request_op::Request as Op;
use crate::wire::pb::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};
use crate::wire::watch::{self, Header};
use crate::wire::{frame, header as wire_header, method};

pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// etcd's words for a token that it does not know, or no longer.
pub(super) const BAD_TOKEN: &str = "etcdserver: invalid auth token";

/// Whether a token may read exactly a range.
pub(super) async fn may_read(ctx: &Rc<Ctx>, (credential, range): &Wish) -> Verdict {
    let status = match txn(ctx, credential.as_ref(), range, true).await {
        Ok(answer) => {
            if let Some(header) = header_of(&answer) {
                ctx.shared.known.see(&header);
            }
            answer.status()
        }
        Err(status) => Some(status),
    };
    let Some(status) = status else {
        return Verdict::Lost(Lost::Unavailable);
    };
    match status.code {
        Code::Ok => Verdict::Granted,
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            if let (Code::Unauthenticated, Some(credential)) = (status.code, credential) {
                ctx.shared.identities.forget(credential);
            }
            let Status { code, message } = status;
            let code = code.as_str();
            Verdict::Refused(format!("rpc error: code = {code} desc = {message}"))
        }
        _ => {
            tracing::warn!(%status, "etcd cannot say whether a range may be read");
            Verdict::Lost(Lost::Unavailable)
        }
    }
}

/// Where the store is, as of now: an answer that a quorum stands behind. `None` when none can be
/// had.
pub(super) async fn history(
    ctx: &Rc<Ctx>,
    credential: Option<&Credential>,
    range: &KeyRange,
) -> Option<Header> {
    let answer = txn(ctx, credential, range, false).await.ok()?;
    header_of(&answer)
}

/// A transaction that compares nothing and does nothing. What it would do if the comparison failed is
/// to read the range: etcd checks that this is permitted, and does not read. It costs no more than a
/// look at the permissions, and without `serializable` a round of the quorum.
async fn txn(
    ctx: &Rc<Ctx>,
    credential: Option<&Credential>,
    range: &KeyRange,
    serializable: bool,
) -> Result<Answer, Status> {
    let read = RangeRequest {
        key: range.start().clone(),
        range_end: range.range_end(),
        serializable,
        ..RangeRequest::default()
    };
    let txn = TxnRequest {
        failure: vec![RequestOp {
            request: Some(Op::RequestRange(read)),
        }],
        ..TxnRequest::default()
    };
    let request = [frame::encode(&txn.encode_to_vec())];
    let head = head(TXN, credential);
    let read = Read {
        ctx,
        head: &head,
        deadline: None,
        request: &request,
    };
    read.fetch(Begun::Nothing).await
}

fn header_of(answer: &Answer) -> Option<Header> {
    wire_header::peek(method::lookup(TXN)?, answer.chunks.front()?)
}

/// Learns of the cluster, when nothing of it has passed through yet: whatever etcd says to a watch,
/// though it refuses it, carries its header. Without an answer, others will bring it.
pub(super) async fn hello(ctx: &Rc<Ctx>) -> Option<()> {
    let until = Instant::now() + limits::WAIT_FOR_ENDPOINT;
    let conn = ctx.pool.connection(until).await.ok()?;
    let head = attempt::head(
        ctx.pool.endpoints(),
        conn.endpoint(),
        &head(WATCH, None),
        None,
    );
    let mut taken = conn.open(head, false).ok()?;
    let nothing = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let create = watch::request::create(&nothing, -1, false, 1);
    taken.body.send_data(create, false).ok()?;
    let answered = async {
        let mut body = taken.response.await.ok()?.into_body();
        let mut reader = Reader::new(limits::HOLD_BYTES as u64);
        loop {
            reader.push(poll_fn(|cx| body.poll_data(cx)).await?.ok()?);
            if let Some(message) = reader.next().ok()? {
                return watch::Response::parse(&message.payload).ok();
            }
        }
    };
    let answer = timeout_at(until, answered).await.ok()??;
    ctx.shared.known.see(&answer.header);
    Some(())
}

/// The head of a call of our own with a client's token (P5).
pub(super) fn head(path: &'static str, credential: Option<&Credential>) -> request::Parts {
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
