//! Unary calls: reads, writes and transactions on a set of keys, in a closed or an open loop.

use std::sync::Arc;

use argh::FromArgs;
use bytes::Bytes;
use http::Request;

use super::keys::{Choice, Keys, Sizes};
use super::mix::{CallKind, Mix};
use super::pace::{self, Rate, Slot};
use super::{CpuSnapshot, SampleContext, Servers, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS, Windows};
use crate::etcdpb;
use crate::sample::{Metric, Sample};
use crate::targets::Testbed;

/// Reads, writes and transactions of single keys, with verified responses.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "unary")]
pub(crate) struct Unary {
    /// connections (default 64)
    #[argh(option, default = "DEFAULT.connections")]
    pub(crate) connections: usize,
    /// maximum calls in flight on each connection (default 1)
    #[argh(option, default = "DEFAULT.in_flight")]
    pub(crate) in_flight: usize,
    /// calls in flight in total, each on the next connection in turn, instead of --in-flight
    #[argh(option)]
    pub(crate) at_once: Option<usize>,
    /// open loop: calls per second, or a percentage such as 30% of the L4 relay's rate in a closed
    /// loop of 64 connections (default: closed loop)
    #[argh(option)]
    pub(crate) rate: Option<Rate>,
    /// shares of the calls, such as read=80,serializable=10,write=8,txn=2 (default read=1)
    #[argh(option, default = "DEFAULT.mix")]
    pub(crate) mix: Mix,
    /// makes all reads serializable
    #[argh(switch)]
    pub(crate) serializable: bool,
    /// keys (default 1)
    #[argh(option, default = "DEFAULT.keys")]
    pub(crate) keys: usize,
    /// distribution of the next key: hot, uniform, turn or zipfian (default uniform)
    #[argh(option, default = "DEFAULT.choice")]
    pub(crate) choice: Choice,
    /// bytes of a value, 16 to 1048576, or a range such as 16-65536 (default 64)
    #[argh(option, default = "DEFAULT.size")]
    pub(crate) size: Sizes,
    /// uses TLS on both sides of a proxy
    #[argh(switch)]
    pub(crate) tls: bool,
    /// uses fresh servers and reports their memory too
    #[argh(switch)]
    pub(crate) fresh: bool,
}

/// Defaults of the flags.
pub(crate) const DEFAULT: Unary = Unary {
    connections: 64,
    in_flight: 1,
    at_once: None,
    rate: None,
    mix: Mix::READS,
    serializable: false,
    keys: 1,
    choice: Choice::Uniform,
    size: Sizes::exactly(64),
    tls: false,
    fresh: false,
};

impl Workload for Unary {
    fn servers(&self) -> Servers {
        if self.fresh {
            Servers::Fresh
        } else {
            Servers::Shared
        }
    }

    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn needs_reference(&self) -> bool {
        matches!(self.rate, Some(Rate::Share(_)))
    }

    fn check(&self) -> Result<(), String> {
        let fits = |at_once| (1..=self.connections).contains(&at_once);
        if !self.at_once.is_none_or(fits) {
            return Err("--at-once is from 1 to the number of connections".into());
        }
        match (self.connections, self.in_flight, self.keys) {
            (1..=100_000, 1..=100, 1..=1_000_000) => Ok(()),
            _ => Err(
                "1 to 100000 connections, 1 to 100 calls in flight on each, \
                      1 to 1000000 keys"
                    .into(),
            ),
        }
    }

    fn prepare(&self, testbed: &Testbed) -> Result<(), String> {
        let keys = Keys::new(self.keys, self.choice, self.size);
        let mut random = fastrand::Rng::with_seed(0);
        client::runtime()?.block_on(async {
            let mut client = Client::open(&testbed.origin, DEFAULT_WINDOWS).await?;
            let head = client::head(&testbed.origin, etcdpb::PUT)?;
            let mut body = Vec::new();
            for number in 0..self.keys {
                let value = keys.value(number, &mut random);
                for prefix in testbed.prefixes() {
                    let key = [prefix.as_bytes(), &keys.key(number)].concat();
                    let frame = Bytes::from(etcdpb::put(&key, &value));
                    client.unary(&head, &frame, &mut body).await?;
                    etcdpb::put_response(&body)?;
                }
            }
            Ok(())
        })
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        let per_second = match self.rate {
            None => None,
            Some(Rate::PerSecond(rate)) => Some(rate),
            Some(Rate::Share(share)) => Some(share * context.reference.ok_or("no reference")?),
        };
        client::runtime()?.block_on(async {
            let slots = self.slots(context).await?;
            let observe = || {
                (
                    CpuSnapshot::of(context),
                    self.fresh.then(|| context.resident()),
                )
            };
            // Outside the window, because serving its counters costs etcd processor time. Not with
            // fresh servers, because it would add to the measured memory.
            let etcd_reads = || {
                (self.mix.reads() && !self.fresh)
                    .then(|| context.testbed.etcd_reads())
                    .flatten()
            };
            let before = etcd_reads();
            let outcome =
                pace::run(slots, per_second, context.warm_up, context.window, observe).await?;
            let reads = before
                .zip(etcd_reads())
                .map(|(before, after)| after - before);
            let calls = outcome.calls as f64;
            let seconds = outcome.elapsed.as_secs_f64();
            let mut sample = Sample::default();
            sample.set_if(Metric::Offered, per_second);
            sample.set(Metric::Rate, calls / seconds);
            outcome
                .before
                .0
                .costs(&outcome.after.0, context, calls, &mut sample);
            sample.set_latency(outcome.latency);
            let share = |reads| reads * 100.0 / outcome.all as f64;
            sample.set_if(Metric::EtcdReads, reads.map(share));
            if per_second.is_some() {
                let late = outcome.lateness.value_at_quantile(0.99);
                sample.set(Metric::Lateness, late as f64 / 1e3);
            }
            if self.size.most >= 1 << 16 {
                sample.set(Metric::Throughput, outcome.bytes as f64 / seconds / 1e6);
            }
            let resident = outcome.after.1.flatten();
            sample.set_if(Metric::Resident, resident.map(|bytes| bytes as f64 / 1e6));
            Ok(sample)
        })
    }
}

