//! Clients that read and write one operation after the other, and note when each was asked for, when
//! it ended, and how. None of them tries anything again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::history::{End, KEYS, Op, Seen, Version, Way, What, all, name};
use crate::support::load::{CallResult, H2Connection};
use crate::support::pb::{self, Msg, Value};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// No call is waited for longer: its member may be stopped.
const LIMIT: Duration = Duration::from_secs(4);
/// How long who was told of a failure waits.
const PAUSE: Duration = Duration::from_millis(20);

/// What a client does next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    Put(usize),
    /// From what it saw last.
    Swap(usize),
    Read {
        /// None: all.
        key: Option<usize>,
        serializable: bool,
    },
    /// A serializable read that no other client makes, though others read the key.
    Own(usize),
}

/// Clients at work.
pub(crate) struct Crew {
    clock: Instant,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Record>>,
}

/// What one client did.
#[derive(Default)]
struct Record {
    ops: Vec<Op>,
    failures: BTreeMap<String, u64>,
}

/// All that clients did.
pub(crate) struct Account {
    pub(crate) ops: Vec<Op>,
    /// How often which failure, by code and text.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Crew {
    pub(crate) fn new() -> Crew {
        Crew {
            clock: Instant::now(),
            stop: Arc::default(),
            done: Arc::default(),
            connections: Arc::default(),
            clients: Vec::new(),
        }
    }

