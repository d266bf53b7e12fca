//! A client's stream of heartbeats: read, and handed on. Its answers come from elsewhere (see
//! [`work`](super::work)); here only its end is noticed.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::call_log::finished_call::Source;
use crate::driver::WorkerContext;
use crate::driver::call::stream_requests::{Messages, Next, Over, Requests, malformed};
use crate::driver::call::{Call, while_wanted};
use crate::driver::lease::state::{Client, most_pending};
use crate::driver::lease::token_check::judge;
use crate::driver::state::client_stream::{ClientStream, room};
use crate::driver::state::identity::Session;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::messages::Word;
use crate::driver::state::reply;
use crate::limits;
use crate::net::payload::StreamQueue;
use crate::upstream::attempt;
use crate::wire::lease;
use crate::wire::status::Code;

/// What its requests are called in errors.
const WHAT: &str = "keep-alive request";

/// Serves a client's stream of heartbeats to its end.
pub(in crate::driver) async fn serve(mut call: Box<Call>) -> Code {
    if attempt::wants_leader(&call.head.headers) && call.ctx.shared.is_leaderless() {
        return reply::trailers_only(&mut call.respond, &reply::no_leader());
    }
    let session = call.session();
    let ctx = call.ctx.clone();
    let session = match ctx.leases.tokens.know(&session) {
        true => session,
        false => match judged(&mut call, &ctx, session).await {
            Ok(session) => session,
            Err(code) => return code,
        },
    };
    let mut stream = open(call, session);
    std::future::poll_fn(|cx| stream.poll(cx)).await
}

/// The session once etcd was asked about its token; or the code that the call has ended with.
async fn judged(
    call: &mut Call,
    ctx: &Rc<WorkerContext>,
    session: Session,
) -> Result<Session, Code> {
    let mut judge = Box::pin(judge(ctx, session));
    let status = match while_wanted(call, |cx| judge.as_mut().poll(cx)).await {
        Ok(Ok(session)) => return Ok(session),
        Ok(Err(status)) => status,
        Err(Interrupted::ClientGone) => return Err(Code::Cancelled),
        Err(Interrupted::Deadline) => reply::deadline_exceeded(),
        Err(Interrupted::Drain) => reply::shutting_down(),
    };
    Err(reply::trailers_only(&mut call.respond, &status))
}

/// One client's stream as the task that reads it sees it.
struct Beating {
    ctx: Rc<WorkerContext>,
    client: Rc<Client>,
    requests: Requests,
}

/// Lets go of what only the beginning of a call needs, and makes it known to the hub.
fn open(call: Box<Call>, session: Session) -> Beating {
    call.comes_from(Source::Shared);
    let deadline = call.timer();
    let method = call.streamed();
    let Call {
        ctx,
        peer,
        head,
        body,
        respond,
        record,
        ..
    } = *call;
    let total = peer.leased(&ctx.leases.board).clone();
    let streams = Rc::strong_count(&total) - 1;
    let number = ctx.leases.next_number();
    let room = room(streams);
    let account = StreamQueue::new(number, room / 2, total);
    let wants_leader = attempt::wants_leader(&head.headers);
    let number_of_peer = peer.number;
    let client = Rc::new(Client {
        stream: ClientStream::new(
            respond,
            account,
            session,
            peer,
            method,
            wants_leader,
            record,
        ),
        number,
        room,
        most: most_pending(streams),
        pending: Cell::new(0),
        beats: Cell::new(false),
    });
    ctx.leases.insert(client.clone());
    ctx.count().lease.streams.set(ctx.leases.streams());
    ctx.leases.say(&client, Word::Opened(number_of_peer));
    Beating {
        requests: Requests::new(
            &ctx,
            body,
            Messages::new(limits::KEEP_ALIVE_BYTES, WHAT),
            deadline,
        ),
        client,
        ctx,
    }
}

impl Beating {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let polled = self.poll_requests(cx);
        if let Some(code) = self.client.stream.ended() {
            self.close();
            return Poll::Ready(code);
        }
        let over = match polled {
            Poll::Ready(over) => over,
            Poll::Pending => ready!(self.requests.poll_over(cx, &self.ctx)),
        };
        self.close();
        Poll::Ready(over.conclude(&self.client.stream))
    }

    /// The hub forgets it.
    fn close(&self) {
        if self.ctx.leases.remove(self.client.number).is_some() {
            self.ctx.leases.say(&self.client, Word::Closed);
            self.ctx
                .count()
                .lease
                .streams
                .set(self.ctx.leases.streams());
        }
    }

    /// Hands on what has arrived; ready at the stream's end.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let Beating {
            ctx,
            client,
            requests,
        } = self;
        loop {
            let takes = client.takes_more();
            match ready!(requests.poll_next(cx, ctx, &client.stream, takes)) {
                Ok(Next::Message(message)) => match lease::lease(&message) {
                    Ok(lease) => {
                        client.pending.set(client.pending.get() + 1);
                        client.beats.set(true);
                        ctx.count().lease.received.inc();
                        ctx.leases.say(client, Word::Beat(lease));
                    }
                    Err(error) => return Poll::Ready(Over::Status(malformed(WHAT, &error))),
                },
                Ok(Next::HalfClosed) => ctx.leases.say(client, Word::HalfClosed),
                Err(over) => return Poll::Ready(over),
            }
        }
    }
}
