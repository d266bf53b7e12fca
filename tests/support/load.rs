//! Clients that read and write without retries and record every result, and the check of these
//! results against etcd: no write is applied twice, and no acknowledged write is lost.

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

/// One HTTP/2 connection whose calls have no time limit of their own.
pub struct H2Connection {
    send: SendRequest<Bytes>,
    authority: String,
    metadata: Vec<(String, String)>,
}

/// The result of a call.
#[derive(Debug, Clone)]
pub struct CallResult {
    /// `grpc-status`; `None` after a reset, a lost connection, or a response without a status.
    pub code: Option<u32>,
    /// `grpc-message`, or the error that replaced the status.
    pub text: String,
    /// The last message.
    pub message: Bytes,
    /// Duration of the call.
    pub took: Duration,
    /// Whether HTTP/2 guarantees that the server did not process the call, so any client may retry
    /// it.
    pub unprocessed: bool,
}

impl CallResult {
    /// Returns whether the status is OK.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl H2Connection {
    /// Connects to `host:port` in plain text.
    pub async fn connect(address: &str) -> Result<H2Connection, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let mut builder = h2::client::Builder::new();
        // The connection window is larger than all stream windows, so one stalled stream stalls no
        // other.
        builder
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(1 << 30);
        let handshake = builder.handshake(stream).await;
        let (send, mut connection) = handshake.map_err(|e| e.to_string())?;
        let mut pings = connection.ping_pong().expect("taken only once");
        tokio::spawn(connection);
        // Like gRPC clients, it sends no call before the server has responded.
        let pong = pings.ping(h2::Ping::opaque()).await;
        pong.map_err(|e| e.to_string())?;
        Ok(H2Connection {
            send,
            authority: address.to_owned(),
            metadata: Vec::new(),
        })
    }

    /// Adds this metadata to all later calls.
    pub fn with_metadata(mut self, metadata: &[(String, String)]) -> H2Connection {
        self.metadata = metadata.to_vec();
        self
    }

    /// Runs one unary call to its end.
    pub async fn unary(&self, path: &str, message: &[u8], timeout: Option<&str>) -> CallResult {
        let begun = Instant::now();
        let mut result = match self.attempt(path, message, timeout).await {
            Ok(result) => result,
            Err(error) => CallResult {
                code: None,
                text: error.to_string(),
                message: Bytes::new(),
                took: Duration::ZERO,
                unprocessed: error.is_go_away() && error.is_remote()
                    || error.reason() == Some(h2::Reason::REFUSED_STREAM),
            },
        };
        result.took = begun.elapsed();
        result
    }

    async fn attempt(
        &self,
        path: &str,
        message: &[u8],
        timeout: Option<&str>,
    ) -> Result<CallResult, h2::Error> {
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
        Ok(CallResult {
            code: field("grpc-status").and_then(|code| code.parse().ok()),
            text: field("grpc-message").unwrap_or_default().to_owned(),
            message,
            took: Duration::ZERO,
            unprocessed: false,
        })
    }

    /// Opens a call and sends one message. The caller reads the response.
    pub async fn open(
        &self,
        path: &str,
        message: &[u8],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let (response, mut send) = self.stream(path, &[]).await?;
        send.send_data(framed(message), true)?;
        Ok((response, send))
    }

    /// Opens a call without a message, with metadata in addition to the connection's.
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

    /// Returns whether the connection still accepts calls.
    pub async fn is_open(&self) -> bool {
        let mut send = self.send.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.is_ok()
    }
}

/// The behaviour of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Linearizable reads, whose revision must never decrease.
    Reader {
        /// `grpc-timeout`, as text and in milliseconds.
        timeout: Option<(&'static str, u64)>,
    },
    /// Puts, each of a new key.
    Putter,
    /// Puts of one key. Each application of each put appears in etcd's history.
    Overwriter,
    /// Transactions that append to one key, compared with the revision of the previous append.
    Appender,
}

/// Clients that put load on a proxy.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<ClientReport>>,
}

/// The results of one client.
struct ClientReport {
    role: Role,
    id: usize,
    /// Number of results by code and text.
    results: BTreeMap<(Option<u32>, String), u64>,
    /// Tokens of writes that returned OK.
    acknowledged: Vec<String>,
    /// Tokens of writes that ended otherwise.
    unknown: Vec<String>,
    /// Violations, as text.
    violations: Vec<String>,
    slowest: Duration,
}

impl Load {
    /// Starts one client per role, each on its own connection, to the addresses in turn.
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

