//! One attempt at a call: the request's head as it goes to an endpoint, and, for reads, the
//! request sent whole and the answer held until it is complete or too large to hold.
//!
//! Whether there is another attempt is decided elsewhere. Dropping an attempt cancels it at
//! etcd at once (P3).

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
use crate::upstream::conn::{CallGuard, Conn, HeldResponse, OpenedCall};
use crate::upstream::failure;
use crate::upstream::target::Target;
use crate::wire::metadata;
use crate::wire::namespace::Stream;
use crate::wire::status::{Code, Status};
use crate::wire::timeout;

/// The request's head for an endpoint: path and metadata as the client sent them, our own
/// authority, and what is left of the client's deadline (P3, P5).
pub fn head(target: &Target, client: &request::Parts, left: Option<Duration>) -> Request<()> {
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

/// The deadline is enforced here to the microsecond. etcd gets a millisecond more, for two
/// reasons: its DEADLINE_EXCEEDED before the client's own would be an invented one (E6), and
/// equal values repeat, which header compression likes.
fn rounded_up(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_add(1))
}

/// The answer to a read.
pub struct Answer {
    /// Status line and headers.
    pub head: response::Parts,
    /// What arrived so far, in order.
    pub chunks: VecDeque<Bytes>,
    /// Bytes in the chunks; when a stream follows, its window is still owed them.
    pub held: HeldResponse,
    /// How it goes on.
    pub rest: Rest,
}

/// What follows an answer's chunks.
pub enum Rest {
    /// The end, with trailers if etcd sent any.
    End(Option<HeaderMap>),
    /// More than is held.
    Stream {
        /// What is still to come.
        body: RecvStream,
        /// The call is still open.
        guard: CallGuard,
    },
}

impl Answer {
    /// The gRPC status, if it is known by now: from the trailers, or from the headers of an
    /// answer without a message.
    pub fn status(&self) -> Option<Status> {
        self.trailers().and_then(Status::from_headers)
    }

    /// The same without its text; UNKNOWN while it is not known.
    pub fn code(&self) -> Code {
        let value = self.trailers().and_then(|t| t.get(metadata::GRPC_STATUS));
        value.map_or(Code::Unknown, |v| Code::from_bytes(v.as_bytes()))
    }

    /// A whole answer as a client may be shown it.
    fn translated(mut self, translation: Stream) -> Answer {
        let messages = translation.messages();
        match translation.whole(&self.chunks) {
            Ok(chunks) => self.chunks = chunks.into(),
            Err(error) => {
                let headers = &mut self.head.headers;
                error.status(messages).write(headers);
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

    /// Whether etcd itself said UNAVAILABLE, and nothing else.
    pub fn is_unavailable(&self) -> bool {
        self.chunks.is_empty() && self.code() == Code::Unavailable
    }
}

/// A read on its way.
pub struct Attempt {
    state: State,
    guard: CallGuard,
    measure: Option<CallSample>,
    /// Arrivals of bytes on the connection when the attempt began.
    reads_before: u64,
    /// Of what is held whole, before anybody is shown it.
    translation: Option<Stream>,
}

enum State {
    Waiting(ResponseFuture),
    Holding {
        head: response::Parts,
        body: RecvStream,
        chunks: VecDeque<Bytes>,
        held: HeldResponse,
    },
    Done,
}

impl Attempt {
    /// Sends the whole request, which is at most [`crate::limits::REQUEST_BUFFER_BYTES`]. With a translation the
    /// answer comes translated if it comes whole; one with more to come is as etcd sent it.
    pub fn send(mut taken: OpenedCall, request: &[Bytes], translation: Option<Stream>) -> Attempt {
        let reads_before = taken.guard.conn().reads();
        let measure = CallSample::begin(taken.guard.conn());
        let last = request.len().saturating_sub(1);
        for (n, chunk) in request.iter().enumerate() {
            // An error means that the stream is gone; the response future says why.
            if taken.body.send_data(chunk.clone(), n == last).is_err() {
                break;
            }
        }
        if request.is_empty() {
            let _ = taken.body.send_data(Bytes::new(), true);
        }
        Attempt {
            state: State::Waiting(taken.response),
            guard: taken.guard,
            measure,
            reads_before,
            translation,
        }
    }

    /// The endpoint it went to.
    pub fn endpoint(&self) -> EndpointId {
        self.guard.conn().endpoint()
    }

    /// Nothing at all has arrived on the connection since the attempt began.
    pub fn connection_is_silent(&self) -> bool {
        self.guard.conn().reads() == self.reads_before
    }

    /// The connection it went over.
    pub fn conn(&self) -> &Rc<Conn> {
        self.guard.conn()
    }

    /// Another endpoint has answered in its place.
    pub fn outrun(&mut self) {
        self.measure.take().into_iter().for_each(CallSample::failed);
    }

    /// The answer, complete or too large to hold.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Failure>> {
        let ended = ready!(self.poll_end(cx));
        if let Some(measure) = self.measure.take() {
            measure.ended(ended.as_ref().is_ok_and(|answer| !answer.is_unavailable()));
        }
        Poll::Ready(ended)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Failure>> {
        loop {
            match &mut self.state {
                State::Waiting(response) => {
                    let response = ready!(Pin::new(response).poll(cx));
                    let (head, body) = match response {
                        Ok(response) => response.into_parts(),
                        Err(e) => return Poll::Ready(Err(failure::from_h2(&e))),
                    };
                    let chunks = VecDeque::new();
                    self.state = State::Holding {
                        head,
                        body,
                        chunks,
                        held: HeldResponse::new(self.guard.conn().clone()),
                    };
                }
                State::Holding {
                    body, chunks, held, ..
                } => {
                    if held.is_too_much() {
                        return Poll::Ready(Ok(self.finish(None)));
                    }
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(chunk)) => {
                            held.add(chunk.len());
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

    /// The answer with its end, or with its stream when the end has not come.
    fn finish(&mut self, end: Option<Option<HeaderMap>>) -> Answer {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Holding {
                head,
                body,
                chunks,
                held,
            } => {
                let rest = match end {
                    Some(trailers) => Rest::End(trailers),
                    None => Rest::Stream {
                        body,
                        guard: self.guard.clone(),
                    },
                };
                let answer = Answer {
                    head,
                    chunks,
                    held,
                    rest,
                };
                match (&answer.rest, self.translation.take()) {
                    (Rest::End(_), Some(translation)) => answer.translated(translation),
                    _ => answer,
                }
            }
            State::Waiting(_) | State::Done => {
                unreachable!("called from `Holding` only, and `Done` stands after it")
            }
        }
    }
}

/// Whether a client asked for an error when its endpoint knows no leader (`hasleader`).
pub fn wants_leader(headers: &HeaderMap) -> bool {
    headers
        .get(metadata::HAS_LEADER)
        .is_some_and(|v| v == "true")
}

/// Whether the body of a request is gRPC's.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}
