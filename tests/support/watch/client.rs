//! A client with one watch stream. It records every message. When the stream ends, it opens another
//! and resumes each watcher at the revision at which etcd's own client would.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::messages::{Create, Response, WATCH, cancel_request, progress_request};
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::framed;

/// Maximum time until all events have arrived after the last write.
const BARRIER_LIMIT: Duration = Duration::from_secs(60);
/// Interval of the progress requests at the end.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(150);

/// A user of a cluster with auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub name: String,
    /// Password.
    pub password: String,
}

/// Connects and logs in, if there are credentials. All calls carry the new token.
pub async fn dial(
    address: &str,
    credentials: Option<&Credentials>,
) -> Result<H2Connection, String> {
    let connection = H2Connection::connect(address).await?;
    let metadata = login(&connection, credentials).await?;
    Ok(connection.with_metadata(&metadata))
}

/// Logs in and returns the metadata with the new token; empty without credentials.
pub async fn login(
    connection: &H2Connection,
    credentials: Option<&Credentials>,
) -> Result<Vec<(String, String)>, String> {
    let Some(Credentials { name, password }) = credentials else {
        return Ok(Vec::new());
    };
    let login = Msg::new().bytes(1, name).bytes(2, password);
    let result = connection
        .unary("/etcdserverpb.Auth/Authenticate", login.as_ref(), None)
        .await;
    if !result.ok() {
        return Err(format!("login as {name}: {result:?}"));
    }
    let token = String::from_utf8(pb::bytes(&result.message, &[2])).expect("a token is text");
    Ok(vec![("token".to_owned(), token)])
}

/// Reads the messages of a watch stream. Dropping a pending read loses no data.
pub struct Reader {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
    end: String,
}

impl Reader {
    /// Reads the response of a call that was just opened.
    pub fn new(response: ResponseFuture) -> Reader {
        Reader {
            response: Some(response),
            body: None,
            buffer: BytesMut::new(),
            end: String::new(),
        }
    }

    /// Returns the next message; `None` at the end, see [`Reader::end`].
    pub async fn next(&mut self) -> Option<Response> {
        if let Some(response) = &mut self.response {
            let result = response.await;
            self.response = None;
            match result {
                Ok(response) => {
                    if response.headers().contains_key("grpc-status") {
                        self.end = status_of(response.headers());
                        return None;
                    }
                    self.body = Some(response.into_body());
                }
                Err(error) => self.end = error.to_string(),
            }
        }
        loop {
            if let Some(message) = self.unframe() {
                return Some(Response::read(&message));
            }
            let body = self.body.as_mut()?;
            match body.data().await {
                Some(Ok(data)) => {
                    // Fails if the stream has ended meanwhile.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    self.end = error.to_string();
                    self.body = None;
                }
                None => {
                    let trailers = body.trailers().await;
                    self.end = match trailers {
                        Ok(Some(map)) => status_of(&map),
                        other => format!("{other:?}"),
                    };
                    self.body = None;
                }
            }
        }
    }

    /// Returns the end of the stream: `status 14 text`, or the error that replaced the status.
    pub fn end(&self) -> &str {
        &self.end
    }

    fn unframe(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        self.buffer.advance(5);
        Some(self.buffer.split_to(length).freeze())
    }
}

fn status_of(map: &http::HeaderMap) -> String {
    let field = |name| map.get(name).and_then(|value| value.to_str().ok());
    format!(
        "status {} {}",
        field("grpc-status").unwrap_or("none"),
        field("grpc-message").unwrap_or_default()
    )
}

/// The expected response to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The watcher is created.
    Created,
    /// The create is refused with a reason that contains this text.
    Refused(&'static str),
}

/// A create that was sent.
#[derive(Debug, Clone)]
pub struct SentCreate {
    /// The client's own number of the watcher. A resumed watcher has the same number.
    pub watcher: usize,
    /// The create as sent, with the revision at which it resumes.
    pub create: Create,
    /// The response that the test expects.
    pub expect: Expect,
    /// The highest revision that the server had sent to any client before.
    pub known: i64,
    /// Whether it resumes a watcher of a lost stream.
    pub resumed: bool,
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The client finished and had received everything.
    Done,
    /// The client finished without having received everything within [`BARRIER_LIMIT`].
    Late(String),
    /// The server ended the stream, or the connection was lost.
    Lost(String),
}

