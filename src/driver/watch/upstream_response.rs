//! Answers of a watch stream to etcd, as they arrive.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::limits;
use crate::upstream::conn::{CallGuard, Conn};
use crate::wire::frame::{FrameError, Reader};
use crate::wire::namespace::{Answer, Namespace};
use crate::wire::status::Status;
use crate::wire::watch::Response;

/// One answer.
pub(in crate::driver) struct Arrived {
    pub(in crate::driver) response: Response,
    /// It goes on where the one before was cut. With its first event that one would have come to so
    /// many bytes, which etcd found to be too many.
    pub(super) cut_below: Option<usize>,
}

/// Whole messages of a stream.
pub(in crate::driver) struct Incoming {
    /// Size of the last answer if it was a part that others follow.
    part: Option<usize>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    reader: Reader,
    /// What keys have at etcd and not here.
    namespace: Option<Arc<Namespace>>,
    guard: CallGuard,
}

impl Incoming {
    /// Of a stream that was opened; no answer may have more bytes than `max`.
    pub(in crate::driver) fn new(
        ctx: &WorkerContext,
        response: ResponseFuture,
        guard: CallGuard,
        max: u64,
    ) -> Incoming {
        Incoming {
            response: Some(response),
            body: None,
            reader: Reader::new(max),
            namespace: ctx.shared.gate().map(|gate| gate.namespace().clone()),
            part: None,
            guard,
        }
    }

    /// Its connection takes no more calls: it was told GOAWAY, or others found it to be stalled (E5).
    pub(in crate::driver) fn is_retired(&self) -> bool {
        self.conn().is_retired()
    }

    /// The connection it comes over.
    pub(in crate::driver) fn conn(&self) -> &Rc<Conn> {
        self.guard.conn()
    }

    /// All that is here, at least one; or how the stream ended, in etcd's words if it said any.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Arrived>, Option<String>>> {
        if let Some(response) = &mut self.response {
            let response = ready!(Pin::new(response).poll(cx));
            self.response = None;
            let Ok(response) = response else {
                return Poll::Ready(Err(None));
            };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                return Poll::Ready(Err(text(&head.headers)));
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(None));
        };
        let mut arrived = Vec::new();
        while arrived.len() < limits::WATCH_ANSWERS_AT_ONCE {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream is gone, which the next poll says.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.reader.push(chunk);
                    let namespace = self.namespace.as_deref();
                    let parsed = parse(&mut self.reader, namespace, &mut self.part, &mut arrived);
                    if let Err(error) = parsed {
                        return Poll::Ready(Err(Some(error)));
                    }
                }
                // What came before is handed in first.
                Poll::Ready(_) | Poll::Pending if !arrived.is_empty() => break,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let trailers = ready!(body.poll_trailers(cx));
                    let said = trailers.ok().flatten().and_then(|t| text(&t));
                    return Poll::Ready(Err(said));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(arrived))
    }
}

fn parse(
    reader: &mut Reader,
    namespace: Option<&Namespace>,
    part: &mut Option<usize>,
    arrived: &mut Vec<Arrived>,
) -> Result<(), String> {
    loop {
        let message = match reader.next() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(FrameError::TooLarge { len, max }) => {
                return Err(format!("message of {len} bytes, limit is {max}"));
            }
            Err(error) => return Err(error.to_string()),
        };
        // Its events may be kept for long, and would keep the read buffer with whatever else of the
        // connection is in it.
        let own = match namespace {
            None => Bytes::copy_from_slice(&message.payload),
            Some(namespace) => {
                let shown = namespace.answer(Answer::Watch, &[message.payload]);
                shown.map_err(|error| error.to_string())?.concat().into()
            }
        };
        let response = Response::parse(&own).map_err(|error| error.to_string())?;
        let first = response.events.first();
        let cut_below = part.zip(first).map(|(part, e)| part + e.encoded.len());
        *part = response.fragment.then_some(own.len());
        arrived.push(Arrived {
            response,
            cut_below,
        });
    }
}

fn text(headers: &HeaderMap) -> Option<String> {
    Status::from_headers(headers).map(|status| status.message.into_owned())
}
