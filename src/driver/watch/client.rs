//! One client watch stream: reads its requests and passes them to the hub.
//!
//! [`hub_driver`](super::hub_driver) sends the responses. The task here only notices that the
//! client stream has ended.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::timeout;

use crate::call_log::finished_call::ResponseSource;
use crate::driver::call::Call;
use crate::driver::call::client_stream_task::{self, StreamHandler};
use crate::driver::call::stream_requests::{MessageReader, RequestReader, StreamInput, malformed};
use crate::driver::state::client_stream::{ClientStream, send_capacity};
use crate::driver::state::reply;
use crate::driver::watch::hub_driver::drive_hub;
use crate::driver::watch::state::{Client, identity_id};
use crate::driver::watch::{bypass, checks};
use crate::driver::{WorkerContext, relay};
use crate::limits;
use crate::net::payload::StreamQueue;
use crate::state_machine::watch::hub::{Create, StreamId};
use crate::upstream::attempt;
use crate::wire::compression::Encoding;
use crate::wire::pb::etcdserverpb::watch_create_request::FilterType;
use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
use crate::wire::pb::etcdserverpb::{WatchCreateRequest, WatchRequest};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// Name of the request message in error texts.
const MESSAGE_NAME: &str = "watch request";

/// Serves a client watch stream until it ends. Returns the code that the call ended with.
pub(in crate::driver) async fn serve(mut call: Box<Call>) -> Code {
    let encoding = match Encoding::from_headers(&call.head.headers) {
        Ok(encoding) => encoding,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let mut received = Vec::new();
    if !call.ctx.process.watch_options().bypass.is_empty() {
        match Box::pin(read_first_create(&mut call, encoding, &mut received)).await {
            // The relay receives the bytes that have been read already.
            Ok(Some(range)) if bypass::within(&call.ctx.process.watch_options().bypass, &range) => {
                return Box::pin(relay::serve(&mut call, received)).await;
            }
            Ok(_) => {}
            Err(status) => return reply::trailers_only(&mut call.respond, &status),
        }
    }
    if attempt::requires_leader(&call.head.headers) && call.ctx.process.is_leaderless() {
        return reply::trailers_only(&mut call.respond, &reply::no_leader());
    }
    let watches = &call.ctx.watches;
    if call.ctx.process.store_revision.header().revision == 0
        && watches.header_fetched.get().is_none()
    {
        let ctx = call.ctx.clone();
        let query = async { checks::fetch_header(&ctx).await.ok_or(()) };
        // The stream task notices afterwards if the client has left meanwhile. A failed query is no
        // reason to refuse the client.
        let _ = Box::pin(watches.header_fetched.get_or_try_init(|| query)).await;
    }
    let ctx = call.ctx.clone();
    let (handler, requests) = open(call, encoding, received);
    client_stream_task::run(ctx, handler, requests).await
}

/// Reads up to the first create request and returns its range. Appends every chunk to `received`.
///
/// Returns `None` if the stream ends or [`limits::REQUEST_TIME`] passes without a create request.
///
/// # Errors
///
/// A message is too large or malformed.
async fn read_first_create(
    call: &mut Call,
    encoding: Encoding,
    received: &mut Vec<Bytes>,
) -> Result<Option<KeyRange>, Status> {
    let mut messages = MessageReader::new(call.ctx.max.send, encoding);
    let read = async {
        while let Some(Ok(chunk)) = poll_fn(|cx| call.body.poll_data(cx)).await {
            // An error means that the stream has ended. The next poll reports it.
            let _ = call.body.flow_control().release_capacity(chunk.len());
            if let Some(record) = &call.log {
                record.count_received(&chunk);
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
    match timeout(limits::REQUEST_TIME, read).await {
        Ok(first) => first,
        // There is no create request, so there is nothing to relay.
        Err(_) => Ok(None),
    }
}

/// One client stream.
struct WatchStream {
    ctx: Rc<WorkerContext>,
    client: Rc<Client>,
    id: StreamId,
}

/// Drops the parts of the call that only its start needs, and registers the stream with the hub.
fn open(call: Box<Call>, encoding: Encoding, received: Vec<Bytes>) -> (WatchStream, RequestReader) {
    call.set_source(ResponseSource::Shared);
    let deadline = call.deadline_timer();
    let method = call.streaming_method();
    let session = call.session();
    let Call {
        ctx,
        connection: peer,
        head,
        body,
        respond,
        log: record,
        ..
    } = *call;
    let watches = &ctx.watches;
    let connection_queue = peer.watch_queue(watches.send_notifier()).clone();
    let send_capacity = send_capacity(Rc::strong_count(&connection_queue) - 1);
    let id =
        watches.with_hub(|hub| hub.stream_opened(identity_id(session.identity()), send_capacity));
    let token_accepted = session.identity().is_user().then_some(0);
    let stream_queue = StreamQueue::new(id.number(), send_capacity / 2, connection_queue);
    let wants_leader = attempt::requires_leader(&head.headers);
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
        barrier_pending: Cell::new(false),
        token_accepted: Cell::new(token_accepted),
    });
    watches.insert(id, client.clone());
    let mut messages = MessageReader::new(ctx.max.send, encoding);
    received.into_iter().for_each(|chunk| messages.push(chunk));
    let requests = RequestReader::new(&ctx, body, messages, deadline);
    (WatchStream { ctx, client, id }, requests)
}

impl StreamHandler for WatchStream {
    fn stream(&self) -> &ClientStream {
        &self.client.stream
    }

    fn accepts_requests(&self) -> bool {
        self.ctx.watches.hub.borrow().accepts_requests(self.id)
    }

    fn handle(&self, input: StreamInput) -> Result<(), Status> {
        match input {
            StreamInput::Message(message) => self.handle_request(message),
            StreamInput::HalfClosed => Ok(()),
        }
    }

    fn flush(&self) {
        drive_hub(&self.ctx);
    }

    fn close(&self) {
        if self.ctx.watches.remove(self.id).is_some() {
            self.ctx.watches.with_hub(|hub| hub.stream_closed(self.id));
        }
    }
}

impl WatchStream {
    /// Passes one request to the hub.
    ///
    /// # Errors
    ///
    /// The message is malformed.
    fn handle_request(&self, message: Bytes) -> Result<(), Status> {
        let request = decode(message)?;
        self.ctx.watches.with_hub(|hub| match request {
            Some(RequestUnion::CreateRequest(create)) => {
                hub.create(self.id, without_buffer(create));
            }
            Some(RequestUnion::CancelRequest(cancel)) => hub.cancel(self.id, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => hub.progress(self.id),
            // etcd ignores an empty request, too.
            None => {}
        });
        Ok(())
    }
}

fn decode(message: Bytes) -> Result<Option<RequestUnion>, Status> {
    let request = WatchRequest::decode(message);
    let request = request.map_err(|error| malformed(MESSAGE_NAME, &error))?;
    Ok(request.request_union)
}

/// Copies the request out of its receive buffer. Otherwise the buffer would live as long as the
/// watch.
fn without_buffer(create: WatchCreateRequest) -> Create {
    let has_filter = |filter| create.filters.contains(&i32::from(filter));
    Create {
        no_put: has_filter(FilterType::Noput),
        no_delete: has_filter(FilterType::Nodelete),
        key: Bytes::copy_from_slice(&create.key),
        range_end: Bytes::copy_from_slice(&create.range_end),
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}
