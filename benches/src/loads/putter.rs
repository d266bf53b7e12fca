//! The puts that the watchers of a sample receive: at a fixed rate, or as fast as the slowest
//! watcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::event_log::LogEntry;
use super::schedule::Schedule;
use super::watch_checker::{WAIT_LIMIT, WatchChecker};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;

/// Start times of puts.
pub(crate) enum PutPace {
    /// Puts per second, independently of earlier puts.
    Rate(f64),
    /// As soon as the watchers allow: see [`WatchChecker::put_permit`].
    WatcherSpeed,
}

/// A task that puts to the ranges in turn, until stopped.
pub(crate) struct Putter {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), String>>,
}

/// Maximum concurrent puts. Above it even puts at a fixed rate wait, and their latency includes
/// that.
const IN_FLIGHT: u32 = 256;

impl Putter {
    /// Starts to put at `address`.
    pub(crate) async fn start(
        checker: &Arc<WatchChecker>,
        address: &Address,
        pace: PutPace,
    ) -> Result<Putter, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let schedule = match pace {
            PutPace::Rate(rate) => Some(Schedule::new(rate)?),
            PutPace::WatcherSpeed => None,
        };
        let writer = Writer::open(checker, address).await?;
        let task = tokio::spawn(writer.run(schedule, stop.clone()));
        Ok(Putter { stop, task })
    }

    /// Stops, and waits for the responses to all puts.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.stop.store(true, Relaxed);
        let ended = tokio::time::timeout(WAIT_LIMIT, &mut self.task).await;
        ended
            .map_err(|_| "puts without a response")?
            .map_err(|e| e.to_string())?
    }
}

impl Drop for Putter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts `count` values into every range and returns the revision of a put before them.
pub(crate) async fn history(
    checker: &Arc<WatchChecker>,
    address: &Address,
    count: usize,
) -> Result<i64, String> {
    let writer = Writer::open(checker, address).await?;
    let mut mark = Vec::new();
    let frame = Bytes::from(etcdpb::put(b"bench/mark", b"before a history"));
    let mut client = writer.client.clone();
    client.unary(&writer.head, &frame, &mut mark).await?;
    for number in 0..(count * checker.ranges()) as u64 {
        writer.spawn(number, Instant::now()).await?;
    }
    writer.finish().await?;
    checker.check()?;
    put_revision(&mark)
}

#[derive(Clone)]
struct Writer {
    checker: Arc<WatchChecker>,
    client: Client,
    head: Request<()>,
    in_flight: Arc<Semaphore>,
}

impl Writer {
    async fn open(checker: &Arc<WatchChecker>, address: &Address) -> Result<Writer, String> {
        Ok(Writer {
            checker: checker.clone(),
            client: Client::open(address, DEFAULT_WINDOWS).await?,
            head: client::head(address, etcdpb::PUT)?,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        })
    }

    async fn run(
        self,
        mut schedule: Option<Schedule>,
        stop: Arc<AtomicBool>,
    ) -> Result<(), String> {
        // Smaller numbers are those of histories.
        for number in FIRST_LIVE.. {
            let Some(due) = self.next(schedule.as_mut(), &stop).await else {
                break;
            };
            self.spawn(number, due).await?;
        }
        self.finish().await
    }

    /// Waits for the due time of the next put. `None` if stopped.
    async fn next(
        &self,
        mut schedule: Option<&mut Schedule>,
        stop: &AtomicBool,
    ) -> Option<Instant> {
        while !stop.load(Relaxed) {
            let next = async {
                match schedule.as_mut() {
                    Some(schedule) => schedule.next().await,
                    None => {
                        self.checker.put_permit().await;
                        Instant::now()
                    }
                }
            };
            // Both futures are cancel safe, so a timeout loses nothing.
            if let Ok(due) = tokio::time::timeout(Duration::from_millis(20), next).await {
                return Some(due);
            }
        }
        None
    }

    /// Starts a put as soon as fewer than [`IN_FLIGHT`] are in progress.
    async fn spawn(&self, number: u64, due: Instant) -> Result<(), String> {
        let permit = self.in_flight.clone().acquire_owned().await;
        let permit = permit.map_err(|e| e.to_string())?;
        let mut writer = self.clone();
        tokio::spawn(async move {
            if let Err(text) = writer.put(number, due).await {
                writer.checker.fail(format!("a put failed: {text}"));
            }
            drop(permit);
        });
        Ok(())
    }

    /// Waits until all puts have ended.
    async fn finish(&self) -> Result<(), String> {
        let all = self.in_flight.acquire_many(IN_FLIGHT).await;
        all.map(drop).map_err(|e| e.to_string())
    }

    async fn put(&mut self, number: u64, due: Instant) -> Result<(), String> {
        let checker = &self.checker;
        let range = (number % checker.ranges() as u64) as usize;
        let (key, value) = (checker.key(range), checker.value(number, due));
        let frame = Bytes::from(etcdpb::put(&key, &value));
        let mut body = Vec::new();
        self.client.unary(&self.head, &frame, &mut body).await?;
        let revision = put_revision(&body)?;
        self.checker.put(range, LogEntry { revision, number });
        Ok(())
    }
}

/// Smallest number of a put that is not part of a history.
const FIRST_LIVE: u64 = 1 << 32;

fn put_revision(body: &[u8]) -> Result<i64, String> {
    etcdpb::put_response(body).map(u64::cast_signed)
}