    /// Returns the number of calls that have ended.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until this many more calls have ended.
    pub async fn wait_calls(&self, more: u64, limit: Duration) {
        let (wanted, until) = (self.done() + more, Instant::now() + limit);
        while self.done() < wanted {
            assert!(
                Instant::now() < until,
                "the load makes no progress within {limit:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the clients and returns their results.
    pub async fn finish(self) -> LoadReport {
        self.stop.store(true, Ordering::SeqCst);
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(client.await.expect("a client that does not panic"));
        }
        LoadReport { clients }
    }
}

/// The results of all clients.
pub struct LoadReport {
    clients: Vec<ClientReport>,
}

impl LoadReport {
    /// Formats the number of results for each role, code and text, one line each.
    pub fn table(&self) -> String {
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for client in &self.clients {
            for ((code, text), count) in &client.results {
                let code = code.map_or("none".to_owned(), |code| code.to_string());
                *lines
                    .entry(format!("{:?}: {code} {text}", client.role))
                    .or_default() += count;
            }
        }
        let slowest = self.clients.iter().map(|client| client.slowest).max();
        lines.iter().fold(
            format!("slowest call: {slowest:?}\n"),
            |table, (line, count)| table + &format!("{count:8}  {line}\n"),
        )
    }

    /// Returns how many calls of the selected roles ended with a code.
    pub fn count(&self, selected: impl Fn(Role) -> bool, code: Option<u32>) -> u64 {
        let clients = self.clients.iter().filter(|client| selected(client.role));
        let results = clients.flat_map(|client| &client.results);
        results
            .filter(|((each, _), _)| *each == code)
            .map(|(_, count)| count)
            .sum()
    }

    /// Checks that no read failed or was stale, that no call was CANCELLED, that no deadline was
    /// invented, and that every client succeeded at least once.
    pub fn assert_no_violations(&self) {
        let violations: Vec<&String> = self
            .clients
            .iter()
            .flat_map(|client| &client.violations)
            .collect();
        assert!(violations.is_empty(), "{violations:#?}\n{}", self.table());
        for client in &self.clients {
            let ok = client.results.get(&(Some(0), String::new()));
            assert!(
                ok.is_some(),
                "{:?} never received OK\n{}",
                client.role,
                self.table()
            );
        }
    }

    /// Checks against etcd's whole history that no write was applied twice and every acknowledged
    /// write was applied.
    pub async fn assert_applied_once(&self, etcd: &str) {
        let history = history(etcd).await;
        let mut applied: HashMap<&str, u64> = HashMap::new();
        for (_, value) in &history {
            // An appender's value repeats all its tokens. The new one is the last.
            let token = value.rsplit(',').next().unwrap_or_default();
            *applied.entry(token).or_default() += 1;
        }
        let twice: Vec<_> = applied.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "applied more than once: {twice:?}");
        let mut known = BTreeSet::new();
        for client in &self.clients {
            for token in &client.acknowledged {
                assert!(
                    applied.contains_key(&token[..]),
                    "acknowledged and lost: {token}"
                );
            }
            known.extend(
                client
                    .acknowledged
                    .iter()
                    .chain(&client.unknown)
                    .map(String::as_str),
            );
        }
        let unknown: Vec<_> = applied
            .keys()
            .filter(|token| !known.contains(*token))
            .collect();
        assert!(unknown.is_empty(), "no client wrote {unknown:?}");
        for client in self
            .clients
            .iter()
            .filter(|client| client.role == Role::Appender)
        {
            self.assert_appended(client, &history);
        }
    }

    fn assert_appended(&self, client: &ClientReport, history: &[(String, String)]) {
        let key = format!("a/{}", client.id);
        let last = history.iter().rev().find(|(each, _)| *each == key);
        let value = last.map_or("", |(_, value)| value);
        let tokens: Vec<&str> = value.split(',').filter(|token| !token.is_empty()).collect();
        let distinct: BTreeSet<&str> = tokens.iter().copied().collect();
        assert_eq!(tokens.len(), distinct.len(), "a token twice in {value}");
        for token in &client.acknowledged {
            assert!(distinct.contains(&token[..]), "{token} is not in {value}");
        }
    }
}

/// Returns every put that etcd has applied, in order: key and value.
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
) -> ClientReport {
    let mut report = ClientReport {
        role,
        id,
        results: BTreeMap::new(),
        acknowledged: Vec::new(),
        unknown: Vec::new(),
        violations: Vec::new(),
        slowest: Duration::ZERO,
    };
    let mut route = Route {
        addresses,
        next: id,
        connection: None,
    };
    let mut state = LastRead::default();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        match role {
            Role::Reader { timeout } => read(&mut route, &mut report, &mut state, timeout).await,
            Role::Putter => {
                let token = format!("p-{id}-{number}");
                put(&mut route, &mut report, &format!("w/{id}/{number}"), token).await;
            }
            Role::Overwriter => {
                let token = format!("o-{id}-{number}");
                put(&mut route, &mut report, &format!("o/{id}"), token).await;
            }
            Role::Appender => append(&mut route, &mut report, &mut state, number).await,
        }
        done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    report
}

