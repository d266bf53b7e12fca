//! One attempt at a call on one endpoint: the head of the request, and for reads the complete
//! request and the response, which is buffered until it is complete or too large.
//!
//! The caller decides about another attempt. Dropping an attempt cancels the call at etcd at once
//! (P3).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, HeaderValue, Request, header, request, response};

use crate::error::Failure;
use crate::state_machine::picker::EndpointId;
use crate::upstream::call_sample::CallSample;
use crate::upstream::conn::{BufferedBytes, CallGuard, Conn, OpenedCall};
use crate::upstream::failure;
use crate::upstream::target::EndpointTarget;
use crate::wire::metadata;
use crate::wire::namespace::StreamTranslator;
use crate::wire::status::{Code, Status};
use crate::wire::timeout;

/// Creates the head of a request for an endpoint: path and metadata of the client, the authority of
/// the endpoint, and the time `left` until the deadline of the client (P3, P5).
pub fn head(
    target: &EndpointTarget,
    client: &request::Parts,
    left: Option<Duration>,
) -> Request<()> {
    let mut request = Request::new(());
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(target.scheme.clone());
    uri.authority = Some(target.authority.clone());
    uri.path_and_query = client.uri.path_and_query().cloned();
    if let Ok(uri) = http::Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    *request.method_mut() = http::Method::POST;
    *request.headers_mut() = client.headers.clone();
    if let Some(left) = left {
        let text = timeout::format(rounded_up(left));
        if let Ok(value) = HeaderValue::from_bytes(text.as_str().as_bytes()) {
            request.headers_mut().insert(metadata::GRPC_TIMEOUT, value);
        }
    }
    request
}

/// Rounds the deadline for etcd up by a millisecond. The proxy enforces the exact deadline itself.
/// A DEADLINE_EXCEEDED of etcd before the deadline of the client would be wrong (E6).
/// Also, equal values repeat more often, so header compression works better.
fn rounded_up(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_add(1))
}

/// The response to a read, buffered as far as it has arrived.
pub struct BufferedResponse {
    /// Status and headers.
    pub head: response::Parts,
    /// Buffered bytes, in order.
    pub chunks: VecDeque<Bytes>,
    /// Number of bytes in `chunks`. If a stream follows, its window is not yet released for them.
    pub buffered: BufferedBytes,
    /// The part that follows `chunks`.
    pub rest: Rest,
}

/// The part of a response that follows the buffered bytes.
pub enum Rest {
    /// The end, with the trailers of etcd if there are any.
    End(Option<HeaderMap>),
    /// More bytes than the proxy buffers.
    Stream {
        /// Stream of the bytes that follow.
        body: RecvStream,
        /// Counts the call as open.
        guard: CallGuard,
    },
}

impl BufferedResponse {
    /// Returns the gRPC status if it is known: from the trailers, or from the headers of a response
    /// without a message.
    pub fn status(&self) -> Option<Status> {
        self.trailers().and_then(Status::from_headers)
    }

    /// Returns the gRPC status code, or UNKNOWN if it is not known.
    pub fn code(&self) -> Code {
        let value = self.trailers().and_then(|t| t.get(metadata::GRPC_STATUS));
        value.map_or(Code::Unknown, |v| Code::from_bytes(v.as_bytes()))
    }

    /// Translates a complete response from etcd keys to client keys.
    fn translated(mut self, translation: StreamTranslator) -> BufferedResponse {
        let message_type = translation.message_type();
        match translation.translate_all(&self.chunks) {
            Ok(chunks) => self.chunks = chunks.into(),
            Err(error) => {
                let headers = &mut self.head.headers;
                error.status(message_type).write(headers);
                self.chunks.clear();
                self.rest = Rest::End(None);
            }
        }
        self
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        match &self.rest {
            Rest::End(Some(trailers)) => Some(trailers),
            Rest::End(None) => Some(&self.head.headers),
            Rest::Stream { .. } => None,
        }
    }

    /// Reports whether etcd itself returned UNAVAILABLE, without a message.
    pub fn is_unavailable(&self) -> bool {
        self.chunks.is_empty() && self.code() == Code::Unavailable
    }
}

/// A read that waits for its response.
pub struct Attempt {
    state: State,
    guard: CallGuard,
    sample: Option<CallSample>,
    /// Number of reads of the connection when the attempt started.
    reads_before: u64,
    /// Translates a complete response.
    translation: Option<StreamTranslator>,
}

