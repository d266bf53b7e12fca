//! A client with one watch stream. It keeps every message, and when the stream ends it opens another
//! and resumes each watch where etcd's own client would.

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
use crate::support::load::Lane;
use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::framed;

/// How long all of a stream's events may take once the last write is done.
const BARRIER_LIMIT: Duration = Duration::from_secs(60);
/// Between two progress requests at the end.
const ASK_AGAIN: Duration = Duration::from_millis(150);

/// Who a client is, for a cluster with auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub name: String,
    /// Password.
    pub password: String,
}

/// Connects, and logs in with a token of its own.
pub async fn dial(address: &str, credentials: Option<&Credentials>) -> Result<Lane, String> {
    let lane = Lane::connect(address).await?;
    let metadata = login(&lane, credentials).await?;
    Ok(lane.with_metadata(&metadata))
}

/// The metadata of a new token.
pub async fn login(
    lane: &Lane,
    credentials: Option<&Credentials>,
) -> Result<Vec<(String, String)>, String> {
    let Some(Credentials { name, password }) = credentials else {
        return Ok(Vec::new());
    };
    let login = Msg::new().bytes(1, name).bytes(2, password);
    let told = lane
        .unary("/etcdserverpb.Auth/Authenticate", login.as_ref(), None)
        .await;
    if !told.ok() {
        return Err(format!("login as {name}: {told:?}"));
    }
    let token = String::from_utf8(pb::bytes(&told.message, &[2])).expect("a token is text");
    Ok(vec![("token".to_owned(), token)])
}

/// Reads the messages of a watch stream. A step that is dropped loses nothing.
pub struct Reader {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
    ending: String,
}

impl Reader {
    /// Of a call just made.
    pub fn new(response: ResponseFuture) -> Reader {
        Reader {
            response: Some(response),
            body: None,
            buffer: BytesMut::new(),
            ending: String::new(),
        }
    }

    /// The next message; none at the end, of which [`Reader::ending`] tells.
    pub async fn next(&mut self) -> Option<Response> {
        if let Some(response) = &mut self.response {
            let result = response.await;
            self.response = None;
            match result {
                Ok(response) => {
                    if response.headers().contains_key("grpc-status") {
                        self.ending = status_of(response.headers());
                        return None;
                    }
                    self.body = Some(response.into_body());
                }
                Err(error) => self.ending = error.to_string(),
            }
        }
        loop {
            if let Some(message) = self.unframe() {
                return Some(Response::read(&message));
            }
            let body = self.body.as_mut()?;
            match body.data().await {
                Some(Ok(data)) => {
                    // The stream may have ended meanwhile.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    self.ending = error.to_string();
                    self.body = None;
                }
                None => {
                    let trailers = body.trailers().await;
                    self.ending = match trailers {
                        Ok(Some(map)) => status_of(&map),
                        other => format!("{other:?}"),
                    };
                    self.body = None;
                }
            }
        }
    }

    /// `status 14 text`, or what happened instead of a status.
    pub fn ending(&self) -> &str {
        &self.ending
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

/// How etcd is to answer a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// By creating.
    Created,
    /// By a refusal whose reason has these words.
    Refused(&'static str),
}

/// A create that was sent.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The client's own number of the watcher; the same when it resumes.
    pub watcher: usize,
    /// As it was sent, with the revision it resumes from.
    pub create: Create,
    /// As the test knows beforehand.
    pub expect: Expect,
    /// The highest revision that anybody had been told, by the same server, before it was sent.
    pub known: i64,
    /// It goes on where a lost stream ended.
    pub resumed: bool,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client was done, and had been told everything.
    Done,
    /// The client was done, and had not been told everything within [`BARRIER_LIMIT`].
    Late(String),
    /// The other side ended it, or the connection was lost.
    Lost(String),
}

/// All that was sent and received on one stream.
#[derive(Debug, Clone)]
pub struct Session {
    /// In the order in which they were sent.
    pub asked: Vec<Asked>,
    /// Watchers whose cancel was sent, and how many messages had come by then.
    pub cancelled: BTreeMap<usize, usize>,
    /// Progress requests sent.
    pub progress: usize,
    /// Messages in their order.
    pub received: Vec<Response>,
    /// Its end.
    pub ending: Ending,
}

/// All the streams of a client, one after the other.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which client, for messages.
    pub name: String,
    /// Up to which revision it was to read.
    pub through: i64,
    /// In their order.
    pub sessions: Vec<Session>,
}

