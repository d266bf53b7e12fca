//! Bodies of admin requests, which no page needs.
//!
//! Some clients lose the response of a page if their stream or connection ends while they still
//! send: curl 7.88 does over HTTP/2, and over HTTP/1.1 a TCP reset discards what is in transit. So
//! the proxy reads a bounded part of the body and discards it, and waits a moment for its end
//! before it responds. A client that sends more, or slowly, receives its response while it sends.
//! After that the `h2` crate resets the stream with NO_ERROR, as in RFC 9113 section 8.1.

use h2::RecvStream;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::limits;
use crate::net::drain::Drain;

/// A body that a task of its own reads and discards, for at most [`limits::UNREAD_BODY_TIME`] and
/// [`limits::UNREAD_BODY_BYTES`], and for [`limits::CLOSE_TIME`] of a drain (S2).
pub(super) struct UnreadBody(Option<JoinHandle<()>>);

impl UnreadBody {
    /// Discards the body of an HTTP/2 request.
    pub(super) fn of_http2(drain: &Drain, mut body: RecvStream) -> UnreadBody {
        if body.is_end_stream() {
            return UnreadBody(None);
        }
        UnreadBody::discard(drain, async move {
            let mut left = limits::UNREAD_BODY_BYTES;
            while let Some(Ok(data)) = body.data().await
                && data.len() <= left
            {
                left -= data.len();
                // An error means that the client is gone.
                let _ = body.flow_control().release_capacity(data.len());
            }
        })
    }

    /// Discards the body of an HTTP/1.1 request. A client that expects `100 Continue` has not sent
    /// its body yet, and does not send it after the response.
    pub(super) fn of_http1(drain: &Drain, headers: &HeaderMap, mut body: Incoming) -> UnreadBody {
        if body.is_end_stream() || headers.contains_key(header::EXPECT) {
            return UnreadBody(None);
        }
        UnreadBody::discard(drain, async move {
            let mut left = limits::UNREAD_BODY_BYTES;
            while let Some(Ok(frame)) = body.frame().await
                && let length = frame.data_ref().map_or(0, |data| data.len())
                && length <= left
            {
                left -= length;
            }
        })
    }

    fn discard(drain: &Drain, body: impl Future<Output = ()> + 'static) -> UnreadBody {
        let drain = drain.clone();
        let task = spawn_local(async move {
            let drained = async {
                drain.begun().await;
                sleep(limits::CLOSE_TIME).await;
            };
            // The end of any of them drops the body.
            tokio::select! {
                () = body => {}
                () = drained => {}
                () = sleep(limits::UNREAD_BODY_TIME) => {}
            }
        });
        UnreadBody(Some(task))
    }

    /// Returns the output of `response`, but waits for the end of the body for at most
    /// [`limits::UNREAD_BODY_WAIT`]. The body is discarded further after that.
    pub(super) async fn before<T>(self, response: impl Future<Output = T>) -> T {
        let Some(body) = self.0 else {
            return response.await;
        };
        tokio::join!(response, timeout(limits::UNREAD_BODY_WAIT, body)).0
    }
}