enum State {
    Waiting(ResponseFuture),
    Buffering {
        head: response::Parts,
        body: RecvStream,
        chunks: VecDeque<Bytes>,
        buffered: BufferedBytes,
    },
    Done,
}

impl Attempt {
    /// Sends a complete request of at most [`crate::limits::REQUEST_BUFFER_BYTES`]. A `translation`
    /// applies to a complete response. A response that is too large to buffer is returned as etcd
    /// sends it.
    pub fn send(
        mut call: OpenedCall,
        request: &[Bytes],
        translation: Option<StreamTranslator>,
    ) -> Attempt {
        let reads_before = call.guard.conn().reads();
        let sample = CallSample::start(call.guard.conn());
        let last = request.len().saturating_sub(1);
        for (n, chunk) in request.iter().enumerate() {
            // An error means that the stream has ended. The response future returns the reason.
            if call.body.send_data(chunk.clone(), n == last).is_err() {
                break;
            }
        }
        if request.is_empty() {
            let _ = call.body.send_data(Bytes::new(), true);
        }
        Attempt {
            state: State::Waiting(call.response),
            guard: call.guard,
            sample,
            reads_before,
            translation,
        }
    }

    /// Returns the endpoint of the attempt.
    pub fn endpoint(&self) -> EndpointId {
        self.guard.conn().endpoint()
    }

    /// Reports whether nothing has arrived on the connection since the attempt started.
    pub fn connection_is_silent(&self) -> bool {
        self.guard.conn().reads() == self.reads_before
    }

    /// Returns the connection of the attempt.
    pub fn conn(&self) -> &Rc<Conn> {
        self.guard.conn()
    }

    /// Records that another endpoint has responded first, which counts as a failure of this one.
    pub fn supersede(&mut self) {
        self.sample.take().into_iter().for_each(CallSample::failed);
    }

    /// Returns the response when it is complete or too large to buffer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<BufferedResponse, Failure>> {
        let result = ready!(self.poll_response(cx));
        if let Some(sample) = self.sample.take() {
            sample.finish(
                result
                    .as_ref()
                    .is_ok_and(|response| !response.is_unavailable()),
            );
        }
        Poll::Ready(result)
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<BufferedResponse, Failure>> {
        loop {
            match &mut self.state {
                State::Waiting(response) => {
                    let response = ready!(Pin::new(response).poll(cx));
                    let (head, body) = match response {
                        Ok(response) => response.into_parts(),
                        Err(e) => return Poll::Ready(Err(failure::from_h2(&e))),
                    };
                    let chunks = VecDeque::new();
                    self.state = State::Buffering {
                        head,
                        body,
                        chunks,
                        buffered: BufferedBytes::new(self.guard.conn().clone()),
                    };
                }
                State::Buffering {
                    body,
                    chunks,
                    buffered,
                    ..
                } => {
                    if buffered.is_over_limit() {
                        return Poll::Ready(Ok(self.finish(None)));
                    }
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(chunk)) => {
                            buffered.add(chunk.len());
                            chunks.push_back(chunk);
                        }
                        Some(Err(e)) => return Poll::Ready(Err(failure::from_h2(&e))),
                        None => {
                            return Poll::Ready(match ready!(body.poll_trailers(cx)) {
                                Ok(trailers) => Ok(self.finish(Some(trailers))),
                                Err(e) => Err(failure::from_h2(&e)),
                            });
                        }
                    }
                }
                State::Done => return Poll::Pending,
            }
        }
    }

    /// Creates the response: with its `end`, or with its stream if the end has not arrived.
    fn finish(&mut self, end: Option<Option<HeaderMap>>) -> BufferedResponse {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Buffering {
                head,
                body,
                chunks,
                buffered,
            } => {
                let rest = match end {
                    Some(trailers) => Rest::End(trailers),
                    None => Rest::Stream {
                        body,
                        guard: self.guard.clone(),
                    },
                };
                let response = BufferedResponse {
                    head,
                    chunks,
                    buffered,
                    rest,
                };
                match (&response.rest, self.translation.take()) {
                    (Rest::End(_), Some(translation)) => response.translated(translation),
                    _ => response,
                }
            }
            State::Waiting(_) | State::Done => {
                unreachable!("called in the state `Buffering` only, and `Done` follows it")
            }
        }
    }
}

/// Reports whether the client requires an error if the endpoint knows no leader (`hasleader`).
pub fn requires_leader(headers: &HeaderMap) -> bool {
    headers
        .get(metadata::HAS_LEADER)
        .is_some_and(|v| v == "true")
}

/// Reports whether the content type of a request is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}