/// Everything sent and received on one stream.
#[derive(Debug, Clone)]
pub struct Session {
    /// Creates in the order in which they were sent.
    pub creates: Vec<SentCreate>,
    /// Watchers that were cancelled, with the number of messages received before it.
    pub cancelled: BTreeMap<usize, usize>,
    /// Number of progress requests sent.
    pub progress: usize,
    /// Messages in the order of arrival.
    pub received: Vec<Response>,
    /// End of the stream.
    pub end: StreamEnd,
}

/// All streams of a client, one after the other.
#[derive(Debug, Clone)]
pub struct ClientRecord {
    /// Name of the client, for failure messages.
    pub name: String,
    /// Revision up to which the client had to read.
    pub through: i64,
    /// Streams in order.
    pub sessions: Vec<Session>,
}

/// Settings of a client.
#[derive(Clone)]
pub struct ClientConfig {
    /// Name for failure messages.
    pub name: String,
    /// Addresses as `host:port`, used in turn.
    pub addresses: Vec<String>,
    /// User, for a cluster with auth.
    pub credentials: Option<Credentials>,
    /// Metadata of the streams.
    pub metadata: Vec<(String, String)>,
    /// The highest revision that this server has sent to any client. Shared by its clients.
    pub known: Arc<AtomicI64>,
    /// The connection. Clients with the same value open their streams on one connection.
    pub connection: Arc<SharedConnection>,
}

/// A connection that is opened on first use.
pub type SharedConnection = tokio::sync::Mutex<Option<Arc<H2Connection>>>;

impl ClientConfig {
    async fn stream(
        &self,
        address: &str,
    ) -> Result<(Arc<H2Connection>, (ResponseFuture, SendStream<Bytes>)), String> {
        let mut shared = self.connection.lock().await;
        let connection = match shared.take() {
            Some(open) if open.is_open().await => open,
            _ => Arc::new(H2Connection::connect(address).await?),
        };
        // Like etcd's own client, each new stream uses a new token.
        let mut metadata = login(&connection, self.credentials.as_ref()).await?;
        metadata.extend_from_slice(&self.metadata);
        let call = connection.stream(WATCH, &metadata).await;
        let call = call.map_err(|error| error.to_string())?;
        *shared = Some(connection.clone());
        Ok((connection, call))
    }
}

enum Command {
    Create(usize, Create, Expect),
    Cancel(usize),
    Progress,
    Read(bool),
    Finish(i64),
}

/// A running client.
pub struct WatchClient {
    commands: UnboundedSender<Command>,
    task: JoinHandle<ClientRecord>,
}

impl WatchClient {
    /// Starts a client, which connects at once.
    pub fn start(config: ClientConfig) -> WatchClient {
        let (commands, receiver) = unbounded_channel();
        let task = ClientTask {
            config,
            commands: receiver,
            watchers: BTreeMap::new(),
            sessions: Vec::new(),
            finish: None,
        };
        WatchClient {
            commands,
            task: tokio::spawn(task.run()),
        }
    }

    /// Creates a watcher. The caller chooses its number.
    pub fn create(&self, watcher: usize, create: Create, expect: Expect) {
        self.command(Command::Create(watcher, create, expect));
    }

    /// Cancels a watcher.
    pub fn cancel(&self, watcher: usize) {
        self.command(Command::Cancel(watcher));
    }

    /// Sends a progress request.
    pub fn progress(&self) {
        self.command(Command::Progress);
    }

    /// Stops or resumes reading.
    pub fn read(&self, on: bool) {
        self.command(Command::Read(on));
    }

    /// Reads until every event up to a revision has arrived, and returns everything received.
    pub async fn finish(self, through: i64) -> ClientRecord {
        self.command(Command::Finish(through));
        self.task.await.expect("a client that does not panic")
    }

    fn command(&self, command: Command) {
        // Fails only if the client panicked, which `finish` reports.
        let _ = self.commands.send(command);
    }
}

struct ClientTask {
    config: ClientConfig,
    commands: UnboundedReceiver<Command>,
    watchers: BTreeMap<usize, Watcher>,
    sessions: Vec<Session>,
    finish: Option<Finish>,
}

