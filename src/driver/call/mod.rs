//! One call as it arrived: what it asks, what it may spend, and the two directions of its stream.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, request};
use tokio::time::Instant;

use crate::call_log::finished_call::Source;
use crate::call_log::open_call::LoggedCall;
use crate::driver::WorkerContext;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::identity::{Credential, Session};
use crate::driver::state::interrupt::{Interrupted, bounded};
use crate::driver::state::reply;
use crate::net::payload::Payload;
use crate::net::timers::Timer;
use crate::wire::metadata;
use crate::wire::method::{self, Access, Kind, Method};
use crate::wire::timeout;

pub(super) mod chunk_buffer;
pub(super) mod request_body;
pub(super) mod stream_requests;

/// Of reads.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";

/// Of the list of members.
pub(super) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";

/// Of watches.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Of heartbeats.
pub(super) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// The service that tells of health.
const HEALTH: &str = "grpc.health.v1.Health";

/// One call of a client.
pub struct Call {
    pub(super) ctx: Rc<WorkerContext>,
    pub(super) peer: Rc<ClientConnection>,
    /// `None` for a method that is not known (P1).
    pub(super) method: Option<&'static Method>,
    pub(super) head: request::Parts,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Payload>,
    /// The client's, from its `grpc-timeout`.
    pub(super) deadline: Option<Instant>,
    /// What is noted of it, if it is to be told of.
    pub(super) record: Option<Rc<LoggedCall>>,
}

impl Call {
    /// A request as it arrived. Boxed, since it is handed on a few times and is half a kilobyte.
    pub fn new(
        ctx: Rc<WorkerContext>,
        peer: Rc<ClientConnection>,
        request: Request<RecvStream>,
        respond: SendResponse<Payload>,
    ) -> Box<Call> {
        let (head, body) = request.into_parts();
        let method = method::lookup(head.uri.path());
        let timeout = head
            .headers
            .get_all(metadata::GRPC_TIMEOUT)
            .iter()
            // Of several the last counts, as at etcd.
            .next_back()
            .and_then(|v| timeout::parse(v.as_bytes()));
        // A deadline that the clock cannot express is none.
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        Box::new(Call {
            ctx,
            peer,
            method,
            head,
            body,
            respond,
            deadline,
            record: None,
        })
    }

    /// Time left of the client's deadline, as of now.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Notes where its answer comes from.
    pub(super) fn comes_from(&self, source: Source) {
        if let Some(record) = &self.record {
            record.comes_from(source);
        }
    }

    /// All of a small answer, framed.
    pub(super) fn answer(&mut self, answer: Bytes) {
        if let Some(record) = &self.record {
            record.sent(&answer);
        }
        reply::whole(&mut self.respond, answer);
    }

    /// A timer for its deadline.
    pub(super) fn timer(&self) -> Timer {
        self.ctx.timers.at(self.deadline)
    }

    /// One message in, one out.
    pub(super) fn is_unary(&self) -> bool {
        self.method.is_some_and(|m| m.kind == Kind::Unary)
    }

    /// The place of its method in tables, where it may have several messages.
    pub(super) fn streamed(&self) -> Option<usize> {
        let method = self.method.filter(|m| m.kind != Kind::Unary);
        method.map(|m| m.index)
    }

    /// One that etcd answers as soon as it can: not a lock, which waits for others, nor upkeep of the
    /// store, which takes its time.
    pub(super) fn is_short(&self) -> bool {
        let is_short = |m: &Method| matches!(m.service, "etcdserverpb.KV" | "etcdserverpb.Lease");
        self.is_unary() && self.method.is_some_and(is_short)
    }

    /// A stream of watches that may be shared.
    pub(super) fn is_watch(&self) -> bool {
        self.is(WATCH) && !self.asks_for_bypass()
    }

    /// A read of keys that may be shared, or answered from what is kept.
    pub(super) fn is_range(&self) -> bool {
        self.is(RANGE) && !self.asks_for_bypass()
    }

    /// A stream of heartbeats that may be shared.
    pub(super) fn is_keep_alive(&self) -> bool {
        self.is(KEEP_ALIVE) && !self.asks_for_bypass()
    }

    /// A question for the proxy's own health.
    pub(super) fn is_health(&self) -> bool {
        self.method.is_some_and(|m| m.service == HEALTH) && !self.asks_for_bypass()
    }

    fn is(&self, path: &str) -> bool {
        self.method.is_some_and(|m| m.path == path)
    }

    /// The client wants to share nothing (W13).
    fn asks_for_bypass(&self) -> bool {
        let value = self.head.headers.get(metadata::BYPASS);
        value.is_some_and(|value| value == "1")
    }

    /// Whose it is, for what it shares.
    pub(super) fn session(&self) -> Session {
        let credential = Credential::of(&self.head.headers);
        self.ctx.shared.identities.session(credential)
    }

    /// May be sent twice, and its answer be held.
    pub(super) fn is_unary_read(&self) -> bool {
        self.method
            .is_some_and(|m| m.kind == Kind::Unary && m.access == Access::Read)
    }
}

/// Waits for something while the client may leave, its deadline pass, or, where the call has no end of
/// its own, the process end.
pub(super) async fn while_wanted<T>(
    call: &mut Call,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, Interrupted> {
    let drain = (!call.is_unary()).then(|| call.ctx.drain.clone());
    let timer = call.timer();
    let respond = &mut call.respond;
    bounded(timer, drain.as_ref(), |cx| {
        if let Poll::Ready(value) = poll(cx) {
            return Poll::Ready(Ok(value));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await
}
