//! A scripted etcd: HTTP/2 servers that pass every call to the test. For situations that a real
//! etcd cannot produce on demand: GOAWAY at a chosen moment, refused streams, stalls, cut messages,
//! bad frames.
//!
//! The servers of a [`ScriptedEtcd`] are the endpoints of one proxy. A test receives the calls in
//! the order in which they arrive, at any endpoint, and responds to each as its script requires.

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
use super::pb::Msg;

/// Endpoints that the test controls. Dropping it with its runtime ends them.
pub struct ScriptedEtcd {
    endpoints: Vec<Endpoint>,
    calls: UnboundedReceiver<Arrived>,
}

struct Endpoint {
    address: SocketAddr,
    connects: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    conns: Arc<Mutex<Vec<Conn>>>,
}

impl ScriptedEtcd {
    /// Starts this many endpoints.
    pub async fn start(count: usize) -> ScriptedEtcd {
        let (sender, calls) = unbounded_channel();
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
                sender.clone(),
            ));
            endpoints.push(each);
        }
        ScriptedEtcd { endpoints, calls }
    }

    /// Returns the flag that points a proxy at these endpoints.
    pub fn flag(&self) -> String {
        let all: Vec<String> = self
            .endpoints
            .iter()
            .map(|each| each.address.to_string())
            .collect();
        format!("--endpoints={}", all.join(","))
    }

    /// Returns the next call at any endpoint.
    pub async fn next(&mut self) -> IncomingCall {
        let next = tokio::time::timeout(LIMIT, self.calls.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("no call arrived within {LIMIT:?}"));
        IncomingCall::new(next.expect("the endpoints own the senders"))
    }

    /// Returns the next call at any endpoint, if one arrives within `time`.
    pub async fn next_within(&mut self, time: Duration) -> Option<IncomingCall> {
        let next = tokio::time::timeout(time, self.calls.recv()).await;
        Some(IncomingCall::new(next.ok()??))
    }

    /// Checks that no call arrives for 700 ms: a call that must not be retried was not retried.
    pub async fn assert_no_more_calls(&mut self) {
        let more = self.next_within(Duration::from_millis(700)).await;
        assert!(
            more.is_none(),
            "unexpected call: {}",
            more.expect("just seen").path()
        );
    }

    /// Returns the number of connections of an endpoint that have carried calls. Checks of the
    /// endpoint use connections of their own.
    pub fn connects(&self, endpoint: usize) -> usize {
        self.endpoints[endpoint].connects.load(Ordering::SeqCst)
    }

    /// Makes an endpoint accept connections without ever responding on them (E5), or ends that.
    pub fn set_silent(&self, endpoint: usize, silent: bool) {
        self.endpoints[endpoint]
            .silent
            .store(silent, Ordering::SeqCst);
    }

    /// Returns all connections that an endpoint has had.
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
    sender: UnboundedSender<Arrived>,
) {
    let mut unanswered = Vec::new();
    while let Ok((socket, _)) = listener.accept().await {
        if silent.load(Ordering::SeqCst) {
            unanswered.push(socket);
            continue;
        }
        socket.set_nodelay(true).expect("a TCP socket");
        let conn = Conn(Arc::default());
        let endpoint = ServedEndpoint {
            number: endpoint,
            connects: connects.clone(),
            conns: conns.clone(),
        };
        tokio::spawn(serve(endpoint, socket, conn, sender.clone()));
    }
}

/// The endpoint of a connection.
struct ServedEndpoint {
    number: usize,
    connects: Arc<AtomicUsize>,
    conns: Arc<Mutex<Vec<Conn>>>,
}

async fn serve(
    endpoint: ServedEndpoint,
    socket: TcpStream,
    conn: Conn,
    sender: UnboundedSender<Arrived>,
) {
    let wire = Wire {
        socket,
        conn: conn.clone(),
    };
    let mut builder = h2::server::Builder::new();
    builder
        .max_local_error_reset_streams(None)
        // Like etcd, it tolerates any number of cancels and small frames.
        .max_pending_accept_reset_streams(1 << 20)
        .data_frame_budget(usize::MAX);
    let Ok(mut h2) = builder.handshake::<_, Bytes>(wire).await else {
        return;
    };
    let mut ignored = Vec::new();
    let mut has_calls = false;
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        if is_member_check(&request) {
            respond_to_member_check(&mut respond);
            continue;
        }
        if !std::mem::replace(&mut has_calls, true) {
            endpoint.connects.fetch_add(1, Ordering::SeqCst);
            lock(&endpoint.conns).push(conn.clone());
        }
        // A request above the last stream id of a sent GOAWAY is ignored, as the GOAWAY promises.
        if lock(&conn.0)
            .last_stream
            .is_some_and(|last| respond.stream_id().as_u32() > last)
        {
            ignored.push((request, respond));
            continue;
        }
        let conn = conn.clone();
        // Fails if the test is over.
        let _ = sender.send(Arrived {
            endpoint: endpoint.number,
            conn,
            request,
            respond,
        });
    }
}