/// Where a client is, and who.
#[derive(Clone)]
pub struct Place {
    /// For messages.
    pub name: String,
    /// `host:port`, tried in turn.
    pub addresses: Vec<String>,
    /// With auth.
    pub credentials: Option<Credentials>,
    /// Of its streams.
    pub metadata: Vec<(String, String)>,
    /// The highest revision told to anybody by this server; shared by its clients.
    pub known: Arc<AtomicI64>,
    /// Clients with the same one have their streams on one connection.
    pub connection: Arc<Shared>,
}

/// A connection that is opened when it is needed.
pub type Shared = tokio::sync::Mutex<Option<Arc<Lane>>>;

impl Place {
    async fn stream(
        &self,
        address: &str,
    ) -> Result<(Arc<Lane>, (ResponseFuture, SendStream<Bytes>)), String> {
        let mut shared = self.connection.lock().await;
        let lane = match shared.take() {
            Some(open) if open.is_open().await => open,
            _ => Arc::new(Lane::connect(address).await?),
        };
        // As etcd's own client does: a new stream, a new token.
        let mut metadata = login(&lane, self.credentials.as_ref()).await?;
        metadata.extend_from_slice(&self.metadata);
        let call = lane.stream(WATCH, &metadata).await;
        let call = call.map_err(|error| error.to_string())?;
        *shared = Some(lane.clone());
        Ok((lane, call))
    }
}

enum Order {
    Create(usize, Create, Expect),
    Cancel(usize),
    Progress,
    Read(bool),
    Finish(i64),
}

/// A running client.
pub struct Watches {
    orders: UnboundedSender<Order>,
    task: JoinHandle<Record>,
}

impl Watches {
    /// Starts one; it connects at once.
    pub fn start(place: Place) -> Watches {
        let (orders, from) = unbounded_channel();
        let run = Run {
            place,
            orders: from,
            watchers: BTreeMap::new(),
            sessions: Vec::new(),
            finish: None,
        };
        Watches {
            orders,
            task: tokio::spawn(run.run()),
        }
    }

    /// Creates a watcher; the number is the caller's and names it.
    pub fn create(&self, watcher: usize, create: Create, expect: Expect) {
        self.order(Order::Create(watcher, create, expect));
    }

    /// Cancels a watcher.
    pub fn cancel(&self, watcher: usize) {
        self.order(Order::Cancel(watcher));
    }

    /// Asks for progress.
    pub fn progress(&self) {
        self.order(Order::Progress);
    }

    /// Stops reading, or reads on.
    pub fn read(&self, on: bool) {
        self.order(Order::Read(on));
    }

    /// Reads until everything up to a revision has been told, and gives what was told.
    pub async fn finish(self, through: i64) -> Record {
        self.order(Order::Finish(through));
        self.task.await.expect("a client that does not panic")
    }

    fn order(&self, order: Order) {
        // Only a client that panicked is gone; `finish` tells.
        let _ = self.orders.send(order);
    }
}

struct Run {
    place: Place,
    orders: UnboundedReceiver<Order>,
    watchers: BTreeMap<usize, Watcher>,
    sessions: Vec<Session>,
    finish: Option<Finish>,
}

struct Watcher {
    create: Create,
    expect: Expect,
    /// Where it goes on; none before it was created.
    next: Option<i64>,
    /// On this session.
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
    /// Told on this session.
    told: bool,
}

/// One stream as long as it lives.
struct Stream {
    send: SendStream<Bytes>,
    reader: Reader,
    session: Session,
    /// Watchers whose `created` is still to come.
    pending: VecDeque<usize>,
    reading: bool,
}

