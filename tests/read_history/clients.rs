//! Clients that read and write one operation after the other. They record when each operation was
//! sent, when it returned, and its outcome. No client repeats an operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::history::{End, KEYS, Op, OpKind, RangeResult, Route, Version, all, name};
use crate::support::load::{CallResult, H2Connection};
use crate::support::pb::{self, Msg, Value};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Time limit of a call: its member may be paused.
const LIMIT: Duration = Duration::from_secs(4);
/// Pause of a client after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The next operation of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NextOp {
    Put(usize),
    /// Compares with the version that the client saw last.
    Swap(usize),
    Read {
        /// `None` reads all keys.
        key: Option<usize>,
        serializable: bool,
    },
    /// A serializable read with a cache entry of its own, although other clients read the key.
    Own(usize),
}

/// Clients that run in the background.
pub(crate) struct ClientGroup {
    clock: Instant,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Record>>,
}

/// Operations of one client.
#[derive(Default)]
struct Record {
    ops: Vec<Op>,
    failures: BTreeMap<String, u64>,
}

/// Operations of all clients.
pub(crate) struct Report {
    pub(crate) ops: Vec<Op>,
    /// Number of failures, by code and text.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl ClientGroup {
    pub(crate) fn new() -> ClientGroup {
        ClientGroup {
            clock: Instant::now(),
            stop: Arc::default(),
            done: Arc::default(),
            connections: Arc::default(),
            clients: Vec::new(),
        }
    }

