//! Reader of the responses of an upstream watch stream.

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

/// One response of etcd.
pub(in crate::driver) struct ReceivedResponse {
    pub(in crate::driver) response: Response,
    /// Set if the response continues a fragment: the size in bytes that the fragment before would
    /// have had with the first event of this one. etcd's limit for fragments is below this size.
    pub(super) exceeded_size: Option<usize>,
}

/// Parses the messages of a stream.
pub(in crate::driver) struct ResponseReader {
    /// Size of the last response in bytes if more fragments follow.
    fragment_size: Option<usize>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    reader: Reader,
    /// The prefix to remove from keys of responses.
    namespace: Option<Arc<Namespace>>,
    guard: CallGuard,
}

impl ResponseReader {
    /// A reader of a stream that has just been opened. A response may have at most `max` bytes.
    pub(in crate::driver) fn new(
        ctx: &WorkerContext,
        response: ResponseFuture,
        guard: CallGuard,
        max: u64,
    ) -> ResponseReader {
        ResponseReader {
            response: Some(response),
            body: None,
            reader: Reader::new(max),
            namespace: ctx
                .process
                .namespace_policy()
                .map(|policy| policy.namespace().clone()),
            fragment_size: None,
            guard,
        }
    }

    /// Returns whether the connection accepts no more calls: after a GOAWAY, or found stalled (E5).
    pub(in crate::driver) fn is_retired(&self) -> bool {
        self.conn().is_retired()
    }

    /// Returns the connection of the stream.
    pub(in crate::driver) fn conn(&self) -> &Rc<Conn> {
        self.guard.conn()
    }

    /// Returns the responses that have arrived, at least one and at most about
    /// [`limits::WATCH_RESPONSE_BATCH`].
    ///
    /// # Errors
    ///
    /// The stream has ended, with the status message of etcd if there is one, or with the fault of
    /// a malformed response.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<ReceivedResponse>, Option<String>>> {
        if let Some(response) = &mut self.response {
            let response = ready!(Pin::new(response).poll(cx));
            self.response = None;
            let Ok(response) = response else {
                return Poll::Ready(Err(None));
            };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                return Poll::Ready(Err(status_message(&head.headers)));
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(None));
        };
        let mut responses = Vec::new();
        while responses.len() < limits::WATCH_RESPONSE_BATCH {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream has ended. The next poll reports it.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.reader.push(chunk);
                    let namespace = self.namespace.as_deref();
                    let parsed = parse(
                        &mut self.reader,
                        namespace,
                        &mut self.fragment_size,
                        &mut responses,
                    );
                    if let Err(error) = parsed {
                        return Poll::Ready(Err(Some(error)));
                    }
                }
                // Return the responses before the end of the stream.
                Poll::Ready(_) | Poll::Pending if !responses.is_empty() => break,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let trailers = ready!(body.poll_trailers(cx));
                    let message = trailers.ok().flatten().and_then(|t| status_message(&t));
                    return Poll::Ready(Err(message));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(responses))
    }
}

fn parse(
    reader: &mut Reader,
    namespace: Option<&Namespace>,
    fragment_size: &mut Option<usize>,
    responses: &mut Vec<ReceivedResponse>,
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
        // Events may live long. A reference would pin the read buffer with unrelated data of the
        // connection.
        let owned = match namespace {
            None => Bytes::copy_from_slice(&message.payload),
            Some(namespace) => {
                let translated = namespace.answer(Answer::Watch, &[message.payload]);
                translated
                    .map_err(|error| error.to_string())?
                    .concat()
                    .into()
            }
        };
        let response = Response::parse(&owned).map_err(|error| error.to_string())?;
        let first = response.events.first();
        let exceeded_size = fragment_size
            .zip(first)
            .map(|(fragment_size, e)| fragment_size + e.encoded.len());
        *fragment_size = response.fragment.then_some(owned.len());
        responses.push(ReceivedResponse {
            response,
            exceeded_size,
        });
    }
}

fn status_message(headers: &HeaderMap) -> Option<String> {
    Status::from_headers(headers).map(|status| status.message.into_owned())
}