struct Watcher {
    create: Create,
    expect: Expect,
    /// Revision at which it resumes; `None` before it was created.
    next: Option<i64>,
    /// Watch id on the current stream.
    id: Option<i64>,
    cancel: Cancel,
    over: bool,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

struct Finish {
    through: i64,
    begun: Instant,
    /// Whether the current stream has delivered everything.
    complete: bool,
}

/// An open stream.
struct Stream {
    send: SendStream<Bytes>,
    reader: Reader,
    session: Session,
    /// Watchers that wait for their `created`.
    pending: VecDeque<usize>,
    reading: bool,
}

impl ClientTask {
    async fn run(mut self) -> ClientRecord {
        for turn in 0.. {
            let address = &self.config.addresses[turn % self.config.addresses.len()];
            let opened = tokio::time::timeout(BARRIER_LIMIT, self.config.stream(address));
            match opened.await {
                // Dropping the connection with its last stream closes it.
                Ok(Ok((_connection, (response, send)))) => {
                    let stream = Stream {
                        send,
                        reader: Reader::new(response),
                        session: Session {
                            creates: Vec::new(),
                            cancelled: BTreeMap::new(),
                            progress: 0,
                            received: Vec::new(),
                            end: StreamEnd::Done,
                        },
                        pending: VecDeque::new(),
                        reading: true,
                    };
                    let session = self.session(stream).await;
                    let over = !matches!(session.end, StreamEnd::Lost(_));
                    self.sessions.push(session);
                    if over {
                        break;
                    }
                }
                Ok(Err(_)) | Err(_) if self.is_late() => break,
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ClientRecord {
            name: self.config.name,
            through: self.finish.map_or(0, |finish| finish.through),
            sessions: self.sessions,
        }
    }

    fn is_late(&self) -> bool {
        self.finish
            .as_ref()
            .is_some_and(|finish| finish.begun.elapsed() > BARRIER_LIMIT)
    }

    async fn session(&mut self, mut stream: Stream) -> Session {
        if let Some(finish) = &mut self.finish {
            finish.complete = false;
        }
        for watcher in self.watchers.values_mut() {
            watcher.id = None;
            // A refusal that was not received may be a creation on another stream. A watcher with a
            // sent cancel ended with its stream.
            watcher.over |= watcher.expect != Expect::Created || watcher.cancel != Cancel::No;
        }
        let again: Vec<usize> = self.watchers.keys().copied().collect();
        for watcher in again {
            self.send_create(&mut stream, watcher);
        }
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                Some(command) = self.commands.recv() => self.execute(&mut stream, command),
                response = stream.reader.next(), if stream.reading => match response {
                    Some(response) => self.receive(&mut stream, response),
                    None => {
                        let end = stream.reader.end().to_owned();
                        stream.session.end = StreamEnd::Lost(end);
                        return stream.session;
                    }
                },
                _ = tick.tick(), if self.finish.is_some() => {
                    if let Some(end) = self.try_finish(&mut stream) {
                        stream.session.end = end;
                        stream.send.send_reset(h2::Reason::CANCEL);
                        return stream.session;
                    }
                }
            }
        }
    }

    fn execute(&mut self, stream: &mut Stream, command: Command) {
        match command {
            Command::Create(number, create, expect) => {
                let watcher = Watcher {
                    create,
                    expect,
                    next: None,
                    id: None,
                    cancel: Cancel::No,
                    over: false,
                };
                self.watchers.insert(number, watcher);
                self.send_create(stream, number);
            }
            Command::Cancel(number) => {
                if let Some(watcher) = self.watchers.get_mut(&number)
                    && watcher.cancel == Cancel::No
                {
                    watcher.cancel = Cancel::Wanted;
                    self.send_cancel(stream, number);
                }
            }
            Command::Progress => {
                stream.session.progress += 1;
                put(stream, &progress_request());
            }
            Command::Read(on) => stream.reading = on,
            Command::Finish(through) => {
                stream.reading = true;
                self.finish = Some(Finish {
                    through,
                    begun: Instant::now(),
                    complete: false,
                });
            }
        }
    }

