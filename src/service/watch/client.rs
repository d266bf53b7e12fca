//! A client's watch stream: its requests are read and handed to the hub. What it is sent comes from
//! elsewhere (see [`work`](super::work)); here only its end is noticed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderValue, Response, header};
use prost::Message as _;
use tokio::time::timeout;

use crate::limits;
use crate::machine::watch::Lost;
use crate::machine::watch::hub::{Create, StreamId};
use crate::metrics::Limit;
use crate::net::payload::Account;
use crate::net::timers::Timer;
use crate::service::call::Call;
use crate::service::identity::Credential;
use crate::service::watch::state::{Client, identity, room};
use crate::service::watch::work::{end, lost, run};
use crate::service::watch::{ask, bypass};
use crate::service::{Ctx, relay, reply};
use crate::upstream::attempt;
use crate::wire::frame::{FrameError, Message, Reader};
use crate::wire::pb::etcdserverpb::watch_create_request::FilterType;
use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
use crate::wire::pb::etcdserverpb::{WatchCreateRequest, WatchRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// Serves a client's watch stream to its end.
pub(in crate::service) async fn serve(mut call: Box<Call>) -> Code {
    let mut received = Vec::new();
    if !call.ctx.shared.options().bypass.is_empty() {
        match Box::pin(first_create(&mut call, &mut received)).await {
            // What was read is taken from the client by the relay.
            Ok(Some(range)) if bypass::within(&call.ctx.shared.options().bypass, &range) => {
                return Box::pin(relay::serve(&mut call, received)).await;
            }
            Ok(_) => {}
            Err(status) => return reply::trailers_only(&mut call.respond, &status),
        }
    }
    if attempt::wants_leader(&call.head.headers) && call.ctx.shared.is_leaderless() {
        return reply::trailers_only(&mut call.respond, &lost(Lost::NoLeader));
    }
    let watches = &call.ctx.watches;
    if call.ctx.shared.known.header().revision == 0 && watches.greeted.get().is_none() {
        let ctx = call.ctx.clone();
        let hello = async { ask::hello(&ctx).await.ok_or(()) };
        // A client that leaves meanwhile is found to be gone after it. An error is no reason to
        // refuse anybody.
        let _ = Box::pin(watches.greeted.get_or_try_init(|| hello)).await;
    }
    let Some(mut stream) = open(call, received) else {
        return Code::Cancelled;
    };
    poll_fn(|cx| stream.poll(cx)).await
}

/// The range of the first create, with what was received up to it; `None` when there is none.
async fn first_create(
    call: &mut Call,
    received: &mut Vec<Bytes>,
) -> Result<Option<KeyRange>, Status> {
    let mut reader = Reader::new(call.ctx.max.send);
    let arrived = async {
        while let Some(Ok(chunk)) = poll_fn(|cx| call.body.poll_data(cx)).await {
            // An error means that the stream is gone, which is found out next.
            let _ = call.body.flow_control().release_capacity(chunk.len());
            received.push(chunk.clone());
            reader.push(chunk);
            while let Some(message) = next_message(&call.ctx, &mut reader)? {
                if let Some(RequestUnion::CreateRequest(create)) = decode(&message)? {
                    let key = match create.key.is_empty() {
                        true => Bytes::from_static(&[0]),
                        false => create.key,
                    };
                    return Ok(Some(KeyRange::of(key, create.range_end)));
                }
            }
        }
        Ok(None)
    };
    match timeout(limits::REQUEST_TIME, arrived).await {
        Ok(first) => first,
        // It asks for nothing: nothing is to be relayed.
        Err(_) => Ok(None),
    }
}

/// The reading side of a client's stream.
struct Requests {
    ctx: Rc<Ctx>,
    client: Rc<Client>,
    id: StreamId,
    body: RecvStream,
    reader: Reader,
    deadline: Timer,
    half_closed: bool,
}

/// Lets go of what only the beginning of a call needs, and makes it known to the hub; `None` when
/// the client is gone.
fn open(mut call: Box<Call>, received: Vec<Bytes>) -> Option<Requests> {
    let mut head = Response::new(());
    head.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    let to = call.respond.send_response(head, false).ok()?;
    let deadline = call.timer();
    let Call {
        ctx,
        peer,
        head,
        body,
        ..
    } = *call;
    let watches = &ctx.watches;
    let total = peer.watched(watches.board());
    let room = room(Rc::strong_count(total));
    let session = ctx.shared.identities.session(Credential::of(&head.headers));
    let id = watches
        .hub
        .borrow_mut()
        .stream_opened(identity(session.login()), room);
    let granted = session.login().is_user();
    let client = Rc::new(Client {
        to: RefCell::new(to),
        account: Account::new(id.number(), room / 2, total.clone()),
        session,
        wants_leader: attempt::wants_leader(&head.headers),
        syncing: Cell::new(false),
        granted: Cell::new(granted),
        ended: Cell::new(None),
        waker: Cell::new(None),
    });
    watches.insert(id, client.clone());
    let mut reader = Reader::new(ctx.max.send);
    received.into_iter().for_each(|chunk| reader.push(chunk));
    Some(Requests {
        client,
        id,
        body,
        reader,
        deadline,
        half_closed: false,
        ctx,
    })
}

/// Why a stream is over.
enum Over {
    /// The client is gone.
    Gone,
    /// It is told so.
    Status(Status),
}

impl Requests {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let polled = self.poll_requests(cx);
        if let Some(code) = self.client.ended.get() {
            // Whoever ended it may have done so without a word to the hub.
            self.close();
            return Poll::Ready(code);
        }
        let over = match polled {
            Poll::Ready(over) => over,
            Poll::Pending if self.ctx.drain.has_begun() => Over::Status(reply::shutting_down()),
            Poll::Pending => match self.deadline.poll(cx) {
                Poll::Ready(()) => Over::Status(reply::deadline_exceeded()),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.close();
        Poll::Ready(match over {
            Over::Gone => Code::Cancelled,
            Over::Status(status) => {
                end(&self.client, &status);
                status.code
            }
        })
    }

    /// The hub forgets it.
    fn close(&self) {
        if self.ctx.watches.remove(self.id).is_some() {
            self.ctx.watches.hub.borrow_mut().stream_closed(self.id);
            run(&self.ctx);
        }
    }

    /// Hands in what has arrived; ready at the stream's end.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        // What was read before is handed in with the first poll.
        if let Err(status) = self.read() {
            return Poll::Ready(Over::Status(status));
        }
        let over = loop {
            if self.half_closed || !self.takes_requests() {
                // Half-close is no end (P4), and whoever has no room is read no further: either way
                // only a reset ends it.
                self.client.waker.set(Some(cx.waker().clone()));
                break match self.client.to.borrow_mut().poll_reset(cx) {
                    Poll::Ready(_) => Some(Over::Gone),
                    Poll::Pending => None,
                };
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream is gone, which the next poll says.
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    self.reader.push(chunk);
                    if let Err(status) = self.read() {
                        break Some(Over::Status(status));
                    }
                }
                Poll::Ready(Some(Err(_))) => break Some(Over::Gone),
                Poll::Ready(None) => self.half_closed = true,
                Poll::Pending => {
                    self.client.waker.set(Some(cx.waker().clone()));
                    break None;
                }
            }
        };
        run(&self.ctx);
        over.map_or(Poll::Pending, Poll::Ready)
    }

    fn takes_requests(&self) -> bool {
        self.ctx.watches.hub.borrow().takes_requests(self.id)
    }

    /// Hands whole requests to the hub.
    fn read(&mut self) -> Result<(), Status> {
        while let Some(message) = next_message(&self.ctx, &mut self.reader)? {
            let request = decode(&message)?;
            let mut hub = self.ctx.watches.hub.borrow_mut();
            match request {
                Some(RequestUnion::CreateRequest(create)) => hub.create(self.id, owned(create)),
                Some(RequestUnion::CancelRequest(cancel)) => hub.cancel(self.id, cancel.watch_id),
                Some(RequestUnion::ProgressRequest(_)) => hub.progress(self.id),
                // etcd does nothing about it either.
                None => {}
            }
        }
        Ok(())
    }
}

