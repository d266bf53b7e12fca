//! One client call: its request head, deadline, log entry, and the two directions of its stream.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, request};
use tokio::time::Instant;

use crate::call_log::finished_call::ResponseSource;
use crate::call_log::open_call::LoggedCall;
use crate::driver::WorkerContext;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::identity::{Credential, Session};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::net::payload::Payload;
use crate::net::timers::Timer;
use crate::wire::metadata;
use crate::wire::method::{self, Access, Method, MethodKind};
use crate::wire::timeout;

pub(super) mod chunk_buffer;
pub(super) mod client_stream_task;
pub(super) mod request_body;
pub(super) mod request_compression;
pub(super) mod stream_requests;

/// Path of reads.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";

/// Path of the member list.
pub(super) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";

/// Path of watch streams.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Path of lease heartbeats.
pub(super) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// gRPC service of health checks.
const HEALTH: &str = "grpc.health.v1.Health";

/// One call of a client.
pub struct Call {
    pub(super) ctx: Rc<WorkerContext>,
    pub(super) connection: Rc<ClientConnection>,
    /// Method of the call, or `None` if the method is unknown (P1).
    pub(super) method: Option<&'static Method>,
    pub(super) head: request::Parts,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Payload>,
    /// Client deadline, from `grpc-timeout` (P3).
    pub(super) deadline: Option<Instant>,
    /// Log entry of the call, if calls are logged or traced.
    pub(super) log: Option<Rc<LoggedCall>>,
}

impl Call {
    /// Creates a call from a request head. The call is boxed, because its size is half a kilobyte
    /// and it is moved several times.
    pub fn new(
        ctx: Rc<WorkerContext>,
        connection: Rc<ClientConnection>,
        request: Request<RecvStream>,
        respond: SendResponse<Payload>,
    ) -> Box<Call> {
        let (head, body) = request.into_parts();
        let method = method::lookup(head.uri.path());
        let timeout = head
            .headers
            .get_all(metadata::GRPC_TIMEOUT)
            .iter()
            // The last value counts, as at etcd.
            .next_back()
            .and_then(|v| timeout::parse(v.as_bytes()));
        // A deadline beyond the range of the clock is no deadline.
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        Box::new(Call {
            ctx,
            connection,
            method,
            head,
            body,
            respond,
            deadline,
            log: None,
        })
    }

    /// Returns the time left until the client deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Logs the source of the response: etcd, the cache, a shared read or the proxy.
    pub(super) fn set_source(&self, source: ResponseSource) {
        if let Some(log) = &self.log {
            log.set_source(source);
        }
    }

    /// Sends a small, framed response as a whole, and ends the call with status OK.
    pub(super) fn send_response(&mut self, response: Bytes) {
        if let Some(log) = &self.log {
            log.count_sent(&response);
        }
        reply::unary(&mut self.respond, response);
    }

    /// Returns a timer for the client deadline.
    pub(super) fn deadline_timer(&self) -> Timer {
        self.ctx.timers.at(self.deadline)
    }

    /// Returns whether the method has one request message and one response message.
    pub(super) fn is_unary(&self) -> bool {
        self.method.is_some_and(|m| m.kind == MethodKind::Unary)
    }

    /// Returns the index of a streaming method; `None` for unary and unknown methods.
    pub(super) fn streaming_method(&self) -> Option<usize> {
        let method = self.method.filter(|m| m.kind != MethodKind::Unary);
        method.map(|m| m.index)
    }

    /// Returns whether etcd responds to the method without waiting. Excluded are locks, which wait
    /// for other clients, and maintenance, which takes long. Latency samples of endpoints use this.
    pub(super) fn is_short(&self) -> bool {
        let is_short = |m: &Method| matches!(m.service, "etcdserverpb.KV" | "etcdserverpb.Lease");
        self.is_unary() && self.method.is_some_and(is_short)
    }

    /// Returns whether the call is a watch stream that may be shared.
    pub(super) fn is_watch(&self) -> bool {
        self.has_path(WATCH) && !self.requests_bypass()
    }

    /// Returns whether the call is a read of keys that may be shared or served from the cache.
    pub(super) fn is_range(&self) -> bool {
        self.has_path(RANGE) && !self.requests_bypass()
    }

    /// Returns whether the call is a stream of lease heartbeats that may be shared.
    pub(super) fn is_keep_alive(&self) -> bool {
        self.has_path(KEEP_ALIVE) && !self.requests_bypass()
    }

    /// Returns whether the call is a check of the proxy's own health.
    pub(super) fn is_health(&self) -> bool {
        self.method.is_some_and(|m| m.service == HEALTH) && !self.requests_bypass()
    }

    /// Returns whether the call is a read that the proxy may answer itself, or whose keys it
    /// translates. Other reads pass to etcd as the client sends them.
    pub(super) fn is_interpreted_read(&self) -> bool {
        self.is_range()
            || self.is_health()
            || self.has_path(MEMBER_LIST)
            || self.ctx.process.namespace_policy().is_some()
    }

    fn has_path(&self, path: &str) -> bool {
        self.method.is_some_and(|m| m.path == path)
    }

    /// Returns whether the client requests that nothing is shared (W13).
    fn requests_bypass(&self) -> bool {
        let value = self.head.headers.get(metadata::BYPASS);
        value.is_some_and(|value| value == "1")
    }

    /// Opens a session of the call's identity, for streams that share upstream work.
    pub(super) fn session(&self) -> Session {
        let credential = Credential::from_headers(&self.head.headers);
        self.ctx.process.identities.session(credential)
    }

    /// Returns whether the call may be sent more than once and its response may be buffered.
    pub(super) fn is_unary_read(&self) -> bool {
        self.method
            .is_some_and(|m| m.kind == MethodKind::Unary && m.access == Access::Read)
    }
}

/// Polls until the result is ready or the call is interrupted: the client leaves, its deadline
/// passes, or the process shuts down. Shutdown interrupts only calls that are not unary (S2).
///
/// # Errors
/// Returns the reason of the interruption.
pub(super) async fn while_call_open<T>(
    call: &mut Call,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, Interrupted> {
    let drain = (!call.is_unary()).then(|| call.ctx.drain.clone());
    let timer = call.deadline_timer();
    let respond = &mut call.respond;
    until_interrupted(timer, drain.as_ref(), |cx| {
        if let Poll::Ready(value) = poll(cx) {
            return Poll::Ready(Ok(value));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await
}