impl Unary {
    /// Opens the connections and makes one call on each, so that no first call is measured. The
    /// slots of one connection are not adjacent, so that an open loop spreads its calls.
    async fn slots(&self, context: &SampleContext<'_>) -> Result<Vec<Caller>, String> {
        let address = &context.target.address;
        let job = Arc::new(Job {
            keys: Keys::new(self.keys, self.choice, self.size),
            mix: self.mix,
            serializable: self.serializable,
            range: client::head(address, etcdpb::RANGE)?,
            put: client::head(address, etcdpb::PUT)?,
            txn: client::head(address, etcdpb::TXN)?,
        });
        let mut clients = Vec::with_capacity(self.connections);
        while clients.len() < self.connections {
            let seeds = clients.len()..(clients.len() + AT_ONCE).min(self.connections);
            let opened: Vec<_> = seeds
                .map(|seed| {
                    let (address, job) = (address.clone(), job.clone());
                    tokio::spawn(open(address, windows(self.size), job, seed as u64))
                })
                .collect();
            for client in opened {
                clients.push(client.await.map_err(|e| e.to_string())??);
            }
        }
        let caller = |clients, seed| Caller {
            clients,
            turn: 0,
            job: job.clone(),
            random: fastrand::Rng::with_seed(seed as u64),
            body: Vec::new(),
        };
        Ok(match self.at_once {
            Some(count) => (0..count)
                .map(|first| clients.iter().skip(first).step_by(count).cloned().collect())
                .enumerate()
                .map(|(seed, own)| caller(own, seed))
                .collect(),
            None => (0..self.connections * self.in_flight)
                .map(|seed| caller(vec![clients[seed % clients.len()].clone()], seed))
                .collect(),
        })
    }
}

/// Opens a connection and makes one call on it.
async fn open(
    address: Address,
    windows: Windows,
    job: Arc<Job>,
    seed: u64,
) -> Result<Client, String> {
    let client = Client::open(&address, windows).await?;
    let mut caller = Caller {
        clients: vec![client.clone()],
        turn: 0,
        job,
        random: fastrand::Rng::with_seed(seed),
        body: Vec::new(),
    };
    caller.call().await?;
    Ok(client)
}

/// Connections that are opened concurrently.
const AT_ONCE: usize = 32;

/// Returns the windows of a client. For large values they are larger, as those of the Go client.
fn windows(size: Sizes) -> Windows {
    if size.most < 1 << 16 {
        DEFAULT_WINDOWS
    } else {
        Windows {
            stream: 2 << 20,
            connection: 16 << 20,
        }
    }
}

/// State shared by all callers.
struct Job {
    keys: Keys,
    mix: Mix,
    serializable: bool,
    range: Request<()>,
    put: Request<()>,
    txn: Request<()>,
}

/// A slot for one call at a time, on its connections in turn.
struct Caller {
    clients: Vec<Client>,
    turn: usize,
    job: Arc<Job>,
    random: fastrand::Rng,
    body: Vec<u8>,
}

impl Slot for Caller {
    async fn call(&mut self) -> Result<u64, String> {
        self.turn = (self.turn + 1) % self.clients.len();
        let number = self.job.keys.choose(&mut self.random);
        match self.job.mix.choose(&mut self.random) {
            CallKind::Read => self.read(number, self.job.serializable).await,
            CallKind::Serializable => self.read(number, true).await,
            CallKind::Write => self.write(number).await,
            CallKind::Txn => self.txn(number).await,
        }
    }
}

impl Caller {
    async fn read(&mut self, number: usize, serializable: bool) -> Result<u64, String> {
        let job = &self.job;
        // A serializable read may be older than the known revision.
        let known = if serializable {
            0
        } else {
            job.keys.known(number)
        };
        let frame = Bytes::from(etcdpb::range(&job.keys.key(number), serializable));
        self.clients[self.turn]
            .unary(&job.range, &frame, &mut self.body)
            .await?;
        let found = etcdpb::range_response(&self.body)?;
        job.keys.check(number, &found, known)?;
        Ok(found.pair.value.len() as u64)
    }

    async fn write(&mut self, number: usize) -> Result<u64, String> {
        let job = &self.job;
        let known = job.keys.known(number);
        let value = job.keys.value(number, &mut self.random);
        let frame = Bytes::from(etcdpb::put(&job.keys.key(number), &value));
        self.clients[self.turn]
            .unary(&job.put, &frame, &mut self.body)
            .await?;
        let revision = etcdpb::put_response(&self.body)?;
        job.keys.wrote(number, revision, known)?;
        Ok(value.len() as u64)
    }

    async fn txn(&mut self, number: usize) -> Result<u64, String> {
        let job = &self.job;
        let known = job.keys.known(number);
        let value = job.keys.value(number, &mut self.random);
        let frame = Bytes::from(etcdpb::txn(&job.keys.key(number), &value));
        self.clients[self.turn]
            .unary(&job.txn, &frame, &mut self.body)
            .await?;
        let found = etcdpb::txn_response(&self.body)?;
        job.keys.wrote(number, found.revision, known)?;
        job.keys.check(number, &found, found.revision)?;
        // The transaction must read its own put.
        if found.pair.value != value {
            return Err("a transaction did not read what it put".into());
        }
        Ok(value.len() as u64)
    }
}
