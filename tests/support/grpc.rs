//! A gRPC client on plain HTTP/2 that exposes everything it receives: header and trailer lists,
//! each message, whether the response was trailers-only, and the reason of a reset.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use etcd_edge::wire::gzip;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Maximum time a test waits for one step.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Metadata to send: names and values.
pub type Metadata<'a> = &'a [(&'a str, &'a str)];

/// One HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
    gzip: bool,
}

/// Everything received on one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status; 0 when the stream was reset before any headers.
    pub http_status: u16,
    /// Headers, sorted. They hold the status of a trailers-only response.
    pub headers: Vec<(String, String)>,
    /// Messages without their five-byte gRPC prefix, decompressed.
    pub messages: Vec<Bytes>,
    /// Number of messages that were compressed.
    pub compressed: usize,
    /// Trailers, sorted.
    pub trailers: Vec<(String, String)>,
    /// Whether the headers ended the stream.
    pub trailers_only: bool,
    /// Reason of a stream reset or a lost connection.
    pub reset: Option<Reason>,
}

impl Reply {
    /// Returns `grpc-status`, from the trailers or from trailers-only headers.
    pub fn code(&self) -> Option<u32> {
        self.field("grpc-status")?.parse().ok()
    }

    /// Returns `grpc-message` as received, percent-encoded.
    pub fn message(&self) -> &str {
        self.field("grpc-message").unwrap_or_default()
    }

    /// Returns the only message of a call that must have succeeded.
    pub fn only(&self) -> &[u8] {
        assert_eq!(self.code(), Some(0), "{self:?}");
        assert_eq!(self.messages.len(), 1, "{self:?}");
        &self.messages[0]
    }

    fn field(&self, name: &str) -> Option<&str> {
        let list = if self.trailers_only {
            &self.headers
        } else {
            &self.trailers
        };
        list.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Connects in plain text with prior knowledge.
    pub async fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).await;
        let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("a TCP socket");
        Client::over(stream, address, "http").await
    }

    /// Connects with TLS. `config` must offer `h2`. Fails when the handshake fails.
    pub async fn connect_tls(
        address: &str,
        config: Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = "localhost".try_into().expect("a host name");
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await?;
        Ok(Client::over(stream, address, "https").await)
    }

    /// Runs HTTP/2 over a connection that the caller opened.
    pub async fn over<T>(stream: T, authority: &str, scheme: &'static str) -> Client
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24);
        let (send, connection) = builder
            .handshake(stream)
            .await
            .expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        Client {
            send,
            authority: authority.to_owned(),
            scheme,
            gzip: false,
        }
    }

    /// Returns a client on the same connection that compresses all messages that are not empty.
    pub fn with_gzip(&self) -> Client {
        Client {
            gzip: true,
            ..self.clone()
        }
    }

    /// Sends one message and returns everything received.
    pub async fn unary(
        &self,
        path: &str,
        message: impl AsRef<[u8]>,
        metadata: Metadata<'_>,
    ) -> Reply {
        let mut call = self.call(path, metadata).await;
        call.send(message).await;
        call.half_close();
        call.finish().await
    }

    /// Opens a call and sends only its headers.
    pub async fn call(&self, path: &str, metadata: Metadata<'_>) -> Call {
        let uri = format!("{}://{}{path}", self.scheme, self.authority);
        let mut request = http::Request::post(uri)
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if self.gzip {
            request = request.header("grpc-encoding", "gzip");
        }
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a well-formed request");
        let mut send = within(self.send.clone().ready())
            .await
            .expect("a live connection");
        let (response, send) = send
            .send_request(request, false)
            .expect("a live connection");
        Call {
            send,
            response: Some(response),
            body: None,
            buffered: BytesMut::new(),
            gzip: self.gzip,
            reply: Reply {
                http_status: 0,
                headers: Vec::new(),
                messages: Vec::new(),
                compressed: 0,
                trailers: Vec::new(),
                trailers_only: false,
                reset: None,
            },
        }
    }
}

/// An open call.
pub struct Call {
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    buffered: BytesMut,
    gzip: bool,
    reply: Reply,
}

impl Call {
    /// Sends one message, waiting for send capacity. Data for a stream that the server ended is
    /// dropped.
    pub async fn send(&mut self, message: impl AsRef<[u8]>) {
        let message = message.as_ref();
        let compress = self.gzip && !message.is_empty();
        self.send_raw(match compress {
            true => frame(1, &gzip::compress([message], Vec::new())),
            false => frame(0, message),
        })
        .await;
    }

