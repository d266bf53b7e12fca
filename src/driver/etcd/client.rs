//! Unary calls of the proxy itself: [`OwnCall`] sends them over the endpoints of the worker.

use std::future::poll_fn;
use std::iter;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header, request};
use prost::Message;
use tokio::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::upstream::attempt::{self, Attempt, BufferedResponse};
use crate::upstream::conn::Conn;
use crate::wire::pb::etcdserverpb::request_op::Request as Op;
use crate::wire::pb::etcdserverpb::{RangeRequest, RequestOp, StatusResponse, TxnRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};
use crate::wire::{frame, metadata};

/// Maximum ranges of one [`noop_txn`]. etcd accepts 128 operations unless it is configured for
/// fewer.
pub(in crate::driver) const MAX_TXN_RANGES: usize = 64;

/// The method of [`noop_txn`].
pub(in crate::driver) const TXN: &str = "/etcdserverpb.KV/Txn";

/// Maximum client tokens that [`own_credentials`] returns.
const MAX_TOKENS: usize = 3;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// etcd's error for a token that it does not know or that has expired.
pub(in crate::driver) const INVALID_AUTH_TOKEN: &str = "etcdserver: invalid auth token";

/// Sends a transaction without effect that checks whether the token may read the ranges.
///
/// The transaction has no comparison, and its failure branch reads the ranges. etcd checks the
/// permissions of that branch and does not run it. The cost is a permission check, and without
/// `serializable` also one round of the quorum. At most [`MAX_TXN_RANGES`] ranges.
///
/// # Errors
///
/// No endpoint responded. A refusal by etcd is a [`BufferedResponse`].
pub(in crate::driver) async fn noop_txn(
    ctx: &Rc<WorkerContext>,
    credential: Option<&Credential>,
    ranges: &[KeyRange],
    serializable: bool,
) -> Result<BufferedResponse, Status> {
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
    OwnCall::new(TXN, credential, frame::encode(&txn.encode_to_vec()))
        .send(ctx)
        .await
}

/// Returns the credentials for calls of the proxy itself, in the order to try: first none, then the
/// tokens of a few connected clients, for an etcd that requires a token.
pub(in crate::driver) fn own_credentials(
    ctx: &WorkerContext,
) -> impl Iterator<Item = Option<Credential>> {
    let clients = ctx.process.identities.credentials(MAX_TOKENS);
    iter::once(None).chain(clients.into_iter().map(Some))
}

/// A unary call of the proxy itself. etcd may process it more than once, so it is retried and
/// hedged like a read.
pub(in crate::driver) struct OwnCall {
    head: request::Parts,
    request: [Bytes; 1],
    deadline: Option<Instant>,
    raw_keys: bool,
}

impl OwnCall {
    /// Creates a call with the token of a client or without one (P5). `request` is complete and
    /// framed.
    pub(in crate::driver) fn new(
        path: &'static str,
        credential: Option<&Credential>,
        request: Bytes,
    ) -> OwnCall {
        OwnCall {
            head: request_head(path, credential),
            request: [request],
            deadline: None,
            raw_keys: false,
        }
    }

    /// Sets whether etcd reports a missing leader immediately.
    pub(in crate::driver) fn with_leader(mut self, required: bool) -> OwnCall {
        if required {
            let headers = &mut self.head.headers;
            headers.insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
        }
        self
    }

    /// Sets the deadline that etcd receives. The caller enforces it.
    pub(in crate::driver) fn with_deadline(mut self, deadline: Option<Instant>) -> OwnCall {
        self.deadline = deadline;
        self
    }

    /// Leaves the namespace prefix in the keys of request and response.
    pub(in crate::driver) fn with_raw_keys(mut self) -> OwnCall {
        self.raw_keys = true;
        self
    }

    /// Sends the call. It has no time limit: the caller limits its time.
    ///
    /// # Errors
    ///
    /// No endpoint responded. An error of etcd is a [`BufferedResponse`].
    pub(in crate::driver) async fn send(
        &self,
        ctx: &Rc<WorkerContext>,
    ) -> Result<BufferedResponse, Status> {
        HedgedRead::new(ctx, &self.head, &self.request, self.deadline)
            .with_raw_keys(self.raw_keys)
            .fetch(PriorAttempt::NotSent)
            .await
    }

    /// Sends the call and decodes the response. Same time limit as [`OwnCall::send`].
    ///
    /// # Errors
    ///
    /// No endpoint responded, or the errors of [`decode_response`].
    pub(in crate::driver) async fn message<M: Message + Default>(
        &self,
        ctx: &Rc<WorkerContext>,
    ) -> Result<M, Status> {
        decode_response(&self.send(ctx).await?)
    }
}

/// Returns the status of the member at the other end of a connection, or `None` if it does not
/// respond or refuses the call.
pub(in crate::driver) async fn member_status(
    conn: &Rc<Conn>,
    credential: Option<&Credential>,
) -> Option<StatusResponse> {
    let mut head = request_head(STATUS, credential);
    // Says who asks, in captures and in logs of a load balancer before etcd.
    let user_agent = HeaderValue::from_static(concat!("etcd-edge/", env!("CARGO_PKG_VERSION")));
    head.headers.insert(header::USER_AGENT, user_agent);
    let head = attempt::head(conn.target(), &head, None);
    let mut attempt = Attempt::send(conn.open(head, false).ok()?, &[frame::encode(&[])], None);
    let response = poll_fn(|cx| attempt.poll(cx)).await.ok()?;
    decode_response(&response).ok()
}

/// Decodes the message of a response of at most [`limits::RESPONSE_BUFFER_BYTES`].
///
/// # Errors
///
/// The error status of etcd, or INTERNAL if the message is malformed, or the response is too large
/// or has no status.
pub(in crate::driver) fn decode_response<M: Message + Default>(
    response: &BufferedResponse,
) -> Result<M, Status> {
    let malformed = || Status::new(Code::Internal, "malformed response");
    // A response that is too large to buffer has no status yet.
    let status = response.status().ok_or_else(malformed)?;
    if status.code != Code::Ok {
        return Err(status);
    }
    let mut reader = frame::Reader::new(limits::RESPONSE_BUFFER_BYTES as u64);
    response
        .chunks
        .iter()
        .for_each(|chunk| reader.push(chunk.clone()));
    let message = reader.next().ok().flatten().ok_or_else(malformed)?;
    M::decode(message.payload).map_err(|_| malformed())
}

/// Returns the head of a call of the proxy itself with the token of a client (P5).
pub(in crate::driver) fn request_head(
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
