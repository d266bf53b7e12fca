//! One bidirectional gRPC stream: whole messages go out, whole messages come in.
//!
//! Invariant: [`Receiver::read`] hands out each message once, in order, wherever the DATA frames cut
//! it. A stream that ends with anything but `grpc-status` 0 is an error with that status in words.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};

use crate::client::Client;

/// No message of these loads comes near it; a peer that announces more is wrong.
const LONGEST_MESSAGE: usize = 64 << 20;

/// Opens a stream. It is cancelled when both halves are dropped.
pub(crate) async fn open(
    client: &mut Client,
    head: &Request<()>,
) -> Result<(Sender, Receiver), String> {
    let (answer, stream) = client.begin(head).await.map_err(|e| e.to_string())?;
    let receiver = Receiver {
        answer: Some(answer),
        stream: None,
        kept: BytesMut::new(),
    };
    Ok((Sender { stream }, receiver))
}

/// The half that sends.
pub(crate) struct Sender {
    stream: SendStream<Bytes>,
}

impl Sender {
    /// Queues a framed message; it leaves when the windows allow it.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), String> {
        self.stream
            .send_data(frame, false)
            .map_err(|e| e.to_string())
    }
}

/// The half that receives.
pub(crate) struct Receiver {
    /// Until the answer's head is here, which a gRPC server sends with its first message.
    answer: Option<ResponseFuture>,
    stream: Option<RecvStream>,
    /// The begin of a message whose rest has not arrived.
    kept: BytesMut,
}

impl Receiver {
    /// Waits for the next bytes and calls `each` for every message that they complete, which may
    /// be none. False when the stream has ended with OK. May be dropped and called again.
    pub(crate) async fn read(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, String> {
        if let Some(answer) = &mut self.answer {
            let (head, stream) = answer.await.map_err(|e| e.to_string())?.into_parts();
            self.answer = None;
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
            if !self.kept.is_empty() {
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
        if self.kept.is_empty() {
            messages(&mut chunk, &mut each)?;
            self.kept.extend_from_slice(&chunk);
        } else {
            self.kept.extend_from_slice(&chunk);
            messages(&mut self.kept, &mut each)?;
        }
        Ok(true)
    }
}

/// Takes all whole messages off the front of `bytes`.
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