    /// Sends bytes as given: for frames that are cut, malformed or compressed.
    pub async fn send_raw(&mut self, mut bytes: Bytes) {
        while bytes.has_remaining() {
            self.send.reserve_capacity(bytes.len());
            let capacity = within(std::future::poll_fn(|cx| self.send.poll_capacity(cx))).await;
            let Some(Ok(capacity)) = capacity else { return };
            if self
                .send
                .send_data(bytes.split_to(capacity.min(bytes.len())), false)
                .is_err()
            {
                return;
            }
        }
    }

    /// Ends the sending side. Responses can still arrive.
    pub fn half_close(&mut self) {
        // A stream that has already ended cannot be closed again.
        let _ = self.send.send_data(Bytes::new(), true);
    }

    /// Cancels the call (RST_STREAM CANCEL).
    pub fn cancel(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Waits for the response headers. Returns false if the stream was reset instead.
    pub async fn headers(&mut self) -> bool {
        let Some(response) = self.response.take() else {
            return self.reply.http_status != 0;
        };
        match within(response).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                self.reply.http_status = parts.status.as_u16();
                self.reply.headers = sorted(&parts.headers);
                self.reply.trailers_only = body.is_end_stream();
                self.body = Some(body);
                true
            }
            Err(error) => {
                self.reply.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
                false
            }
        }
    }

    /// Returns the next message; `None` when the stream has ended for any reason.
    pub async fn next(&mut self) -> Option<Bytes> {
        if !self.headers().await {
            return None;
        }
        loop {
            if let Some(message) = self.unframe() {
                self.reply.messages.push(message.clone());
                return Some(message);
            }
            let body = self.body.as_mut()?;
            match within(body.data()).await {
                Some(Ok(data)) => {
                    let credit = body.flow_control().release_capacity(data.len());
                    credit.expect("no more than was received");
                    self.buffered.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    self.reply.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
                    return None;
                }
                None => return None,
            }
        }
    }

    /// Returns the raw body up to its end: for framing that is not gRPC's.
    pub async fn raw_body(mut self) -> Bytes {
        let mut all = BytesMut::new();
        if self.headers().await
            && let Some(body) = &mut self.body
        {
            while let Some(Ok(data)) = within(body.data()).await {
                let credit = body.flow_control().release_capacity(data.len());
                credit.expect("no more than was received");
                all.extend_from_slice(&data);
            }
        }
        all.freeze()
    }

    /// Reads to the end and returns everything received on the call.
    pub async fn finish(self) -> Reply {
        let (reply, left) = self.finish_cut().await;
        assert!(left.is_empty(), "the response ends inside a message");
        reply
    }

    /// Like [`Call::finish`], for a response that may end inside a message. Also returns that part.
    pub async fn finish_cut(mut self) -> (Reply, Bytes) {
        while self.next().await.is_some() {}
        if let (Some(body), None) = (&mut self.body, self.reply.reset) {
            match within(body.trailers()).await {
                Ok(trailers) => self.reply.trailers = sorted(&trailers.unwrap_or_default()),
                Err(error) => self.reply.reset = error.reason(),
            }
        }
        (self.reply, self.buffered.freeze())
    }

    fn unframe(&mut self) -> Option<Bytes> {
        let length = self.buffered.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.buffered.len() < 5 + length {
            return None;
        }
        let compressed = self.buffered[0] == 1;
        self.buffered.advance(5);
        let message = self.buffered.split_to(length).freeze();
        if !compressed {
            return Some(message);
        }
        let encoding = ("grpc-encoding".to_owned(), "gzip".to_owned());
        assert!(
            self.reply.headers.contains(&encoding),
            "a compressed response without an encoding"
        );
        self.reply.compressed += 1;
        Some(gzip::decompress(&message, 1 << 30).expect("gzip").into())
    }
}

/// Returns a message with its gRPC prefix. The first byte flags compression.
pub fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("under 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

fn sorted(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut list: Vec<(String, String)> = map
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    list.sort();
    list
}

async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(LIMIT, future).await;
    done.unwrap_or_else(|_| panic!("nothing within {LIMIT:?}"))
}