/// The connection of a client. When it is closed or closing, the client connects to the next
/// address. Like any gRPC client, it retries only calls that were provably not processed.
struct Route {
    addresses: Vec<String>,
    next: usize,
    connection: Option<H2Connection>,
}

impl Route {
    async fn unary(&mut self, path: &str, message: &[u8], timeout: Option<&str>) -> CallResult {
        loop {
            let connection = match self.connection.take() {
                Some(open) if open.is_open().await => open,
                _ => {
                    let address = &self.addresses[self.next % self.addresses.len()];
                    self.next += 1;
                    let Ok(new) = H2Connection::connect(address).await else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    new
                }
            };
            let result = connection.unary(path, message, timeout).await;
            if !result.unprocessed {
                self.connection = Some(connection);
                return result;
            }
        }
    }
}

/// The last value and revision that a client read.
#[derive(Default)]
struct LastRead {
    value: String,
    revision: i64,
}

async fn read(
    route: &mut Route,
    report: &mut ClientReport,
    state: &mut LastRead,
    timeout: Option<(&'static str, u64)>,
) {
    let key = format!("r/{}", report.id);
    let request = Msg::new().bytes(1, &key);
    let result = route
        .unary(RANGE, request.as_ref(), timeout.map(|(text, _)| text))
        .await;
    let expired = timeout.is_some_and(|(_, millis)| result.took >= Duration::from_millis(millis));
    if !(result.ok() || result.code == Some(4) && expired) {
        report
            .violations
            .push(format!("a read with {timeout:?} failed: {result:?}"));
    }
    if result.ok() {
        let revision = pb::int(&result.message, &[1, 3]);
        if revision < state.revision {
            let last = state.revision;
            report
                .violations
                .push(format!("a read went back from {last} to {revision}"));
        }
        state.revision = revision;
    }
    report.note(&result);
}

async fn put(route: &mut Route, report: &mut ClientReport, key: &str, token: String) {
    let request = Msg::new().bytes(1, key).bytes(2, &token);
    let result = route.unary(PUT, request.as_ref(), None).await;
    report.note_write(&result, token);
}

async fn append(route: &mut Route, report: &mut ClientReport, state: &mut LastRead, number: u64) {
    let key = format!("a/{}", report.id);
    let token = format!("a-{}-{number}", report.id);
    let value = match state.value.is_empty() {
        true => token.clone(),
        false => format!("{},{token}", state.value),
    };
    let unchanged = Msg::new().int(2, 2).bytes(3, &key).int(6, state.revision);
    let put = Msg::new().msg(2, Msg::new().bytes(1, &key).bytes(2, &value));
    let get = Msg::new().msg(1, Msg::new().bytes(1, &key));
    let txn = Msg::new().msg(1, unchanged).msg(2, put).msg(3, get);
    let result = route.unary(TXN, txn.as_ref(), None).await;
    if result.ok() && pb::int(&result.message, &[2]) == 1 {
        state.value = value;
        state.revision = pb::int(&result.message, &[1, 3]);
        report.note_write(&result, token);
    } else if result.ok() {
        // An earlier write of unknown outcome was applied: continue from the stored value.
        let path = [3, 1, 2];
        let last = state.revision;
        state.revision = pb::int(&result.message, &[&path[..], &[3]].concat());
        let value = pb::bytes(&result.message, &[&path[..], &[5]].concat());
        state.value = String::from_utf8(value).expect("text");
        if last == state.revision {
            report
                .violations
                .push(format!("{key} both is and is not at revision {last}"));
        }
        report.note(&result);
    } else {
        report.note_write(&result, token);
    }
}

impl ClientReport {
    fn note(&mut self, result: &CallResult) {
        self.slowest = self.slowest.max(result.took);
        *self
            .results
            .entry((result.code, result.text.clone()))
            .or_default() += 1;
        if result.code == Some(1) {
            self.violations
                .push(format!("CANCELLED without a cancel: {result:?}"));
        }
        if result.code.is_none() {
            self.violations.push(format!("no status: {result:?}"));
        }
    }

    fn note_write(&mut self, result: &CallResult, token: String) {
        match result.ok() {
            true => self.acknowledged.push(token),
            false => self.unknown.push(token),
        }
        self.note(result);
    }
}
