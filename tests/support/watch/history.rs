//! The reference history: every event of every key, read directly from etcd by a separate watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::client::{Credentials, Reader, dial};
use super::messages::{self, Create, Event, KeyValue, WATCH};
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg, Value};
use crate::support::scripted_etcd::framed;

const RANGE: &str = "/etcdserverpb.KV/Range";

/// Maximum time until etcd has delivered the events of its current revision.
const LIMIT: Duration = Duration::from_secs(60);

/// The events of the store from one revision on.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// First revision of the history.
    pub from: i64,
    /// Events in etcd's order. Previous values are derived from the earlier events.
    pub events: Vec<Event>,
    /// Compacted revisions, ascending.
    pub compactions: Vec<i64>,
    state: BTreeMap<Vec<u8>, KeyValue>,
}

impl History {
    /// Starts a history at a revision with these keys in the store.
    pub fn begin(from: i64, keys: Vec<KeyValue>) -> History {
        let state = keys.into_iter().map(|kv| (kv.key.clone(), kv));
        History {
            from,
            state: state.collect(),
            ..History::default()
        }
    }

    /// Appends an event.
    ///
    /// # Panics
    /// If the event does not follow from the earlier events.
    pub fn push(&mut self, delete: bool, kv: KeyValue) {
        let before = self.events.last().map_or(self.from, Event::revision);
        assert!(kv.mod_revision >= before, "{kv:?} follows {before}");
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

    /// Returns the revision of the last event, or the revision before the first if there is none.
    pub fn through(&self) -> i64 {
        self.events.last().map_or(self.from - 1, Event::revision)
    }
}

/// A watch of all keys directly at etcd that runs until it is dropped.
pub struct HistoryRecorder {
    history: Arc<Mutex<History>>,
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    task: JoinHandle<()>,
}

impl Drop for HistoryRecorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HistoryRecorder {
    /// Starts with the current content of the store. The credentials must be those of root.
    pub async fn start(
        endpoints: Vec<String>,
        credentials: Option<Credentials>,
    ) -> HistoryRecorder {
        let (revision, keys) = all_keys(&endpoints, credentials.as_ref()).await;
        let history = Arc::new(Mutex::new(History::begin(revision + 1, keys)));
        let task = tokio::spawn(follow(
            endpoints.clone(),
            credentials.clone(),
            history.clone(),
        ));
        HistoryRecorder {
            history,
            endpoints,
            credentials,
            task,
        }
    }

    /// Returns the last recorded revision.
    pub fn through(&self) -> i64 {
        self.lock().through()
    }

    /// Records that the test is about to compact the history up to a revision.
    pub fn note_compaction(&self, revision: i64) {
        assert!(revision <= self.through(), "the recorder would lose events");
        self.lock().compactions.push(revision);
    }

    /// Waits until the history reaches the store's current revision, checks it against the store's
    /// keys, and returns it.
    pub async fn complete(&self) -> History {
        // The store may still change in the background, for example when a lease expires.
        let until = Instant::now() + LIMIT;
        loop {
            let (revision, keys) = all_keys(&self.endpoints, self.credentials.as_ref()).await;
            // A transaction that deletes nothing raises the revision without an event.
            let quiet = Instant::now() + Duration::from_millis(100);
            while self.through() < revision && Instant::now() < quiet {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let history = self.lock().clone();
            if history.through() == revision {
                let state: Vec<KeyValue> = history.state.values().cloned().collect();
                assert!(state == keys, "the history and the store differ");
                return history;
            }
            assert!(
                Instant::now() < until,
                "the history is at {}, the store at {revision}",
                history.through()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the store's revision and its keys, read linearizably from the first member that
/// responds.
pub async fn all_keys(
    endpoints: &[String],
    credentials: Option<&Credentials>,
) -> (i64, Vec<KeyValue>) {
    let all = Msg::new().bytes(1, b"\0").bytes(2, b"\0");
    let until = Instant::now() + LIMIT;
    loop {
        for endpoint in endpoints {
            let read = tokio::time::timeout(Duration::from_secs(5), async {
                let connection = dial(endpoint, credentials).await?;
                Ok::<_, String>(connection.unary(RANGE, all.as_ref(), None).await)
            });
            let Ok(Ok(result)) = read.await else { continue };
            if result.ok() {
                let keys = pb::fields(&result.message).into_iter();
                let keys = keys.filter_map(|(field, value)| match value {
                    Value::Bytes(kv) if field == 2 => Some(messages::key_value_of(&kv)),
                    _ => None,
                });
                return (pb::int(&result.message, &[1, 3]), keys.collect());
            }
        }
        assert!(Instant::now() < until, "no member responds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow(
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    history: Arc<Mutex<History>>,
) {
    for endpoint in endpoints.iter().cycle() {
        // When a member is down or killed, the watch continues at the next one.
        if let Ok(connection) = dial(endpoint, credentials.as_ref()).await {
            let _ = follow_at(&connection, &history).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follow_at(connection: &H2Connection, history: &Mutex<History>) -> Result<(), h2::Error> {
    let lock = || history.lock().unwrap_or_else(PoisonError::into_inner);
    let mut create = Create::of(b"\0", b"\0");
    create.start = lock().through() + 1;
    let (response, mut send) = connection.stream(WATCH, &[]).await?;
    send.send_data(framed(create.request().as_ref()), false)?;
    let mut reader = Reader::new(response);
    while let Some(response) = reader.next().await {
        assert_eq!(response.compact_revision, 0, "the recorder lost events");
        if response.canceled {
            break;
        }
        let mut history = lock();
        for event in response.events {
            // A member that lags may send events again that another member has sent.
            if event.revision() >= create.start {
                history.push(event.delete, event.kv);
            }
        }
    }
    Ok(())
}
