//! A scripted etcd: HTTP/2 servers that hand every call to the test, for what a real etcd cannot be
//! made to do: GOAWAY at a chosen moment, refused streams, stalls, half messages, bad frames.
//!
//! The servers of a [`Fleet`] are one proxy's endpoints. A test takes the calls in the order they
//! arrive, whichever endpoint they reached, and answers each as its script wants.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::grpc::{LIMIT, Metadata};

/// Endpoints that do what the test says. Dropping it with its runtime ends them.
pub struct Fleet {
    endpoints: Vec<Endpoint>,
    calls: UnboundedReceiver<Arrived>,
}

struct Endpoint {
    address: SocketAddr,
    connects: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    conns: Arc<Mutex<Vec<Conn>>>,
}

impl Fleet {
    /// So many endpoints, up and listening.
    pub async fn start(count: usize) -> Fleet {
        let (tell, calls) = unbounded_channel();
        let mut endpoints = Vec::new();
        for endpoint in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("a bound socket");
            let each = Endpoint {
                address,
                connects: Arc::default(),
                silent: Arc::default(),
                conns: Arc::default(),
            };
            tokio::spawn(listen(
                endpoint,
                listener,
                each.connects.clone(),
                each.silent.clone(),
                each.conns.clone(),
                tell.clone(),
            ));
            endpoints.push(each);
        }
        Fleet { endpoints, calls }
    }

    /// The flag that sends a proxy here.
    pub fn flag(&self) -> String {
        let all: Vec<String> = self
            .endpoints
            .iter()
            .map(|each| each.address.to_string())
            .collect();
        format!("--endpoints={}", all.join(","))
    }

    /// The next call to arrive anywhere.
    pub async fn next(&mut self) -> Incoming {
        let next = tokio::time::timeout(LIMIT, self.calls.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("no call arrived within {LIMIT:?}"));
        Incoming::new(next.expect("the endpoints hold the other end"))
    }

    /// The next call to arrive within a time, if any does.
    pub async fn next_within(&mut self, time: Duration) -> Option<Incoming> {
        let next = tokio::time::timeout(time, self.calls.recv()).await;
        Some(Incoming::new(next.ok()??))
    }

    /// Nothing more arrives for a while: what must not be sent again was not.
    pub async fn quiet(&mut self) {
        let more = self.next_within(Duration::from_millis(700)).await;
        assert!(
            more.is_none(),
            "sent once more: {}",
            more.expect("just seen").path()
        );
    }

    /// How often an endpoint was connected to.
    pub fn connects(&self, endpoint: usize) -> usize {
        self.endpoints[endpoint].connects.load(Ordering::SeqCst)
    }

    /// From now on an endpoint accepts connections and says nothing on them (E5).
    pub fn silence(&self, endpoint: usize, silent: bool) {
        self.endpoints[endpoint]
            .silent
            .store(silent, Ordering::SeqCst);
    }

    /// Every connection an endpoint has had.
    pub fn conns(&self, endpoint: usize) -> Vec<Conn> {
        lock(&self.endpoints[endpoint].conns).clone()
    }
}

