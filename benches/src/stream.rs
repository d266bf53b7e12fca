//! One bidirectional gRPC stream of whole messages.
//!
//! Invariant: [`Receiver::read`] returns each message once, in order, independently of the borders
//! of DATA frames. If a stream ends with a `grpc-status` other than 0, the error contains it.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};

use crate::client::Client;

/// Largest accepted message in bytes. All messages of the loads are much smaller.
const LONGEST_MESSAGE: usize = 64 << 20;

/// Opens a stream. Dropping both halves cancels it.
pub(crate) async fn open(
    client: &mut Client,
    head: &Request<()>,
) -> Result<(Sender, Receiver), String> {
    let (response, stream) = client.open_stream(head).await.map_err(|e| e.to_string())?;
    let receiver = Receiver {
        response: Some(response),
        stream: None,
        buffer: BytesMut::new(),
    };
    Ok((Sender { stream }, receiver))
}

/// The sending half of a stream.
pub(crate) struct Sender {
    stream: SendStream<Bytes>,
}

impl Sender {
    /// Queues a framed message, which is sent as the flow control windows allow.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), String> {
        self.stream
            .send_data(frame, false)
            .map_err(|e| e.to_string())
    }
}

/// The receiving half of a stream.
pub(crate) struct Receiver {
    /// Set until the response's head arrives. A gRPC server sends it with its first message.
    response: Option<ResponseFuture>,
    stream: Option<RecvStream>,
    /// Start of an incomplete message.
    buffer: BytesMut,
}

impl Receiver {
    /// Waits for the next bytes and calls `each` for every message that they complete, possibly for
    /// none. Returns false if the stream has ended with OK. Cancel safe.
    pub(crate) async fn read(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, String> {
        if let Some(response) = &mut self.response {
            let (head, stream) = response.await.map_err(|e| e.to_string())?.into_parts();
            self.response = None;
            if head.status != 200 {
                return Err(format!("HTTP {}", head.status));
            }
            if head.headers.contains_key("grpc-status") {
                ended(&head.headers)?;
                return Ok(false);
            }
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let Some(chunk) = stream.data().await else {
            let trailers = stream.trailers().await.map_err(|e| e.to_string())?;
            if !self.buffer.is_empty() {
                return Err("the stream ended inside a message".into());
            }
            ended(&trailers.unwrap_or_default())?;
            return Ok(false);
        };
        let mut chunk = chunk.map_err(|e| e.to_string())?;
        stream
            .flow_control()
            .release_capacity(chunk.len())
            .map_err(|e| e.to_string())?;
        if self.buffer.is_empty() {
            messages(&mut chunk, &mut each)?;
            self.buffer.extend_from_slice(&chunk);
        } else {
            self.buffer.extend_from_slice(&chunk);
            messages(&mut self.buffer, &mut each)?;
        }
        Ok(true)
    }
}

/// Consumes all complete messages at the start of `bytes`.
fn messages(
    bytes: &mut (impl Buf + AsRef<[u8]>),
    each: &mut impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    while let [flag, a, b, c, d, rest @ ..] = bytes.as_ref() {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *flag != 0 || length > LONGEST_MESSAGE {
            return Err(format!("a frame of {length} bytes with flag {flag}"));
        }
        let Some(message) = rest.get(..length) else {
            break;
        };
        each(message)?;
        bytes.advance(5 + length);
    }
    Ok(())
}

fn ended(trailers: &HeaderMap) -> Result<(), String> {
    match trailers.get("grpc-status") {
        Some(status) if *status == HeaderValue::from_static("0") => Ok(()),
        status => Err(format!(
            "the stream ended with grpc-status {status:?}, {:?}",
            trailers.get("grpc-message")
        )),
    }
}
