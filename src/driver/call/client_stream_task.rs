//! Task of a client stream that shares upstream work: reads the requests of the client until the
//! stream ends.
//!
//! Responses are sent by the driver of the hub. The task only notices that the stream has ended.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::driver::WorkerContext;
use crate::driver::call::stream_requests::{RequestReader, StreamEnd, StreamInput};
use crate::driver::state::client_stream::ClientStream;
use crate::wire::status::{Code, Status};

/// The parts of a client stream that depend on its kind.
pub(in crate::driver) trait StreamHandler {
    /// Returns the response side of the stream.
    fn stream(&self) -> &ClientStream;

    /// Returns whether the hub accepts another request. Otherwise the task reads nothing (P2).
    fn accepts_requests(&self) -> bool;

    /// Passes a message or the half-close to the hub.
    ///
    /// # Errors
    ///
    /// Returns the status with which the stream ends, for a malformed message.
    fn handle(&self, input: StreamInput) -> Result<(), Status>;

    /// Sends the responses to the requests so far, before the stream ends with a status.
    fn flush(&self);

    /// Removes the stream from the worker and from its hub. Has no effect on a removed stream.
    fn close(&self);
}

/// Reads the requests of a stream until it ends. Returns the code that the call ended with.
pub(in crate::driver) async fn run<H: StreamHandler>(
    ctx: Rc<WorkerContext>,
    handler: H,
    mut requests: RequestReader,
) -> Code {
    poll_fn(|cx| poll(&ctx, &handler, &mut requests, cx)).await
}

fn poll<H: StreamHandler>(
    ctx: &WorkerContext,
    handler: &H,
    requests: &mut RequestReader,
    cx: &mut Context<'_>,
) -> Poll<Code> {
    let polled = poll_requests(ctx, handler, requests, cx);
    if let Some(code) = handler.stream().ended() {
        // The stream may have ended without the hub, so the hub is notified here.
        handler.close();
        return Poll::Ready(code);
    }
    let end = match polled {
        Poll::Ready(end) => end,
        Poll::Pending => ready!(requests.poll_end(cx, ctx)),
    };
    handler.flush();
    handler.close();
    Poll::Ready(end.finish(handler.stream()))
}

/// Passes received requests to the hub. Ready when the stream ends.
fn poll_requests<H: StreamHandler>(
    ctx: &WorkerContext,
    handler: &H,
    requests: &mut RequestReader,
    cx: &mut Context<'_>,
) -> Poll<StreamEnd> {
    loop {
        let wanted = handler.accepts_requests();
        match ready!(requests.poll_next(cx, ctx, handler.stream(), wanted)) {
            Ok(input) => {
                if let Err(status) = handler.handle(input) {
                    return Poll::Ready(StreamEnd::Status(status));
                }
            }
            Err(end) => return Poll::Ready(end),
        }
    }
}