struct Arrived {
    endpoint: usize,
    conn: Conn,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

async fn listen(
    endpoint: usize,
    listener: TcpListener,
    connects: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    conns: Arc<Mutex<Vec<Conn>>>,
    tell: UnboundedSender<Arrived>,
) {
    let mut held = Vec::new();
    while let Ok((socket, _)) = listener.accept().await {
        connects.fetch_add(1, Ordering::SeqCst);
        if silent.load(Ordering::SeqCst) {
            held.push(socket);
            continue;
        }
        socket.set_nodelay(true).expect("a TCP socket");
        let conn = Conn(Arc::default());
        lock(&conns).push(conn.clone());
        tokio::spawn(serve(endpoint, socket, conn, tell.clone()));
    }
}

async fn serve(endpoint: usize, socket: TcpStream, conn: Conn, tell: UnboundedSender<Arrived>) {
    let wire = Wire {
        socket,
        conn: conn.clone(),
    };
    let mut builder = h2::server::Builder::new();
    builder
        .max_local_error_reset_streams(None)
        // As etcd: many cancels, or small frames, are no offence.
        .max_pending_accept_reset_streams(1 << 20)
        .data_frame_budget(usize::MAX);
    let Ok(mut h2) = builder.handshake::<_, Bytes>(wire).await else {
        return;
    };
    let mut ignored = Vec::new();
    while let Some(Ok((request, respond))) = h2.accept().await {
        // A request that crossed a GOAWAY is not looked at, as the GOAWAY says.
        if lock(&conn.0)
            .last_stream
            .is_some_and(|last| respond.stream_id().as_u32() > last)
        {
            ignored.push((request, respond));
            continue;
        }
        let conn = conn.clone();
        // The test may be over.
        let _ = tell.send(Arrived {
            endpoint,
            conn,
            request,
            respond,
        });
    }
}

/// One connection of a proxy, for what is done to all of it.
#[derive(Clone)]
pub struct Conn(Arc<Mutex<Meddling>>);

#[derive(Default)]
struct Meddling {
    /// Bytes to go out between two frames.
    inject: Vec<u8>,
    /// Complete frames of the server that the socket has not taken.
    out: Vec<u8>,
    /// Of the last GOAWAY.
    last_stream: Option<u32>,
    stalled: bool,
    /// Close the socket once everything is out.
    cut: bool,
    /// At most this many bytes for each write to the socket, if set.
    morsel: Option<usize>,
    wakers: Vec<Waker>,
}

impl Conn {
    /// Sends a GOAWAY frame behind what was sent so far.
    pub fn go_away(&self, last_stream: u32, reason: Reason) {
        let mut payload = BytesMut::new();
        payload.put_u32(last_stream);
        payload.put_u32(reason.into());
        lock(&self.0).last_stream = Some(last_stream);
        self.inject(&frame(7, 0, 0, &payload));
    }

    /// Sends bytes as they are, behind what was sent so far.
    pub fn inject(&self, bytes: &[u8]) {
        self.meddle(|it| it.inject.extend_from_slice(bytes));
    }

    /// Closes the socket once everything is out.
    pub fn cut(&self) {
        self.meddle(|it| it.cut = true);
    }

    /// Neither reads nor writes from now on, as a stopped process (E5).
    pub fn stall(&self) {
        self.meddle(|it| it.stalled = true);
    }

    /// Writes to the socket in pieces of this many bytes.
    pub fn in_morsels(&self, bytes: usize) {
        self.meddle(|it| it.morsel = Some(bytes));
    }

    fn meddle(&self, change: impl FnOnce(&mut Meddling)) {
        let mut it = lock(&self.0);
        change(&mut it);
        it.wakers.drain(..).for_each(Waker::wake);
    }
}

/// An HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + payload.len());
    let length = u32::try_from(payload.len()).expect("a frame's length");
    frame.put_slice(&length.to_be_bytes()[1..]);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.freeze()
}

/// The socket under the server, with the test's hand in it. Takes whole frames and lets the test's
/// bytes in between two of them.
struct Wire {
    socket: TcpStream,
    conn: Conn,
}

