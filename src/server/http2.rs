//! HTTP/2 server side of a client connection.
//!
//! Accepts streams, writes in batches, drains, and closes connections of clients that flood, ping
//! too often or no longer respond.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::field::display;
use tracing::{debug, warn};

use crate::call_log::finished_call::ClientInfo;
use crate::driver::call::Call;
use crate::driver::state::connection::ClientConnection;
use crate::driver::{WorkerContext, router};
use crate::limits;
use crate::metrics::Limit;
use crate::net::io::{Batched, Flusher, batched};
use crate::net::payload::Payload;
use crate::net::pump::Pump;
use crate::net::socket::ClientAddress;
use crate::net::stream::ByteStream;
use crate::server::ListenerKind;
use crate::server::admin::router::AdminRouter;
use crate::server::client_keepalive::ClientKeepalive;
use crate::server::handshake_timeout::with_handshake_timeout;
use crate::server::unread_body::UnreadBody;
use crate::state_machine::flood::{Flood, FloodGuard};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::state_machine::ping_strikes::PingStrikes;
use crate::upstream::attempt::is_grpc;
use crate::wire::heads;

/// GOAWAY debug data for a client that pings too often. gRPC clients recognize it.
const TOO_MANY_PINGS: &[u8] = b"too_many_pings";

/// Options of all HTTP/2 client connections.
#[derive(Debug, Clone, Copy)]
pub struct Http2Options {
    /// Maximum open streams per connection.
    pub max_streams: u32,
    /// Minimum time between two pings of a client. Zero allows any rate.
    pub min_ping_interval: Duration,
    /// Times of the pings and of the close of a silent connection; `None` disables keepalive.
    pub keepalive: Option<KeepaliveOptions>,
}

/// Everything that serves the requests of one connection.
#[derive(Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) ctx: &'a Rc<WorkerContext>,
    pub(super) admin: &'a Arc<AdminRouter>,
    pub(super) listener: ListenerKind,
    /// Address of the client, for the log.
    pub(super) client_address: Option<ClientAddress>,
}

/// Serves a connection until its end.
///
/// # Errors
/// The connection failed before the HTTP/2 preface, or the preface did not arrive by `deadline`.
pub(super) async fn serve(
    context: RequestContext<'_>,
    options: &Http2Options,
    stream: ByteStream,
    client_info: Option<Arc<ClientInfo>>,
    deadline: Instant,
) -> io::Result<()> {
    let ctx = context.ctx;
    let strikes = PingStrikes::new(options.min_ping_interval);
    let mut guard = FloodGuard::new(std::time::Instant::now());
    if strikes.is_enabled() {
        guard = guard.hearing_pings();
    }
    let (io, flusher) = batched(stream, Some(guard), ctx.counters().traffic.clone());
    let handshake = async {
        let builder = builder(options.max_streams);
        let handshake = builder.handshake::<_, Payload>(io).await;
        handshake.map_err(io::Error::other)
    };
    let mut connection = with_handshake_timeout(ctx, deadline, handshake).await?;
    let keepalive = options
        .keepalive
        .map(|options| ClientKeepalive::new(options, &flusher));
    let client = ctx.new_connection(client_info);
    drive(
        context,
        client,
        &mut connection,
        &flusher,
        strikes,
        keepalive,
    )
    .await;
    // Ends all its streams.
    drop(connection);
    flusher.linger(limits::CLOSE_TIME).await;
    Ok(())
}

fn builder(max_streams: u32) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_concurrent_streams(max_streams)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        .data_frame_budget(limits::DATA_FRAME_BUDGET)
        .max_concurrent_reset_streams(limits::RESET_MEMORY)
        .reset_stream_duration(limits::RESET_MEMORY_TIME)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS)
        .max_local_error_reset_streams(Some(limits::LOCAL_ERROR_RESETS));
    builder
}

