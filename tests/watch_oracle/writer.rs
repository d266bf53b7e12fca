//! Writers: they go on whatever happens to an endpoint, and nobody believes what they were told.

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

/// No call waits longer: its endpoint may be stopped.
const LIMIT: Duration = Duration::from_secs(5);
/// Values of [`Write::Fat`], and how many: their deletion with previous values is more than a
/// response of a watch that takes parts.
const FAT: (usize, usize) = (30_000, 24);

/// Makes unary calls to one of several addresses.
pub(crate) struct Caller {
    addresses: Vec<String>,
    credentials: Option<Credentials>,
    /// The highest revision that was answered.
    known: Arc<AtomicI64>,
    lane: Option<H2Connection>,
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
            lane: None,
            turn: 0,
        }
    }

    /// The answer, when there was a good one.
    pub(crate) async fn call(&mut self, path: &str, message: &Msg) -> Result<CallResult, String> {
        let told = tokio::time::timeout(LIMIT, self.attempt(path, message)).await;
        match told {
            Ok(Ok(told)) if told.ok() => {
                let revision = pb::int(&told.message, &[1, 3]);
                self.known.fetch_max(revision, Ordering::SeqCst);
                Ok(told)
            }
            other => {
                self.lane = None;
                self.turn += 1;
                Err(format!("{path}: {other:?}"))
            }
        }
    }

    async fn attempt(&mut self, path: &str, message: &Msg) -> Result<CallResult, String> {
        if self.lane.is_none() {
            let address = &self.addresses[self.turn % self.addresses.len()];
            self.lane = Some(dial(address, self.credentials.as_ref()).await?);
        }
        match &self.lane {
            Some(lane) => Ok(lane.unary(path, message.as_ref(), None).await),
            None => Err("no connection".to_owned()),
        }
    }

    /// Compacts; root's.
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
            Write::Fat => {
                let fat = "f".repeat(FAT.0);
                for number in 0..FAT.1 {
                    self.call(PUT, &put(&plan::fat_key(number), &fat, 0))
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

/// What writers share.
#[derive(Default)]
pub(crate) struct Pen {
    pub(crate) stop: AtomicBool,
    /// Writes that were answered with success.
    pub(crate) done: AtomicU64,
    /// Others, in words.
    pub(crate) failed: std::sync::Mutex<Vec<String>>,
}

/// Writes until told to stop. With `fat`, once a large revision.
pub(crate) async fn run(mut caller: Caller, pen: Arc<Pen>, seed: u64, fat: bool, pause: Duration) {
    let mut rng = Rng::with_seed(seed);
    for number in 0.. {
        if pen.stop.load(Ordering::SeqCst) {
            return;
        }
        let write = match fat && number == 5 {
            true => Write::Fat,
            false => plan::write(&mut rng),
        };
        let value = format!("{seed:x}-{number}");
        match caller.write(&write, &value).await {
            Ok(()) => {
                pen.done.fetch_add(1, Ordering::SeqCst);
            }
            // A lease may expire before its keys are put on a busy machine.
            Err(why) if why.contains("requested lease not found") => {}
            Err(why) => {
                let mut failed = pen.failed.lock().unwrap_or_else(|e| e.into_inner());
                failed.push(format!("{write:?}: {why}"));
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Writes something now and then, so that the store's revision moves.
pub(crate) async fn tick(mut caller: Caller) {
    loop {
        let _ = caller.write(&Write::Put("tick".to_owned()), "").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