impl Wire {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut it = lock(&self.conn.0);
        let it = &mut *it;
        let inject = std::mem::take(&mut it.inject);
        it.out.extend(inject);
        if it.stalled {
            it.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        while !it.out.is_empty() {
            let piece = it.morsel.unwrap_or(usize::MAX).min(it.out.len());
            match Pin::new(&mut self.socket).poll_write(cx, &it.out[..piece])? {
                Poll::Ready(n) => drop(it.out.drain(..n)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if it.cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    /// Polled whenever the server has nothing else to do: the place to look for the test's wishes.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        let mut it = lock(&self.conn.0);
        it.wakers.retain(|waker| !waker.will_wake(cx.waker()));
        it.wakers.push(cx.waker().clone());
        if it.stalled {
            return Poll::Pending;
        }
        drop(it);
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.conn.0).out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// The server flushes after whole frames only.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A call that reached an endpoint.
pub struct Incoming {
    /// Which endpoint.
    pub endpoint: usize,
    /// On which connection.
    pub conn: Conn,
    /// Path and metadata.
    pub head: http::request::Parts,
    body: RecvStream,
    received: BytesMut,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
}

impl Incoming {
    fn new(arrived: Arrived) -> Incoming {
        let (head, body) = arrived.request.into_parts();
        Incoming {
            endpoint: arrived.endpoint,
            conn: arrived.conn,
            head,
            body,
            received: BytesMut::new(),
            respond: arrived.respond,
            stream: None,
        }
    }

    /// The path called.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The stream's id.
    pub fn stream_id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }

    /// A request header's values, as text.
    pub fn metadata(&self, name: &str) -> Vec<String> {
        let values = self.head.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    /// The next message of the client; none once it has half-closed.
    pub async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(head) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.received.len() >= 5 + length {
                    let mut message = self.received.split_to(5 + length);
                    return Some(message.split_off(5).freeze());
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Everything the client sends, framing included, up to its half-close.
    pub async fn body(&mut self) -> Bytes {
        while self.more().await {}
        self.received.split().freeze()
    }

    /// Waits for some bytes of the request; false if there are none before its end.
    pub async fn some(&mut self) -> bool {
        !self.received.is_empty() || self.more().await
    }

    /// Waits until this many bytes of the request are here, or it has ended.
    pub async fn at_least(&mut self, bytes: usize) {
        while self.received.len() < bytes && self.more().await {}
    }

    async fn more(&mut self) -> bool {
        let data = tokio::time::timeout(LIMIT, self.body.data()).await;
        match data.unwrap_or_else(|_| panic!("the request does not go on within {LIMIT:?}")) {
            Some(Ok(data)) => {
                let credit = self.body.flow_control().release_capacity(data.len());
                credit.expect("no more than was received");
                self.received.extend_from_slice(&data);
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Waits until the proxy resets the stream; with which reason.
    pub async fn cancelled(&mut self) -> Reason {
        let respond = &mut self.respond;
        let stream = &mut self.stream;
        let reset = std::future::poll_fn(|cx| match stream {
            Some(stream) => stream.poll_reset(cx),
            None => respond.poll_reset(cx),
        });
        let reset = tokio::time::timeout(LIMIT, reset).await;
        let reset = reset.unwrap_or_else(|_| panic!("no reset within {LIMIT:?}"));
        reset.unwrap_or(Reason::NO_ERROR)
    }

    /// Sends response headers: HTTP 200 and gRPC's content type, and these.
    pub fn headers(&mut self, metadata: Metadata<'_>) {
        let mut response = Response::new(());
        *response.headers_mut() = map(metadata);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        self.http(response, false);
    }

    /// Sends this response head.
    pub fn http(&mut self, response: Response<()>, end: bool) {
        let stream = self.respond.send_response(response, end);
        self.stream = Some(stream.expect("a live stream"));
    }

    /// Sends bytes as they are; headers must have gone before.
    pub fn raw(&mut self, bytes: impl Into<Bytes>) {
        let stream = self.stream.as_mut().expect("headers first");
        stream
            .send_data(bytes.into(), false)
            .expect("a live stream");
    }

    /// Ends the answer with these bytes and without trailers; headers must have gone before.
    pub fn last(&mut self, bytes: Bytes) {
        let stream = self.stream.as_mut().expect("headers first");
        stream.send_data(bytes, true).expect("a live stream");
    }

    /// Sends a message; headers must have gone before.
    pub fn send(&mut self, message: impl AsRef<[u8]>) {
        self.raw(framed(message.as_ref()));
    }

    /// Ends the answer with these trailers; headers must have gone before.
    pub fn trailers(&mut self, trailers: Metadata<'_>) {
        let stream = self.stream.as_mut().expect("headers first");
        stream.send_trailers(map(trailers)).expect("a live stream");
    }

    /// A whole answer, of which the proxy may not want to hear the end: it resets the stream as soon as it
    /// knows that.
    pub fn answer_unless_reset(&mut self, message: impl AsRef<[u8]>) {
        self.headers(&[]);
        self.send(message);
        let stream = self.stream.as_mut().expect("headers first");
        let _ = stream.send_trailers(map(&[("grpc-status", "0")]));
    }

    /// A whole answer: one message and OK.
    pub fn answer(&mut self, message: impl AsRef<[u8]>) {
        self.headers(&[]);
        self.send(message);
        self.trailers(&[("grpc-status", "0")]);
    }

    /// An answer that is its headers only.
    pub fn trailers_only(&mut self, metadata: Metadata<'_>) {
        assert!(self.try_trailers_only(metadata), "a live stream");
    }

    /// The same, of a call that may have been cancelled meanwhile: false if it was.
    pub fn try_trailers_only(&mut self, metadata: Metadata<'_>) -> bool {
        let mut response = Response::new(());
        *response.headers_mut() = map(metadata);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        let stream = self.respond.send_response(response, true);
        self.stream = stream.ok();
        self.stream.is_some()
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

/// A message with gRPC's five bytes before it.
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("under 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

fn map(metadata: Metadata<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in metadata {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        map.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    map
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
