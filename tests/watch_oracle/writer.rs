//! Writers that continue after any failure of an endpoint. The checker does not rely on their
//! results.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::plan::{self, Write};
use crate::support::load::{CallResult, H2Connection};
use crate::support::pb::{self, Msg};
use crate::support::watch::client::{Credentials, dial};

const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

/// Time limit of a call: its endpoint may be paused.
const LIMIT: Duration = Duration::from_secs(5);
/// Size and number of the values of [`Write::Large`]. Their deletion with previous values exceeds
/// the size of one watch response, so it is fragmented.
const LARGE: (usize, usize) = (30_000, 24);

/// Makes unary calls to one of several addresses.
pub(crate) struct Caller {
    addresses: Vec<String>,
    credentials: Option<Credentials>,
    /// Highest revision in a response.
    known: Arc<AtomicI64>,
    connection: Option<H2Connection>,
    turn: usize,
}

impl Caller {
    pub(crate) fn new(
        addresses: Vec<String>,
        credentials: Option<Credentials>,
        known: Arc<AtomicI64>,
    ) -> Caller {
        Caller {
            addresses,
            credentials,
            known,
            connection: None,
            turn: 0,
        }
    }

    /// Sends a call. Returns the response if it is successful.
    pub(crate) async fn call(&mut self, path: &str, message: &Msg) -> Result<CallResult, String> {
        let result = tokio::time::timeout(LIMIT, self.attempt(path, message)).await;
        match result {
            Ok(Ok(result)) if result.ok() => {
                let revision = pb::int(&result.message, &[1, 3]);
                self.known.fetch_max(revision, Ordering::SeqCst);
                Ok(result)
            }
            other => {
                self.connection = None;
                self.turn += 1;
                Err(format!("{path}: {other:?}"))
            }
        }
    }

    async fn attempt(&mut self, path: &str, message: &Msg) -> Result<CallResult, String> {
        if self.connection.is_none() {
            let address = &self.addresses[self.turn % self.addresses.len()];
            self.connection = Some(dial(address, self.credentials.as_ref()).await?);
        }
        match &self.connection {
            Some(connection) => Ok(connection.unary(path, message.as_ref(), None).await),
            None => Err("no connection".to_owned()),
        }
    }

    /// Compacts the store. Only root may do this.
    pub(crate) async fn compact(&mut self, revision: i64) -> Result<CallResult, String> {
        self.call(COMPACT, &Msg::new().int(1, revision)).await
    }

    async fn write(&mut self, write: &Write, value: &str) -> Result<(), String> {
        match write {
            Write::Put(key) => self.call(PUT, &put(key, value, 0)).await.map(drop),
            Write::Delete(key, end) => {
                let delete = Msg::new().bytes(1, key).bytes(2, end);
                self.call(DELETE, &delete).await.map(drop)
            }
            Write::Txn(puts, deletes) => {
                let puts = puts.iter().map(|key| Msg::new().msg(2, put(key, value, 0)));
                let deletes = deletes
                    .iter()
                    .map(|key| Msg::new().msg(3, Msg::new().bytes(1, key)));
                let txn = puts
                    .chain(deletes)
                    .fold(Msg::new(), |txn, op| txn.msg(2, op));
                self.call(TXN, &txn).await.map(drop)
            }
            Write::Leased(keys) => self.leased(keys, value).await.map(drop),
            Write::Revoked(keys) => {
                let lease = self.leased(keys, value).await?;
                self.call(REVOKE, &Msg::new().int(1, lease)).await.map(drop)
            }
            Write::Large => {
                let value = "f".repeat(LARGE.0);
                for number in 0..LARGE.1 {
                    self.call(PUT, &put(&plan::large_key(number), &value, 0))
                        .await?;
                }
                let (first, end) = plan::prefix("k/b/fat/");
                let delete = Msg::new().bytes(1, first).bytes(2, end);
                self.call(DELETE, &delete).await.map(drop)
            }
        }
    }

    async fn leased(&mut self, keys: &[String], value: &str) -> Result<i64, String> {
        let granted = self.call(GRANT, &Msg::new().int(1, 2)).await?;
        let lease = pb::int(&granted.message, &[2]);
        let puts = keys
            .iter()
            .map(|key| Msg::new().msg(2, put(key, value, lease)));
        let txn = puts.fold(Msg::new(), |txn, op| txn.msg(2, op));
        self.call(TXN, &txn).await?;
        Ok(lease)
    }
}

fn put(key: &str, value: &str, lease: i64) -> Msg {
    Msg::new().bytes(1, key).bytes(2, value).int(3, lease)
}

/// State shared by the writers.
#[derive(Default)]
pub(crate) struct WriterState {
    pub(crate) stop: AtomicBool,
    /// Number of successful writes.
    pub(crate) done: AtomicU64,
    /// Descriptions of failed writes.
    pub(crate) failed: std::sync::Mutex<Vec<String>>,
}

/// Writes until `stop` is set. With `large`, one revision of the run is large.
pub(crate) async fn run(
    mut caller: Caller,
    state: Arc<WriterState>,
    seed: u64,
    large: bool,
    pause: Duration,
) {
    let mut rng = Rng::with_seed(seed);
    for number in 0.. {
        if state.stop.load(Ordering::SeqCst) {
            return;
        }
        let write = match large && number == 5 {
            true => Write::Large,
            false => plan::write(&mut rng),
        };
        let value = format!("{seed:x}-{number}");
        match caller.write(&write, &value).await {
            Ok(()) => {
                state.done.fetch_add(1, Ordering::SeqCst);
            }
            // On a busy machine a lease may expire before its keys are put.
            Err(error) if error.contains("requested lease not found") => {}
            Err(error) => {
                let mut failed = state.failed.lock().unwrap_or_else(|e| e.into_inner());
                failed.push(format!("{write:?}: {error}"));
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Writes a key from time to time, so that the store's revision moves.
pub(crate) async fn tick(mut caller: Caller) {
    loop {
        let _ = caller.write(&Write::Put("tick".to_owned()), "").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
