//! One client heartbeat stream: reads its requests and passes them to the hub of its identity.
//!
//! [`hub_driver`](super::hub_driver) sends the responses. The task here only notices that the
//! client stream has ended.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use crate::call_log::finished_call::ResponseSource;
use crate::driver::WorkerContext;
use crate::driver::call::client_stream_task::{self, StreamHandler};
use crate::driver::call::stream_requests::{MessageReader, RequestReader, StreamInput, malformed};
use crate::driver::call::{Call, while_call_open};
use crate::driver::lease::state::{Client, max_pending_heartbeats};
use crate::driver::lease::token_check::check_token;
use crate::driver::state::client_stream::{ClientStream, send_capacity};
use crate::driver::state::identity::Session;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::messages::LeaseInputKind;
use crate::driver::state::reply;
use crate::limits;
use crate::net::payload::StreamQueue;
use crate::upstream::attempt;
use crate::wire::compression::Encoding;
use crate::wire::lease;
use crate::wire::status::{Code, Status};

/// Name of the request message in error texts.
const MESSAGE_NAME: &str = "keep-alive request";

/// Serves a client heartbeat stream until it ends. Returns the code that the call ended with.
pub(in crate::driver) async fn serve(mut call: Box<Call>) -> Code {
    if attempt::requires_leader(&call.head.headers) && call.ctx.process.is_leaderless() {
        return reply::trailers_only(&mut call.respond, &reply::no_leader());
    }
    let encoding = match Encoding::from_headers(&call.head.headers) {
        Ok(encoding) => encoding,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let session = call.session();
    let ctx = call.ctx.clone();
    let session = match ctx.leases.tokens.accepts(&session) {
        true => session,
        false => match checked_session(&mut call, &ctx, session).await {
            Ok(session) => session,
            Err(code) => return code,
        },
    };
    let (handler, requests) = open(call, session, encoding);
    client_stream_task::run(ctx, handler, requests).await
}

/// Checks the token of the session with etcd and returns the session to use.
///
/// # Errors
///
/// The call has ended with the returned code.
async fn checked_session(
    call: &mut Call,
    ctx: &Rc<WorkerContext>,
    session: Session,
) -> Result<Session, Code> {
    let mut check = Box::pin(check_token(ctx, session));
    let status = match while_call_open(call, |cx| check.as_mut().poll(cx)).await {
        Ok(Ok(session)) => return Ok(session),
        Ok(Err(status)) => status,
        Err(Interrupted::ClientGone) => return Err(Code::Cancelled),
        Err(Interrupted::Deadline) => reply::deadline_exceeded(),
        Err(Interrupted::Drain) => reply::shutting_down(),
    };
    Err(reply::trailers_only(&mut call.respond, &status))
}

/// One client stream.
struct HeartbeatStream {
    ctx: Rc<WorkerContext>,
    client: Rc<Client>,
}

/// Drops the parts of the call that only its start needs, and registers the stream with the hub.
fn open(call: Box<Call>, session: Session, encoding: Encoding) -> (HeartbeatStream, RequestReader) {
    call.set_source(ResponseSource::Shared);
    let deadline = call.deadline_timer();
    let method = call.streaming_method();
    let Call {
        ctx,
        connection: peer,
        head,
        body,
        respond,
        log: record,
        ..
    } = *call;
    let connection_queue = peer.lease_queue(&ctx.leases.send_notifier).clone();
    let streams = Rc::strong_count(&connection_queue) - 1;
    let id = ctx.leases.next_id();
    let send_capacity = send_capacity(streams);
    let stream_queue = StreamQueue::new(id, send_capacity / 2, connection_queue);
    let wants_leader = attempt::requires_leader(&head.headers);
    let connection_number = peer.number;
    let client = Rc::new(Client {
        stream: ClientStream::new(
            respond,
            stream_queue,
            session,
            peer,
            method,
            wants_leader,
            encoding,
            record,
        ),
        id,
        send_capacity,
        max_pending: max_pending_heartbeats(streams),
        pending: Cell::new(0),
        active: Cell::new(false),
        token_refused: RefCell::default(),
    });
    ctx.leases.insert(client.clone());
    ctx.counters().lease.streams.set(ctx.leases.streams());
    ctx.leases
        .push_input(&client, LeaseInputKind::Opened(connection_number));
    let messages = MessageReader::new(limits::KEEP_ALIVE_BYTES, encoding);
    let requests = RequestReader::new(&ctx, body, messages, deadline);
    (HeartbeatStream { ctx, client }, requests)
}

impl StreamHandler for HeartbeatStream {
    fn stream(&self) -> &ClientStream {
        &self.client.stream
    }

    fn accepts_requests(&self) -> bool {
        self.client.accepts_requests()
    }

    fn handle(&self, input: StreamInput) -> Result<(), Status> {
        let HeartbeatStream { ctx, client } = self;
        let kind = match input {
            StreamInput::Message(message) => {
                let lease = lease::parse_lease_id(&message);
                let lease = lease.map_err(|error| malformed(MESSAGE_NAME, &error))?;
                if let Some(status) = client.token_refused.borrow().clone() {
                    return Err(status);
                }
                client.pending.set(client.pending.get() + 1);
                client.active.set(true);
                ctx.counters().lease.received.inc();
                LeaseInputKind::Heartbeat(lease)
            }
            StreamInput::HalfClosed => LeaseInputKind::HalfClosed,
        };
        ctx.leases.push_input(client, kind);
        Ok(())
    }

    // The hub of the identity may be on another worker, so there is nothing to wait for.
    fn flush(&self) {}

    fn close(&self) {
        let HeartbeatStream { ctx, client } = self;
        if ctx.leases.remove(client.id).is_some() {
            ctx.leases.push_input(client, LeaseInputKind::Closed);
            ctx.counters().lease.streams.set(ctx.leases.streams());
        }
    }
}
