//! HTTP/2 towards one client: accepts streams, writes batches, watches for floods, for pings that come
//! too often and for clients that are gone, drains.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
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
use crate::net::stream::Stream;
use crate::server::ListenerKind;
use crate::server::admin::router::Pages;
use crate::server::client_keepalive::Idle;
use crate::server::handshake_timeout::in_time;
use crate::state_machine::flood::{Flood, FloodGuard};
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::state_machine::ping_strikes::PingStrikes;
use crate::upstream::attempt::is_grpc;
use crate::wire::heads;

/// What a client that pings too often is told besides the code; gRPC clients know it.
const TOO_MANY_PINGS: &[u8] = b"too_many_pings";

/// What holds for every client connection.
#[derive(Debug, Clone, Copy)]
pub struct Http2Options {
    /// Streams it may have open.
    pub max_streams: u32,
    /// Least time between two pings of the client. Zero: any.
    pub least_ping: Duration,
    /// When the client is pinged, and given up; `None`: never.
    pub keepalive: Option<KeepaliveOptions>,
}

/// What a connection's requests are served by.
#[derive(Clone, Copy)]
pub(super) struct Serving<'a> {
    pub(super) ctx: &'a Rc<WorkerContext>,
    pub(super) pages: &'a Arc<Pages>,
    pub(super) door: ListenerKind,
    /// Of whom, for the log.
    pub(super) peer: Option<SocketAddr>,
}