/// Reports whether the proxy itself asks for the status of the member. These calls come at any
/// time, so no script contains them.
fn is_member_check(request: &Request<RecvStream>) -> bool {
    let agent = request.headers().get(http::header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"etcd-edge/"))
}

/// Responds as an etcd 3.6 that is the leader of its cluster.
fn respond_to_member_check(respond: &mut SendResponse<Bytes>) {
    let header = Msg::new().int(1, 77).int(2, 7).int(3, 5).int(4, 2);
    let status = Msg::new().msg(1, header).bytes(2, "3.6.1").int(4, 7);
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).expect("a valid head");
    // Errors: the proxy has gone.
    let Ok(mut body) = respond.send_response(head, false) else {
        return;
    };
    let _ = body.send_data(framed(status.as_ref()), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = body.send_trailers(trailers);
}

/// One connection from a proxy, to change its behaviour as a whole.
#[derive(Clone)]
pub struct Conn(Arc<Mutex<ConnState>>);

#[derive(Default)]
struct ConnState {
    /// Bytes to send between two frames.
    inject: Vec<u8>,
    /// Complete frames of the server that are not yet written to the socket.
    out: Vec<u8>,
    /// Last stream id of the last GOAWAY.
    last_stream: Option<u32>,
    stalled: bool,
    /// Close the socket once everything is written.
    close: bool,
    /// Maximum bytes per write to the socket, if set.
    write_limit: Option<usize>,
    wakers: Vec<Waker>,
}

impl Conn {
    /// Sends a GOAWAY frame after everything sent so far.
    pub fn go_away(&self, last_stream: u32, reason: Reason) {
        let mut payload = BytesMut::new();
        payload.put_u32(last_stream);
        payload.put_u32(reason.into());
        lock(&self.0).last_stream = Some(last_stream);
        self.inject(&frame(7, 0, 0, &payload));
    }

    /// Sends bytes as given, after everything sent so far.
    pub fn inject(&self, bytes: &[u8]) {
        self.update(|state| state.inject.extend_from_slice(bytes));
    }

    /// Closes the socket once everything is written.
    pub fn close(&self) {
        self.update(|state| state.close = true);
    }

    /// Stops reading and writing, like a stopped process (E5).
    pub fn stall(&self) {
        self.update(|state| state.stalled = true);
    }

    /// Limits each write to the socket to this many bytes.
    pub fn limit_writes(&self, bytes: usize) {
        self.update(|state| state.write_limit = Some(bytes));
    }

    fn update(&self, change: impl FnOnce(&mut ConnState)) {
        let mut state = lock(&self.0);
        change(&mut state);
        state.wakers.drain(..).for_each(Waker::wake);
    }
}

/// Encodes an HTTP/2 frame.
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

/// The socket below the HTTP/2 server, under the test's control. It takes whole frames and inserts
/// the test's bytes between two of them.
struct Wire {
    socket: TcpStream,
    conn: Conn,
}

