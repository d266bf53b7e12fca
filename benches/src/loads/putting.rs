//! The puts that a sample's watchers see: paced, or as fast as the slowest watcher follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::ledger::Entry;
use super::moments::Moments;
use super::watching::{PATIENCE, Watching};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;

/// When puts begin.
pub(crate) enum Pace {
    /// So many a second, whatever became of those before.
    Rate(f64),
    /// As soon as there is room: see [`Watching::room`].
    Room,
}

/// Puts to the ranges in turn, until stopped.
pub(crate) struct Putting {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), String>>,
}

/// Puts at a time at most; beyond that even paced ones wait, and their latency shows it.
const IN_FLIGHT: u32 = 256;

impl Putting {
    /// Begins to put at `address`.
    pub(crate) async fn start(
        watching: &Arc<Watching>,
        address: &Address,
        pace: Pace,
    ) -> Result<Putting, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let moments = match pace {
            Pace::Rate(rate) => Some(Moments::new(rate)?),
            Pace::Room => None,
        };
        let writer = Writer::open(watching, address).await?;
        let task = tokio::spawn(writer.run(moments, stop.clone()));
        Ok(Putting { stop, task })
    }

    /// Begins no more puts and waits for the answers.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.stop.store(true, Relaxed);
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended
            .map_err(|_| "puts were not answered")?
            .map_err(|e| e.to_string())?
    }
}

impl Drop for Putting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts `count` values into every range, and gives the revision of the put before them.
pub(crate) async fn history(
    watching: &Arc<Watching>,
    address: &Address,
    count: usize,
) -> Result<i64, String> {
    let writer = Writer::open(watching, address).await?;
    let mut mark = Vec::new();
    let frame = Bytes::from(etcdpb::put(b"bench/mark", b"before a history"));
    let mut client = writer.client.clone();
    client.unary(&writer.head, &frame, &mut mark).await?;
    for number in 0..(count * watching.ranges()) as u64 {
        writer.spawn(number, Instant::now()).await?;
    }
    writer.finish().await?;
    watching.check()?;
    put_revision(&mark)
}

#[derive(Clone)]
struct Writer {
    watching: Arc<Watching>,
    client: Client,
    head: Request<()>,
    in_flight: Arc<Semaphore>,
}

impl Writer {
    async fn open(watching: &Arc<Watching>, address: &Address) -> Result<Writer, String> {
        Ok(Writer {
            watching: watching.clone(),
            client: Client::open(address, DEFAULT_WINDOWS).await?,
            head: client::head(address, etcdpb::PUT)?,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        })
    }

    async fn run(self, mut moments: Option<Moments>, stop: Arc<AtomicBool>) -> Result<(), String> {
        // Histories begin at 0.
        for number in FIRST_LIVE.. {
            let Some(moment) = self.next(moments.as_mut(), &stop).await else {
                break;
            };
            self.spawn(number, moment).await?;
        }
        self.finish().await
    }

    /// The moment of the next put; none when stopped.
    async fn next(&self, mut moments: Option<&mut Moments>, stop: &AtomicBool) -> Option<Instant> {
        while !stop.load(Relaxed) {
            let next = async {
                match moments.as_mut() {
                    Some(moments) => moments.next().await,
                    None => {
                        self.watching.room().await;
                        Instant::now()
                    }
                }
            };
            // Nothing is lost when it is cut off: both ways to wait may be.
            if let Ok(moment) = tokio::time::timeout(Duration::from_millis(20), next).await {
                return Some(moment);
            }
        }
        None
    }

    /// Begins a put, when fewer than [`IN_FLIGHT`] are on their way.
    async fn spawn(&self, number: u64, moment: Instant) -> Result<(), String> {
        let permit = self.in_flight.clone().acquire_owned().await;
        let permit = permit.map_err(|e| e.to_string())?;
        let mut writer = self.clone();
        tokio::spawn(async move {
            if let Err(text) = writer.put(number, moment).await {
                writer.watching.fail(format!("a put failed: {text}"));
            }
            drop(permit);
        });
        Ok(())
    }

    /// Waits until all have ended.
    async fn finish(&self) -> Result<(), String> {
        let all = self.in_flight.acquire_many(IN_FLIGHT).await;
        all.map(drop).map_err(|e| e.to_string())
    }

    async fn put(&mut self, number: u64, moment: Instant) -> Result<(), String> {
        let watching = &self.watching;
        let range = (number % watching.ranges() as u64) as usize;
        let (key, value) = (watching.key(range), watching.value(number, moment));
        let frame = Bytes::from(etcdpb::put(&key, &value));
        let mut body = Vec::new();
        self.client.unary(&self.head, &frame, &mut body).await?;
        let revision = put_revision(&body)?;
        self.watching.put(range, Entry { revision, number });
        Ok(())
    }
}

/// Numbers of puts that are not history begin here.
const FIRST_LIVE: u64 = 1 << 32;

fn put_revision(body: &[u8]) -> Result<i64, String> {
    etcdpb::put_answer(body).map(u64::cast_signed)
}