/// Serves the connection; an error only if it fails before `until` without a preface.
pub(super) async fn serve(
    by: Serving<'_>,
    options: &Http2Options,
    stream: Stream,
    who: Option<Arc<ClientInfo>>,
    until: Instant,
) -> io::Result<()> {
    let ctx = by.ctx;
    let strikes = PingStrikes::new(options.least_ping);
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
    let mut connection = in_time(ctx, until, handshake).await?;
    let idle = options
        .keepalive
        .map(|keepalive| Idle::new(keepalive, &flusher));
    let peer = ctx.new_connection(who);
    drive(by, peer, &mut connection, &flusher, strikes, idle).await;
    // Its streams end at once.
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

/// By reference: by value the connection would be kept twice.
async fn drive(
    by: Serving<'_>,
    peer: Rc<ClientConnection>,
    h2: &mut Connection<Batched, Payload>,
    flusher: &Flusher,
    mut strikes: PingStrikes,
    mut idle: Option<Idle>,
) {
    let ctx = by.ctx;
    let open_pages = Rc::new(Cell::new(0));
    let mut last_stream = 0;
    let mut draining = pin!(ctx.drain.begun());
    let mut drains = false;
    // Set when the connection is to end whether its client goes along or not.
    let mut goodbye = false;
    // When it does, or when to look whether the client is still there.
    let first_look = idle.as_ref().map_or_else(Instant::now, Idle::first_look);
    let mut timer = pin!(sleep_until(first_look));
    poll_fn(|cx| {
        if !drains && draining.as_mut().poll(cx).is_ready() {
            drains = true;
            h2.graceful_shutdown();
        }
        loop {
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    last_stream = respond.stream_id().as_u32();
                    accept(by, &peer, &open_pages, request, respond);
                }
                Poll::Ready(Some(Err(error))) => {
                    let client_address = by.peer.map(display);
                    debug!(client_address, %error, "client connection lost");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if let Some(flood) = flusher.take_flood() {
            ctx.counters().hit(match flood {
                Flood::Resets => Limit::Resets,
                Flood::Control => Limit::ControlFrames,
            });
            warn!(
                client_address = by.peer.map(display),
                limit = flood.name(),
                "client connection closed: flood limit exceeded"
            );
            h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            goodbye = true;
            let until = Instant::now() + limits::CLOSE_TIME;
            timer.as_mut().reset(until);
            cx.waker().wake_by_ref();
        }
        if let Some(heard) = flusher.take_pings() {
            let now = Instant::now().into_std();
            let calls_open = peer.has_calls() || Rc::strong_count(&open_pages) > 1;
            if strikes.record(heard, calls_open, now) {
                ctx.counters().hit(Limit::Pings);
                let client_address = by.peer.map(display);
                debug!(client_address, "client connection closed: too many pings");
                // The HTTP/2 library cannot tell the reason, by which gRPC clients know to ping less.
                let code = Reason::ENHANCE_YOUR_CALM.into();
                flusher.add_frame(&heads::go_away(last_stream, code, TOO_MANY_PINGS));
                return Poll::Ready(());
            }
        }
        if let Poll::Ready(Err(error)) = flusher.poll_flush(cx) {
            let client_address = by.peer.map(display);
            debug!(client_address, %error, "client connection lost");
            return Poll::Ready(());
        }
        match &mut idle {
            _ if goodbye => timer.as_mut().poll(cx),
            None => Poll::Pending,
            Some(idle) => {
                let gone = idle.poll(cx, timer.as_mut(), h2, flusher);
                gone.map(|()| {
                    let client_address = by.peer.map(display);
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

/// Whatever is no call is a page.
fn accept(
    by: Serving<'_>,
    peer: &Rc<ClientConnection>,
    open_pages: &Rc<Cell<usize>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Payload>,
) {
    let is_call = request.method() == Method::POST && is_grpc(request.headers());
    if is_call && by.door == ListenerKind::Clients {
        let call = Call::new(by.ctx.clone(), peer.clone(), request, respond);
        router::spawn(call);
        return;
    }
    let (ctx, pages, open_pages) = (by.ctx.clone(), by.pages.clone(), open_pages.clone());
    tokio::task::spawn_local(async move {
        // Counted here and not before: the tasks of pages that were given up ahead of this request
        // are woken by that, and have their turn before this one.
        let Some(open) = OpenPage::new(&open_pages) else {
            let mut busy = Response::new(());
            *busy.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            // An error means that the client is gone.
            let _ = respond.send_response(busy, true);
            return;
        };
        // Dropping the body tells the client that it is not read.
        let (head, _) = request.into_parts();
        let page = pages.answer(&ctx, &head.method, &head.uri);
        if let Some(page) = unless_reset(&mut respond, page).await {
            // Who does not read it has it cut off, as any unary answer.
            let sent = send_page(respond, page, head.method == Method::HEAD);
            let _ = timeout(limits::STALLED_READER_TIME, sent).await;
        }
        drop(open);
    });
}

/// `None` when the client no longer wants it.
async fn unless_reset<T>(
    respond: &mut SendResponse<Payload>,
    made: impl Future<Output = T>,
) -> Option<T> {
    let mut made = pin!(made);
    poll_fn(|cx| match made.as_mut().poll(cx) {
        Poll::Ready(made) => Poll::Ready(Some(made)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// Errors mean that the client is gone.
async fn send_page(mut respond: SendResponse<Payload>, page: Response<Bytes>, head_only: bool) {
    let (head, body) = page.into_parts();
    let empty = head_only || body.is_empty();
    let Ok(mut to) = respond.send_response(Response::from_parts(head, ()), empty) else {
        return;
    };
    if !empty {
        let mut pump = Pump::new(u64::MAX);
        pump.offer(body);
        let _ = poll_fn(|cx| pump.poll_offered(cx, &mut to, true)).await;
    }
}

/// Counts as a page of its connection while it lives.
struct OpenPage(Rc<Cell<usize>>);

impl OpenPage {
    /// `None` when the connection has enough of them.
    fn new(open: &Rc<Cell<usize>>) -> Option<OpenPage> {
        if open.get() >= limits::MAX_ADMIN_REQUESTS {
            return None;
        }
        open.set(open.get() + 1);
        Some(OpenPage(open.clone()))
    }
}

impl Drop for OpenPage {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