impl Wire {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.conn.0);
        let state = &mut *state;
        let inject = std::mem::take(&mut state.inject);
        state.out.extend(inject);
        if state.stalled {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        while !state.out.is_empty() {
            let piece = state.write_limit.unwrap_or(usize::MAX).min(state.out.len());
            match Pin::new(&mut self.socket).poll_write(cx, &state.out[..piece])? {
                Poll::Ready(n) => drop(state.out.drain(..n)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if state.close {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    /// Polled whenever the server is idle, so the test's changes take effect here.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        let mut state = lock(&self.conn.0);
        state.wakers.retain(|waker| !waker.will_wake(cx.waker()));
        state.wakers.push(cx.waker().clone());
        if state.stalled {
            return Poll::Pending;
        }
        drop(state);
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
pub struct IncomingCall {
    /// Index of the endpoint.
    pub endpoint: usize,
    /// The connection that carries the call.
    pub conn: Conn,
    /// Path and metadata.
    pub head: http::request::Parts,
    body: RecvStream,
    received: BytesMut,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
}

impl IncomingCall {
    fn new(arrived: Arrived) -> IncomingCall {
        let (head, body) = arrived.request.into_parts();
        IncomingCall {
            endpoint: arrived.endpoint,
            conn: arrived.conn,
            head,
            body,
            received: BytesMut::new(),
            respond: arrived.respond,
            stream: None,
        }
    }

    /// Returns the path of the method.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Returns the HTTP/2 stream id.
    pub fn stream_id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }

    /// Returns the values of a request header as text.
    pub fn metadata(&self, name: &str) -> Vec<String> {
        let values = self.head.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    /// Returns the next message of the client; `None` once the client has half-closed.
    pub async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(head) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.received.len() >= 5 + length {
                    let mut message = self.received.split_to(5 + length);
                    return Some(message.split_off(5).freeze());
                }
            }
            if !self.read_data().await {
                return None;
            }
        }
    }

    /// Returns all bytes that the client sends up to its half-close, with framing.
    pub async fn body(&mut self) -> Bytes {
        while self.read_data().await {}
        self.received.split().freeze()
    }

    /// Waits for the first bytes of the request; false if the request ends without any.
    pub async fn wait_data(&mut self) -> bool {
        !self.received.is_empty() || self.read_data().await
    }

    /// Waits until this many bytes of the request have arrived, or the request has ended.
    pub async fn wait_bytes(&mut self, bytes: usize) {
        while self.received.len() < bytes && self.read_data().await {}
    }

    async fn read_data(&mut self) -> bool {
        let data = tokio::time::timeout(LIMIT, self.body.data()).await;
        match data.unwrap_or_else(|_| panic!("no more of the request within {LIMIT:?}")) {
            Some(Ok(data)) => {
                let credit = self.body.flow_control().release_capacity(data.len());
                credit.expect("no more than was received");
                self.received.extend_from_slice(&data);
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Waits until the proxy resets the stream and returns the reason.
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

    /// Sends response headers: HTTP 200, gRPC's content type, and this metadata.
    pub fn headers(&mut self, metadata: Metadata<'_>) {
        let mut response = Response::new(());
        *response.headers_mut() = map(metadata);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        self.send_head(response, false);
    }

    /// Sends a response head.
    pub fn send_head(&mut self, response: Response<()>, end: bool) {
        let stream = self.respond.send_response(response, end);
        self.stream = Some(stream.expect("a live stream"));
    }

    /// Sends bytes as given. Headers must have been sent.
    pub fn send_raw(&mut self, bytes: impl Into<Bytes>) {
        let stream = self.stream.as_mut().expect("headers first");
        stream
            .send_data(bytes.into(), false)
            .expect("a live stream");
    }

    /// Ends the response with these bytes and without trailers. Headers must have been sent.
    pub fn send_last(&mut self, bytes: Bytes) {
        let stream = self.stream.as_mut().expect("headers first");
        stream.send_data(bytes, true).expect("a live stream");
    }

    /// Sends a message. Headers must have been sent.
    pub fn send(&mut self, message: impl AsRef<[u8]>) {
        self.send_raw(framed(message.as_ref()));
    }

    /// Ends the response with these trailers. Headers must have been sent.
    pub fn trailers(&mut self, trailers: Metadata<'_>) {
        let stream = self.stream.as_mut().expect("headers first");
        stream.send_trailers(map(trailers)).expect("a live stream");
    }

    /// Sends a complete response. The proxy may reset the stream before its end, which is accepted.
    pub fn respond_unless_reset(&mut self, message: impl AsRef<[u8]>) {
        self.headers(&[]);
        self.send(message);
        let stream = self.stream.as_mut().expect("headers first");
        let _ = stream.send_trailers(map(&[("grpc-status", "0")]));
    }

    /// Sends a complete response: one message and OK.
    pub fn respond(&mut self, message: impl AsRef<[u8]>) {
        self.headers(&[]);
        self.send(message);
        self.trailers(&[("grpc-status", "0")]);
    }

    /// Sends a trailers-only response.
    pub fn trailers_only(&mut self, metadata: Metadata<'_>) {
        assert!(self.try_trailers_only(metadata), "a live stream");
    }

    /// Sends a trailers-only response; false if the call was cancelled meanwhile.
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

/// Prepends gRPC's five-byte prefix to a message.
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
