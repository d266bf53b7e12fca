//! Reader of the responses of an upstream stream: polls the head, the frames and the trailers that
//! etcd sends, and parses the messages.
//!
//! Streams differ only in their messages, which a [`ResponseParser`] parses.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;

use crate::upstream::conn::{CallGuard, Conn};
use crate::wire::frame::Reader;
use crate::wire::status::{Code, Status};

/// Parser of the messages of one kind of stream.
pub(in crate::driver) trait ResponseParser {
    /// A parsed message.
    type Response;

    /// Number of responses after which a poll reads no further chunk.
    const BATCH: usize;

    /// Parses the payload of one message. The payload shares the read buffer of the connection.
    ///
    /// # Errors
    ///
    /// Returns the fault of a malformed message.
    fn parse(&mut self, payload: Bytes) -> Result<Self::Response, String>;
}

/// Reader of an upstream stream.
pub(in crate::driver) struct ResponseReader<P> {
    /// Response head that has not arrived yet.
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    reader: Reader,
    parser: P,
    guard: CallGuard,
}

impl<P: ResponseParser> ResponseReader<P> {
    /// Creates the reader of a stream that has just been opened. A message may have at most `max`
    /// bytes.
    pub(in crate::driver) fn new(
        response: ResponseFuture,
        guard: CallGuard,
        max: u64,
        parser: P,
    ) -> ResponseReader<P> {
        ResponseReader {
            response: Some(response),
            body: None,
            reader: Reader::new(max),
            parser,
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

    /// Returns the responses that have arrived, at least one.
    ///
    /// # Errors
    ///
    /// The stream has ended, with the status of etcd if there is one, or with INTERNAL after a
    /// malformed message.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<P::Response>, Option<Status>>> {
        if let Some(response) = &mut self.response {
            let response = ready!(Pin::new(response).poll(cx));
            self.response = None;
            let Ok(response) = response else {
                return Poll::Ready(Err(None));
            };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                return Poll::Ready(Err(Status::from_headers(&head.headers)));
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(None));
        };
        let mut responses = Vec::new();
        while responses.len() < P::BATCH {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream has ended. The next poll reports it.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.reader.push(chunk);
                    if let Err(error) = parse(&mut self.reader, &mut self.parser, &mut responses) {
                        return Poll::Ready(Err(Some(Status::new(Code::Internal, error))));
                    }
                }
                // Return the responses before the end of the stream.
                Poll::Ready(_) | Poll::Pending if !responses.is_empty() => break,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let trailers = ready!(body.poll_trailers(cx)).ok().flatten();
                    return Poll::Ready(Err(trailers.and_then(|t| Status::from_headers(&t))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(responses))
    }
}

/// Parses all complete messages.
fn parse<P: ResponseParser>(
    reader: &mut Reader,
    parser: &mut P,
    responses: &mut Vec<P::Response>,
) -> Result<(), String> {
    while let Some(message) = reader.next().map_err(|error| error.to_string())? {
        responses.push(parser.parse(message.payload)?);
    }
    Ok(())
}