    /// Adds a client with its own connections: to the first address, and after a failure to the
    /// next.
    pub(crate) fn add(
        &mut self,
        route: Route,
        addresses: &[String],
        pause: Duration,
        next: impl Fn(&mut Rng) -> NextOp + Send + 'static,
    ) {
        let number = self.clients.len();
        let mut client = Client {
            number,
            route,
            addresses: addresses.to_vec(),
            turn: 0,
            h2: None,
            clock: self.clock,
            connections: self.connections.clone(),
            last: [0; KEYS],
            record: Record::default(),
        };
        let (stop, done) = (self.stop.clone(), self.done.clone());
        self.clients.push(tokio::spawn(async move {
            let mut rng = Rng::with_seed(number as u64);
            while !stop.load(Ordering::Relaxed) {
                let next = next(&mut rng);
                if client.run(next).await {
                    done.fetch_add(1, Ordering::Relaxed);
                } else {
                    sleep(PAUSE).await;
                }
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
            client.record
        }));
    }

    /// Returns the number of completed operations.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` operations have completed.
    pub(crate) async fn wait_ops(&self, more: u64) {
        let (wanted, until) = (self.done() + more, Instant::now() + Duration::from_secs(60));
        while self.done() < wanted {
            assert!(Instant::now() < until, "operations make no progress");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the clients and returns their operations.
    pub(crate) async fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report {
            ops: Vec::new(),
            failures: BTreeMap::new(),
        };
        for client in self.clients {
            let record = client.await.expect("a client that does not panic");
            report.ops.extend(record.ops);
            for (failure, count) in record.failures {
                *report.failures.entry(failure).or_default() += count;
            }
        }
        report
    }
}

impl Report {
    /// Returns the number of operations that match.
    pub(crate) fn count(&self, matches: impl Fn(&Op) -> bool) -> usize {
        self.ops.iter().filter(|op| matches(op)).count()
    }

    /// Returns the number of writes with an unknown outcome.
    pub(crate) fn unknown(&self) -> usize {
        self.count(|op| op.end == End::Unknown && op.writes().is_some())
    }

    /// Returns the number of completed operations.
    pub(crate) fn done(&self) -> usize {
        self.count(|op| op.header().is_some())
    }
}

struct Client {
    number: usize,
    route: Route,
    addresses: Vec<String>,
    turn: usize,
    /// Number of the connection, and the connection.
    h2: Option<(u64, H2Connection)>,
    clock: Instant,
    connections: Arc<AtomicU64>,
    /// Last `mod_revision` seen of each key.
    last: [i64; KEYS],
    record: Record,
}

impl Client {
    /// Runs one operation. Returns whether it completed.
    async fn run(&mut self, next: NextOp) -> bool {
        let Some((connection, h2)) = self.connect().await else {
            self.turn += 1;
            return false;
        };
        let kind = self.kind(next);
        let (path, mut message) = request(&kind);
        if let NextOp::Own(_) = next {
            // The limit makes a separate cache entry and does not change the result.
            message = message.int(3, 1_000 + self.number as i64);
        }
        let invoked = self.clock.elapsed();
        let result = timeout(LIMIT, h2.unary(path, message.as_ref(), None)).await;
        let returned = self.clock.elapsed();
        let end = match &result {
            Ok(result) => end(&kind, result),
            Err(_) => End::Unknown,
        };
        let op = Op {
            route: self.route,
            connection,
            kind,
            invoked,
            returned,
            end,
        };
        for (key, version) in op.saw() {
            self.last[key] = version.map_or(0, |version| version.revision);
        }
        if let (Some((key, _)), End::Wrote { header }) = (op.writes(), &op.end) {
            self.last[key] = *header;
        }
        let done = op.header().is_some();
        self.record.ops.push(op);
        if done {
            self.h2 = Some((connection, h2));
        } else {
            let failure = result.map_or_else(
                |_| "timed out".to_owned(),
                |result| {
                    // A connection to a proxy is reused after a failure, unless it was lost.
                    if result.code.is_some() && matches!(self.route, Route::Proxy(_)) {
                        self.h2 = Some((connection, h2));
                    }
                    format!("{:?}: {:?} {}", self.route, result.code, result.text)
                },
            );
            self.turn += 1;
            *self.record.failures.entry(failure).or_default() += 1;
        }
        done
    }

    async fn connect(&mut self) -> Option<(u64, H2Connection)> {
        if let Some((number, h2)) = self.h2.take()
            && h2.is_open().await
        {
            return Some((number, h2));
        }
        let address = &self.addresses[self.turn % self.addresses.len()];
        // A paused member accepts connections and does not respond.
        let h2 = timeout(Duration::from_secs(1), H2Connection::connect(address)).await;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Some((number, h2.ok()?.ok()?))
    }

    fn kind(&self, next: NextOp) -> OpKind {
        let value = format!("{}-{}", self.number, self.record.ops.len());
        match next {
            NextOp::Put(key) => OpKind::Put { key, value },
            NextOp::Swap(key) => OpKind::Swap {
                key,
                value,
                from: self.last[key],
            },
            NextOp::Read { key, serializable } => OpKind::Read {
                keys: key.map_or(0..KEYS, |key| key..key + 1),
                serializable,
            },
            NextOp::Own(key) => OpKind::Read {
                keys: key..key + 1,
                serializable: true,
            },
        }
    }
}

fn request(kind: &OpKind) -> (&'static str, Msg) {
    let put = |key: &usize, value: &String| Msg::new().bytes(1, name(*key)).bytes(2, value);
    match kind {
        OpKind::Put { key, value } => (PUT, put(key, value)),
        OpKind::Swap { key, value, from } => {
            // Equal, on the `mod_revision`.
            let compare = Msg::new().int(2, 2).bytes(3, name(*key)).int(6, *from);
            let get = Msg::new().bytes(1, name(*key));
            let txn = Msg::new()
                .msg(1, compare)
                .msg(2, Msg::new().msg(2, put(key, value)))
                .msg(3, Msg::new().msg(1, get));
            (TXN, txn)
        }
        OpKind::Read { keys, serializable } => {
            let (first, end) = all();
            let range = match keys.len() {
                1 => Msg::new().bytes(1, name(keys.start)),
                _ => Msg::new().bytes(1, first).bytes(2, end),
            };
            let range = match serializable {
                true => range.int(7, 1),
                false => range,
            };
            (RANGE, range)
        }
    }
}

fn end(kind: &OpKind, result: &CallResult) -> End {
    // The proxy uses these texts only if it sent nothing, because clients repeat a write on them.
    let nothing_sent = [
        "there is no address available",
        "there is no connection available",
    ];
    if result.unprocessed || nothing_sent.contains(&&result.text[..]) {
        return End::Failed;
    }
    if !result.ok() {
        return End::Unknown;
    }
    let header = pb::int(&result.message, &[1, 3]);
    match kind {
        OpKind::Put { .. } => End::Wrote { header },
        OpKind::Swap { key, .. } if pb::int(&result.message, &[2]) == 0 => {
            let Some(Value::Bytes(range)) = pb::find(&result.message, &[3, 1]) else {
                panic!("a refused swap contains a read: {result:?}");
            };
            saw(header, RangeResult::parse(&range), *key..*key + 1)
        }
        OpKind::Swap { .. } => End::Wrote { header },
        OpKind::Read { keys, .. } => saw(header, RangeResult::parse(&result.message), keys.clone()),
    }
}

fn saw(header: i64, read: RangeResult, keys: std::ops::Range<usize>) -> End {
    let mut seen: Vec<Option<Version>> = keys.clone().map(|_| None).collect();
    for (key, version) in read.keys {
        assert!(keys.contains(&key), "key {key} was not requested");
        seen[key - keys.start] = Some(version);
    }
    End::Saw { header, seen }
}