    /// One more, with connections of its own: to the first address, and to the next when that fails.
    pub(crate) fn add(
        &mut self,
        way: Way,
        addresses: &[String],
        pause: Duration,
        wish: impl Fn(&mut Rng) -> Wish + Send + 'static,
    ) {
        let number = self.clients.len();
        let mut client = Client {
            number,
            way,
            addresses: addresses.to_vec(),
            turn: 0,
            lane: None,
            clock: self.clock,
            connections: self.connections.clone(),
            last: [0; KEYS],
            record: Record::default(),
        };
        let (stop, done) = (self.stop.clone(), self.done.clone());
        self.clients.push(tokio::spawn(async move {
            let mut rng = Rng::with_seed(number as u64);
            while !stop.load(Ordering::Relaxed) {
                let wish = wish(&mut rng);
                if client.act(wish).await {
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

    /// How many operations were done so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more were done: all flows.
    pub(crate) async fn flows(&self, more: u64) {
        let (wanted, until) = (self.done() + more, Instant::now() + Duration::from_secs(60));
        while self.done() < wanted {
            assert!(Instant::now() < until, "nothing flows");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it, and gives what was done.
    pub(crate) async fn finish(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let mut account = Account {
            ops: Vec::new(),
            failures: BTreeMap::new(),
        };
        for client in self.clients {
            let record = client.await.expect("a client that does not panic");
            account.ops.extend(record.ops);
            for (what, count) in record.failures {
                *account.failures.entry(what).or_default() += count;
            }
        }
        account
    }
}

impl Account {
    /// How many ended in this way.
    pub(crate) fn count(&self, how: impl Fn(&Op) -> bool) -> usize {
        self.ops.iter().filter(|op| how(op)).count()
    }

    /// Writes whose outcome nobody knows.
    pub(crate) fn unknown(&self) -> usize {
        self.count(|op| op.end == End::Unknown && op.writes().is_some())
    }

    /// Operations that were done.
    pub(crate) fn done(&self) -> usize {
        self.count(|op| op.header().is_some())
    }
}

struct Client {
    number: usize,
    way: Way,
    addresses: Vec<String>,
    turn: usize,
    /// With its number.
    lane: Option<(u64, H2Connection)>,
    clock: Instant,
    connections: Arc<AtomicU64>,
    /// The `mod_revision` that it saw last of each key.
    last: [i64; KEYS],
    record: Record,
}

impl Client {
    /// Whether it was done.
    async fn act(&mut self, wish: Wish) -> bool {
        let Some((connection, lane)) = self.connect().await else {
            self.turn += 1;
            return false;
        };
        let what = self.what(wish);
        let (path, mut message) = request(&what);
        if let Wish::Own(_) = wish {
            // A limit that changes nothing.
            message = message.int(3, 1_000 + self.number as i64);
        }
        let invoked = self.clock.elapsed();
        let told = timeout(LIMIT, lane.unary(path, message.as_ref(), None)).await;
        let returned = self.clock.elapsed();
        let end = match &told {
            Ok(told) => end(&what, told),
            Err(_) => End::Unknown,
        };
        let op = Op {
            way: self.way,
            connection,
            what,
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
            self.lane = Some((connection, lane));
        } else {
            let failure = told.map_or_else(
                |_| "nothing in time".to_owned(),
                |told| {
                    // A proxy's connection lasts; another one is made only when it does not.
                    if told.code.is_some() && matches!(self.way, Way::Proxy(_)) {
                        self.lane = Some((connection, lane));
                    }
                    format!("{:?}: {:?} {}", self.way, told.code, told.text)
                },
            );
            self.turn += 1;
            *self.record.failures.entry(failure).or_default() += 1;
        }
        done
    }

    async fn connect(&mut self) -> Option<(u64, H2Connection)> {
        if let Some((number, lane)) = self.lane.take()
            && lane.is_open().await
        {
            return Some((number, lane));
        }
        let address = &self.addresses[self.turn % self.addresses.len()];
        // Who is stopped accepts and says nothing.
        let lane = timeout(Duration::from_secs(1), H2Connection::connect(address)).await;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Some((number, lane.ok()?.ok()?))
    }

    fn what(&self, wish: Wish) -> What {
        let value = format!("{}-{}", self.number, self.record.ops.len());
        match wish {
            Wish::Put(key) => What::Put { key, value },
            Wish::Swap(key) => What::Swap {
                key,
                value,
                from: self.last[key],
            },
            Wish::Read { key, serializable } => What::Read {
                keys: key.map_or(0..KEYS, |key| key..key + 1),
                serializable,
            },
            Wish::Own(key) => What::Read {
                keys: key..key + 1,
                serializable: true,
            },
        }
    }
}

fn request(what: &What) -> (&'static str, Msg) {
    let put = |key: &usize, value: &String| Msg::new().bytes(1, name(*key)).bytes(2, value);
    match what {
        What::Put { key, value } => (PUT, put(key, value)),
        What::Swap { key, value, from } => {
            // Equal, and of the `mod_revision`.
            let compare = Msg::new().int(2, 2).bytes(3, name(*key)).int(6, *from);
            let get = Msg::new().bytes(1, name(*key));
            let txn = Msg::new()
                .msg(1, compare)
                .msg(2, Msg::new().msg(2, put(key, value)))
                .msg(3, Msg::new().msg(1, get));
            (TXN, txn)
        }
        What::Read { keys, serializable } => {
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

fn end(what: &What, told: &CallResult) -> End {
    // These are said only when nothing was sent: clients send a write again on them.
    let nothing_sent = [
        "there is no address available",
        "there is no connection available",
    ];
    if told.unprocessed || nothing_sent.contains(&&told.text[..]) {
        return End::Failed;
    }
    if !told.ok() {
        return End::Unknown;
    }
    let header = pb::int(&told.message, &[1, 3]);
    match what {
        What::Put { .. } => End::Wrote { header },
        What::Swap { key, .. } if pb::int(&told.message, &[2]) == 0 => {
            let Some(Value::Bytes(range)) = pb::find(&told.message, &[3, 1]) else {
                panic!("a refused swap reads: {told:?}");
            };
            saw(header, Seen::read(&range), *key..*key + 1)
        }
        What::Swap { .. } => End::Wrote { header },
        What::Read { keys, .. } => saw(header, Seen::read(&told.message), keys.clone()),
    }
}

fn saw(header: i64, read: Seen, keys: std::ops::Range<usize>) -> End {
    let mut seen: Vec<Option<Version>> = keys.clone().map(|_| None).collect();
    for (key, version) in read.keys {
        assert!(keys.contains(&key), "key {key} was not asked for");
        seen[key - keys.start] = Some(version);
    }
    End::Saw { header, seen }
}
