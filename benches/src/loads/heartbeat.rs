//! Lease heartbeats: many leases, each renewed three times per TTL as by the Go client, or at a
//! given rate.
//!
//! One schedule sends the heartbeats of all leases in turn. Latency is the time from the due time
//! of a heartbeat until its response arrives. A response must be for a lease of its stream with a
//! pending heartbeat, and have the granted TTL.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use argh::FromArgs;
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::cost::TimedSnapshot;
use super::pace::{latencies, micros};
use super::schedule::Schedule;
use super::watch_checker::WAIT_LIMIT;
use super::{SampleContext, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::sample::Sample;
use crate::stream::{self, Receiver, Sender};
use crate::{etcdpb, streampb};

/// Lease heartbeats.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "heartbeat")]
pub(crate) struct Heartbeat {
    /// leases (default 1000)
    #[argh(option, default = "DEFAULT.leases")]
    pub(crate) leases: usize,
    /// streams over all connections; 0: one for each lease (default 0)
    #[argh(option, default = "DEFAULT.streams")]
    pub(crate) streams: usize,
    /// connections (default 50)
    #[argh(option, default = "DEFAULT.connections")]
    pub(crate) connections: usize,
    /// TTL of a lease in seconds, at least 2 (default 3)
    #[argh(option, default = "DEFAULT.ttl")]
    pub(crate) ttl: i64,
    /// heartbeats per second over all leases; 0: three per lease and TTL (default 0)
    #[argh(option, default = "DEFAULT.rate")]
    pub(crate) rate: f64,
    /// uses TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

/// Defaults of the flags.
pub(crate) const DEFAULT: Heartbeat = Heartbeat {
    leases: 1000,
    streams: 0,
    connections: 50,
    ttl: 3,
    rate: 0.0,
    tls: false,
};

impl Workload for Heartbeat {
    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.leases == 0 || self.connections == 0 || self.leases < self.streams {
            return Err("--connections is at least 1, --leases at least 1 and --streams".into());
        }
        if !(2..=9_000).contains(&self.ttl) || !(0.0..1e7).contains(&self.rate) {
            return Err("a TTL is 2 s to 9,000 s, and a rate is not negative".into());
        }
        let least = self.leases as f64 / self.ttl as f64;
        if self.rate != 0.0 && self.rate < 1.5 * least {
            return Err(format!(
                "below {:.0} heartbeats per second leases expire",
                1.5 * least
            ));
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let leases = grant(&context.testbed.origin, self.leases, self.ttl).await?;
            let shared = Arc::new(Shared::new(self.ttl)?);
            let streams = self.open(&context.target.address, &shared, &leases).await?;
            let rate = self.rate();
            let sending = tokio::spawn(send_heartbeats(
                shared.clone(),
                streams,
                leases.clone(),
                rate,
            ));
            // The first heartbeat of each lease is the warm-up.
            let period = Duration::from_secs_f64(self.leases as f64 / rate);
            tokio::time::sleep(context.warm_up.max(period)).await;
            let (before, answered) = (TimedSnapshot::now(context), shared.answered.load(Relaxed));
            shared.state.lock().counted_from = Some(Instant::now());
            tokio::time::sleep(context.window.max(period)).await;
            shared.state.lock().counted_to = Some(Instant::now());
            let (after, answered) = (
                TimedSnapshot::now(context),
                shared.answered.load(Relaxed) - answered,
            );
            shared.stop.store(true, Relaxed);
            let streams = sending.await.map_err(|e| e.to_string())??;
            shared.wait_until_answered().await?;
            drop(streams);
            revoke(&context.testbed.origin, &leases).await?;
            let mut sample = before.until(&after, answered, context)?;
            sample.set_latency(shared.state.lock().latency.clone());
            Ok(sample)
        })
    }
}

impl Heartbeat {
    /// Returns the heartbeats per second over all leases.
    fn rate(&self) -> f64 {
        if self.rate > 0.0 {
            self.rate
        } else {
            3.0 * self.leases as f64 / self.ttl as f64
        }
    }

    /// Opens the streams and assigns the leases to them round robin.
    async fn open(
        &self,
        address: &Address,
        shared: &Arc<Shared>,
        leases: &[i64],
    ) -> Result<Vec<Stream>, String> {
        let count = if self.streams == 0 {
            leases.len()
        } else {
            self.streams
        };
        let head = client::head(address, streampb::KEEP_ALIVE)?;
        let mut clients = Vec::new();
        for _ in 0..self.connections.min(count) {
            clients.push(Client::open(address, DEFAULT_WINDOWS).await?);
        }
        let mut streams = Vec::new();
        for number in 0..count {
            let client = &mut clients[number % self.connections.min(count)];
            let (sender, receiver) = stream::open(client, &head).await?;
            let own = leases.iter().skip(number).step_by(count);
            let waiting: Waiting = own.map(|&lease| (lease, VecDeque::new())).collect();
            let waiting = Arc::new(Mutex::new(waiting));
            tokio::spawn(check_responses(shared.clone(), receiver, waiting.clone()));
            streams.push(Stream { sender, waiting });
        }
        Ok(streams)
    }
}

/// Due times of the pending heartbeats of each lease of a stream.
type Waiting = HashMap<i64, VecDeque<Instant>>;

