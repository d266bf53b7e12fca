//! The truth: every event of every key, read from etcd itself by a watch of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::client::{Credentials, Reader, dial};
use super::messages::{self, Create, Event, KeyValue, WATCH};
use crate::support::load::Lane;
use crate::support::pb::{self, Msg, Value};
use crate::support::scripted_etcd::framed;

const RANGE: &str = "/etcdserverpb.KV/Range";

/// How long etcd may take to tell what it has.
const LIMIT: Duration = Duration::from_secs(60);

/// What happened in the store from one revision on.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The first revision it knows of.
    pub from: i64,
    /// In the order of etcd, with the previous values worked out from what came before.
    pub events: Vec<Event>,
    /// Revisions that were compacted, growing.
    pub compactions: Vec<i64>,
    state: BTreeMap<Vec<u8>, KeyValue>,
}

impl History {
    /// One that begins at a revision with these keys in the store.
    pub fn begin(from: i64, keys: Vec<KeyValue>) -> History {
        let state = keys.into_iter().map(|kv| (kv.key.clone(), kv));
        History {
            from,
            state: state.collect(),
            ..History::default()
        }
    }

    /// What happened next. Panics when it does not follow from what came before.
    pub fn push(&mut self, delete: bool, kv: KeyValue) {
        let before = self.events.last().map_or(self.from, Event::revision);
        assert!(kv.mod_revision >= before, "{kv:?} comes after {before}");
        let prev = match delete {
            true => self.state.remove(&kv.key),
            false => self.state.insert(kv.key.clone(), kv.clone()),
        };
        let version = prev.as_ref().map_or(0, |prev| prev.version);
        if delete {
            assert!(prev.is_some(), "{kv:?} deletes nothing");
        } else {
            assert_eq!(kv.version, version + 1, "an event is missing before {kv:?}");
        }
        self.events.push(Event { delete, kv, prev });
    }

    /// The revision of the last event, or the one before the first.
    pub fn through(&self) -> i64 {
        self.events.last().map_or(self.from - 1, Event::revision)
    }
}

/// A watch of everything, at etcd, that goes on until it is dropped.
pub struct Truth {
    history: Arc<Mutex<History>>,
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    task: JoinHandle<()>,
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Truth {
    /// Begins with what is in the store now. The credentials must be root's.
    pub async fn begin(endpoints: Vec<String>, credentials: Option<Credentials>) -> Truth {
        let (revision, keys) = all_keys(&endpoints, credentials.as_ref()).await;
        let history = Arc::new(Mutex::new(History::begin(revision + 1, keys)));
        let task = tokio::spawn(follow(
            endpoints.clone(),
            credentials.clone(),
            history.clone(),
        ));
        Truth {
            history,
            endpoints,
            credentials,
            task,
        }
    }

    /// How far it has come.
    pub fn through(&self) -> i64 {
        self.lock().through()
    }

    /// History up to here is about to be compacted.
    pub fn compacts(&self, revision: i64) {
        assert!(revision <= self.through(), "the truth would be lost");
        self.lock().compactions.push(revision);
    }

    /// Waits for all that is in the store now and gives it, checked against the store's keys.
    pub async fn whole(&self) -> History {
        // Something may go on in the background: a lease that expires.
        let until = Instant::now() + LIMIT;
        loop {
            let (revision, keys) = all_keys(&self.endpoints, self.credentials.as_ref()).await;
            // The last event may be below it, by a delete of nothing in a transaction.
            let quiet = Instant::now() + Duration::from_millis(100);
            while self.through() < revision && Instant::now() < quiet {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let history = self.lock().clone();
            if history.through() == revision {
                let state: Vec<KeyValue> = history.state.values().cloned().collect();
                assert!(state == keys, "the truth is not what is in the store");
                return history;
            }
            assert!(
                Instant::now() < until,
                "the truth is at {}, the store at {revision}",
                history.through()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's revision and its keys, read linearizably from whoever answers.
pub async fn all_keys(
    endpoints: &[String],
    credentials: Option<&Credentials>,
) -> (i64, Vec<KeyValue>) {
    let all = Msg::new().bytes(1, b"\0").bytes(2, b"\0");
    let until = Instant::now() + LIMIT;
    loop {
        for endpoint in endpoints {
            let told = tokio::time::timeout(Duration::from_secs(5), async {
                let lane = dial(endpoint, credentials).await?;
                Ok::<_, String>(lane.unary(RANGE, all.as_ref(), None).await)
            });
            let Ok(Ok(told)) = told.await else { continue };
            if told.ok() {
                let keys = pb::fields(&told.message).into_iter();
                let keys = keys.filter_map(|(field, value)| match value {
                    Value::Bytes(kv) if field == 2 => Some(messages::key_value_of(&kv)),
                    _ => None,
                });
                return (pb::int(&told.message, &[1, 3]), keys.collect());
            }
        }
        assert!(Instant::now() < until, "no member answers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow(
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    history: Arc<Mutex<History>>,
) {
    for endpoint in endpoints.iter().cycle() {
        // A member that is down, or was killed: the next goes on from there.
        if let Ok(lane) = dial(endpoint, credentials.as_ref()).await {
            let _ = follow_at(&lane, &history).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follow_at(lane: &Lane, history: &Mutex<History>) -> Result<(), h2::Error> {
    let lock = || history.lock().unwrap_or_else(PoisonError::into_inner);
    let mut create = Create::of(b"\0", b"\0");
    create.start = lock().through() + 1;
    let (response, mut send) = lane.stream(WATCH, &[]).await?;
    send.send_data(framed(create.request().as_ref()), false)?;
    let mut reader = Reader::new(response);
    while let Some(response) = reader.next().await {
        assert_eq!(response.compact_revision, 0, "the truth is lost");
        if response.canceled {
            break;
        }
        let mut history = lock();
        for event in response.events {
            // A member that lags may say again what another has said.
            if event.revision() >= create.start {
                history.push(event.delete, event.kv);
            }
        }
    }
    Ok(())
}