fn next_message(ctx: &Ctx, reader: &mut Reader) -> Result<Option<Message>, Status> {
    reader.next().map_err(|error| match error {
        FrameError::TooLarge { len, max } => {
            ctx.count().hit(Limit::SendBytes);
            reply::send_too_large(len, max)
        }
        error => {
            let text = format!("etcd-edge: malformed gRPC frame: {error}");
            Status::new(Code::Internal, text)
        }
    })
}

fn decode(message: &Message) -> Result<Option<RequestUnion>, Status> {
    if message.compressed {
        let text = "etcd-edge: compressed watch requests are not supported";
        return Err(Status::new(Code::Unimplemented, text));
    }
    let request = WatchRequest::decode(message.payload.clone()).map_err(|error| {
        let text = format!("etcd-edge: malformed watch request: {error}");
        Status::new(Code::InvalidArgument, text)
    })?;
    Ok(request.request_union)
}

/// The request without the buffer it came in, which it would keep for as long as the watch lives.
fn owned(create: WatchCreateRequest) -> Create {
    let has = |filter| create.filters.contains(&i32::from(filter));
    Create {
        no_put: has(FilterType::Noput),
        no_delete: has(FilterType::Nodelete),
        key: Bytes::copy_from_slice(&create.key),
        range_end: Bytes::copy_from_slice(&create.range_end),
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}
