//! Clients that read and write without a retry of their own and remember all that they were told,
//! and the judgement of it against what is in etcd: no write twice, none that was acknowledged lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::grpc::Client;
use super::pb::{self, Msg};
use super::scripted_etcd::framed;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// One HTTP/2 connection that waits as long as it takes.
pub struct Lane {
    send: SendRequest<Bytes>,
    authority: String,
    metadata: Vec<(String, String)>,
}

/// What a call ended with.
#[derive(Debug, Clone)]
pub struct Told {
    /// `grpc-status`; none when the stream was reset, the connection lost, or no status given.
    pub code: Option<u32>,
    /// `grpc-message`, or what happened instead of a status.
    pub text: String,
    /// The last message.
    pub message: Bytes,
    /// How long it took.
    pub took: Duration,
    /// HTTP/2 itself says that the server has not looked at it: any client may send it again.
    pub unprocessed: bool,
}

impl Told {
    /// Whether it is OK.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Lane {
    /// Connects to `host:port` in plain text.
    pub async fn connect(address: &str) -> Result<Lane, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let mut builder = h2::client::Builder::new();
        // Its streams stall one by one, never all with one.
        builder
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(1 << 30);
        let handshake = builder.handshake(stream).await;
        let (send, mut connection) = handshake.map_err(|e| e.to_string())?;
        let mut pings = connection.ping_pong().expect("the first to ask");
        tokio::spawn(connection);
        // As gRPC clients do: nothing is sent before the server has shown itself.
        let pong = pings.ping(h2::Ping::opaque()).await;
        pong.map_err(|e| e.to_string())?;
        Ok(Lane {
            send,
            authority: address.to_owned(),
            metadata: Vec::new(),
        })
    }

    /// Further calls carry this metadata.
    pub fn with_metadata(mut self, metadata: &[(String, String)]) -> Lane {
        self.metadata = metadata.to_vec();
        self
    }

    /// One unary call to its end.
    pub async fn unary(&self, path: &str, message: &[u8], timeout: Option<&str>) -> Told {
        let begun = Instant::now();
        let mut told = match self.attempt(path, message, timeout).await {
            Ok(told) => told,
            Err(error) => Told {
                code: None,
                text: error.to_string(),
                message: Bytes::new(),
                took: Duration::ZERO,
                unprocessed: error.is_go_away() && error.is_remote()
                    || error.reason() == Some(h2::Reason::REFUSED_STREAM),
            },
        };
        told.took = begun.elapsed();
        told
    }

    async fn attempt(
        &self,
        path: &str,
        message: &[u8],
        timeout: Option<&str>,
    ) -> Result<Told, h2::Error> {
        let mut request = self.head(path);
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(()).expect("a well-formed request");
        let mut ready = self.send.clone().ready().await?;
        let (response, mut send) = ready.send_request(request, false)?;
        send.send_data(framed(message), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut all = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            let _ = body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?;
        let ends = trailers.as_ref().unwrap_or(&head.headers);
        let field = |name: &str| ends.get(name).and_then(|value| value.to_str().ok());
        let mut message = Bytes::new();
        while all.len() >= 5 {
            let length = u32::from_be_bytes([all[1], all[2], all[3], all[4]]) as usize;
            all.advance(5);
            message = all.split_to(length).freeze();
        }
        Ok(Told {
            code: field("grpc-status").and_then(|code| code.parse().ok()),
            text: field("grpc-message").unwrap_or_default().to_owned(),
            message,
            took: Duration::ZERO,
            unprocessed: false,
        })
    }

    /// Opens a call with one message; its answer to come is the caller's to read.
    pub async fn open(
        &self,
        path: &str,
        message: &[u8],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let (response, mut send) = self.stream(path, &[]).await?;
        send.send_data(framed(message), true)?;
        Ok((response, send))
    }

    /// Opens a call with nothing sent yet, with metadata of its own beside the lane's.
    pub async fn stream(
        &self,
        path: &str,
        metadata: &[(String, String)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let head = self.head(path);
        let head = metadata
            .iter()
            .fold(head, |head, (name, value)| head.header(name, value));
        let request = head.body(()).expect("a well-formed request");
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request, false)
    }

    fn head(&self, path: &str) -> http::request::Builder {
        let head = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        self.metadata
            .iter()
            .fold(head, |head, (name, value)| head.header(name, value))
    }

    /// Whether the connection is still there.
    pub async fn is_open(&self) -> bool {
        let mut send = self.send.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.is_ok()
    }
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Linearizable reads, whose revision must never go back.
    Reader {
        /// `grpc-timeout`, and in milliseconds.
        timeout: Option<(&'static str, u64)>,
    },
    /// Puts of a key each.
    Putter,
    /// Puts of one key: each application of each shows in etcd's history.
    Overwriter,
    /// Appends to one key, by transactions on what it read last.
    Appender,
}

/// Load on a proxy.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Record>>,
}

