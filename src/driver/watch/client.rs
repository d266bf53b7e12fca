//! A client's watch stream: its requests are read and handed to the hub. What it is sent comes from
//! elsewhere (see [`work`](super::work)); here only its end is noticed.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::timeout;

use crate::call_log::finished_call::Source;
use crate::driver::call::Call;
use crate::driver::call::stream_requests::{Messages, Next, Over, Requests, malformed};
use crate::driver::state::client_stream::{ClientStream, room};
use crate::driver::state::reply;
use crate::driver::watch::hub_driver::run;
use crate::driver::watch::state::{Client, identity};
use crate::driver::watch::{bypass, checks};
use crate::driver::{WorkerContext, relay};
use crate::limits;
use crate::net::payload::StreamQueue;
use crate::state_machine::watch::hub::{Create, StreamId};
use crate::upstream::attempt;
use crate::wire::pb::etcdserverpb::watch_create_request::FilterType;
use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
use crate::wire::pb::etcdserverpb::{WatchCreateRequest, WatchRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// What its requests are called in errors.
const WHAT: &str = "watch request";

/// Serves a client's watch stream to its end.
pub(in crate::driver) async fn serve(mut call: Box<Call>) -> Code {
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
        return reply::trailers_only(&mut call.respond, &reply::no_leader());
    }
    let watches = &call.ctx.watches;
    if call.ctx.shared.known.header().revision == 0 && watches.greeted.get().is_none() {
        let ctx = call.ctx.clone();
        let hello = async { checks::hello(&ctx).await.ok_or(()) };
        // A client that leaves meanwhile is found to be gone after it. An error is no reason to
        // refuse anybody.
        let _ = Box::pin(watches.greeted.get_or_try_init(|| hello)).await;
    }
    let mut stream = open(call, received);
    poll_fn(|cx| stream.poll(cx)).await
}

/// The range of the first create, with what was received up to it; `None` when there is none.
async fn first_create(
    call: &mut Call,
    received: &mut Vec<Bytes>,
) -> Result<Option<KeyRange>, Status> {
    let mut messages = Messages::new(call.ctx.max.send, WHAT);
    let arrived = async {
        while let Some(Ok(chunk)) = poll_fn(|cx| call.body.poll_data(cx)).await {
            // An error means that the stream is gone, which is found out next.
            let _ = call.body.flow_control().release_capacity(chunk.len());
            if let Some(record) = &call.record {
                record.received(&chunk);
            }
            received.push(chunk.clone());
            messages.push(chunk);
            while let Some(message) = messages.next(&call.ctx)? {
                if let Some(RequestUnion::CreateRequest(create)) = decode(message)? {
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

/// One client's stream as the task that reads it sees it.
struct Watching {
    ctx: Rc<WorkerContext>,
    client: Rc<Client>,
    id: StreamId,
    requests: Requests,
}

/// Lets go of what only the beginning of a call needs, and makes it known to the hub.
fn open(call: Box<Call>, received: Vec<Bytes>) -> Watching {
    call.comes_from(Source::Shared);
    let deadline = call.timer();
    let method = call.streamed();
    let session = call.session();
    let Call {
        ctx,
        peer,
        head,
        body,
        respond,
        record,
        ..
    } = *call;
    let watches = &ctx.watches;
    let total = peer.watched(watches.board()).clone();
    let room = room(Rc::strong_count(&total) - 1);
    let id = watches
        .hub
        .borrow_mut()
        .stream_opened(identity(session.login()), room);
    let granted = session.login().is_user();
    let account = StreamQueue::new(id.number(), room / 2, total);
    let wants_leader = attempt::wants_leader(&head.headers);
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
        syncing: Cell::new(false),
        granted: Cell::new(granted),
    });
    watches.insert(id, client.clone());
    let mut messages = Messages::new(ctx.max.send, WHAT);
    received.into_iter().for_each(|chunk| messages.push(chunk));
    Watching {
        client,
        id,
        requests: Requests::new(&ctx, body, messages, deadline),
        ctx,
    }
}

impl Watching {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Code> {
        let polled = self.poll_requests(cx);
        if let Some(code) = self.client.stream.ended() {
            // Whoever ended it may have done so without a word to the hub.
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
        if self.ctx.watches.remove(self.id).is_some() {
            self.ctx.watches.hub.borrow_mut().stream_closed(self.id);
            run(&self.ctx);
        }
    }

    /// Hands in what has arrived; ready at the stream's end.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let over = loop {
            let takes = self.ctx.watches.hub.borrow().takes_requests(self.id);
            let stream = &self.client.stream;
            match self.requests.poll_next(cx, &self.ctx, stream, takes) {
                Poll::Ready(Ok(Next::Message(message))) => {
                    if let Err(status) = self.hand_in(message) {
                        break Poll::Ready(Over::Status(status));
                    }
                }
                Poll::Ready(Ok(Next::HalfClosed)) => {}
                Poll::Ready(Err(over)) => break Poll::Ready(over),
                Poll::Pending => break Poll::Pending,
            }
        };
        run(&self.ctx);
        over
    }

    /// Hands one request to the hub.
    fn hand_in(&self, message: Bytes) -> Result<(), Status> {
        let request = decode(message)?;
        let mut hub = self.ctx.watches.hub.borrow_mut();
        match request {
            Some(RequestUnion::CreateRequest(create)) => hub.create(self.id, owned(create)),
            Some(RequestUnion::CancelRequest(cancel)) => hub.cancel(self.id, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => hub.progress(self.id),
            // etcd does nothing about it either.
            None => {}
        }
        Ok(())
    }
}

fn decode(message: Bytes) -> Result<Option<RequestUnion>, Status> {
    let request = WatchRequest::decode(message);
    let request = request.map_err(|error| malformed(WHAT, &error))?;
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