    fn send_create(&mut self, stream: &mut Stream, number: usize) {
        let Some(watcher) = self.watchers.get(&number).filter(|watcher| !watcher.over) else {
            return;
        };
        let mut create = watcher.create.clone();
        create.start = watcher.next.unwrap_or(create.start);
        stream.session.creates.push(SentCreate {
            watcher: number,
            create: create.clone(),
            expect: watcher.expect,
            known: self.config.known.load(Ordering::SeqCst),
            resumed: watcher.next.is_some(),
        });
        stream.pending.push_back(number);
        put(stream, &create.request());
    }

    fn send_cancel(&mut self, stream: &mut Stream, number: usize) {
        let Some(watcher) = self.watchers.get_mut(&number) else {
            return;
        };
        // The id is unknown before the watcher is created.
        if let (Some(id), Cancel::Wanted) = (watcher.id, watcher.cancel) {
            watcher.cancel = Cancel::Sent;
            let received = stream.session.received.len();
            stream.session.cancelled.insert(number, received);
            put(stream, &cancel_request(id));
        }
    }

    fn receive(&mut self, stream: &mut Stream, response: Response) {
        self.config
            .known
            .fetch_max(response.revision, Ordering::SeqCst);
        stream.session.received.push(response);
        let response = &stream.session.received[stream.session.received.len() - 1];
        if response.created {
            let (id, refused, revision) = (response.id, response.canceled, response.revision);
            let Some(number) = stream.pending.pop_front() else {
                return;
            };
            if let Some(watcher) = self.watchers.get_mut(&number) {
                watcher.id = Some(id).filter(|_| !refused);
                watcher.over = refused;
                if watcher.create.start == 0 && watcher.next.is_none() {
                    watcher.next = Some(revision.saturating_add(1));
                }
            }
            self.send_cancel(stream, number);
            return;
        }
        if response.is_progress() && response.id == -1 {
            if let Some(finish) = &mut self.finish {
                finish.complete |= response.revision >= finish.through && stream.pending.is_empty();
            }
            for watcher in self.watchers.values_mut().filter(|each| each.id.is_some()) {
                watcher.next = watcher.next.max(Some(response.revision.saturating_add(1)));
            }
            return;
        }
        let mut of_id = self
            .watchers
            .values_mut()
            .filter(|watcher| watcher.id == Some(response.id));
        let Some(watcher) = of_id.next() else {
            return;
        };
        if response.canceled {
            watcher.over = true;
            watcher.id = None;
            if response.compact_revision > 0 {
                // etcd retains such a watcher until it is cancelled.
                let id = response.id;
                put(stream, &cancel_request(id));
            }
        } else if response.is_progress() {
            watcher.next = watcher.next.max(Some(response.revision.saturating_add(1)));
        } else if let (false, Some(last)) = (response.fragment, response.events.last()) {
            watcher.next = Some(last.revision().saturating_add(1));
        }
    }

    /// Returns the end of the stream when nothing is left to wait for; otherwise requests progress.
    fn try_finish(&mut self, stream: &mut Stream) -> Option<StreamEnd> {
        let through = self.finish.as_ref()?.through;
        let ahead = self.watchers.iter_mut().filter(|(_, watcher)| {
            !watcher.over && watcher.create.start > through && watcher.cancel == Cancel::No
        });
        let ahead: Vec<usize> = ahead
            .map(|(number, watcher)| {
                watcher.cancel = Cancel::Wanted;
                *number
            })
            .collect();
        for number in ahead {
            self.send_cancel(stream, number);
        }
        let cancelling = self
            .watchers
            .values()
            .any(|watcher| !watcher.over && watcher.cancel != Cancel::No);
        let live = self.watchers.values().any(|watcher| !watcher.over);
        let finish = self.finish.as_ref()?;
        if stream.pending.is_empty() && !cancelling && (finish.complete || !live) {
            return Some(StreamEnd::Done);
        }
        if self.is_late() {
            return Some(StreamEnd::Late(format!(
                "creates without a response: {}, cancels: {cancelling}, complete through {through}: {}",
                stream.pending.len(),
                finish.complete
            )));
        }
        stream.session.progress += 1;
        put(stream, &progress_request());
        None
    }
}

fn put(stream: &mut Stream, message: &Msg) {
    // The end of a stream is reported when it is read.
    let _ = stream.send.send_data(framed(message.as_ref()), false);
}