/// What one client was told.
struct Record {
    role: Role,
    id: usize,
    /// How often each code and text.
    told: BTreeMap<(Option<u32>, String), u64>,
    /// Tokens of writes answered with OK.
    acknowledged: Vec<String>,
    /// Tokens of writes that ended otherwise.
    unknown: Vec<String>,
    /// Broken promises, in words.
    wrong: Vec<String>,
    slowest: Duration,
}

impl Load {
    /// Starts one client for each role, on a connection of its own, to each address in turn.
    pub fn start(addresses: &[&str], roles: &[Role]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let clients = roles.iter().enumerate().map(|(id, role)| {
            let addresses = addresses.iter().map(|each| (*each).to_owned()).collect();
            tokio::spawn(client(id, *role, addresses, stop.clone(), done.clone()))
        });
        Load {
            clients: clients.collect(),
            stop,
            done,
        }
    }

    /// Calls that ended so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until so many more calls have ended: the load flows.
    pub async fn flows(&self, more: u64, limit: Duration) {
        let (wanted, until) = (self.done() + more, Instant::now() + limit);
        while self.done() < wanted {
            assert!(
                Instant::now() < until,
                "the load does not flow within {limit:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it and gives what was told.
    pub async fn finish(self) -> Account {
        self.stop.store(true, Ordering::SeqCst);
        let mut records = Vec::new();
        for client in self.clients {
            records.push(client.await.expect("a client that does not panic"));
        }
        Account { records }
    }
}

/// All that clients were told.
pub struct Account {
    records: Vec<Record>,
}

impl Account {
    /// What was seen, a line for each kind of client, code and text.
    pub fn table(&self) -> String {
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for record in &self.records {
            for ((code, text), count) in &record.told {
                let code = code.map_or("none".to_owned(), |code| code.to_string());
                *lines
                    .entry(format!("{:?}: {code} {text}", record.role))
                    .or_default() += count;
            }
        }
        let slowest = self.records.iter().map(|record| record.slowest).max();
        lines.iter().fold(
            format!("slowest call: {slowest:?}\n"),
            |table, (line, count)| table + &format!("{count:8}  {line}\n"),
        )
    }

    /// How often clients of a kind were told a code.
    pub fn count(&self, kind: impl Fn(Role) -> bool, code: Option<u32>) -> u64 {
        let records = self.records.iter().filter(|record| kind(record.role));
        let told = records.flat_map(|record| &record.told);
        told.filter(|((each, _), _)| *each == code)
            .map(|(_, count)| count)
            .sum()
    }

    /// No promise was broken: no read failed or was stale, nothing was CANCELLED, no deadline
    /// invented.
    pub fn assert_kept(&self) {
        let wrong: Vec<&String> = self
            .records
            .iter()
            .flat_map(|record| &record.wrong)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", self.table());
        for record in &self.records {
            let ok = record.told.get(&(Some(0), String::new()));
            assert!(
                ok.is_some(),
                "{:?} was never told OK\n{}",
                record.role,
                self.table()
            );
        }
    }

    /// Against etcd itself, its whole history: no write was applied twice, every acknowledged one
    /// once.
    pub async fn assert_written_once(&self, etcd: &str) {
        let history = history(etcd).await;
        let mut applied: HashMap<&str, u64> = HashMap::new();
        for (_, value) in &history {
            // An appender's value repeats all its tokens; the new one is the last.
            let token = value.rsplit(',').next().unwrap_or_default();
            *applied.entry(token).or_default() += 1;
        }
        let twice: Vec<_> = applied.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "applied more than once: {twice:?}");
        let mut known = BTreeSet::new();
        for record in &self.records {
            for token in &record.acknowledged {
                assert!(
                    applied.contains_key(&token[..]),
                    "acknowledged and lost: {token}"
                );
            }
            known.extend(
                record
                    .acknowledged
                    .iter()
                    .chain(&record.unknown)
                    .map(String::as_str),
            );
        }
        let strange: Vec<_> = applied
            .keys()
            .filter(|token| !known.contains(*token))
            .collect();
        assert!(strange.is_empty(), "nobody wrote {strange:?}");
        for record in self
            .records
            .iter()
            .filter(|record| record.role == Role::Appender)
        {
            self.assert_appended(record, &history);
        }
    }

    fn assert_appended(&self, record: &Record, history: &[(String, String)]) {
        let key = format!("a/{}", record.id);
        let last = history.iter().rev().find(|(each, _)| *each == key);
        let value = last.map_or("", |(_, value)| value);
        let tokens: Vec<&str> = value.split(',').filter(|token| !token.is_empty()).collect();
        let distinct: BTreeSet<&str> = tokens.iter().copied().collect();
        assert_eq!(tokens.len(), distinct.len(), "a token twice in {value}");
        for token in &record.acknowledged {
            assert!(distinct.contains(&token[..]), "{token} is not in {value}");
        }
    }
}

/// Every put that etcd has applied, in order: key and value.
async fn history(etcd: &str) -> Vec<(String, String)> {
    let client = Client::connect(etcd).await;
    let all = Msg::new().bytes(1, b"\0").bytes(2, b"\0");
    let reply = client.unary(RANGE, all.clone().int(9, 1), &[]).await;
    let (count, now) = (pb::int(reply.only(), &[4]), pb::int(reply.only(), &[1, 3]));
    assert!(count > 0, "nothing was written");
    let mut watch = client.call(WATCH, &[]).await;
    watch.send(Msg::new().msg(1, all.int(3, 1))).await;
    let mut history = Vec::new();
    loop {
        let response = watch.next().await.expect("a watch of the whole history");
        let mut last = 0;
        for (field, event) in pb::fields(&response) {
            let (11, pb::Value::Bytes(event)) = (field, event) else {
                continue;
            };
            last = pb::int(&event, &[2, 3]);
            let text = |path: &[u32]| String::from_utf8(pb::bytes(&event, path)).expect("text");
            history.push((text(&[2, 1]), text(&[2, 5])));
        }
        if last >= now {
            return history;
        }
    }
}

async fn client(
    id: usize,
    role: Role,
    addresses: Vec<String>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Record {
    let mut record = Record {
        role,
        id,
        told: BTreeMap::new(),
        acknowledged: Vec::new(),
        unknown: Vec::new(),
        wrong: Vec::new(),
        slowest: Duration::ZERO,
    };
    let mut route = Route {
        addresses,
        next: id,
        lane: None,
    };
    let mut state = State::default();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        match role {
            Role::Reader { timeout } => read(&mut route, &mut record, &mut state, timeout).await,
            Role::Putter => {
                let token = format!("p-{id}-{number}");
                put(&mut route, &mut record, &format!("w/{id}/{number}"), token).await;
            }
            Role::Overwriter => {
                let token = format!("o-{id}-{number}");
                put(&mut route, &mut record, &format!("o/{id}"), token).await;
            }
            Role::Appender => append(&mut route, &mut record, &mut state, number).await,
        }
        done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    record
}

/// Where a client sends its calls: one connection, and another to the next address when it is gone
/// or going. As any gRPC client it sends again what was provably not looked at, and nothing else.
struct Route {
    addresses: Vec<String>,
    next: usize,
    lane: Option<Lane>,
}

impl Route {
    async fn unary(&mut self, path: &str, message: &[u8], timeout: Option<&str>) -> Told {
        loop {
            let lane = match self.lane.take() {
                Some(open) if open.is_open().await => open,
                _ => {
                    let address = &self.addresses[self.next % self.addresses.len()];
                    self.next += 1;
                    let Ok(new) = Lane::connect(address).await else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    new
                }
            };
            let told = lane.unary(path, message, timeout).await;
            if !told.unprocessed {
                self.lane = Some(lane);
                return told;
            }
        }
    }
}

/// What a client read last.
#[derive(Default)]
struct State {
    value: String,
    revision: i64,
}

async fn read(
    route: &mut Route,
    record: &mut Record,
    state: &mut State,
    timeout: Option<(&'static str, u64)>,
) {
    let key = format!("r/{}", record.id);
    let request = Msg::new().bytes(1, &key);
    let told = route
        .unary(RANGE, request.as_ref(), timeout.map(|(text, _)| text))
        .await;
    let expired = timeout.is_some_and(|(_, millis)| told.took >= Duration::from_millis(millis));
    if !(told.ok() || told.code == Some(4) && expired) {
        record
            .wrong
            .push(format!("a read with {timeout:?} failed: {told:?}"));
    }
    if told.ok() {
        let revision = pb::int(&told.message, &[1, 3]);
        if revision < state.revision {
            let was = state.revision;
            record
                .wrong
                .push(format!("a read went back from {was} to {revision}"));
        }
        state.revision = revision;
    }
    record.note(&told);
}

async fn put(route: &mut Route, record: &mut Record, key: &str, token: String) {
    let request = Msg::new().bytes(1, key).bytes(2, &token);
    let told = route.unary(PUT, request.as_ref(), None).await;
    record.note_write(&told, token);
}

async fn append(route: &mut Route, record: &mut Record, state: &mut State, number: u64) {
    let key = format!("a/{}", record.id);
    let token = format!("a-{}-{number}", record.id);
    let value = match state.value.is_empty() {
        true => token.clone(),
        false => format!("{},{token}", state.value),
    };
    let unchanged = Msg::new().int(2, 2).bytes(3, &key).int(6, state.revision);
    let put = Msg::new().msg(2, Msg::new().bytes(1, &key).bytes(2, &value));
    let get = Msg::new().msg(1, Msg::new().bytes(1, &key));
    let txn = Msg::new().msg(1, unchanged).msg(2, put).msg(3, get);
    let told = route.unary(TXN, txn.as_ref(), None).await;
    if told.ok() && pb::int(&told.message, &[2]) == 1 {
        state.value = value;
        state.revision = pb::int(&told.message, &[1, 3]);
        record.note_write(&told, token);
    } else if told.ok() {
        // A write of unknown outcome was applied after all: go on from there.
        let path = [3, 1, 2];
        let was = state.revision;
        state.revision = pb::int(&told.message, &[&path[..], &[3]].concat());
        let value = pb::bytes(&told.message, &[&path[..], &[5]].concat());
        state.value = String::from_utf8(value).expect("text");
        if was == state.revision {
            record
                .wrong
                .push(format!("{key} was and was not at revision {was}"));
        }
        record.note(&told);
    } else {
        record.note_write(&told, token);
    }
}

impl Record {
    fn note(&mut self, told: &Told) {
        self.slowest = self.slowest.max(told.took);
        *self.told.entry((told.code, told.text.clone())).or_default() += 1;
        if told.code == Some(1) {
            self.wrong
                .push(format!("CANCELLED that nobody asked for: {told:?}"));
        }
        if told.code.is_none() {
            self.wrong.push(format!("no status: {told:?}"));
        }
    }

    fn note_write(&mut self, told: &Told, token: String) {
        match told.ok() {
            true => self.acknowledged.push(token),
            false => self.unknown.push(token),
        }
        self.note(told);
    }
}