impl Run {
    async fn run(mut self) -> Record {
        for turn in 0.. {
            let address = &self.place.addresses[turn % self.place.addresses.len()];
            let opened = tokio::time::timeout(BARRIER_LIMIT, self.place.stream(address));
            match opened.await {
                // The lane lives as long as its last stream: its end closes the connection.
                Ok(Ok((_lane, (response, send)))) => {
                    let stream = Stream {
                        send,
                        reader: Reader::new(response),
                        session: Session {
                            asked: Vec::new(),
                            cancelled: BTreeMap::new(),
                            progress: 0,
                            received: Vec::new(),
                            ending: Ending::Done,
                        },
                        pending: VecDeque::new(),
                        reading: true,
                    };
                    let session = self.session(stream).await;
                    let over = !matches!(session.ending, Ending::Lost(_));
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
        Record {
            name: self.place.name,
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
            finish.told = false;
        }
        for watcher in self.watchers.values_mut() {
            watcher.id = None;
            // A refusal that was not heard any more may be a creation on another stream; one whose
            // cancel was sent is gone with its stream.
            watcher.over |= watcher.expect != Expect::Created || watcher.cancel != Cancel::No;
        }
        let again: Vec<usize> = self.watchers.keys().copied().collect();
        for watcher in again {
            self.ask(&mut stream, watcher);
        }
        let mut tick = tokio::time::interval(ASK_AGAIN);
        loop {
            tokio::select! {
                Some(order) = self.orders.recv() => self.obey(&mut stream, order),
                response = stream.reader.next(), if stream.reading => match response {
                    Some(response) => self.hear(&mut stream, response),
                    None => {
                        let ending = stream.reader.ending().to_owned();
                        stream.session.ending = Ending::Lost(ending);
                        return stream.session;
                    }
                },
                _ = tick.tick(), if self.finish.is_some() => {
                    if let Some(ending) = self.finishing(&mut stream) {
                        stream.session.ending = ending;
                        stream.send.send_reset(h2::Reason::CANCEL);
                        return stream.session;
                    }
                }
            }
        }
    }

    fn obey(&mut self, stream: &mut Stream, order: Order) {
        match order {
            Order::Create(number, create, expect) => {
                let watcher = Watcher {
                    create,
                    expect,
                    next: None,
                    id: None,
                    cancel: Cancel::No,
                    over: false,
                };
                self.watchers.insert(number, watcher);
                self.ask(stream, number);
            }
            Order::Cancel(number) => {
                if let Some(watcher) = self.watchers.get_mut(&number)
                    && watcher.cancel == Cancel::No
                {
                    watcher.cancel = Cancel::Wanted;
                    self.send_cancel(stream, number);
                }
            }
            Order::Progress => {
                stream.session.progress += 1;
                put(stream, &progress_request());
            }
            Order::Read(on) => stream.reading = on,
            Order::Finish(through) => {
                stream.reading = true;
                self.finish = Some(Finish {
                    through,
                    begun: Instant::now(),
                    told: false,
                });
            }
        }
    }

    fn ask(&mut self, stream: &mut Stream, number: usize) {
        let Some(watcher) = self.watchers.get(&number).filter(|watcher| !watcher.over) else {
            return;
        };
        let mut create = watcher.create.clone();
        create.start = watcher.next.unwrap_or(create.start);
        stream.session.asked.push(Asked {
            watcher: number,
            create: create.clone(),
            expect: watcher.expect,
            known: self.place.known.load(Ordering::SeqCst),
            resumed: watcher.next.is_some(),
        });
        stream.pending.push_back(number);
        put(stream, &create.request());
    }

    fn send_cancel(&mut self, stream: &mut Stream, number: usize) {
        let Some(watcher) = self.watchers.get_mut(&number) else {
            return;
        };
        // Before it is created its id is not known.
        if let (Some(id), Cancel::Wanted) = (watcher.id, watcher.cancel) {
            watcher.cancel = Cancel::Sent;
            let heard = stream.session.received.len();
            stream.session.cancelled.insert(number, heard);
            put(stream, &cancel_request(id));
        }
    }

    fn hear(&mut self, stream: &mut Stream, response: Response) {
        self.place
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
                finish.told |= response.revision >= finish.through && stream.pending.is_empty();
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
                // etcd keeps such a watcher until it is cancelled.
                let id = response.id;
                put(stream, &cancel_request(id));
            }
        } else if response.is_progress() {
            watcher.next = watcher.next.max(Some(response.revision.saturating_add(1)));
        } else if let (false, Some(last)) = (response.fragment, response.events.last()) {
            watcher.next = Some(last.revision().saturating_add(1));
        }
    }

    /// The ending, when there is nothing left to wait for.
    fn finishing(&mut self, stream: &mut Stream) -> Option<Ending> {
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
        if stream.pending.is_empty() && !cancelling && (finish.told || !live) {
            return Some(Ending::Done);
        }
        if self.is_late() {
            return Some(Ending::Late(format!(
                "{} creates without an answer, cancels: {cancelling}, told through {through}: {}",
                stream.pending.len(),
                finish.told
            )));
        }
        stream.session.progress += 1;
        put(stream, &progress_request());
        None
    }
}

fn put(stream: &mut Stream, message: &Msg) {
    // A stream that has ended tells so when it is read.
    let _ = stream.send.send_data(framed(message.as_ref()), false);
}