struct Stream {
    sender: Sender,
    waiting: Arc<Mutex<Waiting>>,
}

struct Shared {
    ttl: i64,
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    state: Mutex<State>,
}

struct State {
    latency: Histogram<u64>,
    /// Latencies are recorded for heartbeats that are due from this time …
    counted_from: Option<Instant>,
    /// … until this time.
    counted_to: Option<Instant>,
    first_failure: Option<String>,
}

impl Shared {
    fn new(ttl: i64) -> Result<Shared, String> {
        Ok(Shared {
            ttl,
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            state: Mutex::new(State {
                latency: latencies()?,
                counted_from: None,
                counted_to: None,
                first_failure: None,
            }),
        })
    }

    /// Waits until every heartbeat has its response.
    ///
    /// # Errors
    ///
    /// Fails if a response is missing or was wrong.
    async fn wait_until_answered(&self) -> Result<(), String> {
        let limit = Instant::now() + WAIT_LIMIT;
        loop {
            if let Some(text) = self.state.lock().first_failure.take() {
                return Err(text);
            }
            let missing = self.sent.load(Relaxed) - self.answered.load(Relaxed);
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(format!("{missing} heartbeats without a response"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Verifies a response on the stream with the pending heartbeats `waiting`.
    fn check_response(
        &self,
        waiting: &Mutex<Waiting>,
        message: &[u8],
        now: Instant,
    ) -> Result<(), String> {
        let response = streampb::lease_response(message)?;
        let due = waiting
            .lock()
            .get_mut(&response.id)
            .and_then(VecDeque::pop_front);
        let due = due.ok_or("a response for a lease without a pending heartbeat")?;
        if response.ttl != self.ttl {
            return Err(format!("TTL {} instead of {}", response.ttl, self.ttl));
        }
        let state = &mut *self.state.lock();
        if state.counted_from.is_some_and(|from| due >= from)
            && state.counted_to.is_none_or(|to| due < to)
        {
            let took = micros(now.saturating_duration_since(due));
            state.latency.saturating_record(took);
        }
        self.answered.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Sends the heartbeats of the leases in turn, until stopped. Returns the streams, still open.
async fn send_heartbeats(
    shared: Arc<Shared>,
    mut streams: Vec<Stream>,
    leases: Vec<i64>,
    rate: f64,
) -> Result<Vec<Stream>, String> {
    let mut schedule = Schedule::new(rate)?;
    let count = streams.len();
    for index in (0..leases.len()).cycle() {
        let due = schedule.next().await;
        if shared.stop.load(Relaxed) {
            break;
        }
        let (lease, stream) = (leases[index], &mut streams[index % count]);
        if let Some(waiting) = stream.waiting.lock().get_mut(&lease) {
            waiting.push_back(due);
        }
        shared.sent.fetch_add(1, Relaxed);
        stream.sender.send(streampb::lease(lease))?;
    }
    Ok(streams)
}

/// Verifies the responses on a stream. The end of the stream is a failure.
async fn check_responses(
    shared: Arc<Shared>,
    mut receiver: Receiver,
    waiting: Arc<Mutex<Waiting>>,
) {
    let text = loop {
        let mut now = None;
        let read = receiver.read(|message| {
            let now = *now.get_or_insert_with(Instant::now);
            shared.check_response(&waiting, message, now)
        });
        match read.await {
            Ok(true) => {}
            Ok(false) => break "a heartbeat stream ended".into(),
            Err(text) => break text,
        }
    };
    shared.state.lock().first_failure.get_or_insert(text);
}

/// Grants leases directly at etcd and returns their ids.
async fn grant(origin: &Address, count: usize, ttl: i64) -> Result<Vec<i64>, String> {
    let frames = vec![streampb::grant(ttl); count];
    let bodies = calls(origin, streampb::GRANT, frames).await?;
    let ids = bodies.iter().map(|body| {
        let granted = streampb::lease_response(etcdpb::unframed(body)?)?;
        if granted.id == 0 || granted.ttl != ttl {
            return Err(format!("granted {granted:?}"));
        }
        Ok(granted.id)
    });
    ids.collect()
}

/// Revokes the leases, so that etcd does not expire them during another sample.
async fn revoke(origin: &Address, leases: &[i64]) -> Result<(), String> {
    let frames = leases.iter().map(|&lease| streampb::lease(lease)).collect();
    calls(origin, streampb::REVOKE, frames).await.map(drop)
}

/// Makes unary calls, 64 concurrently. The responses are in no particular order.
async fn calls(address: &Address, path: &str, frames: Vec<Bytes>) -> Result<Vec<Vec<u8>>, String> {
    let client = Client::open(address, DEFAULT_WINDOWS).await?;
    let head = client::head(address, path)?;
    let frames = Arc::new(Mutex::new(frames));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (mut client, head, frames) = (client.clone(), head.clone(), frames.clone());
        callers.spawn(async move {
            let mut bodies = Vec::new();
            loop {
                let Some(frame) = frames.lock().pop() else {
                    return Ok::<_, String>(bodies);
                };
                let mut body = Vec::new();
                client.unary(&head, &frame, &mut body).await?;
                bodies.push(body);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(bodies) = callers.join_next().await {
        all.extend(bodies.map_err(|e| e.to_string())??);
    }
    Ok(all)
}