/// Runs a connection until its end. Takes `h2` by reference: by value, the future would contain the
/// connection twice.
async fn drive(
    context: RequestContext<'_>,
    client: Rc<ClientConnection>,
    h2: &mut Connection<Batched, Payload>,
    flusher: &Flusher,
    mut strikes: PingStrikes,
    mut keepalive: Option<ClientKeepalive>,
) {
    let ctx = context.ctx;
    let open_requests = Rc::new(Cell::new(0));
    let mut last_stream = 0;
    let mut drain = pin!(ctx.drain.begun());
    let mut is_draining = false;
    // The connection ends at the timer, with or without the client's cooperation.
    let mut closing = false;
    // Time of the forced end if `closing`, else of the next keepalive check.
    let first_check = keepalive
        .as_ref()
        .map_or_else(Instant::now, ClientKeepalive::first_check);
    let mut timer = pin!(sleep_until(first_check));
    poll_fn(|cx| {
        if !is_draining && drain.as_mut().poll(cx).is_ready() {
            is_draining = true;
            h2.graceful_shutdown();
        }
        loop {
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    last_stream = respond.stream_id().as_u32();
                    accept(context, &client, &open_requests, request, respond);
                }
                Poll::Ready(Some(Err(error))) => {
                    let client_address = context.client_address.map(display);
                    debug!(client_address, %error, "client connection lost");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if let Some(flood) = flusher.take_flood() {
            ctx.counters().limit_hit(match flood {
                Flood::Resets => Limit::Resets,
                Flood::Control => Limit::ControlFrames,
            });
            warn!(
                client_address = context.client_address.map(display),
                limit = flood.name(),
                "client connection closed: flood limit exceeded"
            );
            h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            closing = true;
            let deadline = Instant::now() + limits::CLOSE_TIME;
            timer.as_mut().reset(deadline);
            cx.waker().wake_by_ref();
        }
        if let Some(pings) = flusher.take_pings() {
            let now = Instant::now().into_std();
            let calls_open = client.has_calls() || Rc::strong_count(&open_requests) > 1;
            if strikes.record(pings, calls_open, now) {
                ctx.counters().limit_hit(Limit::Pings);
                let client_address = context.client_address.map(display);
                debug!(client_address, "client connection closed: too many pings");
                // h2 cannot send debug data, which makes gRPC clients ping less often.
                let code = Reason::ENHANCE_YOUR_CALM.into();
                flusher.add_frame(&heads::go_away(last_stream, code, TOO_MANY_PINGS));
                return Poll::Ready(());
            }
        }
        if let Poll::Ready(Err(error)) = flusher.poll_flush(cx) {
            let client_address = context.client_address.map(display);
            debug!(client_address, %error, "client connection lost");
            return Poll::Ready(());
        }
        match &mut keepalive {
            _ if closing => timer.as_mut().poll(cx),
            None => Poll::Pending,
            Some(keepalive) => {
                let timed_out = keepalive.poll(cx, timer.as_mut(), h2, flusher);
                timed_out.map(|()| {
                    let client_address = context.client_address.map(display);
                    debug!(
                        client_address,
                        "client connection closed: keepalive ping timed out"
                    );
                })
            }
        }
    })
    .await;
}

/// Starts a gRPC call, or responds to an admin request if the request is no call.
fn accept(
    context: RequestContext<'_>,
    client: &Rc<ClientConnection>,
    open_requests: &Rc<Cell<usize>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Payload>,
) {
    let is_call = request.method() == Method::POST && is_grpc(request.headers());
    if is_call && context.listener == ListenerKind::Clients {
        let call = Call::new(context.ctx.clone(), client.clone(), request, respond);
        router::spawn(call);
        return;
    }
    let (ctx, admin, open_requests) = (
        context.ctx.clone(),
        context.admin.clone(),
        open_requests.clone(),
    );
    let (head, body) = request.into_parts();
    let body = UnreadBody::of_http2(&context.ctx.drain, body);
    tokio::task::spawn_local(async move {
        // Counted in the task, not before: a reset wakes the tasks of admin requests that the
        // client cancelled earlier, and they run before this one.
        let Some(open) = AdminRequestGuard::new(&open_requests) else {
            let mut unavailable = Response::new(());
            *unavailable.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            body.before(async {}).await;
            // An error means that the client is gone.
            let _ = respond.send_response(unavailable, true);
            return;
        };
        let response = body.before(admin.respond(&ctx, &head.method, &head.uri));
        if let Some(response) = unless_reset(&mut respond, response).await {
            // A client that does not read the response is cut off, as for unary responses.
            let sent = send_response(respond, response, head.method == Method::HEAD);
            let _ = timeout(limits::STALLED_READER_TIME, sent).await;
        }
        drop(open);
    });
}

/// Returns the response; `None` if the client resets the stream before.
async fn unless_reset<T>(
    respond: &mut SendResponse<Payload>,
    response: impl Future<Output = T>,
) -> Option<T> {
    let mut response = pin!(response);
    poll_fn(|cx| match response.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// Sends a response. Errors are ignored: they mean that the client is gone.
async fn send_response(
    mut respond: SendResponse<Payload>,
    response: Response<Bytes>,
    head_only: bool,
) {
    let (head, body) = response.into_parts();
    let empty = head_only || body.is_empty();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), empty) else {
        return;
    };
    if !empty {
        let mut pump = Pump::new(u64::MAX);
        pump.offer(body);
        let _ = poll_fn(|cx| pump.poll_offered(cx, &mut stream, true)).await;
    }
}

/// Counts an admin request of its connection until it is dropped.
struct AdminRequestGuard(Rc<Cell<usize>>);

impl AdminRequestGuard {
    /// Returns `None` if the connection has [`limits::MAX_ADMIN_REQUESTS`] open.
    fn new(open: &Rc<Cell<usize>>) -> Option<AdminRequestGuard> {
        if open.get() >= limits::MAX_ADMIN_REQUESTS {
            return None;
        }
        open.set(open.get() + 1);
        Some(AdminRequestGuard(open.clone()))
    }
}

impl Drop for AdminRequestGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
